"""Runs as jobs of a Slurm cluster: made, or claimed to go on with, and submitted.

A job is one run. Its script, its number and what it printed are in the attempt's folder.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.errors import BadInput, WorkFailed
from labkit.record import config, lab
from labkit.record.files import write_atomic, write_json
from labkit.record.rundir import RunDir
from labkit.workbench.slurm import slurmqueue
from labkit.workbench.slurm.slurmscript import AFTER_STOP_S, Task, literal, script

if TYPE_CHECKING:
    from labkit.workbench.notebooks.notebook import Notebook
    from labkit.workbench.notebooks.params import Asked
    from labkit.workbench.running.job import Job

NOTEBOOK_CHECK = '[ -f "$notebook" ] || fail "the notebook $notebook is not there on $host"'


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
    from labkit.workbench.running import job
    from labkit.workbench.running import preflight as preflights

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
    from labkit.workbench.running import resume as resuming

    slurmqueue.refuse_waiting(run)
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
        command=f'labkit.workbench.slurm.slurmnode "$run"{extras.words()}',
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
            slurmqueue.close(one, "failed", f"it was not submitted: {error}")
        raise
    for one in runs:
        slurmqueue.record(one, number)
    return number


def hand_in(path: Path) -> str:
    """Gives a batch script to the cluster and returns the number of its job.

    Raises:
        BadInput: There is no sbatch here.
        WorkFailed: The cluster refused it.
    """
    return slurmqueue.ask("sbatch", "--parsable", str(path)).strip().partition(";")[0]
