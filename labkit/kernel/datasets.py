"""Data sets of labelled images: scikit-learn's digits, CIFAR-10, and a generated stand-in for it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from labkit.errors import RunProblem
from labkit.kernel.archive import Archive, load
from labkit.kernel.position import order
from labkit.record import lab

SPLIT_SEED = 0
DIGITS_TEST, DIGITS_VALIDATION = 360, 180  # samples, of 1,797

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_RECORD = 1 + 3 * 32 * 32  # bytes: the class, then the red, the green and the blue plane, row by row
CIFAR10_VALIDATION = 500  # images of each class, of 5,000
CIFAR10_TRAIN_FILES = tuple(f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6))
CIFAR10_TEST_FILE = "cifar-10-batches-bin/test_batch.bin"
CIFAR10 = Archive(
    title="CIFAR-10",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    size_bytes=170_052_171,
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    members=dict.fromkeys((*CIFAR10_TRAIN_FILES, CIFAR10_TEST_FILE), 10_000 * CIFAR10_RECORD),
)


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images in three fixed parts.

    Each part is a pair: images (samples, channels, height, width) float32 from 0 to 1, and labels (samples,) int64
    from 0 up.
    """

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    classes: tuple[str, ...]

    def __repr__(self) -> str:
        parts = (("train", self.train), ("validation", self.validation), ("test", self.test))
        return "\n".join(f"{name:<11}{tuple(x.shape)!s:<20} labels {tuple(y.shape)}" for name, (x, y) in parts)


def digits(split_seed: int = SPLIT_SEED) -> Images:
    """Returns the 1,797 handwritten digits that come with scikit-learn, in three parts of 1,257, 180 and 360.

    Images are (samples, 1, 8, 8). The parts hold each digit in the same share, and are the same on every machine. The
    split has its own seed, so that runs that differ in theirs are measured on the same samples.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, https://doi.org/10.24432/C50P49.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).to(torch.float32).div_(16).unsqueeze(1)  # (1797, 1, 8, 8)
    labels = torch.from_numpy(bunch.target).to(torch.int64)  # (1797,)

    def split(indices: Any, size: int) -> Any:
        return train_test_split(indices, test_size=size, random_state=split_seed, stratify=bunch.target[indices])

    rest, test = split(torch.arange(len(labels)).numpy(), DIGITS_TEST)
    train, validation = split(rest, DIGITS_VALIDATION)
    parts = [(images[indices], labels[indices]) for indices in (train, validation, test)]
    return Images(parts[0], parts[1], parts[2], tuple("0123456789"))


def cifar10(folder: str | Path = "data", download: bool = True, split_seed: int = SPLIT_SEED) -> Images:
    """Returns CIFAR-10, in three parts of 45,000, 5,000 and 10,000 colour images, (samples, 3, 32, 32).

    They come from `cifar-10-binary.tar.gz`, which is held to its checksum at every call and stays packed: loading takes
    seconds and 1 GB of memory. Validation images are 500 of each class of the training images, the same on every
    machine.

    Source: A. Krizhevsky, Learning multiple layers of features from tiny images, 2009,
    https://www.cs.toronto.edu/~kriz/cifar.html.

    Args:
        folder: Where the archive lies, or is put; relative to the lab.
        download: Fetch the archive (170 MB) when it is not there.
        split_seed: Of the split into training and validation images.

    Raises:
        RunProblem: The archive is missing and cannot be fetched, or is not the published one; the message says what to
            put where.
    """
    found = load(CIFAR10, lab.root(Path.cwd()) / folder, download=download, watch=_watched)
    return cifar10_parts([found[name] for name in CIFAR10_TRAIN_FILES], found[CIFAR10_TEST_FILE], split_seed)


def cifar10_parts(
    train_files: list[bytes], test_file: bytes, split_seed: int = SPLIT_SEED, each: int = CIFAR10_VALIDATION
) -> Images:
    """Returns the three parts that files in CIFAR-10's binary format hold, with `each` validation images of a class.

    Raises:
        RunProblem: A file does not consist of whole records, or has a class beyond the tenth.
    """
    images, labels = _records(bytearray().join(train_files))
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for number in range(len(CIFAR10_CLASSES)):
        of_class = (labels == number).nonzero().squeeze(1)  # (samples of the class,)
        chosen[of_class[order(len(of_class), split_seed, number)[:each]]] = True
    train, validation = ((_scaled(images[part]), labels[part]) for part in (~chosen, chosen))
    test_images, test_labels = _records(bytearray(test_file))
    return Images(train, validation, (_scaled(test_images), test_labels), CIFAR10_CLASSES)


def cifar10_stand_in(seed: int = 0, train: int = 512, validation: int = 128, test: int = 256) -> Images:
    """Returns generated images in CIFAR-10's shapes and classes: to see that a notebook runs, not what it finds.

    Each class has stripes of its own direction and tint, at a random place and under noise. The run of this process,
    where there is one, is labelled `stand-in`: its figures say so, and its expectations stay undecided.

    Args:
        seed: Of all that is random.
        train: Training images.
        validation: Validation images.
        test: Test images.
    """
    from labkit.kernel import run

    current = run.current()
    if current is not None:
        with suppress(RunProblem):  # closed: nothing of these images gets into it
            current.label("stand-in")
    generator = torch.Generator().manual_seed(seed)
    parts = [_striped(samples, generator) for samples in (train, validation, test)]
    return Images(parts[0], parts[1], parts[2], CIFAR10_CLASSES)


def _striped(samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Returns images (samples, 3, 32, 32) float32 from 0 to 1 and their labels (samples,) int64."""
    labels = torch.randperm(samples, generator=generator) % len(CIFAR10_CLASSES)
    angle = labels * (math.pi / len(CIFAR10_CLASSES))  # (samples,)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")  # (32, 32)
    along = x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None]  # (samples, 32, 32)
    phase = torch.rand(samples, 1, 1, generator=generator) * math.tau
    stripes = torch.sin(along * (math.tau / 8) + phase).unsqueeze(1)  # (samples, 1, 32, 32)
    hue = (2 * angle)[:, None] + torch.arange(3) * (math.tau / 3)  # (samples, 3)
    tint = hue.cos()[:, :, None, None]
    noise = torch.randn(samples, 3, 32, 32, generator=generator)
    return (0.5 + 0.15 * stripes + 0.12 * tint + 0.1 * noise).clamp(0, 1), labels


def _records(data: bytearray) -> tuple[Tensor, Tensor]:
    """Returns images (records, 3, 32, 32) uint8 and labels (records,) int64."""
    if not data or len(data) % CIFAR10_RECORD:
        raise RunProblem(f"{len(data):,} bytes are no whole records of {CIFAR10_RECORD:,} bytes")
    table = torch.frombuffer(data, dtype=torch.uint8).view(-1, CIFAR10_RECORD)
    labels = table[:, 0].to(torch.int64)
    if labels.max() >= len(CIFAR10_CLASSES):
        raise RunProblem(f"a record is of class {labels.max()}; there are {len(CIFAR10_CLASSES)}, from 0")
    return table[:, 1:].view(-1, 3, 32, 32), labels


def _scaled(images: Tensor) -> Tensor:
    return images.to(torch.float32).div_(255)


def _watched(chunks: Iterable[bytes], count: int) -> Iterable[bytes]:
    """Shows a progress bar where there is a run."""
    from labkit.kernel import run

    current = run.current()
    return chunks if current is None else current.progress(chunks, "download, MiB", total=count)
