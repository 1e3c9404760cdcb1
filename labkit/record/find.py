"""Finds runs: all of a folder, or the one that goes by a name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labkit.errors import FolderProblem, RunNotFound
from labkit.record import lab
from labkit.record.files import read_json
from labkit.record.page import page_summary
from labkit.record.rundir import ID, NO_RESULT, SCRATCH, SWEEPS, RunDir, folder_name


def every(runs: Path) -> list[RunDir]:
    """Returns all runs below `runs`, oldest first, scratch runs included; a folder that cannot be read is skipped."""
    found: list[RunDir] = []
    for folder in (one for one in _folders(runs) if one.name != SWEEPS):
        parts = _folders(folder) if folder.name == SCRATCH else [folder]
        for part in parts:
            found += [RunDir(path) for path in _folders(part) if ID.fullmatch(path.name)]
    return sorted(found, key=lambda run: (run.id, str(run.path)))


def folder_of(run: RunDir) -> Path:
    """Returns the folder of runs that a run lies in."""
    return run.path.parents[2 if run.is_scratch else 1]


def _folders(folder: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def whereabouts(root: Path, runs: Path) -> dict[str, str]:
    """Returns what a run records of its lab: the lab's folder, and the way there from the folder of runs."""
    folder = os.path.realpath(root)
    return {"lab": folder, "lab_from_runs": os.path.relpath(folder, os.path.realpath(runs))}


def is_of(manifest: dict[str, Any], here: dict[str, str]) -> bool:
    """Tells whether a run is of the lab with these whereabouts.

    One of them is enough: the way stays when a lab moves with its runs, the folder when its runs move alone. A run that
    records none, of an earlier labkit, is of any lab.
    """
    return "lab" not in manifest or any(manifest.get(name) == value for name, value in here.items())


def find(text: str, runs: Path) -> RunDir:
    """Returns the run that `text` names.

    A name is a path, a report file, an id or its suffix (`3f9a1c`), `last`, `NOTEBOOK@last`, or `NOTEBOOK@best:METRIC`
    (the highest; `best:-METRIC` the lowest). Without a notebook, `best:METRIC` looks through all runs. Scratch runs
    answer to a path or an id only. Where labs share the folder of runs, `last` and `best` are of the lab of the working
    directory.

    Raises:
        RunNotFound: Nothing or more than one thing goes by that name; the message lists what is near.
    """
    if text and _is_run(os.path.abspath(text)):
        return RunDir(Path(text).resolve())
    if text.endswith(".html"):
        return _of_report(Path(text), runs)
    notebook, at, wanted = text.rpartition("@")
    runs_found = every(runs)
    if at or text == "last" or text.startswith("best:"):
        return _newest_or_best(text, notebook, wanted, [run for run in runs_found if not run.is_scratch], runs)
    matches = [
        run for run in runs_found if text and (run.id.endswith(text) or run.name == text or run.id.startswith(text))
    ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        several = ", ".join(run.name for run in matches[-5:])
        raise RunNotFound(f"{text!r} names {len(matches)} runs in {runs}: {several}; give more of the id")
    raise RunNotFound(f"no run {text!r} in {runs}; {_known(runs_found)}")


def _of_report(path: Path, runs: Path) -> RunDir:
    """Returns the run that a report was made from: the one beside it, else the one that the page names."""
    if path.name == "report.html" and _is_run(os.path.abspath(path.parent)):
        return RunDir(path.parent.resolve())
    name = str((page_summary(path) or {}).get("run") or "")
    for run in every(runs):
        if name and run.name == name:
            return run
    raise RunNotFound(f"{path} is no report of a run in {runs}" + (f"; it names {name!r:.80}" if name else ""))


def _is_run(path: str) -> bool:
    if os.path.isfile(os.path.join(path, "run.json")):  # unlike pathlib's, never raises
        return True
    return ID.fullmatch(os.path.basename(path)) is not None and os.path.isdir(path)  # a damaged one


def _newest_or_best(text: str, notebook: str, wanted: str, candidates: list[RunDir], runs: Path) -> RunDir:
    known = _known(candidates)
    candidates = [run for run in candidates if not notebook or run.path.parent.name == folder_name(notebook)]
    own = _of_this_lab(candidates, runs)
    if wanted == "last":
        newest = next(own, None)
        if newest is None:
            raise RunNotFound(f"{text!r}: there is no such run of this lab in {runs}; {known}")
        return newest
    if not wanted.startswith("best:"):
        raise RunNotFound(f"{text!r}: after '@' stands `last` or `best:METRIC`; {known}")
    metric = wanted.removeprefix("best:")
    sign = -1 if metric.startswith("-") else 1
    metric = metric.removeprefix("-")
    logged: set[str] = set()
    scored = [(sign * value, run) for run in own if (value := _final(run, metric, logged)) is not None]
    if not scored:
        near = difflib.get_close_matches(metric, logged, n=3)
        advice = f"did you mean {' or '.join(near)}?" if near else _numbers(logged) or known
        raise RunNotFound(f"{text!r}: no finished run has a number for {metric!r}; {advice}")
    return max(scored, key=lambda pair: (pair[0], pair[1].id))[1]


def _of_this_lab(found: list[RunDir], runs: Path) -> Iterator[RunDir]:
    """Yields the runs of the working directory's lab, the newest first.

    All are meant where that lab has none here and its own folder of runs is another.
    """
    root = lab.root(Path.cwd())
    here = whereabouts(root, runs)
    own = (run for run in reversed(found) if is_of(read_json(run.manifest) or {}, here))
    newest = next(own, None)
    if newest is not None:
        yield newest
        yield from own
    elif lab.runs_folder(root) != runs:
        yield from reversed(found)


def _numbers(logged: set[str]) -> str:
    """Returns which metrics there are, a dozen of them at most."""
    names = sorted(logged)
    return f"there are {', '.join(names[:12])}{', …' if len(names) > 12 else ''}" if names else ""


def _final(run: RunDir, metric: str, logged: set[str]) -> float | None:
    """Returns the last value of a metric in a finished run, and notes which metrics it has."""
    if (read_json(run.exit) or {}).get("status") != "finished":
        return None
    try:
        manifest = run.read_manifest()
        if not set(manifest["labels"]).isdisjoint(NO_RESULT):
            return None
        metrics = manifest["summary"]["metrics"]
        logged.update(name for name in metrics if isinstance(name, str))
        value = metrics[metric]["last"]
        return float(value) if float(value) == float(value) else None
    except (FolderProblem, KeyError, TypeError, ValueError, OverflowError):
        return None


def _known(runs: list[RunDir]) -> str:
    if not runs:
        return "there are no runs yet"
    return "the newest are " + ", ".join(run.name for run in runs[-3:][::-1])
