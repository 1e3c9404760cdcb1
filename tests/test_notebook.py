"""A notebook is read and checked without running it; what cannot run is refused with the reason."""

from __future__ import annotations

import copy
import json
import os
import random
import time
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import mutated
from records import quick
from tiny import ROOT, markdown, notebook, parameters, write

from labkit.errors import NotebookProblem
from labkit.workbench.notebooks.notebook import LIMIT_BYTES, read


def content(*cells) -> dict:
    return json.loads(nbformat.writes(notebook(*cells)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.ipynb"


def saved(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(NotebookProblem) as raised:
        read(path)
    assert path.name in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    "file", sorted([*ROOT.glob("tests/notebooks/*.ipynb"), *ROOT.glob("notebooks/*.ipynb")]), ids=lambda f: f.stem
)
def test_every_notebook_of_this_repository_can_be_read(file: Path):
    found = read(file)
    assert found.name == file.stem
    assert found.kernel == "python3"
    assert found.language == "python"
    found.parameters()


def test_name_title_kernel_and_parameters_come_from_the_file(path: Path):
    found = read(
        write(path, markdown("text\n\n## Handwritten digits ##\nmore"), parameters("N: int = 3  # steps"), "print(N)")
    )
    assert (found.name, found.title, found.kernel, found.language) == ("x", "Handwritten digits", "python3", "python")
    assert [(p.name, p.default, p.help) for p in found.parameters()] == [("N", 3, "steps")]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# A", "A"),
        ("### A #", "A"),
        ("# C#", "C#"),
        ("#no heading\n# Yes", "Yes"),
        ("# \n# B", "B"),
        ("none", "x"),
        ("#\tT \t", "T"),
    ],
)
def test_a_title_is_the_first_heading_without_its_signs(path: Path, text: str, title: str):
    assert read(write(path, markdown(text))).title == title


@pytest.mark.parametrize(
    "text", ["# " + "#" * 200_000 + "x", "# a" + " \t" * 200_000 + "x", "#" * 300_000, ("#" * 6 + " ") * 60_000]
)
def test_no_heading_takes_long_to_read(path: Path, text: str):
    found = read(write(path, markdown(text)))
    began = time.perf_counter()
    assert found.title
    assert time.perf_counter() - began < 1


def test_sources_as_lists_and_outputs_of_earlier_runs_make_no_difference(path: Path):
    document = content(markdown("# A"), "x = 1\ny = 2")
    plain = read(saved(path, document))
    document["cells"][1] |= {
        "source": ["x = 1\n", "y = 2"],
        "execution_count": 7,
        "outputs": [{"output_type": "stream", "name": "stdout", "text": "x" * 1000}],
        "metadata": {"papermill": {"status": "completed"}, "execution": {}, "tags": []},
    }
    document["metadata"] |= {"papermill": {}, "widgets": {"state": {}}}
    found = read(saved(path, document))
    assert found.sha256 == plain.sha256
    assert found.cells[1]["outputs"] == []
    assert found.cells[1]["execution_count"] is None
    assert "papermill" not in found.content["metadata"]
    assert len(found.dumps()) < 2000


def test_the_fingerprint_changes_with_a_source_a_type_and_an_order(path: Path):
    one = read(write(path, "a", "b")).sha256
    assert one != read(write(path, "b", "a")).sha256
    assert one != read(write(path, "a", "b ")).sha256
    assert one != read(write(path, "a", markdown("b"))).sha256
    assert one == read(write(path, "a", "b")).sha256


def test_what_is_dumped_reads_back_the_same(path: Path):
    found = read(write(path, markdown("# A"), parameters("N = 1"), "print('ä\u2028')"))
    path.write_bytes(found.dumps())
    assert read(path).content == found.content
    nbformat.validate(nbformat.reads(found.dumps().decode(), 4))


def test_a_notebook_without_metadata_asks_for_the_usual_kernel(path: Path):
    found = read(saved(path, {"nbformat": 4, "cells": []}))
    assert (found.kernel, found.language, found.title, found.parameters()) == ("python3", "python", "x", [])


def refused(document: object, says: str) -> tuple[str, str]:
    return (document if isinstance(document, str) else json.dumps(document), says)


def changed(**cell) -> dict:
    document = content("a", "b")
    document["cells"][1] |= cell
    return document


REFUSED = {
    "empty": refused("", "is not a notebook"),
    "no JSON": refused("{'a': 1}", "is not a notebook"),
    "cut short": refused(json.dumps(content("a"))[:-5], "is not a notebook"),
    "a list": refused([1], "no notebook"),
    "no format": refused({"cells": []}, "has no `nbformat`"),
    "format 3": refused({"nbformat": 3, "worksheets": []}, "notebook format 3"),
    "format 5": refused({"nbformat": 5, "cells": []}, "notebook format 5"),
    "format as text": refused({"nbformat": "4", "cells": []}, "notebook format '4'"),
    "no cells": refused({"nbformat": 4}, "`cells` is no list"),
    "metadata a list": refused({"nbformat": 4, "cells": [], "metadata": []}, "`metadata` no object"),
    "a cell is text": refused({"nbformat": 4, "cells": ["x"]}, "cell 1 is no cell"),
    "unknown cell": refused(changed(cell_type="heading"), "cell 2 is no cell"),
    "no source": refused(changed(source=None), "cell 2 has no proper `source`"),
    "mixed source": refused(changed(source=["a", 1]), "cell 2 has no proper `source`"),
    "metadata of a cell": refused(changed(metadata=[]), "cell 2 has no proper `source` or `metadata`"),
    "double ids": refused(changed(id="cell-1"), "cells 1 and 2 have the same id 'cell-1'"),
    "half a character": refused(json.dumps(content("a")).replace('"a"', '"\\ud800"'), "is not a notebook"),
    "too deep": refused('{"nbformat":4,"cells":' + "[" * 100_000, "is not a notebook"),
}


@pytest.mark.parametrize(("text", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_notebook_is_refused_with_the_reason(path: Path, text: str, says: str):
    path.write_text(text)
    assert says in refusal(path)


@pytest.mark.parametrize("mark", ["<<<<<<< HEAD\n", "=======\n", ">>>>>>> branch\n"])
def test_conflict_markers_are_named(path: Path, mark: str):
    text = write(path, "a").read_text()
    path.write_text(text.replace("\n", "\n" + mark, 1))
    assert "conflict" in refusal(path)


def test_conflict_markers_inside_a_source_are_no_conflict(path: Path):
    assert read(write(path, "x = '''\n<<<<<<< HEAD\n=======\n>>>>>>> b\n'''")).cells


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "null byte", "too long", "no permission"])
def test_a_file_that_cannot_be_read_is_refused(path: Path, kind: str):
    match kind:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "null byte":
            path = path.parent / "a\0.ipynb"
        case "too long":
            path = path.parent / ("x" * 300 + ".ipynb")
        case "no permission":
            if os.geteuid() == 0:
                pytest.skip("root reads everything")
            write(path, "a").chmod(0)
    with pytest.raises(NotebookProblem):
        read(path)


def test_a_missing_notebook_is_refused_with_a_near_name(path: Path):
    write(path.parent / "digits-cnn.ipynb", "a")
    with pytest.raises(NotebookProblem, match=r"did you mean .*digits-cnn\.ipynb\?"):
        read(path.parent / "digit-cnn.ipynb")


def test_a_notebook_of_two_hundred_megabytes_is_refused_before_it_is_read(path: Path):
    with path.open("wb") as file:
        file.truncate(200 * 2**20)
    began = time.perf_counter()
    assert "200 MiB" in refusal(path)
    assert time.perf_counter() - began < 1
    assert LIMIT_BYTES < 200 * 2**20


def test_two_cells_of_parameters_are_refused(path: Path):
    with pytest.raises(NotebookProblem, match="cells 1, 3 are all tagged"):
        read(write(path, parameters("A = 1"), "x", parameters("B = 1"))).parameters()


@pytest.mark.parametrize("source", ["%matplotlib inline", "A = ", "A = 1\0", "(" * 10_000])
def test_a_parameters_cell_that_is_no_plain_python_is_refused(path: Path, source: str):
    with pytest.raises(NotebookProblem, match="cell 1, tagged `parameters`, is not plain Python"):
        read(write(path, parameters(source))).parameters()


def test_a_tag_on_prose_declares_nothing(path: Path):
    cell = markdown("A = 1")
    cell["metadata"]["tags"] = ["parameters"]
    assert read(write(path, cell)).parameters() == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
WHOLE = content(markdown("# A"), parameters("N: int = 1"), "print(N)")
PLACES = [
    ("metadata",),
    ("metadata", "kernelspec"),
    ("nbformat",),
    ("nbformat_minor",),
    ("cells",),
    *[("cells", 1, key) for key in WHOLE["cells"][1]],
]


@quick
@given(st.sampled_from(PLACES), json_values)
def test_any_value_in_any_place_is_read_or_refused(tmp_path_factory, place: tuple, value: object):
    document = copy.deepcopy(WHOLE)
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    look(saved(tmp_path_factory.getbasetemp() / "any.ipynb", document))


def look(path: Path) -> None:
    try:
        found = read(path)
        found.parameters()
    except NotebookProblem:
        return
    assert isinstance(found.title, str)
    assert isinstance(found.kernel, str)
    assert isinstance(found.language, str)
    assert len(found.sha256) == 64
    assert found.dumps()


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.faults)])
def test_a_notebook_with_flipped_cut_and_doubled_bytes_is_read_or_refused(path: Path, count: int, record_property):
    seed = random.randrange(2**32)
    record_property("seed", seed)
    print("seed", seed)
    whole, chance = json.dumps(WHOLE, indent=1).encode(), random.Random(seed)
    for _ in range(count):
        path.write_bytes(mutated(whole, chance))
        look(path)
