"""The checkpoint that a run began with, by RESUME or MODEL_PATH: what it was, and where it is now."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit.errors import BadInput
from labkit.record.files import read_json
from labkit.record.rundir import RunDir

ORIGINS = {"RESUME": "resumed_from", "MODEL_PATH": "model_from"}  # by parameter, the key in restored.json


def began_with(run: RunDir, parameter: str) -> tuple[str, str] | None:
    """Returns the path and the SHA-256 of the checkpoint that a parameter named; None where that is not recorded."""
    for one in (RunDir(run.path, 1), run):  # who goes on with a run notes its own checkpoints later
        facts = read_json(one.restored) or {}
        path, sha256 = facts.get(ORIGINS[parameter]), facts.get("sha256")
        if isinstance(path, str) and isinstance(sha256, str):
            return path, sha256
    return None


def with_checkpoints(
    values: Mapping[str, Any], then: RunDir, notebook: Path, lab: Path, data: Path | None
) -> dict[str, Any]:
    """Returns a run's parameters with the file in place of what named a checkpoint, which may mean another one by now.

    Args:
        values: The parameters that the run was given.
        then: The record.
        notebook: The notebook that will be run. A file that is where it looks for one stays named as it was.
        lab: The notebook's lab.
        data: A folder in which the file is looked for, too.

    Raises:
        BadInput: The checkpoint is not here, or no longer what it was.
    """
    found = dict(values)
    for name in ORIGINS:
        known = began_with(then, name) if values.get(name) else None
        if known is None or any(os.path.isfile(folder / str(values[name])) for folder in (notebook.parent, lab)):
            continue
        path, sha256 = known
        places = [Path(path), *([data.absolute() / os.path.basename(path)] if data is not None else [])]
        place = next((one for one in places if _is(one, sha256)), None)
        if place is None:
            raise BadInput(
                f"{name} named the checkpoint {path} (SHA-256 {sha256[:16]}…), which is not here, or no longer what it "
                "was; name a folder that has it with --data"
            )
        found[name] = str(place)
    return found


def _is(path: Path, sha256: str) -> bool:
    try:
        if not (path.is_absolute() and path.is_file()):
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except (OSError, ValueError):
        return False
