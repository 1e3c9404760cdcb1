"""What a parameters cell declares is read by syntax tree; nothing of it runs."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import quick

from labkit.record.declared import Parameter, computed, declared


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


CHANGES = {  # what follows `EPOCHS: int = 20` and `LAYERS = [1, 2]`, and the name whose value it may change
    "if DEBUG:\n    EPOCHS = 2": "EPOCHS",
    "for EPOCHS in range(3):\n    pass": "EPOCHS",
    "while DEBUG:\n    EPOCHS -= 1\n    break": "EPOCHS",
    "with open('x') as EPOCHS:\n    pass": "EPOCHS",
    "try:\n    pass\nexcept OSError as EPOCHS:\n    pass": "EPOCHS",
    "match LAYERS:\n    case [EPOCHS, *_]:\n        pass": "EPOCHS",
    "del EPOCHS": "EPOCHS",
    "import numpy.linalg as EPOCHS": "EPOCHS",
    "from math import e as EPOCHS": "EPOCHS",
    "from math import *": "EPOCHS",
    "def EPOCHS(): pass": "EPOCHS",
    "class EPOCHS: pass": "EPOCHS",
    "def longer():\n    global EPOCHS\n    EPOCHS += 1": "EPOCHS",
    "STEPS = (EPOCHS := 3) * 2": "EPOCHS",
    "STEPS = [EPOCHS := step for step in range(3)]": "EPOCHS",
    "EPOCHS = EPOCHS * 2": "EPOCHS",
    "EPOCHS, EPOCHS = 1, max(2, 3)": "EPOCHS",
    "EPOCHS, STEPS, *_ = *[], 1, 2": "EPOCHS",
    "LAYERS[0] = 3": "LAYERS",
    "LAYERS += [3]": "LAYERS",
    "if DEBUG:\n    LAYERS.append(3)": "LAYERS",
    "del LAYERS[1:]": "LAYERS",
}


@pytest.mark.parametrize("code", CHANGES)
def test_a_name_that_something_else_may_change_is_computed_and_no_parameter(code: str):
    source = f"EPOCHS: int = 20\nLAYERS = [1, 2]\n{code}\n"
    name = CHANGES[code]
    assert name not in names(source)
    assert 3 <= computed(source)[name] <= source.count("\n")


@pytest.mark.parametrize(
    "code",
    [
        "def train():\n    EPOCHS = 3\n    return EPOCHS",
        "class Settings:\n    EPOCHS = 3",
        "STEPS = [EPOCHS for EPOCHS in range(3)]",
        "STEPS = (lambda EPOCHS: EPOCHS)(3)",
        "STEPS = EPOCHS * LAYERS[0]",
        "print(EPOCHS, LAYERS.index(1))",
        "EPOCHS: int",
        "EPOCHS = 20",
        "await lab(EPOCHS)",
    ],
)
def test_what_only_reads_a_name_or_has_one_of_its_own_leaves_the_parameter(code: str):
    source = f"EPOCHS: int = 20\nLAYERS = [1, 2]\n{code}\n"
    assert {"EPOCHS", "LAYERS"} <= set(names(source))
    assert not {"EPOCHS", "LAYERS"} & set(computed(source))


def test_a_plain_value_after_all_changes_declares_again():
    source = "EPOCHS = 1\nfor EPOCHS in range(3):\n    pass\nEPOCHS: int = 5  # passes\n"
    assert declared(source) == [Parameter("EPOCHS", "int", 5, "passes", 4)]
    assert computed(source) == {}


@quick
@given(st.lists(st.sampled_from([*CHANGES, "EPOCHS: int = 7", "LAYERS = [5]", "DEBUG = True", "DEBUG = False"])))
def test_a_declared_value_is_the_one_that_python_gives_the_name(statements: list[str]):
    source = "\n".join(["EPOCHS = 20", "LAYERS = [1, 2]", "DEBUG = False", *statements])
    namespace: dict[str, object] = {"open": open_nothing}
    try:
        exec(source, namespace)
    except (NameError, TypeError, IndexError, AttributeError, ImportError):
        return  # a kernel stops there as well
    for parameter in declared(source):
        assert namespace[parameter.name] == parameter.default, source


def open_nothing(name: str) -> nullcontext[int]:
    return nullcontext(1)


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
