"""Where a lab is, and its folder of runs."""

from __future__ import annotations

import os
from pathlib import Path

from labkit.errors import ConfigProblem
from labkit.record import config

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
    """Returns the folder of runs: the one chosen, the one in the environment, else that of the lab of `start`.

    Raises:
        ConfigProblem: The lab's settings cannot be read, or name a home that there is not.
    """
    chosen = chosen or os.environ.get(RUNS)
    if chosen:
        return Path(os.path.abspath(chosen))
    lab = root(start)
    setting = config.settings(lab)["runs"]
    try:
        return lab / Path(str(setting.value)).expanduser()
    except RuntimeError as error:
        raise ConfigProblem(f"{setting.origin}: runs = {setting.value!r:.60}: there is no such home folder") from error
