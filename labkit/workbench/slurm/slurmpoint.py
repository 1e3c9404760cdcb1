"""One point of a job array: `python -m labkit.workbench.slurm.slurmpoint SWEEP POINT`, what a task does on its node.

It is a sweep of one point that runs in this process, so that the run ends with the task. Nobody oversees the tasks:
each accepts its own result, and the one that finds the sweep complete writes what came of it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.workbench.running.stops import Stops

if TYPE_CHECKING:
    from labkit.workbench.running.job import Job
    from labkit.workbench.running.outcome import Outcome
    from labkit.workbench.sweeps.sweeping import Opened


class Here(Executor):
    """Calls functions in this process, when they are submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Calls a function and returns what came of it."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def main(arguments: Sequence[str]) -> int:
    """Brings a point to its result as far as the job's time reaches; returns the task's exit status."""
    parser = argparse.ArgumentParser(prog="labkit.workbench.slurm.slurmpoint")
    parser.add_argument("sweep", type=Path)
    parser.add_argument("point", type=int)
    parser.add_argument("--grace", type=float, required=True)
    asked = parser.parse_args(arguments)
    with Stops() as stops:
        from labkit.errors import LabkitError
        from labkit.workbench.slurm import slurmnode
        from labkit.workbench.sweeps import sweeping

        slurmnode.share_cores()
        try:
            opened = sweeping.reopen(str(asked.sweep))
            opened = replace(opened, settings=replace(opened.settings, grace_s=asked.grace))
            return bring(opened, asked.point, stops)
        except LabkitError as error:
            print(f"labkit: {error}", file=sys.stderr)
            return error.exit_status


def bring(opened: Opened, number: int, stops: Stops) -> int:
    """Brings a point to its result; returns the task's exit status.

    Args:
        opened: The sweep.
        number: The point's number.
        stops: The stop signals of this process.
    """
    from labkit.record.status import status
    from labkit.workbench.slurm import slurmnode, slurmqueue, slurmsweep
    from labkit.workbench.slurm.slurmscript import GO_ON
    from labkit.workbench.sweeps import ranking, sweeping
    from labkit.workbench.sweeps.sweep import Sweeper, runs_of

    point = opened.points[number - 1]
    for run in runs_of(opened.sweep).get(number, []):
        slurmnode.wait_until_silent(run)
    begin = partial(sweeping.begin_run, opened, list(sys.argv))
    sweeper = Sweeper(opened.sweep, [point], begin, report=opened.settings.report)
    sweeper.carry_out = partial(_carry_out, sweeper, stops, opened.settings.report)
    sweeper.stopping = stops.stopping
    sweeper.go_on()
    sweeper.work(Here(), 1)
    result = sweeper.results.get(number)
    if result is None:
        left = sweeper.earlier.get(number)
        if left is not None and slurmqueue.goes_on(left, status(left)):
            print(f"labkit: point {number}: {left.name}: goes on", file=sys.stderr, flush=True)
            return GO_ON
        print(f"labkit: point {number} has no result: stopped by {sweeper.stopping}", file=sys.stderr)
        return 1
    print(f"labkit: point {number}: {result['run']}: {result['status']}", file=sys.stderr, flush=True)
    slurmsweep.conclude(opened)
    return int(ranking.is_failed(result))


def _carry_out(sweeper: Any, stops: Stops, report: bool, job: Job) -> Outcome:
    """Executes the run of a point; a signal that stops it stops the sweep of this point."""
    from labkit.errors import LabkitError
    from labkit.workbench.running import execute, outcome
    from labkit.workbench.slurm import slurmqueue

    slurmqueue.record(job.directory, task_number())
    try:
        ended = execute.execute(job, execute.Progress(stops=stops))
    except LabkitError as error:  # its directory was deleted
        return outcome.Outcome(job.run, "failed", str(error))
    sweeper.stopping = stops.stopping
    problem = outcome.write_report(job.directory) if report and not stops.stopping else ""
    return outcome.of_run(job.directory, ended, problem)


def task_number() -> str:
    """Returns the number of this task, as the cluster's commands take it."""
    return f"{os.environ.get('SLURM_ARRAY_JOB_ID', '')}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
