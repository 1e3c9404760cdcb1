"""Fingerprints of whole files by BLAKE3, which takes all cores; a file that has not changed is not read again.

What is known of a file is kept beside the runs, under its identity for the system: path, device, inode, size, and both
times. The second of them changes with the content whatever a program sets the first to.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from blake3 import blake3

from labkit.record.files import dumps, open_record, write_atomic

KNOWN = ".fingerprints.jsonl"  # in the folder of runs
SETTLED_S = 2.0  # a file that changed since may change again within one tick of its clock
MAPPED_BYTES = 2**20  # from here on several threads and a mapped file are faster
LARGEST_BYTES = 8 * 2**20  # of what is known, before only what is in use is kept
LINE_BYTES = 256  # more than most lines have


def of_file(path: Path, threads: int | None = None) -> str:
    """Returns the BLAKE3 fingerprint of a file's content, 64 hexadecimal digits.

    Args:
        path: The file.
        threads: How many to use; by default as many as there are cores.

    Raises:
        OSError: It cannot be read, or is no regular file.
    """
    return _read_through(path, _identity(path).size, threads)


def _read_through(path: str | Path, size: int, threads: int | None) -> str:
    if size < MAPPED_BYTES:
        with open(path, "rb", buffering=0) as file:
            return blake3(file.readall()).hexdigest()
    digest = blake3(max_threads=blake3.AUTO if threads is None else threads)
    return digest.update_mmap(path).hexdigest()


class Known:
    """Fingerprints of files that are known already, and of those that are asked for.

    Args:
        runs: The folder of runs, where they are kept once `save` is called.
    """

    def __init__(self, runs: Path) -> None:
        self._path = runs / KNOWN
        self._found: dict[str, list[Any]] = _read(self._path)
        self._new: list[str] = []
        self.read_bytes = 0

    def of_file(self, path: str | Path, threads: int | None = None) -> tuple[str, int]:
        """Returns the fingerprint and the size of a file.

        Args:
            path: The file.
            threads: How many a large file may take; by default as many as there are cores.

        Raises:
            OSError: It cannot be read, is no regular file, or changes all the time.
        """
        path = os.fspath(path)
        before = _identity(path)
        for _ in range(3):
            entry = self._found.get(path)
            if entry is not None and entry[1:] == list(before):
                return str(entry[0]), before.size
            found = _read_through(path, before.size, threads)
            self.read_bytes += before.size
            after = _identity(path)
            if after == before:
                self._keep(path, found, before)
                return found, before.size
            before = after
        raise OSError("it changed while it was read")

    def _keep(self, path: str, found: str, identity: Identity) -> None:
        if abs(time.time() - max(identity.mtime_ns, identity.ctime_ns) / 1e9) >= SETTLED_S:
            self._found[path] = [found, *identity]
            self._new.append(path)

    def save(self) -> None:
        """Keeps what has become known; where that cannot be written, files are read again next time."""
        new, self._new = self._new, []
        if not new:
            return
        try:
            with open(self._path, "ab", buffering=0) as file:
                file.write(self._lines(new))
                is_large = file.tell() > self._largest_bytes()
            if is_large:
                write_atomic(self._path, self._lines(filter(os.path.exists, self._found)), durable=False)
        except OSError:
            pass

    def _lines(self, names: Iterable[str]) -> bytes:
        return b"".join(dumps([name, *self._found[name]]) + b"\n" for name in names)

    def _largest_bytes(self) -> int:
        """Returns how large the file may become: with many files in use it is large, and written anew seldom."""
        return max(LARGEST_BYTES, 2 * LINE_BYTES * len(self._found))


class Identity(NamedTuple):
    """What the system says of a file that changes when its content does."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def _identity(path: str | Path) -> Identity:
    facts = os.stat(path)
    if not stat.S_ISREG(facts.st_mode):
        raise OSError("it is no regular file")
    return Identity(facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def _read(path: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    file = open_record(path)
    if file is None:
        return found
    with file:
        for line in file:
            try:
                name, *entry = orjson.loads(line)
            except (ValueError, TypeError):
                continue
            if isinstance(name, str) and len(entry) == 6:
                found[name] = entry
    return found
