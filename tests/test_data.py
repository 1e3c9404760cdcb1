"""Batches in memory, DataLoaders, padding, subsets."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset, TensorDataset

from labkit.errors import RunProblem
from labkit.kernel.data import batches, debug_subset, pad_collate
from labkit.kernel.loading import loader
from labkit.kernel.position import order


@given(
    samples=st.integers(1, 50),
    batch_size=st.integers(1, 60),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_an_epoch_holds_every_sample_once_in_batches_of_one_size(samples, batch_size, shuffle, drop_last, seed):
    inputs, targets = torch.arange(samples).float().unsqueeze(1), torch.arange(samples)
    if drop_last and batch_size > samples:
        with pytest.raises(RunProblem, match="no batch"):
            batches(inputs, targets, batch_size=batch_size, drop_last=True)
        return
    made = batches(inputs, targets, batch_size=batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last)
    epoch = list(made)
    sizes = [len(y) for _, y in epoch]
    assert len(epoch) == len(made) and set(sizes[:-1]) <= {batch_size}
    assert all(torch.equal(x.squeeze(1).long(), y) for x, y in epoch)
    seen = torch.cat([y for _, y in epoch])
    assert len(seen) == (samples - samples % batch_size if drop_last else samples) == len(seen.unique())
    if not shuffle:
        assert torch.equal(seen, targets[: len(seen)])


def seen(walk):
    return torch.cat([batch[0] for batch in walk]).tolist()


def test_the_order_is_a_function_of_seed_and_epoch_whatever_was_drawn_before():
    made = batches(torch.arange(20), batch_size=6, shuffle=True, seed=3)
    first, second = seen(made), seen(made)
    assert first != second and made.epoch == 2
    torch.rand(100)
    made.epoch = 0
    assert seen(made) == first
    assert seen(batches(torch.arange(20), batch_size=6, shuffle=True, seed=4)) != first


def test_an_epoch_left_early_is_not_repeated():
    made = batches(torch.arange(20), batch_size=6, shuffle=True)
    first = next(iter(made))[0].tolist()
    assert made.epoch == 1 and seen(made)[:6] != first


def test_a_data_loader_and_batches_walk_in_the_same_order():
    tensor = torch.arange(30)
    walk = loader(TensorDataset(tensor), 7, shuffle=True, seed=5)
    made = batches(tensor, batch_size=7, shuffle=True, seed=5)
    assert [seen(walk), seen(walk)] == [seen(made), seen(made)]
    walk.epoch = made.epoch = 0
    assert seen(walk) == seen(made)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_batch_changed_in_place_leaves_the_data_as_they_were(shuffle):
    tensor = torch.ones(4)
    for (batch,) in batches(tensor, batch_size=2, shuffle=shuffle):
        batch.zero_()
    assert tensor.tolist() == [1, 1, 1, 1]


def test_tensors_of_different_lengths_are_refused_with_their_shapes():
    with pytest.raises(RunProblem, match=r"shapes \(3, 2\), \(4,\)"):
        batches(torch.zeros(3, 2), torch.zeros(4), batch_size=2)
    with pytest.raises(RunProblem, match="no tensors"):
        batches(batch_size=2)
    with pytest.raises(RunProblem, match="without samples"):
        batches(torch.tensor(1.0), batch_size=2)
    with pytest.raises(RunProblem, match="no batch: 0 samples"):
        batches(torch.zeros(0, 2), batch_size=2)


@pytest.mark.parametrize("size", [0, -1, 2.0, True])
def test_a_batch_size_that_is_no_count_is_refused(size):
    with pytest.raises(RunProblem, match="batch_size"):
        batches(torch.zeros(3), batch_size=size)
    with pytest.raises(RunProblem, match="batch_size"):
        loader(TensorDataset(torch.zeros(3)), size, shuffle=False, seed=0)


class Draws(Dataset):
    """Each sample is what the three generators draw."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.tensor([random.random(), np.random.random(), torch.rand(()).item()], dtype=torch.float64)


@pytest.mark.slow
def test_workers_live_on_and_draw_other_numbers_in_each_epoch_and_the_same_in_the_next_run():
    made = [loader(Draws(), 2, shuffle=False, seed=1, workers=2) for _ in range(2)]
    (first, second), (again, _) = ([torch.cat(list(walk)) for _ in range(2)] for walk in made)
    assert torch.equal(first, again) and not torch.equal(first, second)
    assert all(len(set(column)) == 8 for column in first.T.tolist())
    assert all(walk._iterator is not None for walk in made)  # the processes wait for the next epoch


def test_a_last_batch_of_one_sample_is_dropped_where_it_matters():
    nine = TensorDataset(torch.arange(9))
    assert len(loader(nine, 4, shuffle=True, seed=0)) == 2
    assert len(loader(nine, 4, shuffle=False, seed=0)) == 3
    assert len(loader(nine, 4, shuffle=True, seed=0, drop_last=False)) == 3
    assert len(loader(nine, 1, shuffle=True, seed=0)) == 9
    assert len(loader(TensorDataset(torch.arange(1)), 4, shuffle=True, seed=0)) == 1


def test_memory_is_pinned_only_where_there_is_cuda_and_workers_persist():
    made = loader(TensorDataset(torch.arange(4)), 2, shuffle=False, seed=0)
    assert made.pin_memory == torch.cuda.is_available() and not made.persistent_workers
    assert loader(TensorDataset(torch.arange(4)), 2, shuffle=False, seed=0, workers=1).persistent_workers


def test_sequences_of_different_lengths_are_padded():
    samples = [(torch.ones(2, 3), 0), (torch.ones(4, 3), 1)]
    walk = loader(samples, 2, shuffle=False, seed=0, collate=pad_collate(-1))
    padded, targets, lengths = next(iter(walk))
    assert padded.shape == (2, 4, 3) and padded[0, 2:].eq(-1).all()
    assert targets.tolist() == [0, 1] and lengths.tolist() == [2, 4] and lengths.dtype == torch.int64


def test_an_empty_sequence_and_targets_with_axes_are_padded_too():
    tokens, targets, lengths = pad_collate()(
        [(torch.tensor([5, 6]), [1.0, 0.0]), (torch.tensor([]).long(), [0.0, 1.0])]
    )
    assert tokens.tolist() == [[5, 6], [0, 0]] and tokens.dtype == torch.int64
    assert targets.tolist() == [[1, 0], [0, 1]] and lengths.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([(torch.ones(2, 3), 0), (torch.ones(2, 4), 0)], r"first axis alone: shapes \(2, 3\), \(2, 4\)"),
        ([(torch.ones(()), 0), (torch.ones(()), 0)], r"first axis alone: shapes \(\), \(\)"),
        ([(torch.ones(1), [1]), (torch.ones(2), [1, 2])], r"targets of a batch need one shape: shapes \(1,\), \(2,\)"),
    ],
)
def test_samples_that_cannot_be_padded_are_refused_with_their_shapes(samples, said):
    with pytest.raises(RunProblem, match=said):
        pad_collate()(samples)


def test_a_stream_without_length_and_an_empty_set_are_refused():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([1])

    with pytest.raises(RunProblem, match="Stream has no length"):
        loader(Stream(), 2, shuffle=False, seed=0)
    with pytest.raises(RunProblem, match="is empty"):
        loader(TensorDataset(torch.zeros(0)), 2, shuffle=False, seed=0)


def test_a_debug_subset_is_small_fixed_and_keeps_pairs_together():
    pair = torch.arange(100), torch.arange(100) * 2
    x, y = debug_subset(pair, 10, seed=1)
    assert len(x) == 10 and torch.equal(y, x * 2) and torch.equal(x, x.sort().values)
    assert torch.equal(x, debug_subset(pair, 10, seed=1)[0])
    assert not torch.equal(x, debug_subset(pair, 10, seed=2)[0])
    assert len(debug_subset(pair, 1000)[0]) == 100
    assert [item.item() for (item,) in debug_subset(TensorDataset(pair[0]), 10, seed=1)] == x.tolist()


def test_an_order_holds_each_number_once_as_an_index():
    assert order(30, 0, 0).dtype == torch.int64 and order(30, 0, 0).sort().values.tolist() == list(range(30))
