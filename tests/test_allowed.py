"""Which values a declaration allows: types, choices and ranges, read and never executed."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain import same, values
from records import quick
from tiny import ROOT

from labkit.record.allowed import Allowed, allowed, broken
from labkit.record.declared import Parameter, declared
from labkit.record.interval import Interval, stated

FITS = [
    ("int", 3, 3),
    ("float", 3, 3.0),
    ("int | float", 3, 3),
    ("float | int", 3, 3),
    ("float | None", 3, 3.0),
    ("Optional[int]", None, None),
    ("typing.Optional[int]", 2, 2),
    ("Union[int, str]", "a", "a"),
    ("'int | None'", None, None),
    ("list[float]", [1, 2.5], [1.0, 2.5]),
    ("List[list[int]]", [[1], []], [[1], []]),
    ("tuple[int, str]", [1, "a"], (1, "a")),
    ("tuple[int, ...]", [1, 2, 3], (1, 2, 3)),
    ("tuple", [1, "a"], (1, "a")),
    ("dict[str, tuple[float, float]]", {"betas": [0, 1]}, {"betas": (0.0, 1.0)}),
    ("Literal['a', 'b']", "b", "b"),
    ("typing.Literal['a'] | None", None, None),
    ("Literal['a', None]", None, None),
    ("Optional[Literal[-1, 2]]", -1, -1),
    ("Literal[True]", True, True),
    ("Path", "x", "x"),
    ("int | Path", "x", "x"),
    ("list[int", "x", "x"),
]
MISFITS = [
    ("int", 1.0),
    ("int", True),
    ("int", None),
    ("float", True),
    ("float", 10**400),
    ("float", 2**53 + 1),
    ("float", "1.0"),
    ("bool", 1),
    ("str", 1),
    ("list", {"a": 1}),
    ("list[int]", [1, "a"]),
    ("list[int]", [[1]]),
    ("tuple[int, int]", [1, 2, 3]),
    ("tuple[()]", [1]),
    ("dict[str, int]", {"a": "b"}),
    ("Literal['a']", "A"),
    ("Literal[1]", True),
    ("Literal[1]", 1.0),
    ("Literal[True]", 1),
    ("Literal['1']", 1),
    ("int | Literal['auto']", "a"),
]


def of(annotation: str, comment: str = "") -> Allowed:
    return allowed(Parameter("A", annotation, None, comment, 1))


@pytest.mark.parametrize(("annotation", "value", "taken"), FITS, ids=lambda value: str(value)[:30])
def test_a_value_that_is_allowed_comes_in_the_declared_type(annotation: str, value: object, taken: object):
    assert same(of(annotation).fit(value), taken)


@pytest.mark.parametrize(("annotation", "value"), MISFITS, ids=lambda value: str(value)[:30])
def test_a_value_of_another_type_is_refused(annotation: str, value: object):
    with pytest.raises(ValueError, match=r"but the notebook declares|is none of"):
        of(annotation).fit(value)


@pytest.mark.parametrize("annotation", ["Literal[x]", "Literal[f()]", "Literal[b'a']", "Literal[()]", "Literal[1j]"])
def test_choices_that_are_no_plain_values_are_a_problem_of_the_declaration(annotation: str):
    (problem,) = broken(declared(f"\nA: {annotation} = 1"))
    assert problem.startswith("line 2 of the parameters: A = 1 declares")


def test_nothing_of_an_annotation_or_a_comment_is_executed(tmp_path: Path):
    made = str(tmp_path / "made")
    source = f"A: Literal[open({made!r}, 'w')] = 1\nB: open({made!r}, 'w') = 1  # in [__import__('os').mkdir('x'), 2]"
    assert len(broken(declared(source))) == 1
    assert not Path(made).exists()


RANGES = {
    "share of units dropped, in [0, 1)": Interval(0, 1, True, False),
    "in (0, inf)": Interval(0, math.inf, False, False),
    "of Adam; in [1e-6, 1E-1] per step": Interval(1e-6, 1e-1, True, True),
    "in (-∞, 0]": Interval(-math.inf, 0, False, True),
    "in[1,512]": Interval(1, 512, True, True),
    "in (\N{MINUS SIGN}1, +1)": Interval(-1, 1, False, False),
    "in [0, 100_000]": Interval(0, 100_000, True, True),
    "in [0, 0]": Interval(0, 0, True, True),
}
NO_RANGES = [
    "",
    "in steps",
    "in (roughly) 5",
    "in [cat, dog]",
    "min [0, 1]",
    "in [1, 2, 3]",
    "as in [3, 4]",
    "[0, 1]",
    "in (nan, 1)",
    "in [0, 1 or so]",
    "in {1, 2}",
]


@pytest.mark.parametrize("comment", RANGES)
def test_a_comment_states_a_range(comment: str):
    assert stated(comment) == RANGES[comment]


@pytest.mark.parametrize("comment", NO_RANGES)
def test_prose_is_no_range(comment: str):
    assert stated(comment) is None


@pytest.mark.parametrize(
    ("comment", "problem"),
    [
        ("in [1, 0]", "holds nothing"),
        ("in [1, 1)", "holds nothing"),
        ("in [0, 1", "not closed"),
        ("in [0, 1] or in [5, 6]", "more than one range"),
    ],
)
def test_a_range_that_makes_no_sense_is_a_problem_of_the_declaration(comment: str, problem: str):
    (found,) = broken(declared(f"A: float = 0.5  # {comment}"))
    assert problem in found


def test_a_range_holds_its_ends_as_its_brackets_say():
    half_open = Interval(0, 1, True, False)
    assert [half_open.holds(value) for value in (-1e-9, 0, -0.0, 0.5, 1 - 1e-16, 1)] == [
        False, True, True, True, True, False,
    ]  # fmt: skip
    assert not half_open.holds(math.nan)
    assert not Interval(0, math.inf, False, False).holds(math.inf)
    assert not Interval(0, 2**53, True, True).holds(2**53 + 1)


def test_a_range_is_for_every_number_in_lists_and_mappings_and_for_nothing_else():
    assert of("list[int] | None", "in [1, 9]").fit(None) is None
    assert of("bool", "in [5, 9]").fit(True) is True
    assert of("str | float", "in [5, 9]").fit("a") == "a"
    assert of("dict[str, float]", "in [1, 9]").fit({"momentum": 1}) == {"momentum": 1.0}
    for value in ([1, 10], [[0]], [math.nan], {"momentum": 0}, {"a": {"b": [10]}}):
        with pytest.raises(ValueError, match=r"outside of the range \[1, 9\]"):
            of("list | dict", "in [1, 9]").fit(value)


def test_a_declaration_is_described_as_messages_show_it():
    assert str(of("float | None", "in (0, 1]")) == "float or None, in (0, 1]"
    assert str(of("Literal['a', 2] | list[int]")) == "'a' or 2 or list[int]"
    assert str(of("dict[str, tuple[int, ...]]")) == "dict[str, tuple[int, ...]]"
    assert str(of("tuple[int, str | None]")) == "tuple[int, str | None]"
    assert str(of("Path")) == ""


@quick
@given(values)
def test_any_value_fits_where_anything_is_allowed(value: object):
    assert same(of("Any").fit(value), value)


@quick
@given(st.text(max_size=40), values)
def test_any_comment_is_a_range_or_none_or_a_problem(comment: str, value: object):
    try:
        found = stated(f"in {comment}")
    except ValueError as error:
        assert "range" in str(error)
        return
    assert found is None or (found.low <= found.high and str(found))


@quick
@given(st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False), st.booleans(), st.booleans()))
def test_a_range_reads_back_as_it_is_written(parts: tuple[float, float, bool, bool]):
    interval = Interval(*parts)
    try:
        assert stated(f"a share, in {interval}; of all") == interval
    except ValueError:
        assert not interval.low < interval.high


def test_the_declarations_in_the_readme_say_what_the_readme_says():
    section = (ROOT / "README.md").read_text().partition("\n## Parameters\n")[2].partition("\n## ")[0]
    first, second = (declared(block) for block in re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)[:2])
    allows = {parameter.name: str(allowed(parameter)) for parameter in first}
    assert allows == {
        "EPOCHS": "int, in [1, 1000]",
        "LEARNING_RATE": "float, in (0, inf)",
        "OPTIMIZER": "'adam' or 'sgd'",
        "CLIP": "float or None",
    }
    meant = declared("\n".join(re.findall(r"`([A-Z_]+: \w+ = [^`]+)`", section)))
    assert len(meant) == 8 and broken(first + second + meant) == []
