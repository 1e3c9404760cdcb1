"""Where a lab is, and its folder of runs."""

from __future__ import annotations

import os
from pathlib import Path

RUNS = "LABKIT_RUNS"  # an environment variable that names another folder of runs
MARKS = ("requirements.lock", "pyproject.toml", "runs", "notebooks", ".git")


def root(start: Path) -> Path:
    """Returns the lab that `start` lies in: the nearest folder with one of the MARKS, else `start` itself."""
    start = Path(os.path.abspath(start))
    for folder in (start, *start.parents):
        if any((folder / mark).exists() for mark in MARKS):
            return folder
    return start


def runs_folder(start: Path, chosen: str | Path | None = None) -> Path:
    """Returns the folder of runs: the one chosen, the one in the environment, or `runs` in the lab of `start`."""
    chosen = chosen or os.environ.get(RUNS)
    return Path(os.path.abspath(chosen)) if chosen else root(start) / "runs"
