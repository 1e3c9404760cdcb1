"""Shapes stated in words, and verified on tensors, batches and loaders."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from labkit.errors import RunProblem
from labkit.kernel.data import batches
from labkit.kernel.loading import loader
from labkit.kernel.shapes import check_shape, check_shapes

IMAGES, LABELS = torch.zeros(10, 3, 32, 32), torch.arange(10)
WANTED = {"inputs": ("batch", 3, 32, 32), "targets": ("batch",)}


def test_a_shape_is_verified_with_words_for_free_axes():
    x = torch.zeros(5, 1, 8, 8)
    assert check_shape(x, ("batch", 1, "side", "side")) is x
    with pytest.raises(
        RunProblem, match=r"images: axis 1 has the size 1, not 3: shape \(5, 1, 8, 8\), expected \(batch"
    ):
        check_shape(x, ("batch", 3, 8, 8), "images")
    with pytest.raises(RunProblem, match=r"axis 1 \(a\) has the size 1, not 5"):
        check_shape(x, ("a", "a", 8, 8))
    with pytest.raises(RunProblem, match="has 4 axes, not 3"):
        check_shape(x, (5, 1, 8))
    with pytest.raises(RunProblem, match="against axes such as"):
        check_shape(x, "batch")


def test_a_batch_is_described_and_a_word_holds_for_inputs_and_targets():
    table = check_shapes((IMAGES, LABELS), **WANTED)
    assert table.to_numpy().tolist() == [
        ["inputs", "(10, 3, 32, 32)", "(batch, 3, 32, 32)", "float32", "0", "0"],
        ["targets", "(10,)", "(batch,)", "int64", "0", "9"],
    ]
    with pytest.raises(RunProblem, match=r"targets: axis 0 \(batch\) has the size 9, not 10"):
        check_shapes((IMAGES, LABELS[1:]), **WANTED)
    assert check_shapes((IMAGES, LABELS))["expected"].tolist() == ["", ""]


class Drawn(Dataset):
    """Samples that draw from every generator, and count."""

    def __init__(self):
        self.asked = 0

    def __len__(self):
        return 10

    def __getitem__(self, index):
        self.asked += 1
        return torch.rand(3) + random.random() + np.random.random(), index


def epoch(walk):
    return torch.cat([inputs for inputs, _ in walk])


LOADERS = [
    lambda: batches(torch.rand(10, 3), LABELS, batch_size=4, shuffle=True, seed=1),
    lambda: loader(TensorDataset(torch.arange(30.0).view(10, 3), LABELS), 4, shuffle=True, seed=1),
    lambda: loader(Drawn(), 4, shuffle=True, seed=1),
    lambda: DataLoader(Drawn(), batch_size=4, shuffle=True),
    lambda: DataLoader(Drawn(), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(3)),
    lambda: DataLoader(TensorDataset(torch.rand(10, 4, 3), LABELS.expand(4, 10).T), batch_size=None),
    lambda: [(torch.ones(4, 3), torch.ones(4))],
]


@pytest.mark.parametrize("make", LOADERS)
def test_a_loader_is_looked_at_without_a_trace(make):
    epochs = []
    for look in (False, True):
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        made = make()
        seen = [epoch(made)]
        if look:
            assert check_shapes(made, inputs=("batch", 3), targets=("batch",))["shape"][0] == "(4, 3)"
        seen.append(epoch(made))
        epochs.append(seen)
    assert all(torch.equal(a, b) for a, b in zip(*epochs, strict=True))


def test_only_the_first_batch_is_loaded():
    data = Drawn()
    check_shapes(loader(data, 4, shuffle=False, seed=0), inputs=("batch", 3))
    assert data.asked == 4


def test_a_stream_is_looked_at_from_its_beginning():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([(torch.zeros(3), 1)] * 5)

    assert check_shapes(DataLoader(Stream(), batch_size=2))["shape"].tolist() == ["(2, 3)", "(2,)"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (5, "int is neither a loader nor a batch"),
        (iter([(IMAGES, LABELS)]), "an iterator would lose its first batch"),
        ([], "gave no batch"),
        ([(IMAGES, "labels")], "not of 2 of them: Tensor, str"),
        ([{"x": IMAGES}], "not of dict"),
        ((IMAGES,), "not of 1 of them: Tensor"),
        (IMAGES, "not of Tensor"),
    ],
)
def test_what_holds_no_batches_of_inputs_and_targets_is_refused(given, said):
    with pytest.raises(RunProblem, match=said):
        check_shapes(given, **WANTED)
