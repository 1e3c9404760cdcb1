"""TensorBoard and Weights & Biases: mirrors of a run's metrics, which no run waits for.

`TRACKERS: list = ["tensorboard"]` in the parameters has `labkit run` feed them while it goes on, each by a process of
its own (`labkit.workbench.running.feed`); `labkit export` does the same afterwards.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from labkit.errors import BadInput, FolderProblem, WorkFailed
from labkit.record.files import now, read_json, write_json
from labkit.record.process import descendants
from labkit.record.rundir import RunDir
from labkit.record.status import status

TRACKERS = "TRACKERS"  # the parameter
KNOWN = ("tensorboard", "wandb")
END_S = 4.5  # that the end of a run waits for its trackers
EXPORT_S = 600.0
BUSY = 75  # exit status of a process that found another one feeding the same tracker (sysexits.h, EX_TEMPFAIL)


def folder(run: RunDir) -> Path:
    """Returns where a run's trackers have their files."""
    return run.path / "trackers"


def outcome_file(run: RunDir, name: str) -> Path:
    """Returns the file that says how far a tracker was fed."""
    return folder(run) / f"{name}.json"


def is_linked(run: RunDir, name: str) -> bool:
    """Tells whether what is written for a tracker would lie outside of the run."""
    return folder(run).is_symlink() or (folder(run) / name).is_symlink()


def asked(parameters: Mapping[str, Any]) -> list[str]:
    """Returns the trackers that parameters name."""
    value = parameters.get(TRACKERS)
    return [name for name in KNOWN if name in value] if isinstance(value, list) else []


def unknown(parameters: Mapping[str, Any]) -> list[Any]:
    """Returns what TRACKERS names that is no tracker."""
    value = parameters.get(TRACKERS)
    return [name for name in value if name not in KNOWN] if isinstance(value, list) else []


def refuse_missing(names: Iterable[str]) -> None:
    """Refuses trackers whose package is not installed.

    Raises:
        BadInput: One is not; the message says how to install it.
    """
    for name in names:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            raise BadInput(
                f"the tracker {name} needs its package, which is not installed: pip install 'labkit[{name}]'; "
                f"or leave it out, and feed it afterwards: labkit export RUN --to {name}"
            ) from None


class Feeding:
    """The processes that feed the trackers of a run; they end with it, or with this process.

    Nothing here raises: a tracker changes nothing about a run.
    """

    def __init__(self, run: RunDir, names: Iterable[str], within_s: float = END_S) -> None:
        self._run = run
        self._within_s = within_s
        self._began = now()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in names:
            if is_linked(run, name):
                continue
            try:
                self._processes[name] = self._start(name)
            except OSError as error:
                self._note(name, f"its process could not be started: {error.strerror or error}")

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        quiet = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
        return subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "labkit.workbench.running.feed",
                str(self._run.path),
                name,
                str(self._within_s + 1),
            ],
            env=quiet | dict(os.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal is for the run
        )

    def end(self) -> dict[str, int]:
        """Lets the trackers have what is left, ends those that take too long, and returns each one's exit status."""
        for process in self._processes.values():
            assert process.stdin is not None
            process.stdin.close()
        deadline = time.monotonic() + self._within_s
        for name, process in self._processes.items():
            try:
                code = process.wait(max(0.0, deadline - time.monotonic()))
                problem = "" if code in (0, 1, BUSY) else f"its process ended with status {code}"
            except subprocess.TimeoutExpired:
                problem = f"it had not taken everything {self._within_s:g} s after the end"
            except BaseException:
                self._kill(process)
                raise
            self._kill(process)
            if problem:
                self._note(name, problem)
        return {name: process.returncode for name, process in self._processes.items()}

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        """Ends a process and what it has started."""
        if process.poll() is not None:
            return
        for pid in (process.pid, *descendants(process.pid)):
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        process.wait()

    def _note(self, name: str, problem: str) -> None:
        """Writes down what a process cannot say itself any more; what it has said stays."""
        said = read_json(outcome_file(self._run, name)) or {}
        if str(said.get("noted")) < self._began:
            said = {}  # of an earlier process
        if said.get("problem"):
            return
        facts = {"fed": said.get("fed", 0), "problem": problem, "done": False, "noted": now()}
        try:
            folder(self._run).mkdir(exist_ok=True)
            write_json(outcome_file(self._run, name), facts)
        except OSError:
            pass  # the run's directory is full or gone


def export(run: RunDir, name: str) -> Path:
    """Feeds one tracker of a run that is over with all of its metrics, and returns where the files are.

    Raises:
        BadInput: The run goes on, or the tracker's package is not installed.
        WorkFailed: The tracker did not take it.
    """
    refuse_missing([name])
    if not status(run).is_over:
        raise BadInput(f"{run.name} is still running; export it when it is over, or set TRACKERS = [{name!r}]")
    try:
        if is_linked(run, name):
            raise OSError("it is a link, or what is in it")
        folder(run).mkdir(exist_ok=True)
    except OSError as error:
        raise FolderProblem(f"{folder(run)} cannot be written: {error.strerror or error}") from error
    feeding = Feeding(run, [name], EXPORT_S)
    code = feeding.end()[name]
    if code == BUSY:
        raise BadInput(f"another process feeds {name} from {run.name} just now; try again in a moment")
    if code != 0:
        said = read_json(outcome_file(run, name)) or {}
        raise WorkFailed(f"{run.name} was not exported to {name}: {said.get('problem') or 'its process said nothing'}")
    return folder(run) / name


def outcomes(run: RunDir) -> dict[str, Any]:
    """Returns how far each tracker of a run was fed, by name."""
    found = {name: read_json(outcome_file(run, name)) for name in KNOWN}
    return {name: said for name, said in found.items() if said is not None}


def told(found: Mapping[str, Any], wanted: Iterable[str] = ()) -> list[str]:
    """Returns a line for each of the outcomes, with what is to be done about it; also for wanted ones without any."""
    lines = []
    for name, said in found.items():
        problem = f"; {said['problem']} (again: labkit export RUN --to {name})" if said.get("problem") else ""
        lines.append(f"{name}: {said.get('fed')} lines fed{problem}")
    missing = [name for name in wanted if name not in found]
    return lines + [f"{name}: nothing is recorded of it (feed it: labkit export RUN --to {name})" for name in missing]
