"""Removes runs by hand that nobody needs any more, and never a run of `labkit run`; dry unless told otherwise."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit.record.find import every
from labkit.record.rundir import SCRATCH, RunDir
from labkit.record.status import status


@dataclass(frozen=True)
class Scratch:
    """A run by hand that is over, and how much it holds."""

    run: RunDir
    size_bytes: int


def scratch_runs(runs: Path) -> list[Scratch]:
    """Returns the runs by hand that are over, oldest first."""
    found = [run for run in every(runs) if run.path.parent.parent.name == SCRATCH and status(run).is_over]
    return [Scratch(run, size_bytes(run.path)) for run in found]


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
