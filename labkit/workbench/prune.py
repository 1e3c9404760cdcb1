"""Removes runs by hand that nobody needs any more, and never a run of `labkit run`; dry unless told otherwise."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit.record.files import read_json
from labkit.record.find import every
from labkit.record.rundir import RunDir
from labkit.record.status import status


@dataclass(frozen=True)
class Scratch:
    """A run by hand that is over, and how much it holds."""

    run: RunDir
    size_bytes: int


def scratch_runs(runs: Path) -> list[Scratch]:
    """Returns the runs by hand that are over, oldest first."""
    return [Scratch(run, size_bytes(run.path)) for run in every(runs) if run.is_scratch and _is_over_by_hand(run)]


def _is_over_by_hand(run: RunDir) -> bool:
    """Tells whether a run is one by hand and certainly over; on another host it may still go on."""
    kind = (read_json(run.manifest) or {}).get("kind")
    return kind == "scratch" and status(run).is_over and status(run).state != "unknown"


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
        hidden = one.run.path.with_name(f".{one.run.id}.removed")
        try:
            os.rename(one.run.path, hidden)
            shutil.rmtree(hidden)
            yield one, ""
        except OSError as error:
            yield one, error.strerror or str(error)
