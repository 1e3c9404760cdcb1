"""A preflight runs the notebook once in DEBUG, and the full run only follows when that finished."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tiny import parameters, write

from labkit import cli
from labkit.errors import BadInput
from labkit.record.files import read_json
from labkit.record.find import every
from labkit.record.rundir import RunDir
from labkit.workbench.notebooks import notebook
from labkit.workbench.running import preflight

CELL = "DEBUG: bool = False  # in seconds\nFAIL: bool = False\nEPOCHS: int = 3  # in [1, 9]\n"


def invoked(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments], catch_exceptions=False)


def manifest(run: RunDir) -> dict:
    found = read_json(run.manifest)
    assert found is not None
    return found


@pytest.fixture
def path(lab: Path) -> Path:
    (lab / "runs").mkdir()
    return write(lab / "notebooks" / "long.ipynb", parameters(CELL), "print(DEBUG, EPOCHS)\nassert not FAIL, 'no luck'")


def test_a_preflight_asks_for_the_same_and_debug(path: Path):
    asked = preflight.asked(notebook.read(path), {"EPOCHS": 5})
    assert [source.pairs for source in asked] == [(("EPOCHS", 5),), (("DEBUG", True),)]


@pytest.mark.parametrize(
    ("cell", "options", "said"),
    [
        ("EPOCHS: int = 3", [], "declares no DEBUG; add `DEBUG: bool = False`"),
        ("DEBUG: int = 0", [], "declares no DEBUG"),
        (CELL, ["-p", "debug=true"], "with DEBUG=True there is none"),
        ("DEBUG: bool = True", [], "with DEBUG=True there is none"),
        (CELL, ["-p", "EPOCHS=12"], "outside of the range [1, 9]"),
        (CELL, ["-p", "EPOCH=1"], "did you mean EPOCHS?"),
    ],
)
def test_what_cannot_be_preflighted_is_refused_before_anything_starts(
    path: Path, cell: str, options: list[str], said: str
):
    write(path, parameters(cell))
    done = invoked("run", path, "--preflight", *options)
    assert done.exit_code == 2 and said in done.stderr
    assert not every(path.parent.parent / "runs")


def test_a_preflight_of_a_notebook_that_cannot_be_read_is_refused(path: Path):
    write(path, parameters("%magic"))
    with pytest.raises(BadInput):
        preflight.asked(notebook.read(path), {})


@pytest.mark.slow
def test_the_full_run_follows_a_preflight_that_finished_and_names_it(path: Path):
    done = invoked("run", path, "--preflight", "-p", "epochs=5", "--no-report")
    assert done.exit_code == 0, done.output
    trial, full = every(path.parent.parent / "runs")
    assert done.stdout == f"{trial.path}\n{full.path}\n"
    assert (trial.log.read_text(), full.log.read_text()) == ("True 5\n", "False 5\n")
    assert manifest(trial)["labels"] == ["debug", "preflight"] and manifest(full)["labels"] == []
    assert manifest(full)["given"] == {"EPOCHS": 5} and manifest(full)["preflight"] == trial.name


@pytest.mark.slow
@pytest.mark.parametrize("as_json", [False, True])
def test_a_preflight_that_failed_is_shown_and_nothing_else_starts(path: Path, as_json: bool):
    done = invoked("run", path, "--preflight", "-p", "fail=true", "--no-report", *(["--json"] if as_json else []))
    assert done.exit_code == 1
    (trial,) = every(path.parent.parent / "runs")
    shown = json.loads(done.stdout)["path"] if as_json else done.stdout.strip()
    assert shown == str(trial.path)
    assert "the preflight did not finish, so the full run was not started" in done.stderr
