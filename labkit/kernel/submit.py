"""Runs and sweeps that a cell starts and that go on without it.

labkit.submit("notebooks/x.ipynb", LEARNING_RATE=0.01)
labkit.sweep("notebooks/x.ipynb", LEARNING_RATE=[0.1, 0.01], RANDOM_SEED=range(1, 4))
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.errors import BadInput, RunProblem
from labkit.kernel.past import PastRun
from labkit.launch.channel import LOG, RUN
from labkit.launch.stopping import ask_to_stop
from labkit.record.given import restored
from labkit.record.rundir import RunDir
from labkit.record.status import Status

LOOK_S = 0.5


def submit(notebook: str | Path, /, **parameters: Any) -> Submitted:
    """Starts a run of a notebook in the background; it outlives this kernel, and the tab of the browser.

    >>> trial = labkit.submit("digits-cnn.ipynb", LEARNING_RATE=0.01)
    >>> trial.view()

    Args:
        notebook: As seen from the working directory.
        **parameters: Values of its parameters: numbers, text, lists and mappings.

    Returns:
        The run, which can be looked at, waited for and stopped.

    Raises:
        RunProblem: It cannot be run so; the message says why.
    """
    try:
        return Submitted(RunDir(ask({"notebook": os.path.abspath(notebook), "values": parameters})))
    except RunProblem as error:
        raise RunProblem(f"labkit.submit: {error}") from error


def ask(order: dict[str, Any]) -> Path:
    """Has a process of the other side start something that outlives this kernel, and returns its directory.

    Raises:
        RunProblem: It was not started; the message says why.
    """
    try:
        text = json.dumps(order)
    except (TypeError, ValueError) as error:
        raise RunProblem(f"parameters are numbers, text, lists and mappings: {error}") from error
    command = [sys.executable, "-P", "-m", "labkit.workbench.running.submit"]
    # What is started is no part of this run: nothing of what labkit tells a kernel, or sets for it, may reach it.
    env = {name: value for name, value in restored(os.environ).items() if name not in (RUN, LOG)}
    asked = subprocess.run(command, input=text + "\n", env=env, capture_output=True, text=True)
    if asked.returncode:
        raise RunProblem(asked.stderr.strip() or f"{' '.join(command)} ended with status {asked.returncode}")
    return Path(asked.stdout.strip().rpartition("\n")[2])


class Submitted(PastRun):
    """A run in the background."""

    def wait(self, timeout_s: float | None = None) -> Status:
        """Waits until it is over, or for so long, and returns its status."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while not (found := self.status).is_over and (end is None or time.monotonic() < end):
            time.sleep(LOOK_S)
        return found

    def stop(self) -> None:
        """Asks it to stop at its next step; `labkit resume` goes on with it.

        Raises:
            RunProblem: It cannot be asked from here; the message says why.
        """
        if not self.status.is_over:
            try:
                ask_to_stop(self.directory)
            except BadInput as error:
                raise RunProblem(str(error)) from error

    def view(self) -> Any:
        """Returns a widget that follows it until it is over."""
        return view(self._repr_html_, lambda: self.status.is_over)


def view(page: Callable[[], str], is_over: Callable[[], bool]) -> Any:
    """Returns a widget that shows a page anew until what it shows is over."""
    from ipywidgets import HTML

    shown = HTML(page())

    def follow() -> None:
        while not is_over():
            time.sleep(LOOK_S)
            shown.value = page()
        shown.value = page()

    threading.Thread(target=follow, name="labkit-view", daemon=True).start()
    return shown
