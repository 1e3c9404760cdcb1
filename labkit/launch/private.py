"""Folders that nobody but this user can enter."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def folder(path: Path) -> Path:
    """Returns a folder that is this user's alone, made where it is missing.

    Raises:
        OSError: It cannot be made, somebody else has it, or others can enter.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{path} is not a folder of this user's alone")
    return path
