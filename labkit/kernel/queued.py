"""Metrics whose values are still on a GPU: copied without waiting for it, written in order once they have arrived.

A copy into pinned memory is asked for where the step is logged, and an event behind it tells when it is there. What
has arrived is written by the next call or, while none comes, by a thread. How many lines the file will have then
stands in a mapped file, which outlives the process: who reads a run that was killed can tell how many never arrived.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from labkit.record.counts import QUEUED
from labkit.record.metrics import as_number

if TYPE_CHECKING:  # who logs a tensor has loaded it
    import torch

LOOK_S = 0.25  # between two looks of the thread


class Arrival(Protocol):
    """What knows whether a copy is there, as `torch.cuda.Event` does."""

    def query(self) -> bool:
        """Tells whether it is there."""
        ...

    def synchronize(self) -> None:
        """Returns when it is there."""
        ...


@dataclass(frozen=True)
class Line:
    """A step on its way."""

    step: int
    values: dict[str, Any]
    logged_s: float
    arrivals: Sequence[Arrival]


class Queued:
    """Lines of metrics on their way to the file, in the order in which they were logged.

    Args:
        write: Appends a line: step, values, seconds since the epoch.
        lines: Returns how many lines the file has.
        lose: Takes how many lines will never arrive.
        counter: The file that says how many lines there will be; 0 when nothing is on its way.
    """

    def __init__(
        self,
        write: Callable[[int, dict[str, Any], float], object],
        lines: Callable[[], int],
        lose: Callable[[int], object],
        counter: Path,
    ) -> None:
        self._write, self._lines, self._lose = write, lines, lose
        self._counter = _mapped(counter)
        self._waiting: deque[Line] = deque()
        self._lock = threading.RLock()
        self._some = threading.Event()
        threading.Thread(target=self._look, name="labkit-metrics", daemon=True).start()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, step: int, values: dict[str, Any], arrivals: Sequence[Arrival]) -> None:
        """Takes a line whose values can be read when all `arrivals` are there."""
        with self._lock:
            self._waiting.append(Line(step, values, time.time(), arrivals))
            QUEUED.pack_into(self._counter, 0, self._lines() + len(self._waiting))
            self._write_arrived()
        self._some.set()

    def settle(self) -> None:
        """Returns when everything is written; waits for the GPU."""
        with self._lock:
            while self._waiting:
                for arrival in self._waiting[0].arrivals:
                    self._guarded(arrival.synchronize)
                self._write_arrived()

    def _write_arrived(self) -> None:
        while self._waiting and self._guarded(lambda: all(one.query() for one in self._waiting[0].arrivals)):
            line = self._waiting.popleft()
            self._write(line.step, line.values, line.logged_s)
        if not self._waiting:
            QUEUED.pack_into(self._counter, 0, 0)
            self._some.clear()

    def _guarded(self, ask: Callable[[], bool | None]) -> bool | None:
        """Asks the GPU; after an error of it nothing arrives any more."""
        try:
            return ask()
        except RuntimeError:  # the step that failed says so itself
            self._lose(len(self._waiting))
            self._waiting.clear()
            return False

    def _look(self) -> None:
        while True:
            self._some.wait()
            time.sleep(LOOK_S)
            with self._lock:
                self._write_arrived()


def copied(values: dict[str, Any]) -> tuple[dict[str, Any], list[torch.cuda.Event], bool]:
    """Asks for copies of what is on a GPU.

    Returns:
        The values, those of a GPU as tensors () in pinned memory; when these can be read; whether all are numbers.
    """
    import torch

    here: dict[str, Any] = {}
    devices, are_numbers = set(), True
    for name, value in values.items():
        if getattr(value, "is_cuda", False) and value.numel() == 1:
            memory = torch.empty((), dtype=value.dtype, pin_memory=True)
            here[name] = memory.copy_(value.detach().reshape(()), non_blocking=True)
            devices.add(value.device)
            are_numbers &= not value.is_complex()
        else:
            here[name] = value
            are_numbers &= as_number(value) is not None
    return here, [torch.cuda.current_stream(device).record_event() for device in devices], are_numbers


def _mapped(path: Path) -> mmap.mmap | bytearray:
    """Returns a counter in a file; in memory where the disk has no place for it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            os.posix_fallocate(fd, 0, QUEUED.size)  # else a full disk ends the process at the first store
            return mmap.mmap(fd, QUEUED.size)
        finally:
            os.close(fd)
    except OSError:
        return bytearray(QUEUED.size)
