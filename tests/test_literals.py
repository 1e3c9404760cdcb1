"""Parameters reach the kernel as data: the cell that gives them is executed, and what it leaves is compared."""

from __future__ import annotations

import ast
import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from plain import plain_text, same, values
from records import quick
from running import run
from tiny import parameters, write

from labkit.errors import ParameterProblem
from labkit.record.declared import declared
from labkit.record.files import plain_json, read_json, write_json
from labkit.workbench.notebooks.literals import TOO_LARGE, cell, literal, read_literal
from labkit.workbench.notebooks.params import resolve
from labkit.workbench.running.job import Job

AWKWARD = {
    "QUOTES": "'\"\\ '''\"\"\" {x} %s $HOME `id`",
    "LINES": "a\nb\r\nc\rd\x0b\x0c\x1c\x85\u2028\u2029",
    "CONTROL": "\0\x1b[31m\x7f\ufeff\u202e",
    "EMOJI": "\U0001f600 \N{COMBINING ACUTE ACCENT} Ω",
    "MAGIC": "%run x\n!ls\n?help?",
    "CODE": "'); import os; os.mkdir('made') #",
    "LARGE": 10**40,
    "LARGEST": TOO_LARGE - 1,
    "NEGATIVE": -(2**63) - 1,
    "NAN": math.nan,
    "INFINITE": -math.inf,
    "ZERO": -0.0,
    "TINY": 5e-324,
    "DIGITS": 0.1 + 0.2,
    "NESTED": [1, [None, {"a\n'": [True, -0.0, {}]}], [], ""],
    "PAIR": (1, ("a",), ()),
}


def left_by(source: str) -> dict[str, object]:
    namespace: dict[str, object] = {}
    exec(compile(source, "cell", "exec"), namespace)
    namespace.pop("__builtins__")
    return namespace


def test_awkward_values_come_back_from_the_cell_and_its_source_is_one_assignment_a_line():
    source = cell(AWKWARD, "Parameters")
    assert same(left_by(source), AWKWARD)
    assert source.splitlines() == source.split("\n")[:-1]
    assert len(source.splitlines()) == len(AWKWARD) + 1


@quick
@given(values)
@example({"": [math.nan, -math.nan, math.inf]})
def test_any_value_comes_back_from_its_source_executed_or_read(value: object):
    assert same(left_by(f"x = {literal(value)}")["x"], value)
    assert same(read_literal(literal(value)), value)


anything = st.text() | st.sampled_from(["__import__('os').mkdir('made')", "../../made", "/tmp/x\0y", "\ud800"])


@quick
@given(st.dictionaries(anything, values | anything, max_size=4))
def test_what_passes_the_door_arrives_equal_and_nothing_else_happens(tmp_path_factory, given_values: dict):
    here = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("empty"))
    try:
        taken = resolve(declared("A = None\nB = None"), given_values | {"A": list(given_values)}, "x.ipynb")
        assert same(left_by(cell(taken, "Parameters")), taken) and same(taken["A"], list(given_values))
    except ParameterProblem:
        pass
    finally:
        assert os.listdir() == []
        os.chdir(here)


@quick
@given(st.dictionaries(st.sampled_from(["A", "B"]), values | plain_text, max_size=2))
def test_any_cell_only_assigns_constants(given_values: dict):
    body = ast.parse(cell(given_values, "Parameters")).body
    assert all(isinstance(statement, ast.Assign) for statement in body)
    calls = [ast.unparse(node) for node in ast.walk(ast.Module(body)) if isinstance(node, ast.Call)]
    assert set(calls) <= {"float('nan')", "float('-nan')", "float('inf')", "float('-inf')"}


@pytest.mark.parametrize("value", [object(), b"x", {1}, "\ud800", ["\udfff"], TOO_LARGE, 1j, ...], ids=type)
def test_what_no_source_says_exactly_is_refused(value: object):
    with pytest.raises(ValueError, match="cannot be given to a notebook"):
        literal(value)


@pytest.mark.parametrize("source", ["f()", "float('1')", "float(x)", "x", "1 +", "(" * 900, "[1, open('x')]"])
def test_reading_a_value_executes_nothing(source: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError):
        read_literal(source)
    assert os.listdir(tmp_path) == []


def test_values_reach_a_run_in_the_background_through_its_order_unchanged(tmp_path: Path):
    ordered = Job("run", "x.ipynb", AWKWARD, "python3")
    write_json(tmp_path / "job.json", ordered.facts())
    read = Job.of(read_json(tmp_path / "job.json") or {})
    assert same(read.values, AWKWARD)
    assert (read.run, read.kernel, read.timeout_s) == ("run", "python3", None)


@pytest.mark.slow
def test_a_real_run_gets_and_records_what_was_asked_for(lab: Path) -> None:
    names = {name: value for name, value in AWKWARD.items() if name not in ("PAIR", "LARGEST")}
    declaration = "\n".join(
        [*(f"{name} = None" for name in names), "PAIR: tuple[int, tuple[str], tuple] = (0, ('',), ())"]
    )
    tell = f"print(ascii({{name: globals()[name] for name in {[*names, 'PAIR']}}}))"
    path = write(lab / "notebooks" / "awkward.ipynb", parameters(declaration), tell)
    text = json.dumps(names | {"PAIR": AWKWARD["PAIR"]})
    text = text.replace("NaN", ".nan").replace("-Infinity", "-.inf")
    (lab / "p.yaml").write_text(text)
    ended = run(path, "-f", str(lab / "p.yaml"))
    assert ended.exit_status == 0, ended.err
    had = eval(ended.log, {"nan": math.nan, "inf": math.inf})
    assert same(had, names | {"PAIR": AWKWARD["PAIR"]})
    manifest = read_json(ended.run.manifest)
    assert manifest is not None and manifest["parameters"] == manifest["given"]
    assert same(manifest["given"], plain_json(had))
    assert json.loads(ended.run.notebook.read_bytes(), parse_constant=pytest.fail)
    assert "made" not in os.listdir(lab / "notebooks")
