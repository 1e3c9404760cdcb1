"""The metrics of a run from inside: its writer, and what was logged before a training was resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labkit.record import metrics
from labkit.record.checkpoints import Saved
from labkit.record.files import write_atomic
from labkit.record.metrics import RESERVED, MetricsWriter
from labkit.record.rundir import RunDir

if TYPE_CHECKING:  # it loads PyTorch, which not every notebook needs
    from labkit.kernel.queued import Queued
    from labkit.kernel.resume import Restored


class Logged:
    """Writes the metrics of one process of a run.

    Another attempt at a run begins with the cells before the training, which log again what the run's metrics hold
    already. Until it is known what the training goes on from, its lines are kept apart, so that an attempt that ends
    before changes nothing.

    Args:
        run: The run.
        is_borrowed: Another process of the same attempt has begun the metrics, and waits until this one has ended.

    Attributes:
        writer: Appends to the file that is in use.
    """

    def __init__(self, run: RunDir, is_borrowed: bool = False) -> None:
        self._run = run
        is_new = run.attempt.name == "1" or (is_borrowed and not run.begun.exists())
        self._begun = None if is_new else run.begun
        self._before = 0  # lines in the file that are older than the writer
        self.writer = self._writer(is_borrowed)
        self._counts = dict.fromkeys(("written", "refused", "lost"), 0)
        self._queued: Queued | None = None  # made for the first value on a GPU

    def log(self, step: int, values: dict[str, Any]) -> bool:
        """Appends one step, or lets it follow its values from the GPU; tells whether every value was accepted.

        Lines stay in order: one whose values are all here waits for those before it.
        """
        for value in values.values():
            if type(value) is not float and getattr(value, "is_cuda", False):
                return self._follow(step, values)
        self.settle()
        return self.writer.log(step, values)

    def _follow(self, step: int, values: dict[str, Any]) -> bool:
        from labkit.kernel.queued import Queued, copied

        if self._queued is None:
            self._queued = Queued(self._append, lambda: self.lines, self._lose, self._run.queued)
        here, arrivals, are_numbers = copied(values)
        self._queued.add(step, here, arrivals)
        return are_numbers and type(step) is int and not RESERVED & values.keys()

    def _append(self, step: int, values: dict[str, Any], logged_s: float) -> None:
        self.writer.log(step, values, logged_s)

    def _lose(self, lines: int) -> None:
        self.writer.lost += lines

    def settle(self) -> None:
        """Returns when what was on its way from a GPU is written."""
        if self._queued is not None:
            self._queued.settle()

    def close(self) -> None:
        """Writes what still waits, and counts what cannot be written."""
        self.settle()
        self.writer.close()

    def _writer(self, goes_on: bool) -> MetricsWriter:
        path = self._begun or self._run.metrics
        if goes_on:
            self._before = sum(line is not None for line in metrics.records(path))
        return MetricsWriter(path)

    def lend(self) -> None:
        """Leaves the metrics to another process."""
        self.close()
        self._counts = self.counts

    def take_back(self) -> None:
        """Goes on with what the other process has left."""
        if self._begun is not None and not self._begun.exists():
            self._begun = None
        self.writer = self._writer(goes_on=True)

    def add(self, counts: dict[str, int]) -> None:
        """Counts what another process has written, refused and lost."""
        self._counts = {name: count + counts.get(name, 0) for name, count in self._counts.items()}

    @property
    def lines(self) -> int:
        """Lines that the run's metrics have, or will have when the disk takes them."""
        return self._before + self.writer.written + self.writer.waiting

    @property
    def bytes(self) -> int | None:
        """The size of the run's metrics; None while lines wait for the disk."""
        try:
            return None if self.writer.waiting else (self._begun or self._run.metrics).stat().st_size
        except OSError:
            return None

    @property
    def counts(self) -> dict[str, int]:
        """What this process has written, refused and lost."""
        return {name: count + getattr(self.writer, name) for name, count in self._counts.items()}

    def go_on(self, restored: Restored, foreign: Saved | None) -> None:
        """Lets the metrics be those of what was restored; what this attempt has logged so far stands there already.

        Raises:
            OSError: The disk refuses; the metrics are as they were.
        """
        if self._begun is None and foreign is None:
            return
        self.close()
        self._counts = self.counts
        source = self._run.metrics if foreign is None else RunDir(foreign.path.parent.parent).metrics
        kept, rest = metrics.split(source, restored.lines, restored.bytes)
        if restored.state is not None:
            self._counts["lost"] += max(0, restored.lines - kept.count(b"{"))
        if self._begun is not None:
            write_atomic(self._run.earlier() / "metrics.jsonl", rest)
            if restored.state is None:  # the training begins anew
                kept = self._begun.read_bytes()
        write_atomic(self._run.metrics, kept)
        if self._begun is not None:
            self._begun.unlink(missing_ok=True)
            self._begun = None
        self.writer = MetricsWriter(self._run.metrics)
        self._before = kept.count(b"\n")
