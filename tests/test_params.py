"""What the user asks for fits what the notebook declares, or nothing starts."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain import plain_text, same, values
from records import quick

from labkit.errors import NotebookProblem, ParameterProblem
from labkit.record.allowed import allowed
from labkit.record.declared import computed, declared
from labkit.record.files import dumps
from labkit.workbench.notebooks.params import Raw, admit, effective, from_command_line, resolve
from labkit.workbench.notebooks.yamlfile import read_yaml, yaml_text, yaml_value

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


def asked(**given: object) -> dict[str, object]:
    return resolve(DECLARED, given, "x.ipynb")


def typed(text: str) -> object:
    (value,) = resolve(DECLARED, from_command_line([text], []), "x.ipynb").values()
    return value


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
    "PAIR=[1, 2]": (1, 2),
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


def test_a_float_that_was_typed_keeps_the_sign_of_zero():
    for text in ("-0", "-0.0", " -0 "):
        assert same(resolve(declared("X: float = 1.0"), {"X": Raw(text)}, "x.ipynb"), {"X": -0.0})
    assert same(resolve(declared("X: int | float = 1"), {"X": Raw("-0")}, "x.ipynb"), {"X": 0})


@pytest.mark.parametrize("text", ["", " ", "#5", " # five"])
def test_text_in_which_yaml_reads_nothing_is_text_where_text_is_allowed(text: str):
    for kind in ("str | None", "str | int", "Optional[str]"):
        assert resolve(declared(f"NOTE: {kind} = 'x'"), {"NOTE": Raw(text)}, "x.ipynb") == {"NOTE": text}
    assert resolve(declared("NOTE: str | None = 'x'"), {"NOTE": Raw("None")}, "x.ipynb") == {"NOTE": None}


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


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(ParameterProblem, match=r"no parameter 'EPOCH' \(did you mean EPOCHS\?\)"):
        asked(EPOCH=1)
    with pytest.raises(ParameterProblem, match=r"no parameter 'epoch' \(did you mean EPOCHS\?\)"):
        asked(epoch=1)


def test_a_name_is_taken_in_any_case_and_in_any_unicode_form():
    found = resolve(declared("EPOCHS: int = 1\nGRÖßE: int = 2\nﬁt: int = 3"), {"epochs": 5, "größe": 6, "FIT": 7}, "x")
    assert found == {"EPOCHS": 5, "GRÖßE": 6, "fit": 7}


def test_a_name_that_differs_in_case_from_two_parameters_must_be_spelled_out():
    both = declared("EPOCHS: int = 1\nepochs: int = 2")
    assert resolve(both, {"EPOCHS": 3}, "x") == {"EPOCHS": 3}
    assert resolve(both, {"epochs": 3}, "x") == {"epochs": 3}
    with pytest.raises(ParameterProblem, match="'Epochs' can mean EPOCHS or epochs"):
        resolve(both, {"Epochs": 3}, "x")


@pytest.mark.parametrize("spelled", [["EPOCHS=3", "epochs=4"], ["EPOCHS=3", "EPOCHS=3"]])
def test_a_parameter_given_twice_in_one_place_is_refused(spelled: list[str]):
    with pytest.raises(ParameterProblem, match="EPOCHS is given twice by -p"):
        resolve(DECLARED, from_command_line(spelled, []), "x.ipynb")


def test_a_file_with_two_spellings_of_a_parameter_is_refused_and_named(tmp_path: Path):
    (tmp_path / "p.yaml").write_text("EPOCHS: 3\nepochs: 4\n")
    with pytest.raises(ParameterProblem, match=r"EPOCHS is given twice by .*p\.yaml, as EPOCHS and as epochs"):
        resolve(DECLARED, from_command_line([], [tmp_path / "p.yaml"]), "x.ipynb")


def test_later_files_win_over_earlier_ones_and_the_command_line_over_all_in_any_spelling(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("EPOCHS: 3\nrate: 0.5\nNAME: a\n")
    (tmp_path / "b.yaml").write_text("epochs: 4\nRATE: 0.25\n")
    asked = from_command_line(["Epochs=5"], [tmp_path / "a.yaml", tmp_path / "b.yaml"])
    assert resolve(DECLARED, asked, "x.ipynb") == {"EPOCHS": 5, "RATE": 0.25, "NAME": "a"}


def test_nothing_asked_for_is_no_source(tmp_path: Path):
    (tmp_path / "p.yaml").write_text("")
    assert from_command_line([], [tmp_path / "p.yaml"]) == []


def test_every_problem_is_said_at_once():
    with pytest.raises(ParameterProblem) as raised:
        asked(EPOCHS="x", RATE="y", NOTHING=1)
    unknown, epochs, rate = str(raised.value).split("\n")
    assert unknown.startswith(
        "x.ipynb has no parameter 'NOTHING' (did you mean ANYTHING?); x.ipynb declares EPOCHS, RATE, NAME"
    )
    assert epochs == "EPOCHS = 'x' is str, but the notebook declares int (default 3)"
    assert rate == "RATE = 'y' is str, but the notebook declares float (default 0.001)"


def test_a_message_of_five_hundred_findings_stays_readable():
    many = declared("\n".join(f"P{number}: int = 1" for number in range(500)))
    with pytest.raises(ParameterProblem) as raised:
        resolve(many, {f"x{number}{'x' * 500}": 1 for number in range(500)}, "x.ipynb")
    lines = str(raised.value).split("\n")
    assert len(lines) == 20 and max(map(len, lines)) < 250
    assert lines[0].endswith("P18, P19, …") and lines[-1] == "… and 481 more"


def test_a_name_that_the_cell_computes_is_refused_with_its_line():
    cell = "EPOCHS: int = 3\nRATE = 0.1\nSTEPS = EPOCHS * 100\n"
    with pytest.raises(
        ParameterProblem, match=r"^steps is computed in line 3 of the parameters of x.ipynb, and cannot"
    ):
        resolve(declared(cell), {"steps": 5}, "x.ipynb", computed(cell))


CHOICES = """
OPTIMIZER: Literal["adam", "sgd"] = "adam"
LAYERS: Literal[1, 2, 3] = 2
RATE: float | Literal["auto"] = "auto"
FLAG: Literal[True, "maybe"] | None = None
DROPOUT: float = 0.1  # share of units dropped, in [0, 1)
UNITS: list[int] = [8, 8]  # in [1, 512]
"""
CHOSEN = {
    "OPTIMIZER=sgd": "sgd",
    "LAYERS=3": 3,
    "RATE=auto": "auto",
    "RATE=1e-4": 1e-4,
    "FLAG=true": True,
    "FLAG=maybe": "maybe",
    "FLAG=None": None,
    "DROPOUT=0": 0.0,
    "UNITS=[1, 512]": [1, 512],
}
NOT_ALLOWED = {
    "OPTIMIZER=sdg": "OPTIMIZER = 'sdg' is none of 'adam', 'sgd' (did you mean 'sgd'?) (default 'adam')",
    "LAYERS=4": "LAYERS = 4 is none of 1, 2, 3 (default 2)",
    "LAYERS=true": "LAYERS = True is none of 1, 2, 3 (default 2)",
    "LAYERS=1.0": "LAYERS = 1.0 is none of 1, 2, 3 (default 2)",
    "RATE=fast": "RATE = 'fast' is str, but the notebook declares float or 'auto' (default 'auto')",
    "FLAG=false": "FLAG = False is none of True, 'maybe', None (default None)",
    "DROPOUT=1": "DROPOUT = 1 is outside of the range [0, 1) (default 0.1)",
    "DROPOUT=nan": "DROPOUT = nan is outside of the range [0, 1) (default 0.1)",
    "DROPOUT=x": "DROPOUT = 'x' is str, but the notebook declares float, in [0, 1) (default 0.1)",
    "UNITS=[8, 0]": "UNITS = [8, 0] is outside of the range [1, 512] (default [8, 8])",
    "UNITS=[8, a]": "UNITS = [8, 'a'] is a list of something else, but the notebook declares list[int], in [1, 512]"
    " (default [8, 8])",
}


@pytest.mark.parametrize(("text", "value"), CHOSEN.items(), ids=CHOSEN)
def test_what_is_among_the_choices_and_in_the_range_is_taken(text: str, value: object):
    (found,) = resolve(declared(CHOICES), from_command_line([text], []), "x").values()
    assert same(found, value)


@pytest.mark.parametrize(("text", "message"), NOT_ALLOWED.items(), ids=NOT_ALLOWED)
def test_a_refusal_names_parameter_value_what_is_allowed_and_the_default(text: str, message: str):
    with pytest.raises(ParameterProblem) as raised:
        resolve(declared(CHOICES), from_command_line([text], []), "x")
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("DEBUG=yes", "(default False); write true or false"),
        ("DEBUG=1", "(default False); write true or false"),
        ("EPOCHS=2,3", "(default 3); `labkit sweep` tries several values"),
        ("EPOCHS=1..5", "(default 3); `labkit sweep` tries several values"),
        ("EPOCHS=2,x", "(default 3)"),
        ("EPOCHS=x", "(default 3)"),
        ("OPTIMIZER=adam,sgd", "(default 'adam'); `labkit sweep` tries several values"),
    ],
)
def test_a_refusal_says_what_was_probably_meant(text: str, hint: str):
    cell = declared("DEBUG: bool = False\nEPOCHS: int = 3\n" + CHOICES)
    with pytest.raises(ParameterProblem) as raised:
        resolve(cell, from_command_line([text], []), "x")
    assert str(raised.value).endswith(hint)


def test_a_default_that_breaks_its_own_declaration_is_a_problem_of_the_notebook_said_with_the_others():
    cell = declared("EPOCHS: int = 0  # in [1, 512]\nNAME: str = None\nRATE: float = 0.1")
    with pytest.raises(NotebookProblem) as raised:
        admit(cell, {"RATE": "x"}, "x.ipynb")
    first, second, third = str(raised.value).split("\n")
    assert first.startswith("x.ipynb, line 1 of the parameters: EPOCHS = 0 is outside of the range [1, 512]")
    assert second.startswith("x.ipynb, line 2 of the parameters: NAME = None is None, but the notebook declares str")
    assert third.startswith("RATE = 'x' is str")


def test_looking_at_a_notebook_does_not_judge_its_defaults():
    assert resolve(declared("EPOCHS: int = 'x'\nRATE: float = 0.1"), {"RATE": 1}, "x.ipynb") == {"RATE": 1.0}


MODES = """
DEBUG: bool = False
RESUME: str = ""
TRAIN: bool = True
TEST: bool = True
MODEL_PATH: str = ""
"""
REFUSED_TOGETHER = {
    "TRAIN=False TEST=False": ["leave nothing to do", "needs MODEL_PATH"],
    "TRAIN=False": ["TRAIN=False needs MODEL_PATH"],
    "TRAIN=False RESUME=last": ["RESUME goes on with a training"],
}


@pytest.mark.parametrize("text", REFUSED_TOGETHER)
def test_parameters_that_contradict_each_other_are_refused(text: str):
    with pytest.raises(ParameterProblem) as raised:
        admit(declared(MODES), from_command_line(text.split(), []), "x.ipynb")
    assert str(raised.value).count("\n") == len(REFUSED_TOGETHER[text]) - 1
    for part in REFUSED_TOGETHER[text]:
        assert part in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "TEST=False",
        "DEBUG=True",
        "DEBUG=True TEST=False",
        "RESUME= MODEL_PATH=",
        "RESUME=last",
        "TRAIN=False MODEL_PATH=x.pt",
    ],
)
def test_parameters_that_agree_pass(text: str):
    admit(declared(MODES), from_command_line(text.split(), []), "x.ipynb")


@pytest.mark.parametrize("cell", ["TRAIN = False", "TRAIN = 'train.csv'\nTEST = False", "MODEL_PATH = 'model.pt'"])
def test_the_same_names_in_a_notebook_that_means_something_else_stop_nothing(cell: str):
    admit(declared(cell), {}, "x.ipynb")


def test_a_path_for_the_model_in_a_notebook_with_its_own_default_passes():
    assert admit(declared("MODEL_PATH = 'model.pt'"), {"MODEL_PATH": "other.pt"}, "x") == {"MODEL_PATH": "other.pt"}


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
    with pytest.raises(ParameterProblem, match=r"^-p 'EPOCHS': write NAME=VALUE, as in -p EPOCHS=3\n-p ''.*$"):
        from_command_line(["EPOCHS", "A=1", ""], [])


@pytest.mark.parametrize(
    "value",
    [object(), {1: 2}, 10**4300, -(10**5000), b"x", {"a": {3}}, "\ud800", ["\udfff"], {"\ud800": 1}],
    ids=lambda value: f"{type(value).__name__}",
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
    for value in ["'\"\\\n\r\0\x1b", "x" * 2**20, 10**4299, math.inf, -0.0, "\U0001f600"]:
        assert same(asked(ANYTHING=value)["ANYTHING"], value)


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
    try:
        found = resolve(DECLARED, {parameter.name: Raw(text)}, "x.ipynb")[parameter.name]
    except ParameterProblem:
        return
    assert same(allowed(parameter).fit(found), found)


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
    resolve(declared("PAD_TOKEN: str = ''"), {"PAD_TOKEN": Raw("[PAD]")}, "x.ipynb")
    given = {"MAX_TOKENS": Raw("5"), "KEYS": Raw("a"), "MODEL": Raw("sk-small")}
    assert (
        resolve(declared("MAX_TOKENS: int = 1\nKEYS: str = ''\nMODEL: str = ''"), given, "x.ipynb")["MODEL"]
        == "sk-small"
    )


@pytest.mark.parametrize(("text", "value"), [("64", 64), ("auto", "auto"), ("6.5", "6.5"), ("1_000x", "1_000x")])
def test_a_number_or_text_is_a_number_where_it_is_one(text: str, value: object):
    found = resolve(declared("BATCH: int | str = 'auto'"), {"BATCH": Raw(text)}, "x.ipynb")["BATCH"]
    assert found == value and type(found) is type(value)


def test_a_number_too_large_for_a_float_is_refused():
    with pytest.raises(ParameterProblem, match="LR"):
        resolve(declared("LR: float = 0.1"), {"LR": Raw("1e400")}, "x.ipynb")
