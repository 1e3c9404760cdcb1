"""The order of an epoch, and where a walk through it stands, so that a resumed run goes on with the next batch."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from labkit.errors import RunProblem

T = TypeVar("T")
_64_BITS = 2**64 - 1


def order(samples: int, seed: int, epoch: int) -> Tensor:
    """Returns the order of an epoch, (samples,) int64: a pure function of the three arguments."""
    mixed = hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(mixed, "little"))
    return torch.randperm(samples, generator=generator)


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """Returns a number of 32 bits for one sample of one epoch; the mixing is that of SplitMix64.

    Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014.
    """
    mixed = 0
    for part in (seed, epoch, index):
        mixed = (mixed + part + 0x9E3779B97F4A7C15) & _64_BITS
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & _64_BITS
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & _64_BITS
        mixed ^= mixed >> 31
    return mixed >> 32


class Walk(Generic[T]):
    """One walk through an epoch.

    Attributes:
        epoch: Its number.
        batch: How many of its batches have been given out, by an earlier process too.
    """

    def __init__(self, position: Position, epoch: int, batch: int) -> None:
        self.epoch, self.batch = epoch, batch
        self._position = position
        self._batches: Iterator[T] = iter([])

    def over(self, batches: Iterable[T]) -> Walk[T]:
        """Sets what is left to walk over, and returns the walk."""
        self._batches = iter(batches)
        return self

    def __iter__(self) -> Walk[T]:
        return self

    def __next__(self) -> T:
        try:
            item = next(self._batches)
        except BaseException:
            self._position.leave(self)
            raise
        self.batch += 1
        self._position.enter(self)
        return item


class Position:
    """Where the walk through an epoch stands.

    A walk may have others inside of it, such as a measurement on the training data, and one that was begun to look at a
    batch may be left lying about: the one that counts is that which was used last and is not over.
    """

    def __init__(self) -> None:
        self._walks: list[weakref.ref[Walk[Any]]] = []  # the one that was used last stands last
        self._resumed: tuple[int, int] | None = None  # the next walk: its epoch, and batches that were used before

    @property
    def first(self) -> int:
        """The number of the batch that the next walk begins with."""
        return self._resumed[1] if self._resumed is not None else 0

    def begin(self, epoch: int) -> tuple[Walk[Any], int]:
        """Begins a walk, that of `epoch` unless one goes on; returns it and the number of the epoch after it."""
        if self._resumed is None:
            walk, after = Walk[Any](self, epoch, 0), epoch + 1
        else:
            walk, after = Walk[Any](self, *self._resumed), epoch
            self._resumed = None
        self.enter(walk)
        return walk, after

    def enter(self, walk: Walk[Any]) -> None:
        """Makes a walk the one that counts."""
        if not self._walks or self._walks[-1]() is not walk:
            self.leave(walk)
            self._walks.append(weakref.ref(walk))

    def leave(self, walk: Walk[Any]) -> None:
        """Ends a walk."""
        self._walks[:] = [other for other in self._walks if other() not in (None, walk)]

    def facts(self, next_epoch: int) -> dict[str, Any]:
        """Returns the epoch under way, how many of its batches are done, and the number of the epoch after it."""
        alive = [walk for other in self._walks if (walk := other()) is not None]
        if alive:
            return {"epoch": alive[-1].epoch, "batch": alive[-1].batch, "next": next_epoch}
        if self._resumed is not None:
            return {"epoch": self._resumed[0], "batch": self._resumed[1], "next": next_epoch}
        return {"epoch": next_epoch, "batch": 0, "next": next_epoch + 1}

    def load(self, facts: dict[str, Any]) -> int:
        """Sets where the next walk begins; returns the number of the epoch that a whole one would have."""
        epoch, batch = max(0, int(facts["epoch"])), max(0, int(facts["batch"]))
        self._walks, self._resumed = [], (epoch, batch)
        return max(0, int(facts.get("next", epoch + 1)))


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Returns which facts about the data and their order are not what they were; what was not known then is none."""
    return [
        f"{name} was {then[name]!r}, is {value!r}"
        for name, value in now.items()
        if name in then and then[name] not in ("", value)
    ]


def length(dataset: Any) -> int:
    """Returns the number of samples in a data set."""
    try:
        return len(dataset)
    except TypeError:
        raise RunProblem(f"{type(dataset).__name__} has no length; stream it with a plain DataLoader") from None


def check_batch_size(batch_size: int) -> None:
    """Refuses what is no number of samples."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise RunProblem(f"batch_size {batch_size!r} is not a whole number from 1 up")
