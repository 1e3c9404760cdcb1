"""The order of an epoch, and where a walk through it stands, so that a resumed run goes on with the next batch."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from labkit.errors import RunProblem
from labkit.kernel.habits import Habits
from labkit.launch import signals

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
        marked: How many that were at the last call of `run.checkpoint`.
    """

    def __init__(self, position: Position, epoch: int, batch: int) -> None:
        self.epoch, self.batch = epoch, batch
        self.marked = batch  # at the last call of `run.checkpoint`
        self._position = position
        self._batches: Iterator[T] = iter([])

    def over(self, batches: Iterable[T]) -> Walk[T]:
        """Sets what is left to walk over, and returns the walk."""
        self._batches = iter(batches)
        return self

    def __iter__(self) -> Walk[T]:
        return self

    def __next__(self) -> T:
        self._position.goes_on()
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

    Attributes:
        habits: Hears of each batch; None before the batches are part of a training.
        trained: Returns a number that grows with each change of the weights; None where that is not known.
    """

    def __init__(self) -> None:
        self._walks: list[weakref.ref[Walk[Any]]] = []  # the one that was used last stands last
        self._resumed: tuple[int, int] | None = None  # the next walk: its epoch, and batches that were used before
        self._first: FirstWalk | None = None  # the one that went on, until it is clear that it was no mere look
        self._moving: set[int] = set()  # walks that gave out batches between the last two calls of `run.checkpoint`
        self.habits: Habits | None = None
        self.trained: Callable[[], int | None] = _unknown

    @property
    def first(self) -> int:
        """The number of the batch that the next walk begins with."""
        return self._resumed[1] if self._resumed is not None else 0

    @property
    def walk(self) -> Walk[Any] | None:
        """The walk that counts; None between two epochs."""
        alive = self._alive()
        return alive[-1] if alive else None

    def _alive(self) -> list[Walk[Any]]:
        return [walk for other in self._walks if (walk := other()) is not None]

    def begin(self, epoch: int) -> tuple[Walk[Any], int]:
        """Begins a walk, that of `epoch` unless one goes on; returns it and the number of the epoch after it."""
        if self.habits is not None:
            self.habits.begins()
        if self._first is not None and self._first.was_a_look(self.trained()):
            self._resumed = self._first.place
        self._first = None
        if self._resumed is None:
            walk, after = Walk[Any](self, epoch, 0), epoch + 1
        else:
            walk, after = Walk[Any](self, *self._resumed), epoch
            self._first = FirstWalk(self._resumed, weakref.ref(walk), self.trained())
            self._resumed = None
        self.enter(walk)
        return walk, after

    def goes_on(self) -> None:
        """Notes that a batch is asked for."""
        if self.habits is not None:
            self.habits.goes_on()

    def mark(self) -> None:
        """Notes a call of `run.checkpoint`.

        Raises:
            RunProblem: Two walks go on side by side, and a position is one place only.
        """
        self._first = None
        alive = self._alive()
        moving = {id(walk) for walk in alive if walk.batch != walk.marked}
        for walk in alive:
            walk.marked = walk.batch
        if len(moving & self._moving) > 1:
            raise RunProblem(
                "the same batches are walked through twice at once, as zip(batches, batches) does, and a checkpoint "
                "keeps one place in them: make a second one with labkit.batches or labkit.loader, give both to "
                "run.restore, and walk through each once"
            )
        self._moving = moving

    def enter(self, walk: Walk[Any]) -> None:
        """Makes a walk the one that counts; one of its batches is out, or is about to be."""
        if self.habits is not None:
            signals.go_on()
        if not self._walks or self._walks[-1]() is not walk:
            self._forget(walk)
            self._walks.append(weakref.ref(walk))

    def leave(self, walk: Walk[Any]) -> None:
        """Ends a walk."""
        if self._first is not None and self._first.walk() is walk:
            self._first = None  # it was no mere look
        self._forget(walk)

    def _forget(self, walk: Walk[Any]) -> None:
        self._walks[:] = [other for other in self._walks if other() not in (None, walk)]

    def facts(self, next_epoch: int) -> dict[str, Any]:
        """Returns the epoch under way, how many of its batches are done, and the number of the epoch after it."""
        walk = self.walk
        if walk is not None:
            return {"epoch": walk.epoch, "batch": walk.batch, "next": next_epoch}
        if self._resumed is not None:
            return {"epoch": self._resumed[0], "batch": self._resumed[1], "next": next_epoch}
        return {"epoch": next_epoch, "batch": 0, "next": next_epoch + 1}

    def load(self, facts: dict[str, Any]) -> int:
        """Sets where the next walk begins; returns the number of the epoch that a whole one would have."""
        epoch, batch = max(0, int(facts["epoch"])), max(0, int(facts["batch"]))
        self._walks, self._resumed, self._first = [], (epoch, batch), None
        return max(0, int(facts.get("next", epoch + 1)))


@dataclass(frozen=True)
class FirstWalk:
    """The first walk of a training that goes on.

    Where it was left before the weights changed, somebody only looked at a batch, and the next walk is to go on.
    """

    place: tuple[int, int]
    walk: weakref.ref[Walk[Any]]
    trained: int | None

    def was_a_look(self, trained: int | None) -> bool:
        """Tells whether it was no more than a look, now that the weights have changed so often."""
        return self.walk() is None and trained is not None and trained == self.trained


def _unknown() -> None:
    return None


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
