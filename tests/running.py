"""Real runs for tests: `labkit run` as a user starts it, and what is left of it when it has ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from tiny import plain_environment

from labkit.record.find import every
from labkit.record.process import descendants, start_ticks
from labkit.record.rundir import RunDir
from labkit.record.status import Status, status

NOTEBOOKS = Path(__file__).parent / "notebooks"
LABKIT = [sys.executable, "-m", "labkit.cli"]
PATIENCE_S = 60.0  # far beyond what anything here takes


def make_lab(folder: Path) -> Path:
    """Make an empty lab."""
    (folder / "notebooks").mkdir(parents=True)
    (folder / "runs").mkdir()
    return folder


def fixture(lab: Path, name: str, new_name: str | None = None) -> Path:
    """Put a fixture notebook into a lab and return its path there."""
    return Path(shutil.copy(NOTEBOOKS / f"{name}.ipynb", lab / "notebooks" / f"{new_name or name}.ipynb"))


def wait_for(condition: Callable[[], Any], within_s: float = PATIENCE_S, what: str = "") -> Any:
    """Wait until a condition holds and return what it returned."""
    end = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < end, f"{what or condition} did not come true within {within_s:g} s"
        time.sleep(0.02)
    return found


def alive(*pids: int) -> list[int]:
    """The processes of these that still run; a zombie does not."""
    return [pid for pid in pids if start_ticks(pid) is not None]


@dataclass(frozen=True)
class Ended:
    """A run that is over, with what the command said."""

    exit_status: int
    out: str
    err: str
    run: RunDir

    @property
    def status(self) -> Status:
        return status(self.run)

    @property
    def exit(self) -> dict[str, Any]:
        return json.loads(self.run.exit.read_bytes())

    @property
    def counts(self) -> dict[str, Any]:
        return json.loads(self.run.kernel.read_bytes())

    @property
    def log(self) -> str:
        return self.run.log.read_text(errors="replace")

    def notebook(self) -> Any:
        """The executed notebook, which must be valid."""
        made = nbformat.read(self.run.notebook, as_version=4)
        nbformat.validate(made)
        return made

    def shown(self, stream: str | None = None) -> str:
        """The text that the notebook shows, of one stream or of both."""
        outputs = [output for cell in self.notebook().cells for output in cell.get("outputs", [])]
        return "".join(o.text for o in outputs if o.output_type == "stream" and stream in (None, o.name))


@dataclass
class Started:
    """A `labkit run` that is under way."""

    process: subprocess.Popen[str]
    runs: Path

    @property
    def run(self) -> RunDir:
        """The run's directory, once it is there."""
        return wait_for(lambda: self._found(), what="a run directory")

    def _found(self) -> RunDir | None:
        assert self.process.poll() is None or every(self.runs), self.process.communicate()
        return next(iter(every(self.runs)[-1:]), None)

    def pids(self) -> dict[str, int]:
        """The process ids of runner, supervisor and kernel, once all are there."""
        facts = wait_for(lambda: self.run.process.exists() and self.run.process.read_bytes(), what="process.json")
        found = json.loads(facts)
        named = {"runner": "runner", "supervisor": "process", "kernel": "kernel"}
        return {name: found[key]["pid"] for name, key in named.items()}

    def prints(self, text: str) -> RunDir:
        """Wait until the run has printed a text."""
        run = self.run
        wait_for(lambda: self.process.poll() is not None or text in run.log.read_text(errors="replace"), what=text)
        assert text in run.log.read_text(errors="replace"), self.process.communicate()
        return run

    def logs(self, lines: int = 1) -> RunDir:
        """Wait until the run has logged so many steps."""
        run = self.run
        wait_for(lambda: run.metrics.read_bytes().count(b"\n") >= lines, what=f"{lines} logged steps")
        return run

    def ended(self, within_s: float = PATIENCE_S) -> Ended:
        """Wait for the end of the command."""
        run = self.run
        out, err = self.process.communicate(timeout=within_s)
        return Ended(self.process.returncode, out, err, run)


@contextmanager
def started(notebook: Path, *options: str, prefix: tuple[str, ...] = (), **environment: str) -> Iterator[Started]:
    """Start `labkit run`, in a runs folder of its own, and leave nothing of it behind."""
    runs = notebook.parent.parent / "runs" / f"of {notebook.stem[:50]}"
    command = [*prefix, *LABKIT, "run", str(notebook), "--no-report", "--runs", str(runs), *options]
    process = subprocess.Popen(
        command,
        env=plain_environment(**environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Started(process, runs)
    finally:
        if process.poll() is None:
            below = descendants(process.pid)
            process.kill()
            for pid in below:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        process.communicate()


def run(notebook: Path, *options: str, prefix: tuple[str, ...] = (), **environment: str) -> Ended:
    """Run a notebook to its end."""
    with started(notebook, *options, prefix=prefix, **environment) as under_way:
        return under_way.ended()


def labkit(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run another labkit command."""
    command = [*LABKIT, *arguments]
    return subprocess.run(
        command, env=plain_environment(**environment), capture_output=True, text=True, timeout=PATIENCE_S
    )
