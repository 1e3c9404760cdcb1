"""The metrics of a run from inside: its writer, and what was logged before a training was resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.record import metrics
from labkit.record.checkpoints import Saved
from labkit.record.files import write_atomic
from labkit.record.metrics import MetricsWriter
from labkit.record.rundir import RunDir

if TYPE_CHECKING:  # it loads PyTorch, which not every notebook needs
    from labkit.kernel.resume import Restored


class Logged:
    """Writes the metrics of one process of a run.

    Another attempt at a run begins with the cells before the training, which log again what the run's metrics hold
    already. Until it is known what the training goes on from, its lines are kept apart, so that an attempt that ends
    before changes nothing.

    Attributes:
        writer: Appends to the file that is in use.
    """

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._begun = None if run.attempt.name == "1" else run.begun
        self.writer = MetricsWriter(self._begun or run.metrics)
        self._before = 0  # lines in the file that are older than the writer
        self._counts = dict.fromkeys(("written", "refused", "lost"), 0)

    @property
    def lines(self) -> int:
        """Lines that the run's metrics have, or will have when the disk takes them."""
        return self._before + self.writer.written + self.writer.waiting

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
        self.writer.close()
        self._counts = self.counts
        source = self._run.metrics if foreign is None else RunDir(foreign.path.parent.parent).metrics
        kept, rest = metrics.split(source, restored.lines)
        if self._begun is not None:
            earlier = self._run.attempts / str(int(self._run.attempt.name) - 1)
            write_atomic(earlier / "metrics.jsonl", rest)
            if restored.state is None:  # the training begins anew
                kept = self._begun.read_bytes()
        write_atomic(self._run.metrics, kept)
        if self._begun is not None:
            self._begun.unlink(missing_ok=True)
            self._begun = None
        self.writer = MetricsWriter(self._run.metrics)
        self._before = kept.count(b"\n")
