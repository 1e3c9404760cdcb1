"""Removes runs by hand that nobody needs any more, and never a run of `labkit run`; dry unless told otherwise."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit.record.files import read_json
from labkit.record.find import every
from labkit.record.rundir import ID, SCRATCH, RunDir
from labkit.record.status import has_fresh_heartbeat, status

REMOVED = re.compile(rf"\.{ID.pattern}\.removed")  # what is left of a run that could not be removed whole


@dataclass(frozen=True)
class Scratch:
    """A run by hand that is over, or what is left of one that was removed, and how much it holds."""

    run: RunDir
    size_bytes: int


def scratch_runs(runs: Path) -> list[Scratch]:
    """Returns this user's runs by hand that are over, oldest first, and what is left of those removed before."""
    found = [run for run in every(runs) if run.is_scratch and _is_over_by_hand(run)]
    return [Scratch(run, size_bytes(run.path)) for run in [*_remains(runs), *found] if _is_own(run.path)]


def _is_over_by_hand(run: RunDir) -> bool:
    """Tells whether a run is one by hand and certainly over; on another host it may still go on.

    A run that has not said how it ended is left alone for as long as its heartbeat is fresh, whatever else is known.
    """
    if (read_json(run.manifest) or {}).get("kind") != "scratch":
        return False
    found = status(run)
    return found.is_over and found.state != "unknown" and (found.exit is not None or not has_fresh_heartbeat(run))


def _remains(runs: Path) -> list[RunDir]:
    return [RunDir(path) for path in sorted(runs.glob(f"{SCRATCH}/*/.*.removed")) if REMOVED.fullmatch(path.name)]


def _is_own(folder: Path) -> bool:
    """Tells whether a folder is one, and this user's: in a shared lab, others decide on theirs."""
    try:
        return folder.lstat().st_uid == os.geteuid() and folder.is_dir() and not folder.is_symlink()
    except OSError:
        return False


def size_bytes(folder: Path) -> int:
    """Returns how much the files below a folder hold; links are not followed."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:
                pass
    return total


def remove(found: Sequence[Scratch]) -> Iterator[tuple[Scratch, str]]:
    """Removes runs by hand, and yields each with what kept it from going; empty where it is gone.

    The directory is renamed first, so that a run which cannot be removed whole is never taken for one.
    """
    for one in found:
        try:
            shutil.rmtree(_hidden(one.run.path))
            yield one, ""
        except OSError as error:
            yield one, error.strerror or str(error)


def _hidden(folder: Path) -> Path:
    if REMOVED.fullmatch(folder.name):
        return folder
    hidden = folder.with_name(f".{folder.name}.removed")
    os.rename(folder, hidden)
    return hidden
