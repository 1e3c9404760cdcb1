"""What git stores of a notebook: the filter takes away what a run left, always the same, and never stops git."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_output
from tiny import ROOT, notebook, parameters

from labkit.workbench.notebooks import clean
from labkit.workbench.notebooks.clean import cleaned, dumps, filtered

JUNK = st.sampled_from([*clean.CELL_LEAVINGS, "tags", "jupyter", "mine", "vscode"])
VALUE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.dictionaries(JUNK, st.text(max_size=3), max_size=2)
)
METADATA = st.dictionaries(JUNK | st.text(max_size=4), VALUE, max_size=4)
KERNEL = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["python3", "conda-env-lab", "ir"]),
        "display_name": st.text(max_size=5),
        "language": st.sampled_from(["python", "R"]),
    },
)
CELLS = st.fixed_dictionaries(
    {
        "cell_type": st.sampled_from(["code", "markdown", "raw"]),
        "id": st.text("abc-", min_size=1),
        "metadata": METADATA,
        "source": st.text() | st.lists(st.text()),
    },
    optional={"outputs": st.just([{"output_type": "stream", "name": "stdout", "text": "7"}]), "execution_count": VALUE},
)
NOTEBOOKS = st.fixed_dictionaries(
    {
        "cells": st.lists(CELLS, max_size=3),
        "metadata": st.fixed_dictionaries(
            {},
            optional={
                "kernelspec": KERNEL | VALUE,
                "language_info": KERNEL | VALUE,
                "widgets": VALUE,
                "papermill": VALUE,
                "title": VALUE,
            },
        ),
        "nbformat": st.just(4),
        "nbformat_minor": st.just(5),
    }
)


def run_by_hand(kernel: str = "python3") -> nbformat.NotebookNode:
    """A notebook as JupyterLab leaves it after a run in some environment."""
    made = notebook(parameters("EPOCHS: int = 3"), "print(EPOCHS)")
    made.cells[1].update(outputs=[new_output("stream", text="3\n")], execution_count=7)
    made.cells[1].metadata = {
        "execution": {"iopub.execute_input": "2026-11-21T10:00:00Z"},
        "scrolled": True,
        "jupyter": {"outputs_hidden": True, "source_hidden": True},
    }
    made.metadata.kernelspec = {"display_name": "Python 3 (lab)", "language": "python", "name": kernel}
    made.metadata.language_info = {"name": "python", "version": "3.13.1", "pygments_lexer": "ipython3"}
    made.metadata.widgets = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    made.metadata.papermill = {"duration": 3.0}
    return made


@given(NOTEBOOKS)
def test_filtering_twice_is_filtering_once(made):
    once = filtered(json.dumps(made).encode())
    assert filtered(once) == once


@given(NOTEBOOKS)
def test_what_people_wrote_stays_and_the_notebook_given_is_not_touched(made):
    before = copy.deepcopy(made)
    kept = cleaned(made)
    assert made == before
    for cell, old in zip(kept["cells"], made["cells"], strict=True):
        assert {key: cell[key] for key in ("id", "source", "cell_type")} == {
            key: old[key] for key in ("id", "source", "cell_type")
        }
        assert all(
            cell["metadata"][name] == old["metadata"][name] for name in ("tags", "mine") if name in old["metadata"]
        )
    assert kept["metadata"].get("title") == made["metadata"].get("title")


@given(st.binary(max_size=40))
def test_any_bytes_are_filtered_or_refused(data):
    with pytest.raises(ValueError):
        filtered(data)


def test_what_a_run_leaves_is_gone_and_the_rest_is_there():
    kept = json.loads(filtered(nbformat.writes(run_by_hand()).encode()))
    assert kept["cells"][1]["outputs"] == [] and kept["cells"][1]["execution_count"] is None
    assert kept["cells"][1]["metadata"] == {"jupyter": {"source_hidden": True}}
    assert kept["cells"][0]["metadata"] == {"tags": ["parameters"]}
    assert kept["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }


def test_two_machines_store_the_same():
    first, second = (filtered(nbformat.writes(run_by_hand(kernel)).encode()) for kernel in ("python3", "conda-env-lab"))
    assert first == second


def test_the_kernel_of_another_language_is_kept_without_its_version():
    made = notebook("1")
    made.metadata = {
        "kernelspec": {"display_name": "R", "language": "R", "name": "ir"},
        "language_info": {"name": "R", "version": "4.4"},
    }
    kept = cleaned(made)["metadata"]
    assert kept["kernelspec"]["name"] == "ir" and kept["language_info"] == {"name": "R"}


def test_the_filter_writes_what_jupyter_writes():
    made = run_by_hand()
    kept = nbformat.from_dict(cleaned(json.loads(nbformat.writes(made))))
    assert filtered(nbformat.writes(made).encode()).decode() == nbformat.writes(kept) + "\n"


@pytest.mark.parametrize("path", [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("templates/*/*.ipynb")], ids=str)
def test_the_notebooks_here_are_stored_as_the_filter_leaves_them(path):
    assert path.read_bytes() == filtered(path.read_bytes())


def test_half_a_surrogate_pair_stays_an_escape():
    made = notebook("'\ud800'")
    assert b"\\ud800" in dumps(cleaned(made)) and json.loads(dumps(made))["cells"][0]["source"] == "'\ud800'"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe\x00",
        b"{}",
        b"[1]",
        b'{"nbformat": 3, "worksheets": []}',
        b'{\n<<<<<<< HEAD\n "cells": [],\n=======\n "cells": [1],\n>>>>>>> b\n "nbformat": 4}',
        b'{"cells": [], "metadata": {"x": 1e999}, "nbformat": 4}',
        b'{"cells": [1], "metadata": {}, "nbformat": 4}',
        b'{"cells": ' + b"[" * 100_000 + b"]" * 100_000 + b', "metadata": {}, "nbformat": 4}',
    ],
)
def test_what_is_no_notebook_is_refused(data):
    with pytest.raises(ValueError):
        filtered(data)


def program(data: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-I", "-S", clean.__file__, "x.ipynb"], input=data, capture_output=True)


def test_as_a_program_it_passes_what_it_cannot_read_and_says_so():
    torn = b'{\n<<<<<<< HEAD\n "cells": [],\n'
    done = program(torn)
    assert (done.returncode, done.stdout) == (0, torn)
    assert done.stderr.startswith(b"labkit: git takes x.ipynb as it is:") and done.stderr.count(b"\n") == 1


def test_a_notebook_with_ten_megabytes_of_outputs_is_filtered_in_no_time():
    made = run_by_hand()
    made.cells[1].outputs[0].text = "x" * 10_000_000
    started = time.monotonic()
    done = program(nbformat.writes(made).encode())
    assert len(done.stdout) < 1500 and time.monotonic() - started < 5, "the machine may be busy"


def test_the_notebooks_of_this_repository_are_as_git_stores_them_so_a_clone_is_clean_with_the_filter():
    listed = subprocess.run(["git", "ls-files", "-z", "*.ipynb"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git repository here")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert files and [file.name for file in files if filtered(file.read_bytes()) != file.read_bytes()] == []
