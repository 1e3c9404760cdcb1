"""What a parameters cell declares is read by syntax tree; nothing of it runs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import quick

from labkit.record.declared import Parameter, declared


def names(source: str) -> list[str]:
    return [parameter.name for parameter in declared(source)]


def test_a_line_declares_name_type_default_and_meaning():
    assert declared("EPOCHS: int = 3  # passes over the data") == [
        Parameter("EPOCHS", "int", 3, "passes over the data", 1)
    ]


def test_parameters_come_in_the_order_of_the_cell_with_their_lines():
    found = declared("# data\nA: int = 1\n\nB = 'x'\nC: float | None = None  # seconds\n")
    assert [(p.name, p.type, p.default, p.help, p.line) for p in found] == [
        ("A", "int", 1, "", 2),
        ("B", "", "x", "", 4),
        ("C", "float | None", None, "seconds", 5),
    ]


def test_a_hash_in_a_text_is_no_comment():
    assert declared("COLOUR: str = '#ff0000'  # as in CSS")[0].help == "as in CSS"
    assert declared("COLOUR: str = '#ff0000'")[0].help == ""


def test_a_value_over_several_lines_has_the_comment_behind_its_end():
    (found,) = declared("LAYERS: list[int] = [\n    1,  # first\n    2,\n]  # widths\n")
    assert (found.default, found.help, found.line) == ([1, 2], "widths", 1)


def test_literals_of_every_kind_are_defaults():
    source = "A = -1.5e-4\nB = (1, 'x')\nC = {'a': [True, None]}\nD = +3\nE = 'a' 'b'\nF = G = 7\nH, I = 1, 2\n"
    found = {parameter.name: parameter.default for parameter in declared(source)}
    assert found == {
        "A": -1.5e-4, "B": (1, "x"), "C": {"a": [True, None]}, "D": 3, "E": "ab", "F": 7, "G": 7, "H": 1, "I": 2,
    }  # fmt: skip


def test_what_is_computed_is_no_parameter():
    assert names(
        "A = 1\nB = A * 2\nC = list()\nD = f'{A}'\nE = [x for x in 'ab']\nF: int\nG += 1\nH[0] = 1\nI.j = 1"
    ) == ["A"]


def test_a_repeated_name_counts_by_its_last_line():
    (found,) = declared("A: int = 1  # old\nA: float = 2.0  # new")
    assert (found.type, found.default, found.help, found.line) == ("float", 2.0, "new", 2)


def test_names_inside_functions_and_branches_are_no_parameters():
    assert names("def f():\n    A = 1\nif True:\n    B = 2\nclass C:\n    D = 3\n") == []


def test_nothing_of_the_cell_is_executed(tmp_path: Path):
    target = tmp_path / "made"
    path = str(target)
    source = f"A = open({path!r}, 'w')\nB: open({path!r}, 'w') = 1\nC = __import__('os').mkdir({path!r})\n"
    assert names(source) == ["B"]
    assert not target.exists()


@pytest.mark.parametrize("source", ["%matplotlib inline", "A = ", "a b", "A = 'x", "(" * 500])
def test_what_is_not_python_is_a_syntax_error_or_too_deep(source: str):
    with pytest.raises((SyntaxError, RecursionError, MemoryError)):
        declared(source)


literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@quick
@given(literals)
def test_the_default_of_a_written_value_is_that_value(value: object):
    (found,) = declared(f"VALUE = {value!r}  # meaning")
    assert found.default == value
    assert type(found.default) is type(value)


@quick
@given(st.text(max_size=80))
def test_any_text_declares_something_or_is_no_python(source: str):
    try:
        found = declared(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    assert all(parameter.name.isidentifier() for parameter in found)


def test_a_float_too_large_to_hold_reads_as_python_reads_it():
    assert math.isinf(declared("A = 1e999")[0].default)
