"""Batches of data: from memory by slicing, from a data set by a DataLoader; debug subsets."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from labkit.errors import RunProblem
from labkit.kernel.determinism import seed_worker


def order(samples: int, seed: int, epoch: int) -> Tensor:
    """Returns the order of an epoch, (samples,) int64: a pure function of the three arguments."""
    mixed = hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(mixed, "little"))
    return torch.randperm(samples, generator=generator)


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

    Args:
        *tensors: Each (samples, ...), all with the same number of samples.
        batch_size: Samples in a batch; the last one is smaller unless they divide evenly.
        shuffle: Walk through each epoch in another order, which depends on `seed` and the epoch's number
            alone.
        seed: Of the orders.
        drop_last: Leave the last batch out when it is smaller.
        device: Move all the data there once, at the start; by default it stays where it is.

    Raises:
        RunProblem: The tensors have different lengths, or there is nothing to batch.
    """
    return Batches(tensors, batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last, device=device)


class Batches:
    """Batches of tensors in memory; a batch is a copy, so it may be changed in place.

    Attributes:
        epoch: The number of the next walk, from 0; it grows when a walk begins, and may be set to repeat or
            resume one.
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
        _check_batch_size(batch_size)
        self.tensors = tuple(tensor if device is None else tensor.to(device) for tensor in tensors)
        self.batch_size, self.shuffle, self.seed, self.drop_last = batch_size, shuffle, seed, drop_last
        self.epoch = 0
        if len(self) == 0:
            raise RunProblem(f"no batch: {self.samples} samples, batches of {batch_size}, drop_last={drop_last}")

    def __len__(self) -> int:
        """Returns the number of batches in an epoch."""
        return self.samples // self.batch_size if self.drop_last else -(-self.samples // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """Begins an epoch; each item holds one (batch, ...) tensor for each of the tensors given."""
        epoch, self.epoch = self.epoch, self.epoch + 1  # iter() begins the epoch, not the first batch
        return self._walk(epoch)

    def _walk(self, epoch: int) -> Iterator[tuple[Tensor, ...]]:
        size, tensors = self.batch_size, self.tensors
        stop = len(self) * size
        if not self.shuffle:
            for start in range(0, stop, size):
                yield tuple(tensor[start : start + size].clone() for tensor in tensors)
            return
        indices = order(self.samples, self.seed, epoch).to(tensors[0].device)  # (samples,)
        for index in indices[:stop].split(size):
            yield tuple(tensor.index_select(0, index) for tensor in tensors)

    def __repr__(self) -> str:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in self.tensors)
        return f"{len(self)} batches of {self.batch_size} from {shapes}{', shuffled' if self.shuffle else ''}"


class EpochOrder(Sampler[int]):
    """A DataLoader's sampler whose order depends on the seed and the epoch's number alone.

    Attributes:
        epoch: The number of the next walk, from 0; it grows when a walk begins, and may be set to repeat or
            resume one.
    """

    def __init__(self, samples: int, seed: int) -> None:
        self.samples, self.seed, self.epoch = samples, seed, 0

    def __len__(self) -> int:
        return self.samples

    def __iter__(self) -> Iterator[int]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        return iter(order(self.samples, self.seed, epoch).tolist())


def loader(
    dataset: Dataset[Any],
    batch_size: int,
    *,
    shuffle: bool,
    seed: int,
    workers: int = 0,
    drop_last: bool | None = None,
    collate: Callable[[list[Any]], Any] | None = None,
    **settings: Any,
) -> DataLoader[Any]:
    """Returns a DataLoader with its own generator, seeded workers, and pinned memory where there is CUDA.

    Args:
        dataset: Offers `len()` and an item for each index.
        batch_size: Samples in a batch.
        shuffle: Walk through each epoch in another order, which depends on `seed` and the epoch's number
            alone.
        seed: Of the orders and of the workers' generators.
        workers: Processes that load; they live as long as the loader. 0 loads in this process, which is
            fastest for small samples. The number is part of the experiment where samples are changed at
            random.
        drop_last: Leave the last batch out when it is smaller. By default only where it matters: a shuffled
            epoch whose last batch would be a single sample, which batch normalisation cannot take.
        collate: Makes a batch of a list of samples; by default each field is stacked.
        **settings: Any other argument of DataLoader, such as `prefetch_factor`.

    Raises:
        RunProblem: The data set has no length or is empty, or a size is below its least value.
    """
    _check_batch_size(batch_size)
    samples = _length(dataset)
    if samples == 0:
        raise RunProblem("no batch: the data set is empty")
    if drop_last is None:
        drop_last = shuffle and samples > batch_size > 1 and samples % batch_size == 1
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=EpochOrder(samples, seed) if shuffle else None,
        num_workers=workers,
        drop_last=drop_last,
        collate_fn=collate,
        generator=torch.Generator().manual_seed(seed),
        worker_init_fn=settings.pop("worker_init_fn", seed_worker),
        pin_memory=settings.pop("pin_memory", torch.cuda.is_available()),
        persistent_workers=settings.pop("persistent_workers", workers > 0),
        **settings,
    )


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
    size = _common_length(data) if tensors else _length(data)
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


def _length(dataset: Any) -> int:
    try:
        return len(dataset)
    except TypeError:
        raise RunProblem(f"{type(dataset).__name__} has no length; stream it with a plain DataLoader") from None


def _check_batch_size(batch_size: int) -> None:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise RunProblem(f"batch_size {batch_size!r} is not a whole number from 1 up")


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
