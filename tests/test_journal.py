"""Work by hand that differs from a clean run of the saved notebook is named: order, edits, parameters."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tiny import notebook, parameters, write

from labkit.kernel.journal import Entry, Journal, deviations, read_saved, unsaved

SOURCES = {
    "cell-1": "LR: float = 0.1  # step size",
    "cell-2": "run = labkit.start()",
    "cell-3": "a = 1",
    "cell-4": "b = 2",
}
SAVED_S = 1000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    first, *rest = SOURCES.values()
    path = write(tmp_path / "n.ipynb", parameters(first), *rest, "")
    os.utime(path, (SAVED_S, SAVED_S))
    return path


def ran(*names: str, ended_s: float = 900.0, **sources: str) -> list[Entry]:
    return [Entry(name, sources.get(name.replace("-", "_"), SOURCES.get(name, "?")), ended_s) for name in names]


def found(path: Path, entries: list[Entry], then: dict | None = None, now: dict | None = None) -> list[str]:
    saved = read_saved(path)
    assert saved is not None
    return deviations(entries, saved, {"LR": 0.1} if then is None else then, {"LR": 0.1} if now is None else now)


def test_every_cell_once_and_in_order_is_clean(path: Path) -> None:
    assert found(path, ran("cell-2", "cell-3", "cell-4")) == []


def test_a_run_that_is_not_at_its_end_yet_is_clean(path: Path) -> None:
    assert found(path, ran("cell-2", "cell-3")) == []


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("cell-2", "cell-4", "cell-3"), "cells 2, 4, 3"),
        (("cell-2", "cell-3", "cell-3"), "cells 2, 3, 3"),
        (("cell-2", "cell-4"), "cell-3 did not run"),
    ],
)
def test_cells_out_of_order_again_or_left_out_are_named(path: Path, names: tuple[str, ...], reason: str) -> None:
    assert found(path, ran(*names)) == [reason]


def test_a_cell_edited_after_it_ran_is_named(path: Path) -> None:
    assert found(path, ran("cell-2", "cell-3", cell_3="a = 5")) == ["cell-3 edited after it ran"]


def test_a_cell_deleted_after_it_ran_is_named(path: Path) -> None:
    assert found(path, ran("cell-2", "cell-9", "cell-3")) == ["cell-9 changed or deleted after it ran"]


def test_a_cell_that_ran_after_the_last_save_may_not_be_saved_yet(path: Path) -> None:
    late = ran("cell-2", "cell-3", ended_s=SAVED_S + 1, cell_3="a = 5")
    assert found(path, late) == []
    saved = read_saved(path)
    assert saved is not None and unsaved(late, saved) == ["cell-3"]


def test_without_ids_cells_are_known_by_their_source(path: Path) -> None:
    entries = [Entry("", SOURCES[name], 900.0) for name in ("cell-2", "cell-4", "cell-3")]
    assert found(path, entries) == ["cells 2, 4, 3"]


def test_parameters_that_changed_after_the_start_are_named(path: Path) -> None:
    assert found(path, ran("cell-2"), now={"LR": 0.5}) == ["LR changed after the start"]
    assert found(path, ran("cell-2"), then={"LR": 0.5}, now={"LR": 0.5}) == ["LR is not what the notebook says"]


def test_a_parameter_that_is_not_a_number_is_equal_to_itself(path: Path) -> None:
    nan = float("nan")
    assert found(path, ran("cell-2"), then={"X": nan}, now={"X": float("nan")}) == []


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"cells": 3}', '{"cells": [3, {"cell_type": "code"}]}'])
def test_a_notebook_that_cannot_be_read_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "n.ipynb").write_text(content)
    assert read_saved(tmp_path / "n.ipynb") is None
    assert read_saved(tmp_path / "missing.ipynb") is None


def test_a_parameters_cell_that_is_no_python_declares_nothing(tmp_path: Path) -> None:
    saved = read_saved(write(tmp_path / "n.ipynb", parameters("%%bash\nls"), "x"))
    assert saved is not None and saved.parameters == {}
    assert notebook("x").cells


def test_a_cell_whose_last_execution_raised_has_failed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.entries += [
        Entry("a", "1", 1.0, ok=False),
        Entry("b", "2", 2.0),
        Entry("a", "1", 3.0),
        Entry("c", "3", 4.0, ok=False),
    ]
    assert journal.failed() == ["c"]
