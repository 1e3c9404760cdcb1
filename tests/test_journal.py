"""Work by hand that differs from a clean run of the saved notebook is named: order, edits, parameters."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import parameters, write

from labkit.kernel.explored import deviations, failed, of_this_run, unsaved
from labkit.kernel.journal import Entry
from labkit.kernel.saved import Saved, only_declares, parameter_names, read_saved

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


def read(path: Path) -> Saved:
    saved = read_saved(path)
    assert saved is not None
    return saved


def found(
    path: Path, entries: list[Entry], then: dict | None = None, changed: tuple[str, ...] = (), **how
) -> list[str]:
    return deviations(entries, read(path), {"LR": 0.1} if then is None else then, changed, **how)


def before(*sources: str, ended_s: float = 900.0) -> list[Entry]:
    return [Entry("", source, ended_s) for source in sources]


def test_every_cell_once_and_in_order_is_clean(path: Path) -> None:
    assert found(path, ran("cell-2", "cell-3", "cell-4")) == []


def test_a_run_that_is_not_at_its_end_yet_is_clean(path: Path) -> None:
    assert found(path, ran("cell-2", "cell-3")) == []


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("cell-2", "cell-4", "cell-3"), "cells 2, 4, 3"),
        (("cell-2", "cell-3", "cell-3"), "cells 2, 3, 3"),
        (("cell-2", "cell-4"), "cell 3 `a = 1` did not run"),
    ],
)
def test_cells_out_of_order_again_or_left_out_are_named(path: Path, names: tuple[str, ...], reason: str) -> None:
    assert found(path, ran(*names)) == [reason]


def test_a_cell_edited_after_it_ran_is_named(path: Path) -> None:
    assert found(path, ran("cell-2", "cell-3", cell_3="a = 5")) == ["cell 3 `a = 5` edited after it ran"]


def test_a_cell_deleted_after_it_ran_is_named(path: Path) -> None:
    assert found(path, ran("cell-2", "cell-9", "cell-3")) == ["a cell `?` changed or deleted after it ran"]


def test_a_cell_that_ran_after_the_last_save_may_not_be_saved_yet(path: Path) -> None:
    late = ran("cell-2", "cell-3", ended_s=SAVED_S + 1, cell_3="a = 5")
    assert found(path, late) == []
    assert unsaved(late, read(path)) == ["cell 3 `a = 5`"]


def test_what_has_not_been_saved_when_the_run_is_over_never_was(path: Path) -> None:
    late = ran("cell-2", "cell-3", "cell-9", ended_s=SAVED_S + 1, cell_3="a = 5")
    assert found(path, late, over=True) == [
        f"{cell} ran in a form that was never saved" for cell in ("cell 3 `a = 5`", "a cell `?`")
    ]


def test_without_ids_cells_are_known_by_their_source(path: Path) -> None:
    entries = [Entry("", SOURCES[name], 900.0) for name in ("cell-2", "cell-4", "cell-3")]
    assert found(path, entries) == ["cells 2, 4, 3"]


def test_parameters_that_changed_after_the_start_are_named(path: Path) -> None:
    assert found(path, ran("cell-2"), changed=("LR",)) == ["LR changed after the start"]
    assert found(path, ran("cell-2"), then={"LR": 0.5}) == ["LR is not what the notebook says"]


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"cells": 3}', '{"cells": [3, {"cell_type": "code"}]}'])
def test_a_notebook_that_cannot_be_read_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "n.ipynb").write_text(content)
    assert read_saved(tmp_path / "n.ipynb") is None
    assert read_saved(tmp_path / "missing.ipynb") is None


def test_a_parameters_cell_that_is_no_python_declares_nothing(tmp_path: Path) -> None:
    assert read(write(tmp_path / "n.ipynb", parameters("%%bash\nls"), "x")).parameters is None


@pytest.mark.parametrize("metadata", [{"tags": 5}, {"tags": None}, {"tags": [5, {}]}, [], 3, None])
def test_a_cell_whose_tags_are_none_is_a_cell_like_others(path: Path, metadata: object) -> None:
    content = json.loads(path.read_text())
    content["cells"][2]["metadata"] = metadata
    path.write_text(json.dumps(content))
    saved = read(path)
    assert saved.parameters == {"LR": 0.1} and saved.sources == list(SOURCES.values())


def test_a_cell_is_named_as_a_person_finds_it_and_never_by_its_id(path: Path) -> None:
    long = "\n  # the long way round, with words enough\na = 5"
    (reason,) = found(path, ran("cell-2", "cell-3", cell_3=long))
    assert reason == "cell 3 `# the long way round, with words…` edited after it ran"


def test_of_cells_with_one_source_the_next_one_ran(tmp_path: Path) -> None:
    sources = ["run = labkit.start()", "x = 1", "print(x)", "x += 1", "print(x)"]
    path = write(tmp_path / "n.ipynb", *sources)
    os.utime(path, (SAVED_S, SAVED_S))
    assert found(path, before(*sources), {}) == []
    assert found(path, before(*sources[:3], "x = 1"), {}) == ["cells 1, 2, 3, 2"]


def test_a_file_without_ids_is_compared_by_source_whatever_ids_are_told(path: Path) -> None:
    content = json.loads(path.read_text())
    for cell in content["cells"]:
        del cell["id"]
    path.write_text(json.dumps(content))
    assert (
        found(path, [Entry(f"made-up-{number}", source, 9e9) for number, source in enumerate(SOURCES.values())]) == []
    )


def test_line_ends_and_empty_space_at_the_end_are_no_edits(path: Path) -> None:
    assert found(path, ran("cell-2", "cell-3", cell_3="a = 1 \r\n")) == []


OTHERS = "the kernel had run other cells before the start"


@pytest.mark.parametrize(
    ("sources", "reasons"),
    [
        ((SOURCES["cell-1"],), []),
        (("a = 1",), [OTHERS]),  # stands below the start
        (("scale = 3", SOURCES["cell-1"]), [OTHERS]),
        ((*SOURCES.values(), *SOURCES.values(), SOURCES["cell-1"]), []),  # Run All once more
        ((*SOURCES.values(), "lr = 0.1", SOURCES["cell-1"]), [OTHERS]),
        (("LR: float = 0.3", "%matplotlib inline\n", "# nothing"), []),  # a parameter is told by its value
        (("LR = load()",), [OTHERS]),
    ],
)
def test_what_a_clean_run_would_not_have_run_before_the_start_is_named(
    path: Path, sources: tuple[str, ...], reasons: list[str]
) -> None:
    assert found(path, ran("cell-2", "cell-3"), before=before(*sources)) == reasons


def test_what_ran_before_the_start_and_after_the_last_save_may_not_be_saved_yet(path: Path) -> None:
    unknown = before("scale = 3", ended_s=SAVED_S + 1)
    assert found(path, ran("cell-2"), before=unknown) == []
    assert found(path, ran("cell-2"), before=unknown, over=True) == [OTHERS]


def test_cells_above_the_start_that_ran_again_just_before_the_next_one_are_its(path: Path) -> None:
    saved, again = read(path), ran("cell-2")[0]
    entries = ran("cell-2", "cell-3", "cell-1")
    assert of_this_run(entries, again, saved) == entries[:2]
    assert of_this_run(entries, ran("x", x="labkit.start()")[0], saved) == entries[:2]
    assert of_this_run(entries[:1], again, saved) == entries[:1]
    assert of_this_run(entries, None, saved) == entries
    middle = ran("cell-2", "cell-1", "cell-3")
    assert of_this_run(middle, again, saved) == middle


def test_the_cell_that_closes_its_run_is_one_of_it(path: Path) -> None:
    entries, closing = ran("cell-2"), ran("cell-9", cell_9="run.finish()")[0]
    assert of_this_run(entries, closing, read(path)) == [*entries, closing]


def test_what_is_saved_for_the_next_run_says_nothing_of_the_one_before(tmp_path: Path) -> None:
    sources = ["import this", "run = labkit.start()", "a = 1"]
    began = read(write(tmp_path / "n.ipynb", parameters("LR = 0.1"), *sources))
    now = read(write(tmp_path / "n.ipynb", parameters("LR = 0.2"), "import that", *sources[1:]))
    entries = [Entry("cell-3", sources[1], 0.0), Entry("cell-4", sources[2], 0.0)]
    ran_before = before("LR = 0.1", "import this")
    how = {"before": ran_before, "over": True}
    assert deviations(entries, now, {"LR": 0.1}, (), began=began, **how) == []
    assert deviations(entries, now, {"LR": 0.1}, (), **how) == [OTHERS, "LR is not what the notebook says"]
    assert deviations(entries, now, {"LR": 7}, (), began=began, **how)[-1] == "LR is not what the notebook says"


@pytest.mark.parametrize(
    ("source", "declares"),
    [
        ("A = 1\nB: int = 2", True),
        ("A = B = 1", True),
        ("# A", True),
        ("A = 1\nC = 2", False),
        ("A = f()", False),
        ("A, x.y = 1, 2", False),
        ("A.x = 1", False),
        ("A = 1\nprint(A)", False),
        ("%%bash", False),
    ],
)
def test_a_cell_that_only_declares_does_nothing_else(source: str, declares: bool) -> None:
    assert only_declares(source, {"A", "B"}) == declares


def test_a_parameter_that_is_not_saved_yet_is_one(path: Path) -> None:
    executed = ["x = 1", "LR = 0.2\nMOMENTUM = 0.9", "BEST = 3"]
    assert parameter_names(read(path), executed) == ["LR", "MOMENTUM"]
    assert parameter_names(read(path), []) == ["LR"]


def test_a_cell_whose_last_execution_raised_has_failed(path: Path) -> None:
    entries = [
        Entry("cell-3", "1", 1.0, ok=False),
        Entry("cell-4", "2", 2.0),
        Entry("cell-3", "1", 3.0),
        Entry("cell-2", "3", 4.0, ok=False),
        Entry("cell-1", "4", 5.0),
    ]
    assert failed(entries, read(path)) == ["cell 2 `3`"]
    assert failed(entries, None) == ["a cell `3`"]


def test_without_ids_a_cell_that_was_mended_has_not_failed_and_is_not_unsaved(path: Path) -> None:
    typo, mended = Entry("", "a = l", SAVED_S + 1, ok=False), Entry("", "a = 1", SAVED_S + 2)
    assert failed([typo, mended], read(path)) == []
    assert failed([mended, typo], read(path)) == failed([typo, mended], None) == ["a cell `a = l`"]
    assert unsaved([typo, mended], read(path)) == []
    assert unsaved([mended, replace(typo, ended_s=SAVED_S + 3)], read(path)) == ["a cell `a = l`"]


def test_without_ids_what_the_notebook_was_saved_without_is_not_unsaved(path: Path) -> None:
    assert unsaved([Entry("", "a = 0", SAVED_S - 1), Entry("", "a = 1", SAVED_S - 1)], read(path)) == []
    assert unsaved([Entry("", "a = 0", SAVED_S + 1)], read(path)) == ["a cell `a = 0`"]
