"""Sweeps for tests: `labkit sweep` as a user starts it, what it left, and how it is killed."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from running import LABKIT, alive, wait_for
from tiny import parameters, plain_environment, write

from labkit.record import sweepdir
from labkit.record.process import descendants, is_detached
from labkit.record.rundir import RunDir
from labkit.record.status import status
from labkit.record.sweepdir import SweepDir
from labkit.workbench.sweeps.sweep import runs_of


def trivial(lab: Path, name: str = "trivial") -> Path:
    """A notebook that logs one number and is done."""
    return write(
        lab / "notebooks" / f"{name}.ipynb",
        parameters("X: int = 0  # a number\nRANDOM_SEED: int = 0  # a seed"),
        "import labkit\nrun = labkit.start()\nrun.log(0, loss=X + RANDOM_SEED / 100)",
    )


@dataclass(frozen=True)
class Swept:
    """A sweep command that has ended."""

    exit_status: int
    out: str
    err: str
    sweep: SweepDir

    @property
    def results(self) -> dict[int, dict[str, Any]]:
        return sweepdir.results(self.sweep)


def command(*options: str) -> list[str]:
    return [*LABKIT, "sweep", *options]


@contextmanager
def started(*options: str, cwd: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start `labkit sweep`, and leave nothing of it behind."""
    process = subprocess.Popen(
        command(*options),
        cwd=cwd,
        env=plain_environment(**environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def run(*options: str, cwd: Path, **environment: str) -> Swept:
    """Run a sweep to its end."""
    with started(*options, cwd=cwd, **environment) as process:
        out, err = process.communicate(timeout=600)
    assert out, err
    return Swept(process.returncode, out, err, SweepDir(Path(out.splitlines()[-1])))


def newest(lab: Path) -> SweepDir:
    return wait_for(lambda: sweepdir.every(lab / "runs"), what="a sweep")[-1]


def running(sweep: SweepDir) -> list[RunDir]:
    return [run for runs in runs_of(sweep).values() for run in runs if status(run).state == "running"]


def kill_and_continue(notebook: Path, lab: Path, options: list[str], kills: int, longest_s: float) -> Swept:
    """Kill the sweep so many times, at random moments, with the same command each time; then let it end."""
    for number in range(kills):
        delay_s = random.uniform(0.2, longest_s)
        with started(str(notebook), *options, cwd=lab) as process:
            try:
                process.wait(delay_s)
            except subprocess.TimeoutExpired:
                pass
            assert process.poll() is None, "it ended before it could be killed: give it more points"
            below = descendants(process.pid)
            process.kill()
            process.wait()
        # A server of warm kernels stays: it serves others, too. It had a moment to say what it is.
        wait_for(
            lambda below=below: not alive(*(pid for pid in below if not is_detached(pid))),
            what="the end of what a killed sweep had started",
        )
        left = sweepdir.every(lab / "runs")
        wait_for(lambda left=left: not any(map(running, left)), what="the end of its runs")
        done = sum(len(sweepdir.results(one)) for one in sweepdir.every(lab / "runs"))
        print(f"kill {number + 1} after {delay_s:.1f} s: {done} results")
    return run(str(notebook), *options, cwd=lab)


def check_once_each(swept: Swept, points: int) -> None:
    """Each point has exactly one accepted result, of a finished run that is its own; there is one sweep."""
    assert len(sweepdir.every(swept.sweep.runs)) == 1
    results = swept.results
    assert sorted(results) == list(range(1, points + 1))
    assert len({result["run"] for result in results.values()}) == points
    for point, result in results.items():
        run = RunDir(swept.sweep.runs / result["run"])
        manifest = run.read_manifest()
        assert (manifest["sweep"], manifest["point"]) == (swept.sweep.id, point)
        assert status(run).state == result["status"] == "finished"
        assert result["metrics"] == {"loss": manifest["given"]["X"]}
