"""What the user asks for fits what the notebook declares, or nothing starts."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from records import quick

from labkit.errors import ParameterProblem
from labkit.record.declared import declared
from labkit.record.files import dumps
from labkit.workbench.params import (
    Raw,
    effective,
    kinds_of,
    parse_assignment,
    read_yaml,
    resolve,
    yaml_text,
    yaml_value,
)

CELL = """
EPOCHS: int = 3
RATE: float = 1e-3
NAME: str = "x"
DEBUG: bool = False
LAYERS: list[int] = [1, 2]
OPTIONS: dict = {}
LIMIT: float | None = None
PAIR: tuple[int, int] = (1, 2)
GUESSED = 5
ANYTHING = None
"""
DECLARED = declared(CELL)
plain_text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers() | st.floats() | plain_text
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(plain_text, inner, max_size=4), max_leaves=12
)


def same(one: object, other: object) -> bool:
    """Equal in value and in type, all the way down; NaN equals itself, a zero its own sign only."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return repr(one) == repr(other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(map(same, one.values(), other.values()))
    return one == other


def asked(**given: object) -> dict[str, object]:
    return resolve(DECLARED, given, "x.ipynb")


def typed(text: str) -> object:
    name, value = parse_assignment(text)
    return resolve(DECLARED, {name: value}, "x.ipynb")[name]


TYPED = {
    "EPOCHS=5": 5,
    "EPOCHS=007": 7,
    "EPOCHS=-1": -1,
    "EPOCHS=0x10": 16,
    "RATE=1e-4": 1e-4,
    "RATE=3": 3.0,
    "RATE=-inf": -math.inf,
    "RATE=.5": 0.5,
    "NAME=yes": "yes",
    "NAME=12:30": "12:30",
    "NAME=1e-4": "1e-4",
    "NAME=": "",
    "NAME=a=b": "a=b",
    "NAME=null": "null",
    "NAME='quoted'": "'quoted'",
    "DEBUG=true": True,
    "DEBUG=False": False,
    "LAYERS=[3, 4]": [3, 4],
    "OPTIONS={a: 1}": {"a": 1},
    "LIMIT=None": None,
    "LIMIT=null": None,
    "LIMIT=2": 2.0,
    "PAIR=[1, 2]": [1, 2],
    "GUESSED=6": 6,
    " EPOCHS =5": 5,
    "ANYTHING=12:30": "12:30",
    "ANYTHING=1e-4": 1e-4,
    "ANYTHING=yes": "yes",
}
REFUSED = [
    "EPOCHS=1e-4",
    "EPOCHS=1.0",
    "EPOCHS=x",
    "EPOCHS=yes",
    "EPOCHS=12:30",
    "EPOCHS=true",
    "EPOCHS=",
    "RATE=fast",
    "RATE=12:30",
    "RATE=true",
    "DEBUG=yes",
    "DEBUG=1",
    "DEBUG=on",
    "LAYERS=3",
    "LAYERS={a: 1}",
    "OPTIONS=[1]",
    "LIMIT=x",
    "GUESSED=x",
    "GUESSED=1.5",
    "OPTIONS={1: 2}",
    "LAYERS=[2026-11-21, !!binary aGk=]",
    "LAYERS=[!!set {a}]",
]


@pytest.mark.parametrize(("text", "value"), TYPED.items(), ids=TYPED)
def test_typed_text_takes_the_declared_type(text: str, value: object):
    assert same(typed(text), value)


@pytest.mark.parametrize("text", REFUSED)
def test_what_does_not_fit_the_declared_type_is_refused_with_the_name(text: str):
    with pytest.raises(ParameterProblem, match=text.partition("=")[0]):
        typed(text)


@pytest.mark.parametrize(
    "text", ["EPOCHS: yes", "EPOCHS: 12:30", "NAME: 007", "NAME: 1e-4", "NAME: true", "RATE: '1e-4'", "DEBUG: 1"]
)
def test_a_file_never_turns_a_value_into_another_type(tmp_path: Path, text: str):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ParameterProblem, match="but the notebook declares"):
        resolve(DECLARED, read_yaml(tmp_path / "p.yaml"), "x.ipynb")


def test_yaml_is_read_as_version_1_2(tmp_path: Path):
    (tmp_path / "p.yaml").write_text("A: 1e-4\nB: 007\nC: yes\nD: 12:30\nE: 2026-11-21\nF: 0o17\nG: ~\nH: .nan\n")
    found = read_yaml(tmp_path / "p.yaml")
    assert math.isnan(found.pop("H"))
    assert found == {"A": 1e-4, "B": 7, "C": "yes", "D": "12:30", "E": "2026-11-21", "F": 15, "G": None}


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(ParameterProblem, match=r"no parameter 'EPOCH', did you mean EPOCHS\?"):
        asked(EPOCH=1)
    with pytest.raises(ParameterProblem, match=r"did you mean EPOCHS\?"):
        asked(epochs=1)


def test_every_problem_is_said_at_once():
    with pytest.raises(ParameterProblem) as raised:
        asked(EPOCHS="x", RATE="y", NOTHING=1)
    assert str(raised.value).count("\n") == 2


def test_a_notebook_that_declares_none_takes_none():
    with pytest.raises(ParameterProblem, match="declares no parameters"):
        resolve([], {"EPOCHS": 1}, "x.ipynb")
    assert resolve([], {}, "x.ipynb") == {}


@pytest.mark.parametrize(
    "name",
    ["__import__('os')", "import", "../x", "a b", "", "A;B", "Ä" * 10**6, "EPOCHS\n", "\ud800", 5, None, ("a",), True],
    ids=lambda n: ascii(n)[:20],
)
def test_a_name_that_is_code_keyword_or_path_is_refused_briefly(name: object):
    with pytest.raises(ParameterProblem) as raised:
        resolve(DECLARED, {name: 1}, "x.ipynb")
    assert len(str(raised.value)) < 500


def test_an_assignment_without_a_sign_is_refused():
    with pytest.raises(ParameterProblem, match="write NAME=VALUE"):
        parse_assignment("EPOCHS")


@pytest.mark.parametrize(
    "value",
    [object(), {1: 2}, b"x", {"a": {3}}, "\ud800", ["\udfff"], {"\ud800": 1}],
    ids=lambda value: ascii(value)[:20],
)
def test_a_value_that_no_cell_can_say_is_refused(value: object):
    with pytest.raises(ParameterProblem, match="ANYTHING"):
        asked(ANYTHING=value)


def test_a_value_nested_a_hundred_deep_is_refused():
    deep: object = 1
    for _ in range(100):
        deep = [deep]
    with pytest.raises(ParameterProblem, match="nested more than 50 deep"):
        asked(ANYTHING=deep)


def test_values_with_quotes_newlines_a_megabyte_and_large_numbers_pass_unchanged():
    for value in ["'\"\\\n\r\0\x1b", "x" * 2**20, 10**30, math.inf, -0.0, "\U0001f600"]:
        assert same(asked(ANYTHING=value)["ANYTHING"], value)


def test_a_few_aliases_cannot_stand_for_billions_of_values(tmp_path: Path):
    lines = ["A0: &a0 [x, x]", *(f"A{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    for text in ("\n".join(lines), "A: &a [*a, *a]"):
        (tmp_path / "p.yaml").write_text(text)
        with pytest.raises(ParameterProblem, match="alias"):
            read_yaml(tmp_path / "p.yaml")


HOSTILE_YAML = [
    "A: !!python/object/apply:os.mkdir [made]",
    "A: !!python/name:os.system",
    "!!python/module:os",
    "A: !!bool x",
    "A: !!int ''",
    "A: !!float ''",
    "A: !!timestamp []",
    "A: !!omap x",
    "A: 1\nA: 2",
    "- 1",
    "just text",
    "5",
    "A: [",
    "\0",
    "A: \x07",
    "? {a: 1}\n: 2",
    "A: 1\n---\nB: 2",
    "%YAML 9.9\n---\nA: 1",
    "A: !<tag:x> 1",
    "[" * 400,
    "{" * 400,
    "- " * 5000 + "a",
    "<<: 3",
    "A: !!binary '%%%'",
    "A: 1e99999999",
    "A: 0x",
    "A: " + "9" * 5000,
]


@pytest.mark.parametrize("text", HOSTILE_YAML, ids=lambda text: ascii(text)[:25])
def test_hostile_yaml_is_a_parameter_problem_or_a_plain_value_and_runs_nothing(tmp_path: Path, monkeypatch, text: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text(text)
    try:
        found = read_yaml(tmp_path / "p.yaml")
        resolve(declared("A = None"), found, "x.ipynb")
    except ParameterProblem as error:
        assert len(str(error)) < 2000
    assert os.listdir(tmp_path) == ["p.yaml"]


@pytest.mark.parametrize("kind", ["missing", "folder", "not UTF-8", "empty"])
def test_a_file_of_parameters_that_cannot_be_read_is_said(tmp_path: Path, kind: str):
    path = tmp_path / "p.yaml"
    {
        "missing": lambda: None,
        "folder": path.mkdir,
        "not UTF-8": lambda: path.write_bytes(b"\xff\xfe"),
        "empty": lambda: path.write_text("# nothing\n"),
    }[kind]()
    if kind == "empty":
        assert read_yaml(path) == {}
    else:
        with pytest.raises(ParameterProblem, match=r"p\.yaml cannot be read"):
            read_yaml(path)


@quick
@given(st.dictionaries(plain_text, values, max_size=4))
@example(
    {
        "a": "yes",
        "b": "007",
        "c": "12:30",
        "d": "1e-4",
        "e": "null",
        "f": "~",
        "g": "2026-11-21",
        "h": "'\"",
        "i": "*x",
        "j": "&x",
    }
)
@example({"a": 1e16, "b": 1e-7, "c": 5e-324, "d": -0.0, "e": math.inf, "f": math.nan, "g": 10**30, "": {}, "h": []})
@example(
    {
        "a": "\x85",
        "b": "\u2028",
        "c": "\ufeff",
        "d": "\x7f",
        "e": "\0",
        "f": " x ",
        "g": "a\n\nb\n",
        "h": "\t",
        "i": "#",
        "=": "<<",
    }
)
def test_yaml_reads_back_what_was_written(given_values: dict):
    assert same(yaml_value(yaml_text(given_values)), given_values)


@quick
@given(st.text(max_size=100))
def test_any_yaml_is_a_value_or_a_value_error(text: str):
    try:
        yaml_value(text)
    except ValueError:
        pass


@quick
@given(plain_text, values)
def test_a_value_passes_unchanged_or_is_refused(name: str, value: object):
    try:
        found = resolve(DECLARED, {name: value, "ANYTHING": value}, "x.ipynb")
    except ParameterProblem:
        return
    assert same(found["ANYTHING"], value)


@quick
@given(st.sampled_from(DECLARED), plain_text)
def test_any_typed_text_has_the_declared_type_or_is_refused(parameter, text: str):
    kinds = kinds_of(parameter)
    try:
        found = resolve(DECLARED, {parameter.name: Raw(text)}, "x.ipynb")[parameter.name]
    except ParameterProblem:
        return
    expected = {"NoneType": "None", "list": "tuple" if "tuple" in kinds else "list"}.get(
        type(found).__name__, type(found).__name__
    )
    assert not kinds or expected in kinds


def test_what_a_run_records_is_plain_whatever_the_notebook_declares():
    cell = "A = (1, (2, 3))\nB = {3, 1, 2}\nC = b'x'\nD = 1j\nE = {1: 'a'}\nF = ...\nG = -0.0\n"
    found = effective(declared(cell), {})
    assert found == {
        "A": [1, [2, 3]],
        "B": [1, 2, 3],
        "C": "b'x'",
        "D": "1j",
        "E": {"1": "a"},
        "F": "Ellipsis",
        "G": 0.0,
    }
    assert json.loads(dumps(found))
    assert yaml_value(yaml_text(found)) == found


def test_what_was_given_takes_the_place_of_the_default():
    found = effective(DECLARED, {"EPOCHS": 9})
    assert (found["EPOCHS"], found["RATE"]) == (9, 1e-3)
    assert list(found) == [parameter.name for parameter in DECLARED]


@pytest.mark.parametrize(
    ("name", "value"),
    [("API_KEY", "x"), ("WANDB_TOKEN", "x"), ("NOTE", "ghp_0123456789abcdef0123"), ("NOTE", "sk-0123456789abcdef")],
)
def test_what_looks_like_a_secret_is_refused_since_parameters_are_recorded(name: str, value: str):
    with pytest.raises(ParameterProblem, match=r"looks like a secret.*environment"):
        resolve(declared(f"{name}: str = ''"), {name: Raw(value)}, "x.ipynb")


def test_names_and_values_that_only_resemble_secrets_pass():
    given = {"MAX_TOKENS": Raw("5"), "KEYS": Raw("a"), "MODEL": Raw("sk-small")}
    assert (
        resolve(declared("MAX_TOKENS: int = 1\nKEYS: str = ''\nMODEL: str = ''"), given, "x.ipynb")["MODEL"]
        == "sk-small"
    )
