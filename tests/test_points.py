"""The points of a sweep: lists, ranges, quotes, files, and what is refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import parameters, write

from labkit.errors import ParameterProblem
from labkit.workbench.notebooks import notebook
from labkit.workbench.notebooks.notebook import Notebook
from labkit.workbench.sweeps.points import points, split

CELL = """\
LEARNING_RATE: float = 0.1  # in (0, 10)
EPOCHS: int = 3
RANDOM_SEED: int = 0
NAME: str = "a"
BETAS: tuple[float, float] = (0.9, 0.99)
CLIP: float | None = None
AMP: bool = False
"""


@pytest.fixture
def source(tmp_path: Path) -> Notebook:
    return notebook.read(write(tmp_path / "some.ipynb", parameters(CELL)))


def values(source: Notebook, *asked: str, zipped: bool = False, files: tuple[Path, ...] = ()) -> list[dict]:
    return [point.values for point in points(source, asked, files, zipped=zipped)]


def test_lists_are_multiplied_out_and_the_last_varies_fastest(source: Notebook):
    found = points(source, ["LEARNING_RATE=0.1,1e-2", "random_seed=1..3"])
    assert [point.number for point in found] == [1, 2, 3, 4, 5, 6]
    expected = [{"LEARNING_RATE": rate, "RANDOM_SEED": seed} for rate in (0.1, 0.01) for seed in (1, 2, 3)]
    assert [point.values for point in found] == expected
    assert all(type(point.values["RANDOM_SEED"]) is int for point in found)


def test_zipped_lists_go_together_and_single_values_with_all(source: Notebook):
    found = values(source, "LEARNING_RATE=0.1,0.2", "EPOCHS=5,6", "NAME=x", zipped=True)
    assert found == [
        {"LEARNING_RATE": 0.1, "EPOCHS": 5, "NAME": "x"},
        {"LEARNING_RATE": 0.2, "EPOCHS": 6, "NAME": "x"},
    ]
    with pytest.raises(ParameterProblem, match=r"LEARNING_RATE has 2, EPOCHS has 3"):
        values(source, "LEARNING_RATE=0.1,0.2", "EPOCHS=1..3", zipped=True)


def test_text_with_commas_is_quoted_and_lists_keep_theirs(source: Notebook):
    assert values(source, "NAME='a,b',c") == [{"NAME": "a,b"}, {"NAME": "c"}]
    assert values(source, 'NAME="a,b"') == [{"NAME": "a,b"}]
    assert values(source, "BETAS=[0.9,0.99],[0.5, 0.9]") == [{"BETAS": (0.9, 0.99)}, {"BETAS": (0.5, 0.9)}]
    assert values(source, "CLIP=None,0.5", "AMP=true,false")[0] == {"CLIP": None, "AMP": True}


def test_a_range_counts_up_in_steps_and_is_text_where_text_is_declared(source: Notebook):
    assert [one["EPOCHS"] for one in values(source, "EPOCHS=10..30..10,50")] == [10, 20, 30, 50]
    assert values(source, "NAME=1..3") == [{"NAME": "1..3"}]
    assert [one["LEARNING_RATE"] for one in values(source, "LEARNING_RATE=1..2")] == [1.0, 2.0]


def test_lists_in_a_file_are_swept_and_the_command_line_wins(source: Notebook, tmp_path: Path):
    file = tmp_path / "sweep.yaml"
    file.write_text("learning_rate: [1e-1, 0.01]\nRANDOM_SEED: 1..2\nEPOCHS: 7\nBETAS: [[0.5, 0.9]]\n")
    found = values(source, files=(file,))
    assert len(found) == 4 and found[0] == {
        "LEARNING_RATE": 0.1,
        "RANDOM_SEED": 1,
        "EPOCHS": 7,
        "BETAS": (0.5, 0.9),
    }
    assert [one["LEARNING_RATE"] for one in values(source, "LEARNING_RATE=0.5", files=(file,))] == [0.5, 0.5]


def test_a_list_that_was_meant_as_one_value_is_explained(source: Notebook, tmp_path: Path):
    file = tmp_path / "sweep.yaml"
    file.write_text("BETAS: [0.5, 0.9]\n")
    with pytest.raises(ParameterProblem, match=r"BETAS = 0.5 .*\n.*BETAS: \[\[1, 2\]\]"):
        values(source, files=(file,))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("LEARNINGRATE=1,2", "did you mean LEARNING_RATE?"),
        ("LEARNING_RATE=0.1,20", "LEARNING_RATE = 20"),
        ("LEARNING_RATE=0.1,ten", "LEARNING_RATE = 'ten'"),
        ("EPOCHS=1,,2", "a value in its list is empty"),
        ("EPOCHS=5..1", "the range 5..1 is empty"),
        ("EPOCHS=1..9..0", "is empty"),
        ("EPOCHS=1..999999999", "more than 100,000 values"),
        ("NAME='a,b", "is not closed"),
        ("EPOCHS=3,3", "points 1 and 2 are the same: EPOCHS=3"),
        ("EPOCHS", "write NAME=VALUE"),
    ],
)
def test_what_cannot_be_is_refused_and_named(source: Notebook, asked: str, said: str):
    with pytest.raises(ParameterProblem) as refused:
        values(source, asked)
    assert said in str(refused.value)


def test_every_point_is_checked_and_too_many_are_refused(source: Notebook):
    with pytest.raises(ParameterProblem, match="LEARNING_RATE = 20"):
        values(source, "EPOCHS=1..3", "LEARNING_RATE=0.1,20")
    with pytest.raises(ParameterProblem, match=r"1000 EPOCHS × 1000 RANDOM_SEED are 1,000,000 points"):
        values(source, "EPOCHS=1..1000", "RANDOM_SEED=1..1000")


def test_without_a_list_there_is_one_point(source: Notebook):
    assert values(source) == [{}]
    assert values(source, "NAME=") == [{"NAME": ""}]


plain = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="'\""), min_size=1)


@given(st.lists(plain, min_size=1, max_size=6))
def test_quoted_values_are_split_where_they_were_joined(texts: list[str]):
    assert [str(one) for one in split(",".join(f"'{text}'" for text in texts))] == texts


@given(st.lists(st.text("ab1. -", min_size=1).filter(str.strip), min_size=2, max_size=6))
def test_plain_values_are_split_at_commas(texts: list[str]):
    assert split(",".join(texts)) == [text.strip() for text in texts]


@given(st.text("a,'\"[]{}() ", max_size=20))
def test_any_text_is_split_or_refused(text: str):
    try:
        assert split(text)
    except ValueError as error:
        assert str(error)


@pytest.mark.slow
@given(st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_points_are_as_many_as_combinations(tmp_path_factory: pytest.TempPathFactory, counts: list[int]):
    names = ("EPOCHS", "RANDOM_SEED", "LEARNING_RATE")
    path = tmp_path_factory.getbasetemp() / "counted.ipynb"
    source = notebook.read(path if path.exists() else write(path, parameters(CELL)))
    found = points(source, [f"{name}=1..{count}" for name, count in zip(names, counts, strict=False)])
    expected = list(itertools.product(*(range(1, count + 1) for count in counts)))
    assert [tuple(point.values[name] for name in names[: len(counts)]) for point in found] == expected
    assert len({point.key for point in found}) == len(found)
