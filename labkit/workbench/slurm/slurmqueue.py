"""What the queue of a Slurm cluster says of runs that are its jobs, and what is asked of it.

The number of a job is in the attempt's folder; whatever can be known of the run itself is derived from the run's files,
and the queue only says what those cannot: that it waits, or is gone.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import replace

from labkit.errors import BadInput, WorkFailed
from labkit.record import checkpoints
from labkit.record.files import now, read_json, write_json
from labkit.record.rundir import RunDir
from labkit.record.status import Status, exit_record, status

PATIENCE_S = 30.0  # for the cluster to take a job, or to cancel one
QUEUE_S = 5.0  # for its queue to answer: a list does without
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
WARNING = "SIGUSR1"  # what the time limit announces itself by
ENDED = ("finished", "failed", "timeout")  # what no job goes on from by itself


def record(run: RunDir, number: str) -> None:
    """Notes which job an attempt of a run is."""
    write_json(run.attempt / "slurm.json", {"job": number, "noted": now()})


def number_of(run: RunDir) -> str:
    """Returns the job's number of a run's newest attempt; empty where that is no job."""
    return str((read_json(run.attempt / "slurm.json") or {}).get("job") or "")


def goes_on(run: RunDir, ended: Status) -> bool:
    """Tells whether a run's job is to be queued again: it was warned, and has saved something new to go on from.

    Without that it would be stopped at the same place for ever.
    """
    was_warned = (ended.exit or {}).get("stop") == WARNING and ended.state in ("interrupted", "killed")
    newest = checkpoints.every(run)[-1:]
    return was_warned and bool(newest) and newest[0].attempt == int(run.attempt.name)


def close(run: RunDir, state: str, reason: str) -> None:
    """Writes the exit record of an attempt whose runner never began."""
    write_json(run.exit, exit_record(state, reason, None, written_by="runner") | {"stop": None})


def queue(numbers: Iterable[str]) -> dict[str, str] | None:
    """Returns the states of those jobs that the cluster still has, in its words; None where it gives no answer."""
    try:
        return states(numbers)
    except (BadInput, WorkFailed):
        return None


def states(numbers: Iterable[str]) -> dict[str, str]:
    """Returns the states of those jobs that the cluster still has, each task of an array by itself, as `12_3`.

    Args:
        numbers: Numbers of jobs, of arrays, or of tasks, whose whole array is then asked for.

    Raises:
        BadInput: There is no squeue here.
        WorkFailed: The cluster gives no answer.
    """
    wanted = sorted({number.partition("_")[0] for number in numbers if number})
    if not wanted:
        return {}
    try:
        said = ask("squeue", "--noheader", "--array", "--format=%i|%T", f"--jobs={','.join(wanted)}", within_s=QUEUE_S)
    except WorkFailed as error:
        if "Invalid job id" in str(error):  # the one that was asked for has been forgotten
            return {}
        raise
    return dict(line.strip().split("|", 1) for line in said.splitlines() if "|" in line)


class Queue:
    """What the cluster says of the jobs of some runs, asked once, when the first run needs it."""

    def __init__(self, runs: Iterable[RunDir]) -> None:
        self._runs = runs
        self._known: dict[str, str] | None = None
        self._asked = False

    def of(self, run: RunDir, found: Status) -> tuple[Status, dict[str, str] | None]:
        """Returns a run's status, and its job's `number` and `state`; None where it is no job.

        Args:
            run: The run.
            found: Its status as its files have it.
        """
        number = number_of(run)
        if not number:
            return found, None
        if found.state in ENDED:
            return found, {"number": number, "state": ""}
        if not self._asked:
            self._asked = True
            self._known = queue(number_of(one) for one in self._runs if not _has_ended(one))
        state = None if self._known is None else self._known.get(number, "")
        return merged(run, found, number, state), {"number": number, "state": state or ""}


def _has_ended(run: RunDir) -> bool:
    return (read_json(run.exit) or {}).get("status") in ENDED


def status_of(run: RunDir) -> Status:
    """Returns the status of a run, with what the queue says of its job."""
    return Queue([run]).of(run, status(run))[0]


def merged(run: RunDir, found: Status, number: str, state: str | None) -> Status:
    """Returns a run's status from what its files say and from its job's state.

    Args:
        run: The run.
        found: What the files say.
        number: The job's number.
        state: The job's state; empty for one that is gone; None where that is not known.
    """
    if state is None or found.state in ENDED:
        return found
    if not state:
        found = status(run)  # it may have ended since that was looked for
        if found.state in ("queued", "unknown"):
            return Status("killed", f"job {number} is gone from the queue, and the run has no exit record")
        return found
    stop = (found.exit or {}).get("stop")
    if state in WAITING and found.state != "running":
        return Status("queued", f"job {number} is {state}")
    if found.exit is not None:
        return replace(found, state="queued", reason=f"job {number} goes on") if stop == WARNING else found
    if found.state in ("queued", "unknown"):
        return Status("running", f"job {number} is {state}", found.duration_s)
    return found


def stop(run: RunDir) -> bool:
    """Asks the job of a run to stop, if it is one that the cluster has; tells whether it is.

    A job that waits is cancelled; one that runs passes SIGTERM on to its run, which stops at its next step.
    """
    number = number_of(run)
    state = (queue([number]) or {}).get(number, "") if number else ""
    if not state:
        return False
    if state in WAITING:
        ask("scancel", number)
        if not run.exit.exists():
            close(run, "interrupted", f"job {number} was cancelled before it began")
    else:
        ask("scancel", "--signal=TERM", "--batch", number)
    return True


def refuse_waiting(run: RunDir) -> None:
    """Refuses to go on with a run that its job goes on with.

    Raises:
        BadInput: The cluster has a job of it that waits or runs.
    """
    if not (number := number_of(run)):
        return
    found = status_of(run)
    if not found.is_over:
        reason = found.reason or f"job {number}"
        raise BadInput(f"{run.name} is {found.state} ({reason}); cancel its job first with `labkit stop`")


def ask(*command: str, within_s: float = PATIENCE_S) -> str:
    """Returns what a command of the cluster prints."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=within_s, stdin=subprocess.DEVNULL
        )  # fmt: skip
    except FileNotFoundError:
        raise BadInput(f"there is no {command[0]} here; --on slurm works where Slurm's commands are") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WorkFailed(f"{command[0]} gave no answer: {error}; try again when the cluster answers") from error
    if done.returncode:
        raise WorkFailed(f"{command[0]} refused: {done.stderr.strip() or done.returncode}")
    return done.stdout
