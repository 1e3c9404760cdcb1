"""Fingerprints of whole files by BLAKE3, which takes all cores; a file that has not changed is not read again.

What is known of a file is kept beside the runs, under its identity for the system: path, device, inode, size, and both
times. The second of them changes with the content whatever a program sets the first to.
"""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from blake3 import blake3

from labkit.record.files import dumps, open_record, write_atomic

KNOWN = ".fingerprints.jsonl"  # in the folder of runs
SETTLED_S = 2.0  # a file that changed since may change again within one tick of its clock
MAPPED_BYTES = 2**20  # from here on several threads and a mapped file are faster
LARGEST_BYTES = 8 * 2**20  # of what is known, before only what is in use is kept


def of_file(path: Path, threads: int | None = None) -> str:
    """Returns the BLAKE3 fingerprint of a file's content, 64 hexadecimal digits.

    Args:
        path: The file.
        threads: How many to use; by default as many as there are cores.

    Raises:
        OSError: It cannot be read, or is no regular file.
    """
    if _identity(path).size < MAPPED_BYTES:
        return blake3(path.read_bytes()).hexdigest()
    digest = blake3(max_threads=blake3.AUTO if threads is None else threads)
    return digest.update_mmap(path).hexdigest()


class Known:
    """Fingerprints of files that are known already, and of those that are asked for.

    Args:
        runs: The folder of runs, where they are kept.
        threads: How many a large file may take; by default as many as there are cores.
    """

    def __init__(self, runs: Path, threads: int | None = None) -> None:
        self._path, self._threads = runs / KNOWN, threads
        self._found: dict[str, list[Any]] = _read(self._path)
        self.read_bytes = 0

    def of_file(self, path: Path) -> tuple[str, int]:
        """Returns the fingerprint and the size of a file.

        Raises:
            OSError: It cannot be read, is no regular file, or changes all the time.
        """
        for _ in range(3):
            before = _identity(path)
            entry = self._found.get(str(path))
            if entry is not None and entry[1:] == list(before):
                return str(entry[0]), before.size
            found = of_file(path, self._threads)
            self.read_bytes += before.size
            if _identity(path) == before:
                self._keep(path, found, before)
                return found, before.size
        raise OSError("it changed while it was read")

    def _keep(self, path: Path, found: str, identity: Identity) -> None:
        if abs(time.time() - max(identity.mtime_ns, identity.ctime_ns) / 1e9) < SETTLED_S:
            return
        entry = self._found[str(path)] = [found, *identity]
        line = dumps([str(path), *entry]) + b"\n"
        try:
            with open(self._path, "ab", buffering=0) as file:
                file.write(line)
                is_large = file.tell() > LARGEST_BYTES
            if is_large:
                lines = (dumps([name, *entry]) + b"\n" for name, entry in self._found.items() if os.path.exists(name))
                write_atomic(self._path, b"".join(lines), durable=False)
        except OSError:
            pass  # it is read again next time


class Identity(NamedTuple):
    """What the system says of a file that changes when its content does."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def _identity(path: Path) -> Identity:
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
