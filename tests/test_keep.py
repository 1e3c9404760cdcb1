"""What a run keeps of its figures and tables, and how it marks those that stand for nothing."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from labkit.errors import RunProblem
from labkit.kernel.keep import mark
from labkit.kernel.run import Run
from labkit.kernel.style import DPI
from labkit.record.rundir import create


@pytest.fixture
def run(lab):
    """A run that labkit made, joined."""
    labels = ["debug"]
    directory = create(lab / "runs", "n", {"notebook": "notebooks/n.ipynb", "labels": labels, "parameters": {}})
    made = Run.join(directory.path)
    yield made
    made.finish()


def height(run):
    return Image.open(io.BytesIO((run.path / "figures" / "line.png").read_bytes())).height


def line(run):
    run.figure("line", {"a": [1, 2]}, lambda data, figure: figure.subplots().plot(data["a"]), size=(4.0, 2.0))
    return height(run) - 2 * DPI


def test_the_figures_of_a_debug_run_and_of_one_labelled_stand_in_are_marked(run):
    assert line(run) > 0
    run.label("stand-in")
    assert line(run) > 0
    run.directory.update_manifest(labels=[])
    assert line(run) > 0
    run._stated._labels.clear()
    assert line(run) == 0


def test_a_mark_names_each_reason_once():
    assert mark(["debug", "explored", "stand-in", "debug"]) == "debug run · stand-in data"
    assert mark([]) == mark(["explored"]) == ""


def test_a_table_is_kept_among_the_figures_and_shown_as_it_was_saved(run):
    table = pd.DataFrame({"epoch": [1, 2], "loss": np.array([0.1, 0.2], dtype=np.float32)})
    shown = run.table("epochs", table)
    assert shown["epoch"].tolist() == [1, 2] and shown["loss"].dtype == np.float64
    assert (run.path / "figures" / "epochs.csv").read_text().splitlines()[0] == '"epoch","loss"'
    with pytest.raises(RunProblem, match=r"cannot be called '\.\./x'"):
        run.table("../x", table)


def test_a_table_that_cannot_be_saved_is_shown_all_the_same_and_counted(run, capsys):
    (run.path / "figures").rmdir() if (run.path / "figures").exists() else None
    (run.path / "figures").write_text("a file in the way")
    assert run.table("epochs", {"a": [1]})["a"].tolist() == [1]
    assert run._figures_lost == 1


def test_a_closed_run_takes_no_figure_no_table_and_no_label(run):
    run.finish()
    for refused in (lambda: line(run), lambda: run.table("epochs", {"a": [1]}), lambda: run.label("stand-in")):
        with pytest.raises(RunProblem, match=r"run\.\w+: .* is closed; use the run that labkit\.start\(\) opened"):
            refused()
    assert not list(run.path.glob("figures/*")) and not run.directory.stated.exists()
