"""A walk through the data goes on inside an epoch, with the batches that an unbroken one would have given."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from labkit.errors import RunProblem
from labkit.kernel.data import batches
from labkit.kernel.known import known_by
from labkit.kernel.loading import loader
from labkit.kernel.parts import load_into, state_of
from labkit.kernel.position import sample_seed

VALUES = torch.arange(23.0)


def by_slicing(**changes):
    return batches(VALUES, **{"batch_size": 5, "shuffle": True, "seed": 7} | changes)


def by_loading(**changes):
    def noisy(sample, generator):
        return sample[0] + torch.rand((), generator=generator)

    settings = {"batch_size": 5, "shuffle": True, "seed": 7, "augment": noisy} | changes
    return loader(TensorDataset(VALUES), settings.pop("batch_size"), **settings)


def listed(batch):
    return (batch[0] if isinstance(batch, list | tuple) else batch).tolist()


def walked(made, epochs):
    return [[listed(batch) for batch in made] for _ in range(epochs)]


@pytest.mark.parametrize("make", [by_slicing, by_loading])
@pytest.mark.parametrize("shuffle", [True, False])
@given(epoch=st.integers(0, 2), done=st.integers(0, 5))
@settings(max_examples=12, deadline=None)
def test_a_walk_goes_on_with_the_batches_that_were_left(make, shuffle, epoch, done):
    whole = walked(make(shuffle=shuffle), 3)
    interrupted = make(shuffle=shuffle)
    walked(interrupted, epoch)
    walk = iter(interrupted)
    seen = [listed(next(walk)) for _ in range(done)]
    state = state_of(interrupted, "batches")  # the walk is still under way
    fresh = make(shuffle=shuffle)
    load_into(fresh, state, "batches")
    assert [seen + walked(fresh, 1)[0], *walked(fresh, 2 - epoch)] == whole[epoch:]


@pytest.mark.parametrize("make", [by_slicing, by_loading])
def test_between_two_epochs_the_next_one_begins_whole(make):
    made = make()
    whole = walked(made, 3)
    made = make()
    walked(made, 1)
    fresh = make()
    load_into(fresh, state_of(made, "batches"), "batches")
    assert walked(fresh, 2) == whole[1:]


@pytest.mark.parametrize("make", [by_slicing, by_loading])
def test_an_epoch_that_was_left_on_purpose_is_over(make):
    made = make()
    for _ in made:
        break
    assert state_of(made, "batches")["epoch"] == 1 and state_of(made, "batches")["batch"] == 0


@pytest.mark.parametrize("make", [by_slicing, by_loading])
@pytest.mark.parametrize(
    ("change", "expected"),
    [({"seed": 8}, "seed was 7, is 8"), ({"batch_size": 4}, "batch_size was 5, is 4"), ({"shuffle": False}, "shuffle")],
)
def test_another_order_is_a_difference(make, change, expected):
    (said,) = make(**change).differences(state_of(make(), "batches"))
    assert expected in said


def test_other_data_of_the_same_size_are_a_difference():
    (said,) = batches(VALUES + 1, batch_size=5, shuffle=True, seed=7).differences(state_of(by_slicing(), "batches"))
    assert said.startswith("data was")
    (said,) = loader(TensorDataset(VALUES + 1), 5, shuffle=True, seed=7).differences(state_of(by_loading(), "batches"))
    assert said.startswith("data was")


class Files(Dataset):
    """Lists its files as torchvision's ImageFolder does."""

    def __init__(self, root, name="samples"):
        self.root = str(root)
        setattr(self, name, [(str(path), len(path.parent.name)) for path in sorted(root.rglob("*.txt"))])

    def __len__(self):
        return 3

    def __getitem__(self, index):
        raise NotImplementedError


@pytest.fixture
def folder(tmp_path):
    for name in ("cat/1", "cat/2", "horse/1"):
        path = tmp_path / "data" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("meow")
        os.utime(path, (1e9, 1e9))
    return tmp_path / "data"


def write_longer(folder):
    (folder / "cat/2.txt").write_text("meow, meow")
    os.utime(folder / "cat/2.txt", (1e9, 1e9))


CHANGES = {
    "another size": write_longer,
    "another time": lambda folder: os.utime(folder / "cat/1.txt", (1e9, 2e9)),
    "another name": lambda folder: (folder / "cat/1.txt").rename(folder / "cat/0.txt"),
    "another class": lambda folder: (folder / "cat").rename(folder / "goat"),
}


@pytest.mark.parametrize("name", ["samples", "imgs"])
@pytest.mark.parametrize("change", CHANGES)
def test_files_that_changed_are_a_difference(folder, name, change):
    def made():
        return loader(Files(folder, name), 2, shuffle=True, seed=1)

    before = state_of(made(), "batches")
    assert made().differences(before) == []
    CHANGES[change](folder)
    (said,) = made().differences(before)
    assert said.startswith("data was")


def test_files_that_moved_as_a_whole_are_the_same_data(folder, tmp_path):
    before = known_by(Files(folder))
    folder.rename(tmp_path / "elsewhere")
    assert known_by(Files(tmp_path / "elsewhere")) == before


def test_a_file_that_is_gone_is_named(folder):
    files = Files(folder)
    (folder / "cat/1.txt").unlink()
    with pytest.raises(RunProblem, match=r"cat/1\.txt is among the samples and cannot be read"):
        known_by(files)


def test_of_a_subset_both_the_data_and_the_choice_count():
    data, others = TensorDataset(VALUES), TensorDataset(VALUES + 1)
    same = [Subset(data, [1, 2, 3]), Subset(data, torch.tensor([1, 2, 3])), Subset(data, range(1, 4))]
    assert len({known_by(subset) for subset in same}) == 1
    different = [*same[:1], Subset(data, [1, 3, 2]), Subset(others, [1, 2, 3]), data]
    different += [ConcatDataset([data, others]), ConcatDataset([others, data]), Subset(Draws(), [1, 2, 3])]
    assert len({known_by(one) for one in different}) == len(different)


def test_data_of_which_nothing_else_is_known_have_their_class_and_length():
    assert known_by(Draws()).endswith(".Draws of 12 samples")


def test_what_was_not_known_when_a_position_was_saved_is_no_difference():
    made = loader(Draws(), 4, shuffle=True, seed=1)
    state = state_of(made, "batches")
    older = {name: value for name, value in state.items() if name != "data"}
    assert made.differences(older) == made.differences(state | {"data": ""}) == []


class Draws(Dataset):
    """Each sample is drawn from the global generators."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return torch.tensor([random.random(), np.random.random(), torch.rand(()).item()], dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"reseed": True}, {"augment": lambda x, g: torch.rand(2, generator=g)}])
def test_samples_are_the_same_for_any_number_of_workers_and_in_an_epoch_that_goes_on(settings):
    data = TensorDataset(VALUES[:12]) if "augment" in settings else Draws()
    none, two = (loader(data, 4, shuffle=True, seed=1, workers=workers, **settings) for workers in (0, 2))
    epochs = [[batch.tolist() for batch in none] for _ in range(3)]
    assert epochs == [[batch.tolist() for batch in two] for _ in range(3)]
    assert epochs[0] != epochs[1]
    later = loader(data, 4, shuffle=True, seed=1, workers=2, **settings)
    load_into(later, state_of(none, "batches") | {"epoch": 1, "batch": 2}, "batches")
    assert [batch.tolist() for batch in later] == epochs[1][2:]


def test_reseeding_leaves_the_generators_of_the_main_process_alone():
    walk = loader(Draws(), 4, shuffle=True, seed=1, reseed=True)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.random(), torch.rand(()).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    list(walk)
    assert (random.random(), np.random.random(), torch.rand(()).item()) == expected


@given(st.lists(st.tuples(st.integers(0, 2**32), st.integers(0, 99), st.integers(0, 2**20)), max_size=40, unique=True))
def test_the_seeds_of_samples_differ_and_fit_a_generator(keys):
    seeds = [sample_seed(*key) for key in keys]
    assert all(0 <= seed < 2**32 for seed in seeds) and len(set(seeds)) >= len(seeds) - 1


def test_a_loader_without_a_position_is_refused_with_advice():
    plain = torch.utils.data.DataLoader(TensorDataset(VALUES))
    with pytest.raises(RunProblem, match=r"make it by labkit\.loader"):
        state_of(plain, "batches")


@pytest.mark.parametrize("make", [by_slicing, by_loading])
def test_a_walk_inside_of_a_walk_does_not_lose_the_place_of_the_outer_one(make):
    def epochs(made, state=None):
        seen = []
        for _ in range(2):
            for batch in made:
                seen.append(listed(batch))
                if len(seen) == 3 and state is not None:
                    list(made)  # a measurement on the training data
                    state.update(state_of(made, "batches"))
            seen += [listed(batch) for batch in made]
        return seen

    saved = {}
    whole = epochs(make(), saved)
    fresh = make()
    load_into(fresh, saved, "batches")
    assert [listed(batch) for batch in fresh] == whole[3:5]
    assert saved["batch"] == 3 and saved["next"] == 2


@pytest.mark.parametrize("make", [by_slicing, by_loading])
def test_a_walk_that_was_begun_to_look_at_a_batch_does_not_count(make):
    made = make()
    left_lying_about = iter(made)
    next(left_lying_about)
    for number, _ in enumerate(made, 1):
        assert state_of(made, "batches") | {"next": 2} == state_of(made, "batches")
        assert (state_of(made, "batches")["epoch"], state_of(made, "batches")["batch"]) == (1, number)
