"""What a run's directory says of its parameters: what the kernel has, and a file to run again from."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from plain import plain_text, same
from records import quick
from running import make_lab
from tiny import parameters, write

from labkit.errors import NotebookProblem
from labkit.record.allowed import broken
from labkit.record.declared import declared
from labkit.record.rundir import RunDir
from labkit.workbench.notebooks.params import admit
from labkit.workbench.notebooks.yamlfile import yaml_value
from labkit.workbench.running.job import params_text, prepare


def prepared(folder: Path, cell: str, **asked: object) -> RunDir:
    lab = make_lab(folder / "lab")
    return prepare(write(lab / "notebooks" / "tiny.ipynb", parameters(cell)), asked).directory


def test_a_value_that_the_cell_changes_below_its_line_stands_in_no_record(tmp_path: Path):
    run = prepared(tmp_path, "DEBUG: bool = True\nEPOCHS: int = 20\nif DEBUG:\n    EPOCHS = 2\n")
    manifest = run.read_manifest()
    assert manifest["parameters"] == {"DEBUG": True}
    assert manifest["declared"] == ["DEBUG"]
    assert run.params.read_text() == "DEBUG: true\n"


@pytest.mark.parametrize(
    "rest", ["if not API_KEY:\n    API_KEY = input()", "API_KEY = ''", "API_KEY += 'x'", "del API_KEY"]
)
def test_a_secret_in_the_cell_is_refused_also_where_its_name_gets_another_value_later(tmp_path: Path, rest: str):
    with pytest.raises(NotebookProblem, match="line 1 of the parameters: the default of API_KEY looks like a secret"):
        prepared(tmp_path, f"API_KEY: str = 'hunter2hunter2'\n{rest}\n")


def test_the_manifest_says_what_the_notebook_is_about_who_asked_and_how(tmp_path: Path):
    lab = make_lab(tmp_path / "lab")
    path = write(lab / "notebooks" / "tiny.ipynb", parameters("DEBUG: bool = False"))
    manifest = prepare(path, {"debug": True}, command=["run"], labels=("mine",)).directory.read_manifest()
    assert manifest["labels"] == ["debug", "mine"]
    assert (manifest["title"], manifest["kernel"], manifest["command"]) == ("tiny", "python3", ["run"])
    assert {"question", "conclusion", "next_steps", "source_sha256", "user", "host", "creator"} <= manifest.keys()


REMARK = "the notebook's default, which no file can give as it is"
CHANGED = {  # defaults that YAML has no words for, or that the declared type would make another value of
    "A = {0: 'cat'}": "{0: 'cat'}",
    "A: list = [(3, 3), (5, 5)]": "[(3, 3), (5, 5)]",
    "A = {1}": "{1}",
    "A = b'abc'": "b'abc'",
    "A = 1j": "1j",
    "A: float = 1": "1",
    f"A = 0x{'f' * 4000}": "int",
    f"A = [{'[' * 60}{']' * 60}]": f"{'[' * 61}{']' * 61}",
}


@pytest.mark.parametrize("cell", CHANGED, ids=lambda cell: cell[:20])
def test_a_default_that_a_file_would_change_is_a_remark_in_the_file_to_run_again_from(cell: str):
    assert params_text(declared(cell), {}, {}) == f"{{}}\n# A: {CHANGED[cell]}, {REMARK}\n"


def test_the_remarks_are_in_the_file_of_a_run(tmp_path: Path):
    run = prepared(tmp_path, "CLASSES = {0: 'cat'}\nPAIR: tuple[int, int] = (1, 2)\nEPOCHS: int = 3\n", EPOCHS=5)
    assert run.params.read_text() == (f"PAIR:\n- 1\n- 2\nEPOCHS: 5\n# CLASSES: {{0: 'cat'}}, {REMARK}\n")


def test_a_value_from_python_that_a_file_would_change_is_a_remark_as_well():
    values = {"A": [(1, 2)]}
    remark = "# A: [(1, 2)], given from Python, which no file can give as it is\n"
    assert params_text(declared("A: list = []"), values, values) == "{}\n" + remark


numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
hashable = st.none() | st.booleans() | numbers | plain_text | st.binary(max_size=4) | st.tuples(numbers, numbers)
literals = st.recursive(
    hashable | st.complex_numbers(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.sets(hashable, min_size=1, max_size=3)
    ),
    max_leaves=8,
)
TYPES = ["", ": list", ": tuple", ": dict", ": float", ": float | None", ": list[float]", ": dict[str, tuple]", ": Any"]


@quick
@given(st.sampled_from(["A", "yes", "null", "on", "n", "_", "ä"]), st.sampled_from(TYPES), literals)
@example("A", ": list", [(3, 3)])
@example("A", "", -0.0)
@example("A", ": list[float]", [1, 2.0])
def test_running_again_from_the_file_gives_every_default_as_it_was_or_leaves_it_to_the_notebook(
    name: str, annotation: str, default: object
):
    cell = declared(f"{name}{annotation} = {default!r}")
    if broken(cell):
        return  # no run is made of it
    text = params_text(cell, {}, {})
    found = admit(cell, yaml_value(text), "tiny.ipynb")
    if name in found:
        assert same(found[name], cell[0].default)
    else:
        assert f"\n# {name}: " in text
