"""What a data set is known by, so that a training that goes on notices when it is another one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from labkit.errors import RunProblem
from labkit.kernel.determinism import fingerprint
from labkit.kernel.position import length

MOST_LOOKED_AT = 10_000  # files whose size and time count; to ask for a million takes minutes on a network


def known_by(dataset: Dataset[Any], *, with_times: bool = True) -> str:
    """Returns a text that two data sets share when they are the same, as far as that can be told in a second or two.

    - What the data set says itself, by a `fingerprint` that is a text.
    - Of tensors: their bytes.
    - Of a subset, or of several one after the other: that of the inner ones, and which samples.
    - Of files listed in `samples` or `imgs`, as torchvision's ImageFolder has them: their names below their common
      folder, with what stands beside each, its class; sizes and times, to the second, of 10,000 of them, evenly spread.
    - Of anything else: its class and length alone.

    Args:
        dataset: The data set.
        with_times: The times of files count: here they change with the content, but a copy elsewhere has others.
    """
    own = getattr(dataset, "fingerprint", None)
    if isinstance(own, str) and own:
        return own
    if isinstance(dataset, TensorDataset):
        return fingerprint(dataset.tensors)
    if isinstance(dataset, Subset):
        return _digest("subset", known_by(dataset.dataset, with_times=with_times), *map(int, dataset.indices))
    if isinstance(dataset, ConcatDataset):
        return _digest("several", *(known_by(inner, with_times=with_times) for inner in dataset.datasets))
    samples = _listed_files(dataset)
    kind = f"{type(dataset).__module__}.{type(dataset).__qualname__}"
    if samples:
        return _digest(kind, *_about(samples, with_times))
    return f"{kind} of {length(dataset)} samples"


def files_of(dataset: Any) -> list[str]:
    """Returns the files that a data set lists as its samples, those of inner data sets too."""
    if isinstance(dataset, Subset):
        return files_of(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        return [path for inner in dataset.datasets for path in files_of(inner)]
    return [os.fspath(sample[0]) for sample in _listed_files(dataset)]


def _listed_files(dataset: Any) -> Sequence[tuple[Any, ...]]:
    """Returns the samples of a data set that lists its files: each a path and what belongs to it."""
    for name in ("samples", "imgs"):
        found = getattr(dataset, name, None)
        if isinstance(found, list | tuple) and found and all(map(_has_path, found)):
            return found
    return ()


def _has_path(sample: Any) -> bool:
    return isinstance(sample, tuple | list) and bool(sample) and isinstance(sample[0], str | os.PathLike)


def _about(samples: Sequence[tuple[Any, ...]], with_times: bool) -> Iterator[object]:
    """Yields name and class of each file, and of some their size and time."""
    paths = [os.path.abspath(os.fspath(sample[0])) for sample in samples]
    folder, every = os.path.commonpath([os.path.dirname(path) for path in paths]), -(-len(paths) // MOST_LOOKED_AT)
    for number, (path, sample) in enumerate(zip(paths, samples, strict=True)):
        yield os.path.relpath(path, folder)
        yield [item for item in sample[1:] if isinstance(item, str | int | float)]
        if number % every == 0:
            size_and_time = _size_and_time(path)
            yield size_and_time if with_times else size_and_time[0]


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        facts = os.stat(path)
    except OSError as error:
        raise RunProblem(f"{path} is among the samples and cannot be read: {error.strerror or error}") from error
    return facts.st_size, int(facts.st_mtime)


def _digest(*about: object) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for item in about:
        digest.update(repr(item).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
