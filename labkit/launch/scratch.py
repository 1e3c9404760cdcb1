"""The folder of a kernel's sockets: private, and removed sometime even where all who would have done it were killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from labkit.launch import private

LONGEST_BASE_BYTES = 60  # of a socket's path, which has 107 at most
YOUNG_S = 60.0  # a folder may have been made and not yet been locked


@dataclass
class Scratch:
    """A folder that is in use for as long as this process lives.

    Attributes:
        path: The folder.
        lock: The descriptor that says so: a lock on the folder, which the system releases with the process.
    """

    path: Path
    lock: int

    def remove(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


def make() -> Scratch:
    """Makes a folder whose path is short enough for sockets, and removes those that nobody uses any more.

    Raises:
        OSError: None can be made.
    """
    base = tempfile.gettempdir()
    base = base if len(os.fsencode(base)) <= LONGEST_BASE_BYTES else "/tmp"
    try:
        place = private.folder(Path(base) / f"labkit-kernels-{os.getuid()}")
        _remove_dead(place)
    except OSError:
        place = Path(base)  # somebody else has that name: only the folder itself is private then
    path = Path(tempfile.mkdtemp(prefix="labkit-", dir=place))  # mode 0700
    return Scratch(path, _locked(path))


def _locked(path: Path) -> int:
    """Locks a folder and returns the descriptor that holds the lock; -1 where it cannot be had."""
    try:
        found = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(found)
        return -1
    return found


def _remove_dead(place: Path) -> None:
    for path in place.iterdir():
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime < YOUNG_S:
                continue
            if (lock := _locked(path)) >= 0:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)
