"""YAML 1.2 in plain types: what is written is read back equal, and a hostile file is a message."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from plain import plain_text, same, values
from records import quick

from labkit.errors import ParameterProblem
from labkit.record.declared import declared
from labkit.workbench.notebooks.params import resolve
from labkit.workbench.notebooks.yamlfile import read_yaml, yaml_text, yaml_value

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


def test_yaml_is_read_as_version_1_2(tmp_path: Path):
    (tmp_path / "p.yaml").write_text("A: 1e-4\nB: 007\nC: yes\nD: 12:30\nE: 2026-11-21\nF: 0o17\nG: ~\nH: .nan\n")
    found = read_yaml(tmp_path / "p.yaml")
    assert math.isnan(found.pop("H"))
    assert found == {"A": 1e-4, "B": 7, "C": "yes", "D": "12:30", "E": "2026-11-21", "F": 15, "G": None}


def test_a_few_aliases_cannot_stand_for_billions_of_values(tmp_path: Path):
    lines = ["A0: &a0 [x, x]", *(f"A{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    for text in ("\n".join(lines), "A: &a [*a, *a]"):
        (tmp_path / "p.yaml").write_text(text)
        with pytest.raises(ParameterProblem, match="alias"):
            read_yaml(tmp_path / "p.yaml")


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


UNREADABLE = {
    "missing": (lambda path: None, "cannot be read: No such file"),
    "folder": (Path.mkdir, "cannot be read: Is a directory"),
    "binary": (lambda path: path.write_bytes(bytes(range(256))), "no text in UTF-8"),
    "two megabytes": (lambda path: path.write_bytes(b"A: 1\n" * 2**19), "more than 1 MiB"),
    "tabs": (lambda path: path.write_text("A:\n\tB: 1\n"), "line 2.*indent with spaces"),
    "a key twice": (lambda path: path.write_text("A: 1\nB: 2\nA: 3\n"), "duplicate key.*line 3"),
    "a list": (lambda path: path.write_text("- 1\n"), "holds list; write one `NAME: value` a line"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_file_of_parameters_that_cannot_be_used_is_said_with_its_name(tmp_path: Path, kind: str):
    path = tmp_path / "p.yaml"
    make, message = UNREADABLE[kind]
    make(path)
    with pytest.raises(ParameterProblem, match=rf"p\.yaml.*{message}") as raised:
        read_yaml(path)
    assert len(str(raised.value)) < 600


@pytest.mark.parametrize("text", ["", "# nothing\n", "\ufeff", "~"])
def test_an_empty_file_gives_no_parameters(tmp_path: Path, text: str):
    (tmp_path / "p.yaml").write_text(text, encoding="utf-8")
    assert read_yaml(tmp_path / "p.yaml") == {}


def test_parameters_come_through_a_pipe_as_well(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("A: 1\n",))
    writer.start()
    assert read_yaml(tmp_path / "pipe") == {"A": 1}
    writer.join()


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
