"""Search spaces: the notation of ranges and choices, what a file says, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tiny import parameters, write

from labkit import cli
from labkit.errors import ParameterProblem
from labkit.workbench.notebooks import notebook
from labkit.workbench.notebooks.notebook import Notebook
from labkit.workbench.sweeps import points
from labkit.workbench.sweeps.space import Choices, Range, Space, space

CELL = """\
RATE: float = 0.1  # in (0, 10)
WIDTH: int = 16
EITHER: int | float = 1
MAYBE: float | None = None
NAME: str = "a"
ACTIVATION: Literal["relu", "gelu"] = "relu"
SIZE: Literal[16, 32, 64] = 16
BETAS: tuple[float, float] = (0.9, 0.99)
AMP: bool = False
RANDOM_SEED: int = 0
"""


@pytest.fixture
def source(tmp_path: Path) -> Notebook:
    return notebook.read(write(tmp_path / "some.ipynb", parameters(CELL)))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("RATE=log:1e-4..1e-1", Range(1e-4, 0.1, log=True)),
        ("rate=1..5", Range(1.0, 5.0)),
        ("WIDTH=16..128", Range(16, 128)),
        ("WIDTH=16..130..16", Range(16, 128, step=16)),
        ("WIDTH=log:1..1024", Range(1, 1024, log=True)),
        ("WIDTH=-3..3", Range(-3, 3)),
        ("EITHER=1..5", Range(1, 5)),
        ("EITHER=1..2.5", Range(1.0, 2.5)),
        ("MAYBE=0..1", Range(0.0, 1.0)),
        ("MAYBE=None,0.5", Choices((None, 0.5))),
        ("NAME=a,'b,c'", Choices(("a", "b,c"))),
        ("ACTIVATION=relu,gelu", Choices(("relu", "gelu"))),
        ("SIZE=16,64", Choices((16, 64))),
        ("WIDTH=1..3,8", Choices((1, 2, 3, 8))),
        ("BETAS=[0.9,0.99],[0.5,0.9]", Choices(((0.9, 0.99), (0.5, 0.9)))),
        ("AMP=true,false", Choices((True, False))),
    ],
)
def test_a_range_or_a_list_is_what_the_parameter_is_declared_as(
    source: Notebook, asked: str, expected: Range | Choices
):
    found = space(source, [asked])
    [dimension] = found.free.values()
    assert dimension == expected and found.fixed == {}
    if isinstance(expected, Range) and isinstance(dimension, Range):
        assert type(dimension.low) is type(dimension.high) is type(expected.low)
    assert Space.of(found.facts()) == found


def test_one_value_is_fixed_and_text_that_looks_like_a_range_is_text(source: Notebook):
    found = space(source, ["WIDTH=1..9", "RATE=0.5", "NAME=1..3", "RANDOM_SEED=7"])
    assert list(found.free) == ["WIDTH"] and found.fixed == {"RATE": 0.5, "NAME": "1..3", "RANDOM_SEED": 7}
    assert found.size == 9
    assert space(source, ["WIDTH=1..9", "AMP=true,false"]).size == 18
    assert space(source, ["WIDTH=1..9", "RATE=1..2"]).size == math.inf


def test_a_file_says_the_same_and_the_command_line_wins(source: Notebook, tmp_path: Path):
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "--search: tpe\n--trials: 50\nrate: log:1e-4..1e-1\nWIDTH: 16..128\nACTIVATION: [relu, gelu]\nNAME: x\n"
    )
    written = ["RATE=log:1e-4..1e-1", "WIDTH=16..128", "ACTIVATION=relu,gelu", "NAME=x"]
    assert space(source, [], [file]) == space(source, written)
    assert space(source, ["WIDTH=4..8"], [file]).free["WIDTH"] == Range(4, 8)
    assert points.options(file) == {"--search": "tpe", "--trials": 50}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("RATE=log:1e-4", "log:1e-4 is no range of a search; write LOW..HIGH"),
        ("RATE=1e-4..", "1e-4.. is no range of a search"),
        ("RATE=0.1..0.2,0.5", "0.1..0.2 is no range of a search"),
        ("RATE=0.1:0.2", "RATE = '0.1:0.2'"),
        ("RATE=uniform(0.1,0.2)", "RATE = 'uniform(0.1,0.2)'"),
        ("RATE=5..1", "the range is empty"),
        ("RATE=0.5..0.5", "the range is empty"),
        ("RATE=0..5", "outside of the range (0, 10)"),
        ("RATE=1..20", "outside of the range (0, 10)"),
        ("MAYBE=log:0..1", "on a logarithmic scale LOW is above 0"),
        ("RATE=1..5..2", "only plain ranges of integers take steps"),
        ("WIDTH=log:16..64..16", "only plain ranges of integers take steps"),
        ("WIDTH=1..9..0", "the step is from 1"),
        ("WIDTH=1..9..20", "the step is from 1"),
        ("WIDTH=0.5..3", "WIDTH = 0.5"),
        ("WIDTH=3,3", "lists a value twice"),
        ("SIZE=16..64", "is a range, but the notebook declares 16 or 32 or 64; list values"),
        ("AMP=0..1", "AMP = 0"),
        ("BETAS=0..1", "BETAS = 0"),
        ("LR=0..1", "no parameter 'LR'"),
        ("RANDOM_SEED=1,2,3", "a search must not choose RANDOM_SEED"),
        ("RATE=0.5", "there is nothing to search"),
    ],
)
def test_what_cannot_be_is_refused_and_named(source: Notebook, asked: str, said: str):
    with pytest.raises(ParameterProblem) as refused:
        space(source, [asked])
    assert said in str(refused.value)


def test_a_range_of_floats_without_a_search_is_explained(source: Notebook):
    for asked in ("RATE=log:1e-4..1e-1", "RATE=0.1..0.5"):
        with pytest.raises(ParameterProblem, match="is for --search"):
            points.points(source, [asked])


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.floats(0, 1), st.booleans())
def test_values_lie_in_their_range_and_have_few_digits(one: float, other: float, share: float, log: bool):
    low, high = sorted((one, other))
    if low == high:
        return
    chosen = low * (high / low) ** share if log else low + (high - low) * share
    value = Range(low, high, log).value(min(high, max(low, chosen)))
    assert low <= value <= high
    assert abs(value - chosen) <= 1e-3 * (min(chosen, high - low) if log else high - low)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--trials", "5"], "say what --search does"),
        (["--no-prune"], "say what --search does"),
        (["--search", "tpe", "--minimize", "loss"], "--search needs --trials: how many"),
        (["--search", "tpe", "--trials", "5"], "--search needs --minimize or --maximize with a metric"),
        (["-p", "RATE=0.1", "WIDTH=8"], "unexpected extra argument (WIDTH=8); put -p before each NAME=VALUE"),
        (["--search", "tpe", "--trials", "5", "--minimize", "loss", "--zip"], "--zip takes lists together"),
        (["--search", "anneal"], "'anneal' is not one of"),
        (["--search", "tpe", "--trials", "5", "--minimize", "loss", "-p", "RATE=log:1"], "log:1 is no range"),
        (["--search", "tpe", "--trials", "9", "--minimize", "loss", "-p", "WIDTH=1..8"], "more than the 8 points"),
    ],
)
def test_a_command_that_cannot_be_ends_with_2_and_begins_nothing(source: Notebook, options: list[str], said: str):
    runs = source.path.parent / "runs"
    done = CliRunner().invoke(cli.main, ["sweep", str(source.path), *options, "--runs", str(runs)])
    assert done.exit_code == 2 and said in " ".join(done.output.split()), done.output
    assert not runs.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("--trial: 5", "--trial is none of the options of a file"),
        ("--continue: last", "--continue is none of the options of a file"),
        ("--trials: many", "'many' is not a valid integer range"),
        ("--trials: 5", "say what --search does"),
    ],
)
def test_options_in_a_file_are_checked_as_on_the_command_line(source: Notebook, text: str, said: str):
    file = source.path.with_name("sweep.yaml")
    file.write_text(f"{text}\nRATE: 1..2\n")
    done = CliRunner().invoke(cli.main, ["sweep", str(source.path), "-f", str(file)])
    assert done.exit_code == 2 and said in " ".join(done.output.split()), done.output
