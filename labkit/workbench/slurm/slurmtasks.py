"""The tasks of job arrays that a Slurm cluster has of sweeps: task 7 of an array brings point 7 to its result."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from labkit.errors import BadInput, FolderProblem, WorkFailed
from labkit.record import sweepdir
from labkit.record.files import read_json
from labkit.record.sweepdir import SweepDir
from labkit.workbench.slurm import slurmqueue

ASK_S = 3.0  # between two questions to a cluster
Tasks = dict[int, tuple[str, str]]  # by point: the task's number, and its state in the cluster's words


def arrays(sweep: SweepDir) -> list[Path]:
    """Returns the folders of the arrays that were made for a sweep, in no order."""
    return [path for path in (sweep.path / "slurm").glob("*") if path.name.isdecimal()]


def numbers_of(sweep: SweepDir) -> list[str]:
    """Returns the numbers of the arrays that were submitted for a sweep."""
    found = ((read_json(folder / "slurm.json") or {}).get("job") for folder in arrays(sweep))
    return [str(number) for number in found if number]


def tasks(sweep: SweepDir) -> Tasks:
    """Returns the tasks that the cluster still has of a sweep.

    Raises:
        BadInput: There is no Slurm here.
        WorkFailed: The cluster gives no answer.
    """
    return _by_point(slurmqueue.states(numbers_of(sweep)))


def _by_point(states: Mapping[str, str]) -> Tasks:
    named = ((number, number.partition("_")[2], state) for number, state in states.items())
    return {int(point): (number, state) for number, point, state in named if point.isdecimal()}


def stop(sweep: SweepDir) -> bool:
    """Asks the tasks of a sweep to stop; tells whether the cluster has any.

    Those that wait are cancelled. Those that run pass SIGTERM on to their runs, which stop at their next step.

    Raises:
        WorkFailed: The cluster gives no answer.
    """
    known = tasks(sweep) if numbers_of(sweep) else {}
    by_state: dict[str, list[str]] = {}
    for number, state in known.values():
        by_state.setdefault(state, []).append(number)
    for state, numbers in by_state.items():
        if state == "PENDING":  # by the numbers of their arrays: there may be very many
            slurmqueue.ask("scancel", "--state=PENDING", *dict.fromkeys(number.partition("_")[0] for number in numbers))
        else:
            slurmqueue.ask("scancel", *([] if state in slurmqueue.WAITING else ["--signal=TERM", "--batch"]), *numbers)
    return bool(known)


def has_any(sweep: SweepDir) -> bool:
    """Tells whether the cluster has tasks of a sweep; while it gives no answer, that it has."""
    if sweep.is_over() or not numbers_of(sweep):
        return False
    try:
        return bool(tasks(sweep))
    except WorkFailed:
        return True
    except BadInput:
        return False


def under_way(sweep: SweepDir) -> Tasks:
    """Returns the tasks that the cluster still has of a sweep; where there is no Slurm, it says that it cannot tell.

    Raises:
        WorkFailed: The cluster gives no answer.
    """
    try:
        return tasks(sweep)
    except BadInput as error:
        print(f"labkit: whether tasks of {sweep.name} still wait or run is not known: {error}", file=sys.stderr)
        return {}


def lines(runs: Path) -> list[str]:
    """Returns a line for each sweep in a folder that a cluster has tasks of."""
    known = {sweep: numbers for sweep in sweepdir.every(runs) if not sweep.is_over() and (numbers := numbers_of(sweep))}
    states = slurmqueue.queue(number for numbers in known.values() for number in numbers) if known else {}
    found = []
    for sweep, numbers in known.items():
        its = {number: state for number, state in (states or {}).items() if number.partition("_")[0] in numbers}
        if its:
            found.append(told(sweep, _by_point(its)))
    return found


def told(sweep: SweepDir, known: Tasks) -> str:
    """Returns in a line how far a sweep is: its results, and the tasks that it still has."""
    jobs = ", ".join(dict.fromkeys(number.partition("_")[0] for number, _ in known.values()))
    counts = ", ".join(f"{count} {state}" for state, count in Counter(state for _, state in known.values()).items())
    try:
        total = str(sweepdir.total(sweep.read_manifest()))
    except FolderProblem:
        total = "?"
    return f"{sweep.name}: {len(sweepdir.results(sweep))} of {total} points have a result; job {jobs}: {counts}"
