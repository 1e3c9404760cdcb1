"""Stop signals of the process that runs a notebook.

They are taken before anything slow is imported, for an interrupt in the middle of an import can get lost there, and
before the run is made, so that no run is left without an end.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

from labkit.launch import processes


class Stops:
    """Takes this process's stop signals while it is entered, and passes them on to a run's supervisor.

    What comes before there is a supervisor is kept for it. What `&` and nohup ignore stays ignored.

    Attributes:
        stopping: The name of the first signal that came; empty where none did.
    """

    def __init__(self) -> None:
        self.stopping = ""
        self._provisioner: Any = None
        self._depth = 0
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> Stops:
        self._depth += 1
        if self._depth == 1 and threading.current_thread() is threading.main_thread():
            for number in map(int, processes.STOP_SIGNALS):
                if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGTERM:
                    self._earlier[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            for number, handler in self._earlier.items():
                signal.signal(number, handler)
            self._earlier.clear()

    def refuse(self, *_: object) -> None:
        """Ends this process with the status that a stop has, where one came before there was anything to stop."""
        if self.stopping:
            raise SystemExit(130 if self.stopping == "SIGINT" else 143)

    def _take(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            processes.leave_terminal()
        again = self.stopping != ""
        self.stopping = self.stopping or signal.Signals(number).name
        if self._provisioner is not None:
            if again and number == signal.SIGINT:
                self._provisioner.send({"signal": int(signal.SIGKILL)})  # a second Ctrl-C
            self._provisioner.send({"stop": self.stopping})
        elif again and number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)  # nothing is under way that would have to be ended first
            os.kill(os.getpid(), number)

    def reach(self, provisioner: Any) -> None:
        """Passes on what comes from now on, and what has come already; None when the run is over."""
        self._provisioner = provisioner
        if self.stopping and provisioner is not None:
            provisioner.send({"stop": self.stopping})
