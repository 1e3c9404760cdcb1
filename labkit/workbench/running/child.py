"""A program that this process runs to its end: stop signals reach it, and it does not outlive this process."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from labkit.launch import processes
from labkit.workbench.running.stops import Stops

TOLD = 30  # last lines that are kept


class _Child:
    """A child in the place of a run's supervisor, for `Stops`. It has a session of its own: Ctrl-C comes from here."""

    def __init__(self, process: subprocess.Popen[str], *, group: bool) -> None:
        self._process, self._group = process, group

    def send(self, message: dict[str, Any]) -> None:
        name = message.get("stop")
        self.kill(signal.Signals[name] if name else message["signal"])

    def kill(self, number: int) -> None:
        try:
            (os.killpg if self._group else os.kill)(self._process.pid, number)
        except OSError:
            pass  # it has just ended


def run(
    command: list[str],
    env: dict[str, str],
    *,
    on_line: Callable[[str], object] | None = None,
    timeout_s: float | None = None,
    keep_open: tuple[int, ...] = (),
) -> tuple[int, list[str]]:
    """Runs a program to its end and returns its exit status and the last lines that it printed.

    A signal that stops this process stops the program first: with what it started, where its output is read here; else
    by the signal alone, and it is waited for.

    Args:
        command: The program and its arguments.
        env: Its environment.
        on_line: Takes each line that it prints; None to print nothing but its errors, where this process prints them.
        timeout_s: Seconds after which it is killed.
        keep_open: Descriptors that it gets, and holds as long as it lives.

    Raises:
        OSError: It cannot be started.
        SystemExit: A signal asked for a stop; the program has ended.
    """
    parent = os.getpid()
    last: deque[str] = deque(maxlen=TOLD)
    with Stops() as stops:
        process = subprocess.Popen(
            command, env=env, text=True, errors="replace", pass_fds=keep_open, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if on_line else subprocess.DEVNULL,
            stderr=subprocess.STDOUT if on_line else None,
            preexec_fn=lambda: processes.end_with(parent, signal.SIGTERM),
        )  # fmt: skip
        child = _Child(process, group=on_line is not None)
        timer = threading.Timer(timeout_s or threading.TIMEOUT_MAX, child.kill, (signal.SIGKILL,))
        timer.daemon = True
        timer.start()
        stops.reach(child)
        try:
            for line in process.stdout or ():
                last.append(line.rstrip())
                if on_line:
                    on_line(line.rstrip())
            status = process.wait()
        except BaseException:
            child.kill(signal.SIGKILL if on_line else signal.SIGTERM)
            process.wait()
            raise
        finally:
            stops.reach(None)
            timer.cancel()
        if on_line:
            child.kill(signal.SIGKILL)  # what it left behind
    if stops.stopping:
        raise SystemExit(130 if stops.stopping == "SIGINT" else 143)
    return status, list(last)
