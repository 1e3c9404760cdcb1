"""What a run notes of its training by itself: fingerprints of data and weights, and the machine that it runs on."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from labkit.kernel import ranks
from labkit.record.rundir import RunDir

if TYPE_CHECKING:
    from labkit.kernel.prints import Prints
    from labkit.kernel.resume import Restored


class Noting:
    """Notes what a run trains, and on what; it loads PyTorch when there is something to note.

    Args:
        run: The run's directory.
        logger: What says that something has no fingerprint.
        lines: Tells how many lines of metrics there are by now.

    Attributes:
        active: The run is open, and its record is this process's to write.
    """

    def __init__(self, run: RunDir, logger: logging.Logger, lines: Callable[[], int]) -> None:
        self._run, self._logger, self._lines = run, logger, lines
        self._prints: Prints | None = None
        self._given: dict[str, Any] = {}
        self.active = ranks.is_main()

    def note(self, parts: Mapping[str, Any], restored: Restored | None = None, *, is_start: bool = True) -> None:
        """Notes the parts of a training.

        Args:
            parts: By name; None is left out.
            restored: What the training goes on from, where it has just been restored.
            is_start: The weights are those that the training begins with.
        """
        if not self.active:
            return
        from labkit.kernel import machine

        if self._prints is None:
            from labkit.kernel.prints import Prints

            self._prints = Prints(self._run, self._logger)
            machine.record(self._run)  # again at the end; but a run that is killed has none
        if restored is not None and int(self._run.attempt.name) > 1:
            is_start = restored.state is None
            self._prints.go_on(-1 if is_start else restored.lines)
        there = {name: part for name, part in parts.items() if part is not None}
        self._prints.begin(there, self._lines(), is_start)

    def note_new(self, parts: Mapping[str, Any]) -> None:
        """Notes what a loop gives to `checkpoint`, at its first step: when it is first saved is a matter of time."""
        new = {name: part for name, part in parts.items() if self._given.get(name) is not part}
        if new:
            self._given |= new
            self.note(new, is_start=False)

    def note_saved(self, name: str, weights: Any, lines: int) -> None:
        """Notes the weights in a checkpoint."""
        if self._prints is not None:
            self._prints.weights(name, weights, "checkpoint", lines)

    def value(self, name: str, value: Any) -> str:
        """Notes anything that has bytes, and returns its fingerprint."""
        self.note({})
        if self._prints is None:  # not the process that has the record
            from labkit.kernel.determinism import fingerprint

            return fingerprint(value)
        return self._prints.value(name, value, self._lines())

    def end(self, *, leaves_nothing: bool = False) -> None:
        """Notes what the weights have become, and the machine as it was in the end."""
        self.active = False
        if self._prints is not None:
            self._prints.end(self._lines())
        if "torch" in sys.modules and not leaves_nothing:
            from labkit.kernel import machine

            machine.record(self._run)
