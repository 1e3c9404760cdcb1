"""The metrics of a run: one line of strict JSON a step, appended by one system call.

A line is `{"step": 12, "loss": 0.25, "t": 1763720100.123}`: the step, the numbers logged with it, and the time in
seconds since the epoch, which the canonical form leaves out. Floats read back to the same bits. A line cut short by a
crash or a full disk is skipped and counted by readers, wherever it stands.
"""

from __future__ import annotations

import math
import os
import re
import sys
import time
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from labkit.record.files import dumps, open_record

RESERVED = frozenset(("step", "t"))
RETRY_S = 0.5
KEPT_BYTES = 32 * 2**20  # held in memory while the disk refuses writes
LONGEST_LINE = 2**20  # bytes; what is longer is no record, and must not fill the memory
LARGEST_STEP = 2**63 - 1
LARGEST = int(sys.float_info.max)  # an integer beyond has no float


class MetricsWriter:
    """Appends steps to a metrics file; never raises for what is logged or for what the disk does.

    Accepted are integers in the range of floats, floats (NaN and infinities too), booleans and whatever offers
    `.item()` with such a value (NumPy scalars, 0-d tensors). Anything else is refused: left out and counted. Steps may
    repeat and may go back; lines stay in the order in which they were logged.

    Attributes:
        written: Lines on disk.
        refused: Values that are no numbers, and steps that are no integers of 64 bits.
        lost: Lines that could not be kept when the disk stayed full, or that came after `close`.
        problem: What the disk said last; empty where it never refused.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._closed = False
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._retry_at = 0.0
        self._torn = True  # until the file is open; an earlier writer may have been cut short
        self.written = self.refused = self.lost = 0
        self.problem = ""
        self.flush(now=True)  # opens the file

    def log(self, step: int, values: dict[str, Any], t: float | None = None) -> bool:
        """Appends one step; it is on its way to the disk, safe from the death of this process, when this returns.

        Args:
            step: The step.
            values: What was logged with it.
            t: When that was, in seconds since the epoch; by default now.

        Returns:
            Whether every value was accepted.
        """
        refused = self.refused
        if type(step) is not int or abs(step) > LARGEST_STEP or "t" in values or "step" in values:
            step, values = self._plain_step(step), {k: v for k, v in values.items() if not self._is_reserved(k)}
        for value in values.values():
            if type(value) is not float and (type(value) is not int or abs(value) > LARGEST_STEP):
                values = self._plain(values)
                break
        if values:
            self._append(self._line({"step": step, **values, "t": time.time() if t is None else t}))
        return refused == self.refused

    def _line(self, record: dict[str, Any]) -> bytes:
        try:
            line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        except TypeError:  # an integer beyond 64 bits, or a name with lone surrogates
            return dumps(record) + b"\n"
        return line if b"null" not in line else dumps(record) + b"\n"  # non-finite floats come out as null

    def _append(self, line: bytes) -> None:
        if not self._waiting and not self._torn:
            try:
                count = os.write(self._fd, line)
                if count == len(line):
                    self.written += 1
                    return
                line = line[count:]  # the rest goes on where this left off
            except OSError as error:
                self.problem = error.strerror or str(error)
        self._keep(line)
        self.flush()

    def _keep(self, line: bytes) -> None:
        if self._closed or (self._waiting and self._waiting_bytes + len(line) > KEPT_BYTES):
            self.lost += 1
            return
        self._waiting.append(line)
        self._waiting_bytes += len(line)

    def flush(self, *, now: bool = False) -> None:
        """Writes what waits for a disk that was full; tried at most twice a second unless `now`."""
        if self._closed or not (now or time.monotonic() >= self._retry_at):
            return
        try:
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
                size = os.fstat(self._fd).st_size
                self._torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"
            if self._torn:
                os.write(self._fd, b"\n")  # ends the line that was cut short
                self._torn = False
            while self._waiting:
                count = os.write(self._fd, self._waiting[0])
                self._waiting_bytes -= count
                self._waiting[0] = self._waiting[0][count:]
                if not self._waiting[0]:
                    self._waiting.popleft()
                    self.written += 1
        except OSError as error:
            self.problem = error.strerror or str(error)
            self._retry_at = time.monotonic() + RETRY_S

    def close(self) -> None:
        """Writes what still waits, counts what cannot be written as lost, and closes the file."""
        if self._closed:
            return
        if self._waiting:
            self.flush(now=True)
        self._closed = self._torn = True
        self.lost += len(self._waiting)
        self._waiting.clear()
        fd, self._fd = self._fd, -1
        try:
            os.close(fd)
        except OSError as error:
            self.problem = error.strerror or str(error)

    @property
    def waiting(self) -> int:
        """Lines held in memory because the disk refuses them."""
        return len(self._waiting)

    def _plain_step(self, step: Any) -> int:
        number = as_number(step)
        if number is not None and abs(number) <= LARGEST_STEP and number == int(number):
            return int(number)
        self.refused += 1
        return -1

    def _is_reserved(self, name: str) -> bool:
        self.refused += name in RESERVED
        return name in RESERVED

    def _plain(self, values: dict[str, Any]) -> dict[str, int | float]:
        plain = {}
        for name, value in values.items():
            number = as_number(value)
            if number is None:
                self.refused += 1
            else:
                plain[name] = number
        return plain


def as_number(value: Any) -> int | float | None:
    """Returns a value as a plain number, or None where it is not one."""
    if isinstance(value, int):
        return int(value) if abs(value) <= LARGEST else None
    if isinstance(value, float):
        return float(value)
    try:
        value = value.item()
    except Exception:  # a tensor of several elements, an array, anything foreign
        return None
    return as_number(value) if isinstance(value, (int, float)) else None


@dataclass
class Column:
    """One metric: its values and the steps they belong to, in the order of logging."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))


@dataclass
class Metrics:
    """The metrics of one run.

    Attributes:
        columns: Each metric by name.
        rows: Whole lines read.
        torn: Lines that could not be read.
    """

    columns: dict[str, Column] = field(default_factory=dict)
    rows: int = 0
    torn: int = 0

    def summary(self) -> dict[str, Any]:
        """Returns last, lowest and highest value, count and last step of each metric, as the manifest keeps them."""
        return {
            "metrics": {name: _summary(column) for name, column in self.columns.items()},
            "steps": self.rows,
            "torn": self.torn,
        }


def _summary(column: Column) -> dict[str, Any]:
    finite = [value for value in column.values if value - value == 0]
    return {
        "last": column.values[-1],
        "min": min(finite, default=None),
        "max": max(finite, default=None),
        "count": len(column.values),
        "step": column.steps[-1],
    }


def read(path: Path) -> Metrics:
    """Returns the metrics in a file; an unreadable file has none, unreadable lines are counted."""
    metrics = Metrics()
    for record in records(path):
        if record is None:
            metrics.torn += 1
            continue
        metrics.rows += 1
        step = record.pop("step")
        record.pop("t", None)
        for name, value in record.items():
            column = metrics.columns.get(name)
            if column is None:
                column = metrics.columns[name] = Column()
            column.steps.append(step)
            column.values.append(value)
    return metrics


def main(names: Iterable[str]) -> list[str]:
    """Returns the metrics that stand for the result: those of the test, else of the validation, else all."""
    names = list(names)
    for first_words in (("test",), ("val", "valid", "validation")):
        found = [name for name in names if re.split(r"[_\W]", name.lower())[0] in first_words]
        if found:
            return found
    return names


def split(path: Path, lines: int, size: int | None = None) -> tuple[bytes, bytes]:
    """Returns a metrics file as it was earlier, and everything else in it.

    Args:
        path: The file.
        lines: How many whole lines it had.
        size: How many bytes it had, so that a line which was damaged later is not made up for; None where that is not
            known.
    """
    if size is not None:
        file = open_record(path)
        if file is None:
            return b"", b""
        with file:
            return file.read(size), file.read()
    kept, rest, count = bytearray(), bytearray(), 0
    file = open_record(path)
    if file is not None:
        with file:
            for line in file:
                is_kept = count < lines and read_line(line) is not None
                count += is_kept
                (kept if is_kept else rest).extend(line)
    return bytes(kept), bytes(rest)


def canonical(path: Path) -> bytes:
    """Returns the whole lines of a metrics file without their times: equal for two runs that did the same."""
    return b"".join(dumps(_without_time(record)) + b"\n" for record in records(path) if record is not None)


def last(path: Path, tail_bytes: int = 8192) -> dict[str, Any]:
    """Returns the newest whole line of a metrics file, read from its end; empty where there is none."""
    file = open_record(path)
    if file is None:
        return {}
    with file:
        try:
            file.seek(max(0, file.seek(0, os.SEEK_END) - tail_bytes))
            lines = file.read().split(b"\n")
        except OSError:
            return {}
    return next((record for line in reversed(lines) if line and (record := read_line(line))), {})


def _without_time(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "t"}


def records(path: Path) -> Iterator[dict[str, Any] | None]:
    """Yields each line as a record with its floats restored, None for a line that is torn."""
    file = open_record(path)
    if file is None:
        return
    with file:
        try:
            is_rest = False  # of a line that was too long
            while line := file.readline(LONGEST_LINE):
                is_cut = len(line) == LONGEST_LINE and not line.endswith(b"\n")
                if line != b"\n" and not is_rest:
                    yield None if is_cut else read_line(line)
                is_rest = is_cut
        except OSError:
            return


def read_line(line: bytes) -> dict[str, Any] | None:
    """Returns a line as a record with its floats restored; None where it is torn."""
    try:
        return _checked(orjson.loads(line))
    except ValueError:
        return _large_record(line)


def _large_record(line: bytes) -> dict[str, Any] | None:
    """Returns a line with the large integers that the fast parser refuses, or makes floats of."""
    import json

    if not line.rstrip().endswith(b"}"):
        return None
    try:
        return _checked(json.loads(line, parse_constant=_refuse), math.inf)
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _checked(record: Any, below: float = 2.0**63) -> dict[str, Any] | None:
    """Returns a parsed line whose step and values are numbers; None where one is not.

    Args:
        record: What a parser made of the line.
        below: Floats from here on may have been integers, of which the fast parser made them.

    Raises:
        ValueError: There is such a float.
    """
    if not isinstance(record, dict):
        return None
    step = record.get("step")
    if type(step) is not int or not -(2**63) <= step < 2**63:
        return None
    for name, value in record.items():
        if type(value) is float:
            if not -below < value < below and below != math.inf:
                raise ValueError(name)
            continue
        if type(value) is int and abs(value) <= LARGEST:
            continue
        if value in ("NaN", "Infinity", "-Infinity") or isinstance(value, bool):
            record[name] = float(value)
        else:
            return None
    return record
