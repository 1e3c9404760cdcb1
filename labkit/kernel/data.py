"""Batches of data that is in memory; debug subsets; collation of sequences."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, overload

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, Subset

from labkit.errors import RunProblem
from labkit.kernel import prints, ranks
from labkit.kernel.determinism import fingerprint
from labkit.kernel.position import Position, check_batch_size, differences, length, order


def batches(
    *tensors: Tensor,
    batch_size: int,
    shuffle: bool = False,
    seed: int = 0,
    drop_last: bool = False,
    device: torch.device | str | None = None,
) -> Batches:
    """Returns batches of data that is in memory, several times as fast as a DataLoader does.

    >>> for inputs, targets in batches(images, labels, batch_size=64, shuffle=True, seed=1): ...

    Under torchrun each of N processes gets every N-th sample of the epoch's order, so that together they have the
    batches of one process with N times the batch size. A shuffled epoch leaves out the last few samples where N does
    not divide their number, others in each epoch: none counts twice, and all processes have as many. Without shuffling
    none is left out.

    Args:
        *tensors: Each (samples, ...), all with the same number of samples.
        batch_size: Samples in a batch of one process; the last one is smaller unless they divide evenly.
        shuffle: Walk through each epoch in another order, which depends on `seed` and the epoch's number
            alone.
        seed: Of the orders.
        drop_last: Leave the last batch out when it is smaller.
        device: Move all the data there once, at the start; by default it stays where it is.

    Raises:
        RunProblem: The tensors have different lengths, or there is nothing to batch, in a process of several.
    """
    return Batches(tensors, batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last, device=device)


class Batches:
    """Batches of tensors in memory; a batch is a copy, so it may be changed in place.

    Attributes:
        samples: In an epoch, of all processes.
        shard: Which of them, in the order of the epoch, are those of this process; None where there is only one.
        epoch: The number of the next walk, from 0; it grows when a walk begins, and may be set to repeat one.
    """

    def __init__(
        self,
        tensors: Sequence[Tensor],
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
        drop_last: bool,
        device: torch.device | str | None,
    ) -> None:
        self.samples = _common_length(tensors)
        check_batch_size(batch_size)
        self.tensors = tuple(tensor if device is None else tensor.to(device) for tensor in tensors)
        self.batch_size, self.shuffle, self.seed, self.drop_last = batch_size, shuffle, seed, drop_last
        self.shard = ranks.shard(self.samples, is_even=shuffle)
        self.epoch = 0
        self._is_noted = False
        self.position = Position()
        if len(self) == 0:
            raise RunProblem(f"no batch: {self.samples} samples, batches of {batch_size}, drop_last={drop_last}")

    def __len__(self) -> int:
        """Returns the number of batches in an epoch."""
        samples = self.samples if self.shard is None else len(range(self.samples)[self.shard])
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """Begins an epoch; each item holds one (batch, ...) tensor for each of the tensors given."""
        if not self._is_noted:
            self._is_noted = True
            prints.noted(**{repr(self): self})
        walk, self.epoch = self.position.begin(self.epoch)  # iter() begins the epoch, not the first batch
        return walk.over(self._walk(walk.epoch, walk.batch))

    def _walk(self, epoch: int, first: int) -> Iterator[tuple[Tensor, ...]]:
        size, tensors = self.batch_size, self.tensors
        stop = len(self) * size
        if not self.shuffle:
            if self.shard is not None:
                tensors = tuple(tensor[self.shard] for tensor in tensors)
            for start in range(first * size, stop, size):
                yield tuple(tensor[start : start + size].clone() for tensor in tensors)
            return
        indices = order(self.samples, self.seed, epoch)
        if self.shard is not None:
            indices = indices[self.shard]
        indices = indices[first * size : stop].to(tensors[0].device)
        for index in indices.split(size) if len(indices) else ():
            yield tuple(tensor.index_select(0, index) for tensor in tensors)

    @cached_property
    def fingerprint(self) -> str:
        """What the data is, bit for bit."""
        return fingerprint(self.tensors)

    def state_dict(self) -> dict[str, Any]:
        """Returns the position inside the epoch, and what the order depends on."""
        return self.position.facts(self.epoch) | self._identity()

    def _identity(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "drop_last": self.drop_last,
            "data": self.fingerprint,
        }

    def differences(self, state: dict[str, Any]) -> list[str]:
        """Returns in what the data and their order differ from those that a position belongs to."""
        return differences(state, self._identity())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a position: the next walk begins there."""
        self.epoch = self.position.load(state)

    def __repr__(self) -> str:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in self.tensors)
        return f"{len(self)} batches of {self.batch_size} from {shapes}{', shuffled' if self.shuffle else ''}"


def pad_collate(value: float = 0.0) -> Callable[[list[tuple[Tensor, Any]]], tuple[Tensor, Tensor, Tensor]]:
    """Returns a `collate` for samples (sequence, target) with sequences (length, ...) of different lengths.

    >>> labkit.loader(dataset, 32, shuffle=True, seed=0, collate=labkit.pad_collate())

    A batch is then inputs (batch, longest, ...), padded at the end; targets (batch, ...); lengths (batch,) int64.

    Args:
        value: What fills the end of the shorter sequences.

    Raises:
        RunProblem: By the loader: the sequences differ in more than their lengths, or the targets' shapes differ.
    """
    return functools.partial(_pad, value=value)  # a lambda could not be sent to a worker


@overload
def debug_subset(data: Sequence[Tensor], samples: int, seed: int = 0) -> tuple[Tensor, ...]: ...
@overload
def debug_subset(data: Dataset[Any], samples: int, seed: int = 0) -> Subset[Any]: ...
def debug_subset(data: Any, samples: int, seed: int = 0) -> Any:
    """Returns a small part of the data, the same on every call; all of it when it has fewer samples.

    Args:
        data: Tensors (samples, ...) of the same length, or a data set.
        samples: How many to keep; they stay in their order.
        seed: Picks which.

    Raises:
        RunProblem: The tensors have different lengths.
    """
    tensors = isinstance(data, list | tuple)
    size = _common_length(data) if tensors else length(data)
    kept = order(size, seed, 0)[:samples].sort().values  # (samples,)
    if tensors:
        return tuple(tensor[kept.to(tensor.device)] for tensor in data)
    return Subset(data, kept.tolist())


def _common_length(tensors: Sequence[Tensor]) -> int:
    if not tensors:
        raise RunProblem("no tensors given")
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if any(not shape for shape in shapes):
        raise RunProblem(f"a tensor without samples: its shape is (); shapes given: {_listed(shapes)}")
    if len({shape[0] for shape in shapes}) > 1:
        raise RunProblem(f"the tensors have different numbers of samples: shapes {_listed(shapes)}")
    return shapes[0][0]


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes))


def _pad(samples: list[tuple[Tensor, Any]], value: float) -> tuple[Tensor, Tensor, Tensor]:
    sequences, given = zip(*samples, strict=True)
    targets = [torch.as_tensor(target) for target in given]
    if any(not sequence.ndim for sequence in sequences) or len({sequence.shape[1:] for sequence in sequences}) > 1:
        shapes = _listed([tuple(sequence.shape) for sequence in sequences[:8]])
        raise RunProblem(f"sequences can be padded where they differ in their first axis alone: shapes {shapes}")
    if len({target.shape for target in targets}) > 1:
        shapes = _listed([tuple(target.shape) for target in targets[:8]])
        raise RunProblem(f"the targets of a batch need one shape: shapes {shapes}")
    lengths = torch.tensor([len(sequence) for sequence in sequences])  # (batch,)
    return pad_sequence(list(sequences), batch_first=True, padding_value=value), torch.stack(targets), lengths
