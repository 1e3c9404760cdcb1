"""Goes on with a run that was stopped, killed or failed: the same run, as its next attempt."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import Any

from labkit.errors import BadInput, FolderProblem, LabkitError
from labkit.record import checkpoints, config, lab, provenance, version
from labkit.record.allowed import shown
from labkit.record.files import now, plain_json, read_json, write_atomic, write_json
from labkit.record.find import every, is_of, whereabouts
from labkit.record.process import Process
from labkit.record.rundir import MIXED, RunDir
from labkit.record.status import has_fresh_heartbeat, status
from labkit.workbench.notebooks import literals, modes, notebook, params
from labkit.workbench.notebooks.notebook import Notebook
from labkit.workbench.pages.reports import stale_reasons
from labkit.workbench.running import trackers
from labkit.workbench.running.job import Job, check_kernel

RESUME = "RESUME"
CHANGED = "the notebook changed; the run goes on with the copy that it began with, not with the change"
SHOWN = 12  # differences in a message
GOES_ON = (".restore(", "labkit.torchrun(")  # calls that go on with a training, or start a script that does


def prepare(
    run: RunDir,
    *,
    checkpoint: int | None = None,
    force: bool = False,
    trust_silence: bool = False,
    own_notebook: bool = False,
    timeout_s: float | None = None,
    grace_s: float | None = None,
    command: list[str] | None = None,
) -> Job:
    """Claims a run for its next attempt and returns what to execute.

    Args:
        run: The run.
        checkpoint: The number of the newest checkpoint that may be taken; by default any.
        force: Go on although something is not what it was; the differences are recorded.
        trust_silence: Take a run of which nothing is known, and which shows no life any more, for one that is over: a
            queue starts a job again when its machine has died.
        own_notebook: The notebook may be another one by now: the run goes on with the copy that it began with.
        timeout_s: Seconds that the attempt may take; None for no limit.
        grace_s: Seconds from a stop request to the kill; by default as the lab's settings say.
        command: The command line, for the record.

    Raises:
        BadInput: The run cannot go on, or somebody else goes on with it; nothing was changed.
    """
    if not run.attempt.name.isdecimal():
        raise BadInput(f"{run.attempts} is a link or has no attempts in it; {run.name} cannot be resumed")
    earlier = int(run.attempt.name)  # before the status is asked: a later attempt is somebody else's
    manifest = run.read_manifest()
    _refuse_unless_stopped(run, manifest, force or (trust_silence and not has_fresh_heartbeat(run)))
    path, root = _home(run, manifest)
    source = notebook.read(run.source / "notebook.ipynb")
    if not any(any(call in cell["source"] for call in GOES_ON) for cell in source.cells if cell["cell_type"] == "code"):
        raise BadInput(
            f"{run.name} cannot be resumed: its notebook never calls run.restore(…), so each run of it begins anew; "
            f"start one with `labkit run {os.path.relpath(path)}`"
        )
    found = differences(run, manifest, path, root, own_notebook=own_notebook)
    if found and not force:
        listed = "\n".join(f"- {line}" for line in found[:SHOWN])
        more = f"\n- and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise BadInput(
            f"{run.name} would not end as it would have, for something is not what it was:\n{listed}{more}\n"
            "Bring it back, or go on all the same with --force"
        )
    try:
        values = {name: literals.read_literal(text) for name, text in (manifest.get("values") or {}).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise BadInput(f"{run.manifest}: its values cannot be read: {error}") from error
    kernel = str(manifest["kernel"])
    check_kernel(kernel)
    trackers.refuse_missing(trackers.asked(manifest["parameters"]))
    if grace_s is None:
        grace_s = float(config.settings(root)["grace_s"].value)
    order = {
        "checkpoint": checkpoint,
        "forced": force,
        "differences": found,
        "command": command or [],
        "created": now(),
        "creator": Process.of(os.getpid()).facts(),
    }
    _claim(run, earlier + 1, order)
    claimed = RunDir(run.path, earlier + 1)
    _put_away(claimed, is_mixed=bool(found))
    return Job(str(run.path), str(path), values, kernel, source.language, timeout_s, grace_s, earlier + 1)


def _refuse_unless_stopped(run: RunDir, manifest: dict[str, Any], force: bool) -> None:
    state = status(run)
    if not state.is_over:
        raise BadInput(f"{run.name} is {state.state}{f' ({state.reason})' if state.reason else ''}; nothing to resume")
    if state.left:
        raise BadInput(f"{run.name} is over, but processes of it still live: {', '.join(state.left)}; end them first")
    if state.state == "finished":
        raise BadInput(f"{run.name} has finished; nothing to resume. To train on from it, give MODEL_PATH to a new run")
    if state.state == "unknown" and not force:
        raise BadInput(
            f"what happened to {run.name} is not known: {state.reason}. "
            "Make sure that it does not run any more, then go on with --force"
        )
    if manifest["kind"] != "run":
        raise BadInput(
            f"{run.name} was worked on by hand; to go on with its training, set RESUME = {str(run.path)!r} "
            "in a notebook that declares it, and run its cells"
        )


def _home(run: RunDir, manifest: dict[str, Any]) -> tuple[Path, Path]:
    """Returns the notebook of a run, and the lab that it lies in."""
    inside = str(manifest["notebook"])
    for root in (Path(str(manifest.get("lab") or "/")), lab.root(run.path), lab.root(Path.cwd())):
        path = root / inside
        if path.parent.is_dir() and inside:
            return path, root
    raise BadInput(f"the folder of {inside!r}, the notebook of {run.name}, is not there; go to its lab and try again")


def differences(
    run: RunDir, manifest: dict[str, Any], path: Path, root: Path, *, own_notebook: bool = False
) -> list[str]:
    """Returns what is not as it was when a run was made: the notebook, its defaults, modules, packages, Python."""
    found: list[str] = []
    now = run.source / "notebook.ipynb" if own_notebook else path
    if now.exists():
        try:
            reasons = stale_reasons(notebook.read(now), root, run, manifest)
            found += [CHANGED if reason == "the notebook changed" else reason for reason in reasons]
        except LabkitError as error:
            found.append(f"the notebook: {error}")
    else:
        found.append(f"the notebook {manifest['notebook']} is gone")
    then = str((read_json(run.environment) or {}).get("python") or "")
    here = provenance.basics()["python"]
    if then and then != here:
        found.append(f"Python was {then}, is {here}")
    return found + _changed_packages(run)


def _changed_packages(run: RunDir) -> list[str]:
    try:
        lines = run.requirements.read_text("utf-8").split()
    except (OSError, ValueError):
        return []
    then = dict(line.split("==", 1) for line in lines if "==" in line)
    here = dict(line.split("==", 1) for line in provenance.packages())
    return [
        f"{name} was {then.get(name, 'not installed')}, is {here.get(name, 'not installed')}"
        for name in sorted(then.keys() | here.keys())
        if then.get(name) != here.get(name)
    ]


def _claim(run: RunDir, number: int, order: dict[str, Any]) -> None:
    """Makes the folder of the next attempt, which only one process can.

    It is filled under a hidden name and renamed: a rename to a folder that is there and not empty fails, on network
    file systems too, where locks do not hold.
    """
    hidden = run.attempts / f".{number}.{secrets.token_hex(4)}"
    try:
        hidden.mkdir()
        write_json(hidden / "resume.json", order)
        os.rename(hidden, run.attempts / str(number))
    except OSError as error:
        shutil.rmtree(hidden, ignore_errors=True)
        if (run.attempts / str(number)).exists():
            other = (read_json(run.attempts / str(number) / "resume.json") or {}).get("creator") or {}
            who = f"process {other.get('pid')} on {other.get('host')}"
            raise BadInput(f"{run.name} is being resumed by somebody else, {who}; attempt {number} is theirs") from None
        raise FolderProblem(f"{run.attempts} cannot be written: {error.strerror or error}") from error


def _put_away(run: RunDir, is_mixed: bool) -> None:
    """Keeps the log, the notebook and the page of the earlier attempt in its folder, and begins new ones.

    Where something is not what it was, its source is kept there too, and the run is marked: its numbers are of both.
    """
    folder = run.earlier()
    try:
        for path in (run.log, run.notebook, run.report):
            if path.exists():
                os.replace(path, folder / path.name)
        run.log.touch()
        write_atomic(run.notebook, (run.source / "notebook.ipynb").read_bytes(), durable=False)
        changes: dict[str, Any] = {"summary": {}, "verdicts": [], "claim": {}}
        if is_mixed:
            shutil.copytree(run.source, folder / "source", dirs_exist_ok=True)
            changes["labels"] = list(dict.fromkeys([*run.read_manifest()["labels"], MIXED]))
        run.update_manifest(**changes)
    except OSError as error:
        print(f"labkit: what the earlier attempt left could not be put away: {error}", file=sys.stderr)


def named(source: Notebook, asked: params.Asked, runs: Path) -> tuple[RunDir | None, int | None, params.Asked]:
    """Returns what the parameter RESUME asks for: the run, the newest checkpoint to take, and the other parameters.

    `auto` is the newest run of the notebook with these parameters, where that one can go on, else none; a path or a
    name is that run, or the run of that checkpoint.

    Raises:
        BadInput: There is no such run, or it has other parameters.
    """
    declared, name = source.parameters(), source.path.name
    given = params.admit(declared, asked, name, source.computed()) if asked else {}
    if not given.get(RESUME) or not modes.names_checkpoint(RESUME, declared):
        return None, None, asked
    text = given.pop(RESUME)
    others = [params.Source("", tuple(given.items()))]
    values = plain_json(params.effective(declared, given))
    if text == "auto":
        run = _newest_alike(source, values, runs)
        return (None if run is None or status(run).state == "finished" else run), None, others
    path = checkpoints.locate(text, source.path, "last", runs).resolve()
    run = RunDir(path.parent.parent)
    then = run.read_manifest()["parameters"]
    changed = [f"{key} was {shown(then.get(key))}, is {shown(plain_json(given[key]))}" for key in given]
    changed = [line for line, key in zip(changed, given, strict=True) if then.get(key) != plain_json(given[key])]
    if changed:
        raise BadInput(
            f"RESUME={text!r:.80} goes on with {run.name}, whose parameters were others: {'; '.join(changed)}. "
            "Leave them out; or train on from its weights in a new run, with MODEL_PATH in the place of RESUME"
        )
    return run, int(path.stem) if checkpoints.NAME.fullmatch(path.stem) else None, others


def _newest_alike(source: Notebook, values: dict[str, Any], runs: Path) -> RunDir | None:
    """Returns the newest run of a notebook that has these parameters, whatever became of it."""
    root = lab.root(source.path.parent)
    inside, here = os.path.relpath(source.path, root), whereabouts(root, runs)
    for run in reversed(every(runs)):
        manifest = read_json(run.manifest) or {}
        if manifest.get("notebook") != inside or manifest.get("kind") != "run" or not is_of(manifest, here):
            continue
        then = manifest.get("parameters") or {}
        if all(then.get(key) == value for key, value in values.items() if key not in (RESUME, version.VERSION)):
            return run
    return None


def resumable(run: RunDir) -> bool:
    """Tells whether a run that is over has something to go on from."""
    state = status(run)
    return state.is_over and state.state != "finished" and not run.is_scratch and bool(checkpoints.every(run))
