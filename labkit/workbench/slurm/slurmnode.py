"""What a batch job does on its node: `python -m labkit.workbench.slurm.slurmnode RUN`, begins a run or goes on with it.

It runs the run in this process, so that the run ends with the job, and says by its exit status whether the job is to
be queued again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.workbench.running.stops import Stops

if TYPE_CHECKING:
    from labkit.record.rundir import RunDir
    from labkit.record.status import Status
    from labkit.workbench.running.job import Job

SILENT_S = 90.0  # a run of a node that has died shows life for so long
LOOK_S = 2.0


def main(arguments: Sequence[str]) -> int:
    """Executes a run as far as the job's time reaches, after its preflight; returns the job's exit status."""
    asked = _read(arguments)
    with Stops() as stops:
        from labkit.errors import LabkitError
        from labkit.record import summary
        from labkit.record.rundir import RunDir
        from labkit.record.status import status
        from labkit.workbench.running import notice, outcome
        from labkit.workbench.slurm import slurmqueue
        from labkit.workbench.slurm.slurmscript import GO_ON

        run = RunDir(asked.run)
        if status(run).state == "finished":
            return 0  # the job was queued again all the same
        share_cores()
        try:
            if asked.preflight is not None and (left := _try_out(RunDir(asked.preflight), run, stops)) is not None:
                return left
            job, ended = _execute(run, stops, asked.force)
        except LabkitError as error:
            print(f"labkit: {error}", file=sys.stderr)
            return error.exit_status
        if slurmqueue.goes_on(job.directory, ended):
            return GO_ON
        if asked.report and (problem := outcome.write_report(job.directory)):
            print(f"labkit: the report could not be written: {problem}", file=sys.stderr)
        notice.tell(job.directory, ended, Path(job.notebook))
    return int(ended.state != "finished" or (asked.strict and not summary.all_held(job.directory)))


def _read(arguments: Sequence[str]) -> Any:
    parser = argparse.ArgumentParser(prog="labkit.workbench.slurm.slurmnode")
    parser.add_argument("run", type=Path)
    parser.add_argument("--preflight", type=Path, metavar="RUN")
    parser.add_argument("--no-report", dest="report", action="store_false")
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--force", action="store_true")
    return parser.parse_args(arguments)


def share_cores() -> None:
    """Lets what computes have as many threads as the job has cores: not every cluster binds a job to its cores.

    The job's GPUs are those that it was given, whatever GPU a notebook's kernel would take.
    """
    from labkit.launch.channel import SLOT
    from labkit.record import machine
    from labkit.workbench.running import slots

    given = os.environ.get("SLURM_CPUS_ON_NODE", "")
    if given.isdecimal() and 0 < int(given) < machine.cores():
        os.environ.update(slots.of_cores(1, int(given), os.environ)[0])
    os.environ[SLOT] = slots.VISIBLE


def _try_out(trial: RunDir, run: RunDir, stops: Stops) -> int | None:
    """Executes the preflight of a run, unless it has finished; returns an exit status where the run is not to begin."""
    from labkit.record.status import status
    from labkit.workbench.slurm import slurmqueue
    from labkit.workbench.slurm.slurmscript import GO_ON

    if status(trial).state == "finished":
        return None
    job, ended = _execute(trial, stops)
    if ended.state == "finished":
        return None
    if slurmqueue.goes_on(job.directory, ended):
        return GO_ON
    state = "interrupted" if ended.state == "interrupted" else "failed"
    slurmqueue.close(run, state, f"its preflight {trial.name} did not finish ({ended}), so it was not started")
    return 1


def _execute(run: RunDir, stops: Stops, force: bool = False) -> tuple[Job, Status]:
    """Executes the attempt of a run that is to come next, and returns how it ended."""
    from labkit.workbench.running import execute
    from labkit.workbench.slurm import slurmqueue

    job = begin(run, force)
    slurmqueue.record(job.directory, os.environ.get("SLURM_JOB_ID", ""))
    ended = execute.execute(job, execute.Progress(stops=stops))
    print(f"labkit: {job.directory.name}: {ended}", file=sys.stderr, flush=True)
    return job, ended


def begin(run: RunDir, force: bool = False) -> Job:
    """Returns what to execute: what was ordered, where nothing of it has begun, else the run's next attempt."""
    from labkit.errors import BadInput
    from labkit.record.files import read_json
    from labkit.workbench.running import resume
    from labkit.workbench.running.job import Job

    attempts = range(int(run.attempt.name), 0, -1) if run.attempt.name.isdecimal() else ()
    orders = [order for number in attempts if (order := read_json(run.attempts / str(number) / "job.json"))]
    if not orders:
        raise BadInput(f"{run.path} has no job.json; it was not made for a batch job")
    ordered = Job.of(orders[0])
    if ordered.attempt == int(run.attempt.name) and not run.process.exists() and not run.exit.exists():
        return ordered
    wait_until_silent(run)
    return resume.prepare(
        run,
        force=force,
        trust_silence=True,
        own_notebook=True,
        timeout_s=ordered.timeout_s,
        grace_s=ordered.grace_s,
        command=list(sys.argv),
    )


def wait_until_silent(run: RunDir) -> None:
    """Waits while a run shows life; a node that has died leaves some."""
    from labkit.record.status import status

    end = time.monotonic() + SILENT_S
    while status(run).state == "running" and time.monotonic() < end:
        time.sleep(LOOK_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
