"""Sweeps as job arrays of a Slurm cluster: task 7 of an array brings point 7 to its result.

Scripts, and what they printed, are in the sweep's directory, `slurm/<n>/` of the n-th array. What came of a point
stands in its runs and its result; the queue only says which points still have a task.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import NoReturn

from labkit.errors import BadInput, FolderProblem, WorkFailed
from labkit.record import lab, sweepdir
from labkit.record.files import now, write_atomic, write_json
from labkit.record.rundir import SWEEPS, RunDir
from labkit.record.status import Status
from labkit.record.sweepdir import Session, SweepDir
from labkit.workbench.notebooks.notebook import Notebook
from labkit.workbench.running import notice
from labkit.workbench.slurm import slurm, slurmscript, slurmtasks
from labkit.workbench.sweeps import sweeping, sweepreport
from labkit.workbench.sweeps.points import Point
from labkit.workbench.sweeps.search import Plan
from labkit.workbench.sweeps.sweeping import Opened, Settings
from labkit.workbench.sweeps.sweepreport import Summary

TURN_S = 60.0  # for another process that writes the summary
LOOK_S = 0.5
SIZES = "a cluster takes no larger task numbers than its MaxArraySize, often 1001: `scontrol show config`"


@dataclass(frozen=True)
class Handed:
    """What came of handing a sweep to the cluster.

    Attributes:
        number: The array's number; empty where nothing was left to submit.
        points: The points that it has.
        tasks: The points that have had a task before, with its number and state.
    """

    number: str
    points: tuple[int, ...]
    tasks: slurmtasks.Tasks


def hand_in(
    opened: Opened, *, jobs: int | None = None, retry_failed: bool = False, command: list[str] | None = None
) -> Handed:
    """Submits an array of those points that have neither a result nor a task in the queue.

    Args:
        opened: The sweep.
        jobs: How many tasks at once; None for as many as the cluster likes.
        retry_failed: First take back the results that are no finished runs.
        command: The command line, for the record.

    Raises:
        BadInput: Somebody else works on the sweep, there is no Slurm here, or the settings cannot be.
        WorkFailed: The cluster refused it, or gives no answer.
        FolderProblem: The sweep's directory cannot be written.
    """
    if opened.plan is not None:
        refuse_search()
    session = sweepdir.claim(opened.sweep, command or [])
    try:
        return _hand_in(opened, jobs, retry_failed)
    except BadInput:
        if opened.is_new:
            shutil.rmtree(opened.sweep.path, ignore_errors=True)
        raise
    except OSError as error:
        raise FolderProblem(f"{opened.sweep.path} cannot be written: {error.strerror or error}") from error
    finally:
        session.end()


def _hand_in(opened: Opened, jobs: int | None, retry_failed: bool) -> Handed:
    sweep = opened.sweep
    known = slurmtasks.tasks(sweep)
    if retry_failed:
        sweeping.take_back(sweep)
    points = _left(opened, known)
    if not points:
        if not known:
            _write(opened)
        return Handed("", (), known)
    if not sweep.notebook.exists():
        write_atomic(sweep.notebook, opened.source.dumps())
    folder = _next_folder(sweep)
    text = text_of(opened, folder, points, jobs)
    path = folder / "job.sbatch"
    folder.mkdir(parents=True)
    write_atomic(path, text.encode())
    try:
        number = slurm.hand_in(path)
    except WorkFailed as error:
        hint = f"; {SIZES}" if "array" in str(error) else ""
        raise WorkFailed(f"{error}{hint}\nnothing was submitted; go on with: {again(sweep)}") from error
    write_json(folder / "slurm.json", {"job": number, "points": spec(points), "noted": now()})
    return Handed(number, tuple(points), known)


def refuse_search() -> NoReturn:
    """Says why a search is no job array.

    Raises:
        BadInput: Always.
    """
    raise BadInput(
        "a search chooses each point from the results of earlier ones, and a job array has all of its points from the "
        "start; search without --on slurm, in one job (srun, or a script that calls labkit sweep), or sweep over lists"
    )


def preview(opened: Opened, jobs: int | None = None) -> str:
    """Returns the batch script of the array that would be submitted now.

    Raises:
        BadInput: There is nothing to submit, or it cannot be.
    """
    if opened.plan is not None:
        refuse_search()
    points = _left(opened, slurmtasks.tasks(opened.sweep))
    if not points:
        raise BadInput(f"every point of {opened.sweep.name} has a result or a task; there is nothing to submit")
    return text_of(opened, _next_folder(opened.sweep), points, jobs)


def preview_new(
    source: Notebook, wanted: list[Point] | Plan, settings: Settings, runs: Path | None = None, jobs: int | None = None
) -> str:
    """Returns the batch script that a sweep would have; nothing is left of it.

    Args:
        source: The notebook.
        wanted: The points; no search can be submitted.
        settings: How the runs are made.
        runs: The folder of runs; by default the lab's.
        jobs: How many tasks at once.
    """
    folder = lab.runs_folder(source.path.parent, runs).absolute()
    with tempfile.TemporaryDirectory() as place:
        opened = sweeping.begin(source, wanted, settings, runs, place=Path(place))
    return preview(replace(opened, sweep=SweepDir(folder / SWEEPS / opened.sweep.id)), jobs)


def _next_folder(sweep: SweepDir) -> Path:
    return sweep.path / "slurm" / str(max((int(path.name) for path in slurmtasks.arrays(sweep)), default=0) + 1)


def text_of(opened: Opened, folder: Path, points: Iterable[int], jobs: int | None) -> str:
    """Returns the batch script of an array.

    Args:
        opened: The sweep.
        folder: Where its script and its output lie.
        points: The points that it brings to their results.
        jobs: How many at once; None for as many as the cluster likes.
    """
    sweep, notebook = opened.sweep, opened.source.path
    known = slurm.settings(notebook)
    grace_s = slurm.grace_s(known, opened.settings.grace_s)
    task = slurmscript.Task(
        about="A task for each point of a sweep",
        name=f"{opened.source.name}-{sweep.id[-6:]}",
        log=f"{slurmscript.literal(str(folder.absolute()))}/%a.log",
        paths={
            "sweep": str(sweep.path.absolute()),
            "lab": str(lab.root(notebook.parent)),
            "notebook": str(notebook),
            "python": sys.executable,
        },
        checks=(
            slurm.NOTEBOOK_CHECK,
            '[ -f "$sweep/sweep.json" ] || fail "the sweep $sweep is not there on $host: choose a shared folder with '
            '--runs"',
        ),
        command=f'labkit.workbench.slurm.slurmpoint "$sweep" "$SLURM_ARRAY_TASK_ID" --grace {grace_s:g}',
        job="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}",
        by_hand=again(sweep),
        array=spec(points) + (f"%{jobs}" if jobs else ""),
    )
    return slurmscript.script(task, known)


def again(sweep: SweepDir) -> str:
    """Returns the command that submits what has no result."""
    return f"labkit sweep --continue {sweep.id} --on slurm"


def spec(points: Iterable[int]) -> str:
    """Returns points as sbatch takes them.

    >>> spec([1, 2, 3, 7, 9, 10])
    '1-3,7,9-10'
    """
    found = []
    for _, group in groupby(enumerate(points), lambda pair: pair[1] - pair[0]):
        numbers = [number for _, number in group]
        found.append(str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}")
    return ",".join(found)


def _left(opened: Opened, known: Mapping[int, object]) -> list[int]:
    done = sweepdir.results(opened.sweep)
    return [point.number for point in opened.points if point.number not in done and point.number not in known]


# what came of it


def conclude(opened: Opened) -> None:
    """Ends a sweep whose points all have a result, if nobody else has: writes what came of it, and tells its user.

    Raises:
        BadInput: Somebody else works on the sweep for too long.
        FolderProblem: It cannot be written.
    """
    if len(sweepdir.results(opened.sweep)) < len(opened.points):
        return
    session = _turn(opened.sweep)
    try:
        if opened.sweep.is_over():
            return
        found = _write(opened)
    finally:
        session.end()
    state, reason = ("failed", f"{len(found.failed)} points did not finish") if found.failed else ("finished", "")
    notice.tell(RunDir(opened.sweep.path), Status(state, reason), opened.source.path)


def summarise(opened: Opened) -> Summary:
    """Writes and returns what has come of a sweep so far; once every point has a result, the sweep is over with it.

    Raises:
        BadInput: Somebody else works on the sweep for too long.
        FolderProblem: It cannot be written.
    """
    session = _turn(opened.sweep)
    try:
        return _write(opened)
    finally:
        session.end()


def _write(opened: Opened) -> Summary:
    sweep, asked = opened.sweep, opened.settings
    results = sweepdir.results(sweep)
    found = sweepreport.summarise(sweep, opened.manifest, opened.points, results, asked.metric, asked.lowest)
    try:
        sweepreport.write(found)
    except OSError as error:
        raise FolderProblem(f"{sweep.path} cannot be written: {error.strerror or error}") from error
    return found


def _turn(sweep: SweepDir) -> Session:
    """Waits for the right to work on a sweep: whoever writes what came of it has read all results that there are."""
    end = time.monotonic() + TURN_S
    while True:
        try:
            return sweepdir.claim(sweep, list(sys.argv))
        except FolderProblem:
            raise
        except BadInput:
            if time.monotonic() > end:
                raise
            time.sleep(LOOK_S)
