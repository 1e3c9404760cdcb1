"""What a batch job does on its node: `python -m labkit.workbench.slurmnode RUN`, begins a run or goes on with it.

It runs the run in this process, so that the run ends with the job, and says by its exit status whether the job is to
be queued again.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.workbench.stops import Stops

if TYPE_CHECKING:
    from labkit.record.rundir import RunDir
    from labkit.workbench.job import Job

SILENT_S = 90.0  # a run of a node that has died shows life for so long
LOOK_S = 2.0


def main(path: Path) -> int:
    """Executes the run of a directory as far as the job's time reaches; returns the job's exit status."""
    with Stops() as stops:
        from labkit.errors import LabkitError
        from labkit.record.rundir import RunDir
        from labkit.workbench import execute, notice, reports, slurm
        from labkit.workbench.slurmscript import GO_ON

        try:
            job = begin(RunDir(path))
            slurm.record(job.directory, os.environ.get("SLURM_JOB_ID", ""))
            ended = execute.execute(job, execute.Progress(stops=stops))
        except LabkitError as error:
            print(f"labkit: {error}", file=sys.stderr)
            return error.exit_status
        print(f"labkit: {job.directory.name}: {ended}", file=sys.stderr, flush=True)
        if slurm.goes_on(job.directory, ended):
            return GO_ON
        reports.write_of_run(job.directory)
        notice.tell(job.directory, ended, Path(job.notebook))
    return 0 if ended.state == "finished" else 1


def begin(run: RunDir) -> Job:
    """Returns what to execute: what was ordered, where nothing of it has begun, else the run's next attempt."""
    from labkit.errors import BadInput
    from labkit.record.files import read_json
    from labkit.record.status import status
    from labkit.workbench import resume
    from labkit.workbench.job import Job

    order = read_json(run.attempt / "job.json")
    if order is not None and not run.process.exists() and not run.exit.exists():
        return Job.of(order)
    if order is None:  # of an attempt after the first
        order = read_json(run.attempts / "1" / "job.json")
    if order is None:
        raise BadInput(f"{run.path} has no job.json; it was not made for a batch job")
    end = time.monotonic() + SILENT_S
    while status(run).state == "running" and time.monotonic() < end:  # on a node that died, perhaps
        time.sleep(LOOK_S)
    ordered = Job.of(order)
    return resume.prepare(
        run, trust_silence=True, timeout_s=ordered.timeout_s, grace_s=ordered.grace_s, command=list(sys.argv)
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
