"""Shapes stated in words, and verified while the notebook runs."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from labkit.errors import RunProblem

if TYPE_CHECKING:
    import pandas as pd

Axes = Sequence[int | str]  # a size for each axis; a word stands for any size, the same wherever it is repeated


def check_shape(tensor: Tensor, expected: Axes, name: str = "tensor", sizes: dict[str, int] | None = None) -> Tensor:
    """Returns `tensor` when it has the expected shape.

    >>> check_shape(inputs, ("batch", 1, 8, 8), "inputs")

    Args:
        tensor: Any tensor.
        expected: A size for each axis; a word stands for any size, the same wherever the word is repeated.
        name: How the message calls the tensor.
        sizes: What words stand for already; those met for the first time are added, so that several tensors can be
            held to the same words.

    Raises:
        RunProblem: The shape is another one; the message names the axis.
    """
    sizes = {} if sizes is None else sizes
    if isinstance(expected, str) or not isinstance(tensor, Tensor):
        raise RunProblem(f"{name}: a shape is checked of a tensor, against axes such as ('batch', 3, 32, 32)")
    shapes = f"shape {tuple(tensor.shape)}, expected {axes_text(expected)}"
    if tensor.ndim != len(expected):
        raise RunProblem(f"{name} has {tensor.ndim} axes, not {len(expected)}: {shapes}")
    for number, (size, axis) in enumerate(zip(tensor.shape, expected, strict=True)):
        wanted = sizes.setdefault(axis, size) if isinstance(axis, str) else axis
        if size != wanted:
            word = f" ({axis})" if isinstance(axis, str) else ""
            raise RunProblem(f"{name}: axis {number}{word} has the size {size}, not {wanted}: {shapes}")
    return tensor


def axes_text(axes: Axes) -> str:
    """Returns axes as a reader sees them: `(batch, 3, 32, 32)`."""
    return "(" + ", ".join(map(str, axes)) + ("," if len(axes) == 1 else "") + ")"


def check_shapes(loader_or_batch: Any, inputs: Axes | None = None, targets: Axes | None = None) -> pd.DataFrame:
    """Verifies the shapes of inputs and targets, and returns a table of what they are.

    >>> labkit.check_shapes(train_batches, inputs=("batch", 3, 32, 32), targets=("batch",))

    Of a loader the first batch is looked at, in this process; its epochs, its workers and all random generators are
    then as they were. A word holds for inputs and targets together.

    Args:
        loader_or_batch: A DataLoader, `labkit.batches`, another collection of batches, or one batch: a pair of tensors.
        inputs: Axes of a batch's first tensor; None leaves it unchecked.
        targets: Axes of its second.

    Returns:
        Columns `tensor`, `shape`, `expected`, `type`, `least`, `greatest`.

    Raises:
        RunProblem: A shape is another one, a batch is no pair of tensors, or there is no batch.
    """
    import pandas as pd

    batch = loader_or_batch if _is_batch(loader_or_batch) else _first_batch(loader_or_batch)
    wanted = {"inputs": inputs, "targets": targets}
    if not _is_batch(batch) or len(batch) < 2:
        raise RunProblem(f"shapes are checked of a batch (inputs, targets), not of {_described(batch)}")
    sizes: dict[str, int] = {}
    rows = []
    for (name, axes), tensor in zip(wanted.items(), batch, strict=False):
        if axes is not None:
            check_shape(tensor, axes, name, sizes)
        rows.append((name, str(tuple(tensor.shape)), axes_text(axes) if axes is not None else "", *_values(tensor)))
    return pd.DataFrame(rows, columns=["tensor", "shape", "expected", "type", "least", "greatest"])


def _is_batch(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, Tensor) for item in value)


def _described(batch: Any) -> str:
    if isinstance(batch, list | tuple):
        return f"{len(batch)} of them: " + ", ".join(type(item).__name__ for item in batch[:4])
    return type(batch).__name__


def _values(tensor: Tensor) -> tuple[str, str, str]:
    """Returns a tensor's type, its least and its greatest value."""
    name = str(tensor.dtype).removeprefix("torch.")
    if not tensor.numel() or tensor.is_complex():
        return name, "", ""
    least, greatest = (f"{end.item():.4g}" if tensor.is_floating_point() else f"{end}" for end in tensor.aminmax())
    return name, least, greatest


def _first_batch(loader: Any) -> Any:
    """Returns the first batch of a loader without beginning one of its epochs."""
    if not hasattr(loader, "__iter__"):
        raise RunProblem(f"{type(loader).__name__} is neither a loader nor a batch (inputs, targets)")
    if hasattr(loader, "__next__"):
        raise RunProblem("an iterator would lose its first batch: check the loader that it was made from")
    with _as_it_was(loader):
        batch = next(iter(_twin(loader) if isinstance(loader, DataLoader) else loader), None)
    if batch is None:
        raise RunProblem("no shapes to check: the loader gave no batch")
    return batch


def _twin(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Returns a loader of the same batches that uses neither the workers nor the generator of the other."""
    shared: dict[str, Any] = {"collate_fn": loader.collate_fn, "generator": torch.Generator()}
    if isinstance(loader.dataset, IterableDataset):
        return DataLoader(loader.dataset, batch_size=loader.batch_size, drop_last=loader.drop_last, **shared)
    if loader.batch_sampler is None:
        return DataLoader(loader.dataset, batch_size=None, sampler=loader.sampler, **shared)
    return DataLoader(loader.dataset, batch_sampler=loader.batch_sampler, **shared)


@contextlib.contextmanager
def _as_it_was(loader: Any) -> Iterator[None]:
    """Leaves a loader's epoch and all random generators as they were, its own ones too."""
    python, numpy = random.getstate(), np.random.get_state()
    counting = [(owner, owner.epoch) for owner in _parts(loader) if hasattr(owner, "epoch")]
    position = copy.copy(getattr(loader, "position", None))
    own = [
        owner.generator for owner in _parts(loader) if isinstance(getattr(owner, "generator", None), torch.Generator)
    ]
    states = [(generator, generator.get_state()) for generator in own]
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for owner, epoch in counting:
            owner.epoch = epoch
        if position is not None:
            loader.position = position
        for generator, state in states:
            generator.set_state(state)


def _parts(loader: Any) -> list[Any]:
    return [loader, *(getattr(loader, name, None) for name in ("sampler", "batch_sampler"))]
