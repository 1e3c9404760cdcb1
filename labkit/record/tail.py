"""The metrics of a run while another process writes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from labkit.record.files import open_record
from labkit.record.metrics import LONGEST_LINE, read_line

CHUNK_BYTES = 2**20


class Tail:
    """Reads the whole lines of a metrics file that grows, and that a resumed run may replace by a shorter one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""  # of a line that is not whole yet
        self._is_cut = False  # that line was too long, and its beginning is gone

    def rewind(self) -> None:
        """Closes the file; what is read next begins with the first line."""
        if self._file is not None:
            self._file.close()
        self._file, self._rest, self._is_cut = None, b"", False

    def is_replaced(self) -> bool:
        """Tells whether the file is no longer the one that was read so far."""
        if self._file is None:
            return False
        try:
            there, here = os.lstat(self._path), os.fstat(self._file.fileno())
            return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino) or there.st_size < self._file.tell()
        except OSError:
            return False

    def read(self, *, over: bool = False) -> Iterator[list[dict[str, Any]]]:
        """Yields what has come since as records, those of about a MiB at a time.

        Args:
            over: Nobody writes any more: what stands at the end without a line break is a line too.
        """
        if self._file is None:
            self._file = open_record(self._path)
        while self._file is not None:
            data = self._file.read(CHUNK_BYTES)
            *lines, rest = (self._rest + data).split(b"\n")
            if not data:
                lines, rest = ([rest], b"") if over else ([], rest)
            if lines and self._is_cut:
                del lines[0]
                self._is_cut = False
            if len(rest) >= LONGEST_LINE:
                rest, self._is_cut = b"", True
            self._rest = rest
            found = (read_line(line) for line in lines if len(line) < LONGEST_LINE)
            if records := [record for record in found if record is not None]:
                yield records
            if not data:
                return
