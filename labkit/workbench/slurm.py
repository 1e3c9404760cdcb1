"""Runs as jobs of a Slurm cluster: submitted, looked up in its queue, cancelled.

A job is one run. Its script, its number and what it printed are in the attempt's folder; whatever can be known of the
run itself is derived from the run's files, and the queue only says what those cannot: that it waits, or is gone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.errors import BadInput, WorkFailed
from labkit.record import checkpoints, config, lab
from labkit.record.files import now, read_json, write_atomic, write_json
from labkit.record.rundir import RunDir
from labkit.record.status import Status, exit_record, status
from labkit.workbench.slurmscript import AFTER_STOP_S, Task, literal, script

if TYPE_CHECKING:
    from labkit.workbench.job import Job
    from labkit.workbench.notebook import Notebook
    from labkit.workbench.params import Asked

PATIENCE_S = 30.0  # for the cluster to take a job, or to cancel one
QUEUE_S = 5.0  # for its queue to answer: a list does without
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
NOTEBOOK_CHECK = '[ -f "$notebook" ] || fail "the notebook $notebook is not there on $host"'
WARNING = "SIGUSR1"  # what the time limit announces itself by
ENDED = ("finished", "failed", "timeout")  # what no job goes on from by itself


@dataclass(frozen=True)
class Extras:
    """What a job does beside executing its run.

    Attributes:
        report: It writes the run's report.
        strict: Its exit status is 1 unless every expectation held.
        force: It goes on with its run although something is not what it was.
        trial: The directory of the preflight, which has to finish first; empty without one.
    """

    report: bool = True
    strict: bool = False
    force: bool = False
    trial: str = ""

    def words(self) -> str:
        """Returns what the runner is told, as the script has it."""
        asked = {
            "--no-report": not self.report,
            "--strict": self.strict,
            "--force": self.force,
            '--preflight "$trial"': bool(self.trial),
        }
        return "".join(f" {word}" for word, is_asked in asked.items() if is_asked)


def settings(notebook: Path) -> dict[str, Any]:
    """Returns the settings of a notebook's lab by name."""
    return {name: one.value for name, one in config.settings(lab.root(notebook.parent)).items()}


def grace_s(known: Mapping[str, Any], asked: float | None = None) -> float:
    """Returns how long a warned run may take to its next step: all of the warning but what closing it takes.

    Args:
        known: The lab's settings.
        asked: What `--grace` says; None where it is left out.

    Raises:
        BadInput: More was asked for: the cluster would end the job before that, and nothing would go on with it.
    """
    warn_s = known["slurm.warn_s"]
    most = float(warn_s - AFTER_STOP_S)
    why = f"a job is warned {warn_s} s before its time limit, and closing a run may take {AFTER_STOP_S} of them"
    if asked is not None and asked > most:
        raise BadInput(f"--grace {asked:g} is more than there is: {why}; ask for {most:g}, or set slurm.warn_s higher")
    if asked is None and known["grace_s"] > most:
        print(f"labkit: grace_s = {known['grace_s']:g} is {most:g} here: {why}", file=sys.stderr)
    return most if asked is None else asked


def prepare(
    source: Notebook, asked: Asked, extras: Extras, *, preflight: bool = False, grace: float | None = None, **more: Any
) -> tuple[Job, Extras]:
    """Makes the run of a job, and before it that of its preflight.

    Args:
        source: The notebook.
        asked: The parameters asked for.
        extras: What the job does beside executing its run.
        preflight: A run with DEBUG comes first.
        grace: What `--grace` says.
        **more: What `job.prepare` takes.

    Raises:
        BadInput: Something of it cannot be; nothing is left over.
    """
    from labkit.workbench import job
    from labkit.workbench import preflight as preflights

    more["grace_s"] = grace_s(settings(source.path), grace)
    if preflight:
        trial = job.prepare(source, preflights.asked(source, asked), labels=(preflights.LABEL,), **more)
        write_json(trial.directory.attempt / "job.json", trial.facts())
        more["preflight"] = trial.directory.name
        extras = replace(extras, trial=trial.run)
    return job.prepare(source, asked, **more), extras


def resume(run: RunDir, *, grace: float | None = None, force: bool = False, **more: Any) -> Job:
    """Claims a run for a job that goes on with it.

    Args:
        run: The run.
        grace: What `--grace` says.
        force: Go on although something is not what it was.
        **more: What `resume.prepare` takes.

    Raises:
        BadInput: It cannot go on, or a job goes on with it already; nothing was changed.
    """
    from labkit.workbench import resume as resuming

    refuse_waiting(run)
    root = lab.root(Path(str(run.read_manifest().get("lab") or run.path)))
    grace_s_ = grace_s({name: one.value for name, one in config.settings(root).items()}, grace)
    return resuming.prepare(run, force=force, grace_s=grace_s_, **more)


def text_of(job: Job, extras: Extras = Extras()) -> str:
    """Returns the batch script of a prepared run."""
    run, notebook = job.directory, Path(job.notebook)
    paths = {
        "run": str(run.path.absolute()),
        **({"trial": str(Path(extras.trial).absolute())} if extras.trial else {}),
        "lab": str(lab.root(notebook.parent)),
        "notebook": str(notebook),
        "python": sys.executable,
    }
    task = Task(
        about="One run of a notebook",
        name=f"{run.path.parent.name}-{run.id[-6:]}",
        log=literal(str((run.attempt / "slurm.log").absolute())),
        paths=paths,
        checks=(
            NOTEBOOK_CHECK,
            '[ -f "$run/run.json" ] || fail "the run $run is not there on $host: choose a shared folder with --runs"',
        ),
        command=f'labkit.workbench.slurmnode "$run"{extras.words()}',
        job="$SLURM_JOB_ID",
        by_hand="labkit resume $run",
    )
    return script(task, settings(notebook))


def preview(source: Notebook, asked: Asked, extras: Extras, runs: Path | None = None, **more: Any) -> str:
    """Returns the batch script that a request would have; nothing is left of it.

    Args:
        source: The notebook.
        asked: The parameters asked for.
        extras: What the job does beside executing its run.
        runs: The folder of runs; by default the lab's.
        **more: What `prepare` takes.
    """
    folder = lab.runs_folder(source.path.parent, runs).absolute()
    with tempfile.TemporaryDirectory() as place:
        prepared, extras = prepare(source, asked, extras, runs=runs, place=Path(place), **more)
        extras = replace(extras, trial=extras.trial.replace(place, str(folder)))
        return text_of(replace(prepared, run=prepared.run.replace(place, str(folder))), extras)


def submit(job: Job, extras: Extras = Extras()) -> str:
    """Hands a prepared run to the cluster and returns the job's number.

    Raises:
        BadInput: There is no sbatch here, or the settings cannot be.
        WorkFailed: The cluster refused it; the run says so.
    """
    run = job.directory
    runs = [run, *([RunDir(Path(extras.trial))] if extras.trial else [])]
    path = run.attempt / "job.sbatch"
    write_json(run.attempt / "job.json", job.facts())
    try:
        write_atomic(path, text_of(job, extras).encode())
        number = hand_in(path)
    except (BadInput, WorkFailed) as error:
        for one in runs:
            close(one, "failed", f"it was not submitted: {error}")
        raise
    for one in runs:
        record(one, number)
    return number


def hand_in(path: Path) -> str:
    """Gives a batch script to the cluster and returns the number of its job.

    Raises:
        BadInput: There is no sbatch here.
        WorkFailed: The cluster refused it.
    """
    return ask("sbatch", "--parsable", str(path)).strip().partition(";")[0]


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
