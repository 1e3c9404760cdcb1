"""The order of an epoch, and where a walk through it stands, so that a resumed run goes on with the next batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, TypeVar

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


class Position:
    """Where the newest walk through an epoch stands: how many of its batches have been given out."""

    def __init__(self) -> None:
        self._epoch: int | None = None  # of the walk under way
        self._batches = 0
        self._skip = 0  # batches that the next walk leaves out: an earlier process has used them

    def begin(self, epoch: int) -> int:
        """Begins a walk; returns the number of its first batch."""
        first, self._skip = self._skip, 0
        self._epoch, self._batches = epoch, first
        return first

    def counted(self, walk: Iterator[T], epoch: int, first: int) -> Iterator[T]:
        """Yields the batches of a walk, each counted before it is used; a walk that is left is over."""
        try:
            for number, batch in enumerate(walk, first + 1):
                if self._epoch == epoch:
                    self._batches = number
                yield batch
        finally:
            if self._epoch == epoch:
                self._epoch = None

    def facts(self, next_epoch: int) -> dict[str, Any]:
        """Returns the epoch under way and how many of its batches are done, else the next one and what it skips."""
        if self._epoch is None:
            return {"epoch": next_epoch, "batch": self._skip}
        return {"epoch": self._epoch, "batch": self._batches}

    def load(self, facts: dict[str, Any]) -> int:
        """Sets where the next walk begins; returns the number of its epoch."""
        self._epoch, self._skip = None, int(facts["batch"])
        return int(facts["epoch"])


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Returns which facts about the data and their order are not what they were."""
    return [f"{name} was {then.get(name)!r}, is {value!r}" for name, value in now.items() if then.get(name) != value]


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
