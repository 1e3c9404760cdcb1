"""What a loop does between `run.checkpoint` and its next batch: a run that goes on from there does not do it again."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable
from typing import Any

LOGS_AFTER = (
    "run.log comes after run.checkpoint in the same step: a run that is resumed from that checkpoint lacks these "
    "values; call run.log first (said once)"
)
LEAVES_AFTER = (
    "the loop left an epoch after run.checkpoint: a run that is resumed from that checkpoint would go on with the "
    "epoch instead of leaving it; leave it before run.checkpoint, which may be called again after the epoch (said once)"
)


class Habits:
    """Notices what equality with a resumed run would break on, and says it once in the log.

    It is said when the loop goes on: what follows the last checkpoint of a training is done again. Not noticed is a
    loop that draws no batches from labkit's.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._said: set[str] = set()
        self._inside: list[weakref.ref[Any]] = []  # walks under way at the checkpoint
        self._is_after = self._has_logged = False

    def saves(self, walks: Iterable[Any]) -> None:
        """Notes a call of `run.checkpoint`, inside of these walks."""
        self._look_whether_left()
        self._inside = [weakref.ref(walk) for walk in walks]
        self._is_after, self._has_logged = True, False

    def logs(self) -> None:
        """Notes a call of `run.log`."""
        self._has_logged = self._is_after

    def begins(self) -> None:
        """Notes that a walk begins."""
        self._look_whether_left()
        self._go_on()

    def goes_on(self) -> None:
        """Notes that the next batch is asked for."""
        if self._is_after:
            self._go_on()

    def _go_on(self) -> None:
        if self._has_logged:
            self._say(LOGS_AFTER)
        self._is_after = self._has_logged = False

    def _look_whether_left(self) -> None:
        if self._is_after and any(walk() is None for walk in self._inside):
            self._say(LEAVES_AFTER)

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._logger.warning(text)
