"""The checkpoints of a run: which there are, which are whole, and which to keep.

`checkpoints/000012.pt` counts as soon as `000012.json` stands beside it, which says what it must be: size, SHA-256, the
attempt that saved it, and how many lines of metrics belong to it. `last.pt` and `best.pt` are links.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import RunNotFound
from labkit.record import lab
from labkit.record.files import open_record, read_json, write_json
from labkit.record.find import find
from labkit.record.rundir import RunDir

NAME = re.compile(r"\d{6,}")
UNFINISHED = re.compile(r"\.\d{6,}\.(?:partial|json\..*|yaml\..*)")
PIECE_BYTES = 2**20
LARGEST = sys.float_info.max  # what is beyond, or is no number, is no score


@dataclass(frozen=True)
class Saved:
    """One checkpoint.

    Attributes:
        path: Its file.
        number: Its number in the run, from 1.
        attempt: The attempt that saved it.
        lines: Whole lines of the run's metrics that were logged before it.
        bytes: The file's size.
        sha256: The file's fingerprint.
        score: What it is judged by, higher is better; None where nothing was given.
        facts: Everything that stands in its manifest.
    """

    path: Path
    number: int
    attempt: int
    lines: int
    bytes: int
    sha256: str
    score: float | None
    facts: dict[str, Any]

    @property
    def metrics_bytes(self) -> int | None:
        """The size of the run's metrics when it was saved; None where that is not known."""
        size = self.facts.get("metrics_bytes")
        return size if type(size) is int and size >= 0 else None


def every(run: RunDir) -> list[Saved]:
    """Returns the checkpoints of a run that have a manifest, the oldest first."""
    try:
        names = sorted(entry.name for entry in os.scandir(run.checkpoints) if entry.name.endswith(".json"))
    except OSError:
        return []
    found = (read(run.checkpoints / name) for name in names)
    return sorted((saved for saved in found if saved is not None), key=lambda saved: saved.number)


def read(manifest: Path) -> Saved | None:
    """Returns the checkpoint that a manifest describes; None where it is none."""
    facts = read_json(manifest)
    if facts is None or not NAME.fullmatch(manifest.stem):
        return None
    counts = [facts.get(name) for name in ("attempt", "lines", "bytes")]
    score, sha256 = facts.get("score"), facts.get("sha256")
    if not all(type(count) is int and count >= 0 for count in counts) or not isinstance(sha256, str):
        return None
    number = float(score) if isinstance(score, (int, float)) and abs(score) <= LARGEST else None
    attempt, lines, size = (int(count) for count in counts if count is not None)
    return Saved(manifest.with_suffix(".pt"), int(manifest.stem), attempt, lines, size, sha256, number, facts)


def locate(text: str, notebook: Path, prefer: str, runs: Path | None = None) -> Path:
    """Returns the checkpoint that a parameter names: a file, or the last or best one of a run.

    Args:
        text: A path as seen from the notebook or the lab, or the name of a run.
        notebook: The notebook.
        prefer: `last` or `best`; where there is no best, it is the last.
        runs: The folder of runs; by default the lab's.

    Raises:
        RunNotFound: There is none.
    """
    root = lab.root(notebook.parent)
    places = [os.path.join(folder, text) for folder in (notebook.parent, root)]
    for place in places:
        if os.path.isfile(place):  # unlike pathlib's, never raises
            return Path(place)
    name = next(filter(os.path.isdir, places), text)
    try:
        run = find(name, runs or lab.runs_folder(notebook.parent))
    except RunNotFound as error:
        raise RunNotFound(f"{text!r:.200} is neither a file nor a run with checkpoints: {error}") from None
    for kind in (prefer, "last"):
        if (run.checkpoints / f"{kind}.pt").is_file():
            return run.checkpoints / f"{kind}.pt"
    raise RunNotFound(f"{run.name} has no checkpoint; its notebook saves them with run.checkpoint(…)")


def damage(saved: Saved) -> str:
    """Returns what is wrong with a checkpoint's file; empty where it is as it was saved."""
    file = open_record(saved.path)
    if file is None:
        return "its file is gone"
    digest, size = hashlib.sha256(), 0
    with file:
        try:
            while piece := file.read(PIECE_BYTES):
                digest.update(piece)
                size += len(piece)
        except OSError as error:
            return f"it cannot be read: {error.strerror or error}"
    if size != saved.bytes:
        return f"it has {size:,} bytes of {saved.bytes:,}"
    return "" if digest.hexdigest() == saved.sha256 else "its content is not what was saved"


def newest_whole(run: RunDir, upto: int | None = None) -> tuple[Saved | None, dict[str, str]]:
    """Returns the newest checkpoint that is whole, and what is wrong with each newer one, by file name.

    Args:
        run: The run.
        upto: The number of the newest that may be taken; None for any.
    """
    damaged: dict[str, str] = {}
    for saved in reversed(every(run)):
        if upto is not None and saved.number > upto:
            continue
        problem = damage(saved)
        if not problem:
            return saved, damaged
        damaged[saved.path.name] = problem
    return None, damaged


def next_number(run: RunDir) -> int:
    """Returns the number of the next checkpoint: above all that were ever begun."""
    try:
        names = [entry.name.lstrip(".").partition(".")[0] for entry in os.scandir(run.checkpoints)]
    except OSError:
        names = []
    return max((int(name) for name in names if NAME.fullmatch(name)), default=0) + 1


def superfluous(found: list[Saved], keep: int) -> Iterator[Saved]:
    """Yields those that are neither among the last `keep` nor the best."""
    best = best_of(found)
    for saved in found[:-keep]:
        if best is None or saved.number != best.number:
            yield saved


def best_of(found: list[Saved]) -> Saved | None:
    """Returns the one with the highest score, the first of several; None where none has one."""
    scored = [saved for saved in found if saved.score is not None and saved.score == saved.score]
    return max(scored, key=lambda saved: (saved.score, -saved.number), default=None)


def begin_anew(run: RunDir) -> None:
    """Lets the metrics be those of an attempt that ended without asking what there was to go on from."""
    if not run.begun.exists():
        return
    os.replace(run.metrics, run.earlier() / "metrics.jsonl")
    os.replace(run.begun, run.metrics)


def remove(saved: Saved) -> None:
    """Deletes a checkpoint, its manifest first, so that no manifest is left without its file."""
    remove_files(saved.path)


def remove_unfinished(run: RunDir) -> None:
    """Deletes what a process that was killed while it saved has left, and nothing that anybody else put there."""
    for path in run.checkpoints.glob(".*"):
        if UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)
    for path in run.checkpoints.glob("*.pt"):  # one without its manifest never counted
        endings = (".json", ".unused")
        if NAME.fullmatch(path.stem) and not any(path.with_suffix(ending).exists() for ending in endings):
            remove_files(path)


def remove_files(path: Path) -> None:
    """Deletes what belongs to a checkpoint's file."""
    for ending in (".json", ".yaml", ".pt"):
        path.with_suffix(ending).unlink(missing_ok=True)


def set_aside(saved: Saved, attempt: int, why: str) -> None:
    """Takes a checkpoint out of use: its manifest gets a name that counts no more, and says why."""
    manifest = saved.path.with_suffix(".json")
    write_json(saved.path.with_suffix(".unused"), saved.facts | {"unused_since_attempt": attempt, "why": why})
    manifest.unlink(missing_ok=True)
