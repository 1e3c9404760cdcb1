"""Every notebook and template keeps the contract and runs as shipped."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from tiny import ROOT, plain_environment

from labkit.kernel.figures import load_data, picture
from labkit.record.declared import declared
from labkit.record.metrics import read
from labkit.workbench.notebooks import lint

NOTEBOOKS = sorted([*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "templates").rglob("*.ipynb")])
RECORDED = {"VERSION", "RESUME", "MODEL_PATH"}  # labkit fills the first; run.restore looks at the others

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def source(path):
    return "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code")


def labkit_run(lab, notebook, *arguments):
    """Runs a copy of a notebook as a user does, and returns the run's folder."""
    shutil.copy(notebook, lab / "notebooks")
    command = [sys.executable, "-m", "labkit.cli", "run", f"notebooks/{notebook.name}", *arguments]
    done = subprocess.run(command, cwd=lab, env=plain_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return (lab / done.stdout.splitlines()[-1]).resolve()


@every_notebook
def test_a_notebook_or_template_passes_the_check_as_git_stores_it(path):
    content, problems = lint.parse(path.read_bytes())
    assert [str(finding) for finding in [*problems, *lint.findings(content)]] == []


@every_notebook
def test_each_parameter_is_used(path):
    cells = nbformat.read(path, 4).cells
    (parameters,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    rest = source(path).replace(parameters.source, "")
    for parameter in declared(parameters.source):
        assert parameter.name in RECORDED or re.search(rf"\b{parameter.name}\b", rest), f"{parameter.name} is not used"


def debug(path):
    """The options of a notebook's debug run; the template's leaves its test out, which a new lab's own tests run."""
    return ("-p", "DEBUG=true", *(("-p", "TEST=false") if "templates" in path.parts else ()))


@pytest.fixture(scope="module")
def debug_runs(tmp_path_factory):
    """A debug run of each notebook, two at a time; of this lab's own a second one."""
    folder = tmp_path_factory.mktemp("debug")
    paths = [*NOTEBOOKS, ROOT / "notebooks" / "digits-cnn.ipynb"]
    labs = [folder / str(number) / "Ada's lab" for number in range(len(paths))]
    for lab in labs:
        (lab / "notebooks").mkdir(parents=True)
    with ThreadPoolExecutor(2) as pool:
        made = [
            pool.submit(labkit_run, lab, path, "--no-report", *debug(path))
            for lab, path in zip(labs, paths, strict=True)
        ]
    return {path: [run.result() for run, of in zip(made, paths, strict=True) if of == path] for path in NOTEBOOKS}


@pytest.mark.slow
@every_notebook
def test_a_debug_run_is_quick_and_whole(debug_runs, path):
    run = debug_runs[path][0]
    assert json.loads((run / "attempts/1/exit.json").read_text())["status"] == "finished"
    assert json.loads((run / "run.json").read_text())["parameters"]["DEBUG"] is True
    assert "2 of 2 in" in (run / "output.log").read_text()
    assert ("test_accuracy" in read(run / "metrics.jsonl").columns) is not ("templates" in path.parts)


@pytest.mark.slow
def test_the_digits_are_read_and_every_figure_can_be_drawn_again_from_its_data(lab):
    from labkit.kernel import figures

    run = labkit_run(lab, ROOT / "notebooks" / "digits-cnn.ipynb")
    metrics = read(run / "metrics.jsonl")
    assert metrics.torn == 0
    assert list(metrics.columns["loss"].steps) == list(range(400))
    assert list(metrics.columns["epoch"].values) == list(range(1, 21))
    assert metrics.columns["test_accuracy"].values[-1] >= 0.98

    log = (run / "output.log").read_text()
    assert re.search(r"\.\d{3} INFO \[digits-cnn\.ipynb training-loop: train: \d+\] trained 400 steps", log)
    assert "epoch: 20 of 20 in " in log
    facts = json.loads((run / "run.json").read_text())
    assert [verdict["verdict"] for verdict in facts["verdicts"]] == ["held"] * 3
    environment = json.loads((run / "environment.json").read_text())
    assert environment["determinism"]["seed"] == 0 and environment["determinism"]["deterministic"]
    assert environment["threads"] == 1

    folder = Path(run / "figures")
    drawn = {
        "learning-curves.csv": figures.learning_curves,
        "confusion.csv": figures.confusion_matrix,
        "roc.csv": figures.roc,
        "classes.csv": figures.class_distribution,
        "gradient-flow.csv": figures.gradient_flow,
        "augmentation.npz": figures.image_grid,
    }
    for name, draw in drawn.items():
        assert picture(load_data(folder / name), draw, (8, 3.6)) == (folder / name).with_suffix(".png").read_bytes()
    assert len(load_data(folder / "epochs.csv")) == 20 and (run / "training.json").exists()


@pytest.mark.slow
def test_two_runs_with_one_seed_have_the_same_metrics_to_the_last_bit(debug_runs):
    runs = debug_runs[ROOT / "notebooks" / "digits-cnn.ipynb"]
    first, second = (read(run / "metrics.jsonl") for run in runs)
    assert len(first.columns["loss"].values) == 8
    assert first.columns == second.columns
