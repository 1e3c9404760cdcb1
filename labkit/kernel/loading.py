"""A DataLoader that is seeded, agrees with itself for any number of workers, and goes on inside an epoch."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from labkit.errors import RunProblem
from labkit.kernel import prints, ranks
from labkit.kernel.determinism import seed_generators, seed_worker
from labkit.kernel.known import known_by
from labkit.kernel.position import Position, check_batch_size, differences, length, order, sample_seed


def loader(
    dataset: Dataset[Any],
    batch_size: int,
    *,
    shuffle: bool,
    seed: int,
    workers: int = 0,
    drop_last: bool | None = None,
    collate: Callable[[list[Any]], Any] | None = None,
    augment: Callable[[Any, torch.Generator], Any] | None = None,
    reseed: bool = False,
    **settings: Any,
) -> Loader:
    """Returns a DataLoader with its own generator, seeded workers, and pinned memory where there is CUDA.

    Samples that are changed at random by `augment` or under `reseed` are the same with any number of workers, and
    in an epoch that is resumed in the middle. Under torchrun the processes share the samples as in `labkit.batches`.

    Args:
        dataset: Offers `len()` and an item for each index.
        batch_size: Samples in a batch of one process.
        shuffle: Walk through each epoch in another order, which depends on `seed` and the epoch's number
            alone.
        seed: Of the orders, of `augment`, and of the workers' generators.
        workers: Processes that load; they live as long as the loader. 0 loads in this process, which is
            fastest for small samples. Where a data set itself draws at random, without `reseed`, the number is part
            of the experiment.
        drop_last: Leave the last batch out when it is smaller. By default only where it matters: a shuffled
            epoch whose last batch would be a single sample, which batch normalisation cannot take.
        collate: Makes a batch of a list of samples; by default each field is stacked.
        augment: Changes a sample at random, by a generator that is seeded from `seed`, epoch and index; about a
            microsecond a sample.
        reseed: For data sets that draw from the global generators themselves: seed those for each sample, and put
            them back in the main process; up to 0.1 ms a sample.
        **settings: Any other argument of DataLoader, such as `prefetch_factor`.

    Raises:
        RunProblem: The data set has no length or is empty, or a size is below its least value.
    """
    check_batch_size(batch_size)
    samples = length(dataset)
    if samples == 0:
        raise RunProblem("no batch: the data set is empty")
    shard = ranks.shard(samples, is_even=shuffle)
    if drop_last is None:
        own = samples if shard is None else len(range(samples)[shard])
        drop_last = shuffle and own > batch_size > 1 and own % batch_size == 1
    is_changed = augment is not None or reseed
    return Loader(
        Changed(dataset, seed, augment, reseed) if is_changed else dataset,
        seed,
        batch_size=batch_size,
        sampler=EpochOrder(samples, seed, shuffle, with_epoch=is_changed, shard=shard),
        num_workers=workers,
        drop_last=drop_last,
        collate_fn=collate,
        generator=torch.Generator().manual_seed(seed),
        worker_init_fn=settings.pop("worker_init_fn", begin_worker),
        pin_memory=settings.pop("pin_memory", torch.cuda.is_available()),
        persistent_workers=settings.pop("persistent_workers", workers > 0),
        **settings,
    )


def begin_worker(worker: int) -> None:
    """Seeds a worker; under torchrun, which sends a stop to whole groups, it leaves that of the training."""
    seed_worker(worker)
    if ranks.world_size() > 1:
        os.setpgid(0, 0)


class Loader(DataLoader[Any]):
    """A DataLoader that knows where it stands inside an epoch, and goes on from there.

    Attributes:
        epoch: The number of the next walk, from 0; it grows when a walk begins, and may be set to repeat one.
    """

    def __init__(self, dataset: Dataset[Any], seed: int, **settings: Any) -> None:
        self.seed, self.epoch, self.position = seed, 0, Position()
        self.shard = settings["sampler"].shard
        self._is_noted = False
        super().__init__(dataset, **settings)

    @property
    def source(self) -> Dataset[Any]:
        """The data set as it was given."""
        return self.dataset.dataset if isinstance(self.dataset, Changed) else self.dataset

    def __iter__(self) -> Any:
        """Begins an epoch."""
        if not self._is_noted:
            self._is_noted = True
            prints.noted(**{f"{type(self.source).__name__}, batches of {self.batch_size}": self})
        walk, self.epoch = self.position.begin(self.epoch)
        order = self.sampler
        assert isinstance(order, EpochOrder) and isinstance(self.generator, torch.Generator)
        order.epoch, order.first = walk.epoch, walk.batch * (self.batch_size or 1)
        self.generator.manual_seed(sample_seed(self.seed, walk.epoch, -1))  # the workers' seeds are drawn from it
        return walk.over(super().__iter__())

    def state_dict(self) -> dict[str, Any]:
        """Returns the position inside the epoch, and what the order depends on."""
        return self.position.facts(self.epoch) | self._identity()

    def _identity(self) -> dict[str, Any]:
        order = self.sampler
        assert isinstance(order, EpochOrder)
        return {
            "samples": order.samples,
            "batch_size": self.batch_size,
            "shuffle": order.shuffle,
            "seed": self.seed,
            "drop_last": self.drop_last,
            "data": self.fingerprint,
        }

    @cached_property
    def fingerprint(self) -> str:
        """What the data set is known by (`labkit.kernel.known.known_by`); empty where nothing is known of it."""
        return known_by(self.source)

    def differences(self, state: dict[str, Any]) -> list[str]:
        """Returns in what the data and their order differ from those that a position belongs to."""
        return differences(state, self._identity())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a position: the next walk begins there."""
        self.epoch = self.position.load(state)


class EpochOrder(Sampler[Any]):
    """A DataLoader's sampler whose order depends on the seed and the epoch's number alone.

    Attributes:
        epoch: The number of the next walk, from 0; it grows when a walk begins.
        first: The place in the order, as far as it is this process's, at which the next walk begins.
        shard: Which places in the order are this process's; None for all.
    """

    def __init__(
        self, samples: int, seed: int, shuffle: bool = True, with_epoch: bool = False, shard: slice | None = None
    ) -> None:
        self.shard = shard
        self.samples, self.seed, self.shuffle, self.with_epoch = samples, seed, shuffle, with_epoch
        self.epoch = self.first = 0

    def __len__(self) -> int:
        return self.samples if self.shard is None else len(range(self.samples)[self.shard])

    def __iter__(self) -> Iterator[Any]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        first, self.first = self.first, 0
        indices = order(self.samples, self.seed, epoch).tolist() if self.shuffle else range(self.samples)
        if self.shard is not None:
            indices = indices[self.shard]
        return ((epoch, index) for index in indices[first:]) if self.with_epoch else iter(indices[first:])


class Changed(Dataset[Any]):
    """A data set whose samples are changed at random, by draws that depend on seed, epoch and index alone.

    So they are the same whichever process loads a sample, and in an epoch that is resumed in the middle.
    """

    def __init__(
        self, dataset: Dataset[Any], seed: int, augment: Callable[[Any, torch.Generator], Any] | None, reseed: bool
    ) -> None:
        self.dataset, self.seed, self.augment, self.reseed = dataset, seed, augment, reseed
        self._generator: torch.Generator | None = None  # made where it is used: none can be sent to a worker

    def __len__(self) -> int:
        return length(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        epoch, index = key
        drawn = sample_seed(self.seed, epoch, index)
        with _reseeded(drawn) if self.reseed else nullcontext():
            sample = self.dataset[index]
        if self.augment is None:
            return sample
        if self._generator is None:
            self._generator = torch.Generator()
        return self.augment(sample, self._generator.manual_seed(drawn))

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_generator": None}


@contextmanager
def _reseeded(seed: int) -> Iterator[None]:
    """Seeds the global generators; a worker has no other use for them, and the main process gets its own back."""
    if get_worker_info() is not None:
        seed_generators(seed)
        yield
        return
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            seed_generators(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
