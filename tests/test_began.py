"""A run that began with a checkpoint begins with the same again, whatever its name means by now."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from twins import change, recorded, twin

from labkit.errors import BadInput
from labkit.record.files import write_json
from labkit.record.rundir import RunDir
from labkit.workbench.reproducing.began import began_with, with_checkpoints
from labkit.workbench.reproducing.compare import compare

WEIGHTS = b"weights"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "other" / "last.pt"
    path.parent.mkdir()
    path.write_bytes(WEIGHTS)
    return path


def run_that_began_with(path: Path, runs: Path) -> RunDir:
    run = recorded(runs)
    change(run.manifest, "parameters", "MODEL_PATH", to="digits@best")
    write_json(run.restored, {"model_from": str(path), "sha256": hashlib.sha256(WEIGHTS).hexdigest()})
    return run


def given(run: RunDir, lab: Path, data: Path | None = None) -> dict[str, object]:
    values = {"MODEL_PATH": "digits@best", "LR": 0.1, "RESUME": ""}
    return with_checkpoints(values, run, lab / "notebooks" / "x.ipynb", lab, data)


def test_the_file_stands_in_place_of_the_name(tmp_path: Path, file: Path) -> None:
    run = run_that_began_with(file, tmp_path / "runs")
    assert given(run, tmp_path) == {"MODEL_PATH": str(file), "LR": 0.1, "RESUME": ""}


def test_a_file_that_moved_is_looked_for_in_the_folder_of_data(tmp_path: Path, file: Path) -> None:
    run = run_that_began_with(Path("/nowhere/last.pt"), tmp_path / "runs")
    assert given(run, tmp_path, file.parent)["MODEL_PATH"] == str(file)


def test_a_checkpoint_that_is_gone_or_another_one_is_named(tmp_path: Path, file: Path) -> None:
    run = run_that_began_with(file, tmp_path / "runs")
    for spoil in (lambda: file.write_bytes(b"others"), file.unlink):
        spoil()
        with pytest.raises(BadInput, match=r"MODEL_PATH named the checkpoint .*last\.pt.*--data"):
            given(run, tmp_path)


def test_a_file_of_the_lab_stays_named_as_it_was(tmp_path: Path, file: Path) -> None:
    run = run_that_began_with(file, tmp_path / "runs")
    (tmp_path / "digits@best").write_bytes(WEIGHTS)
    assert given(run, tmp_path)["MODEL_PATH"] == "digits@best"


@pytest.mark.parametrize("facts", [{}, {"model_from": 3, "sha256": "a"}, {"model_from": "../x\0", "sha256": "a"}])
def test_what_no_record_explains_is_left_or_refused(tmp_path: Path, file: Path, facts: dict[str, object]) -> None:
    run = run_that_began_with(file, tmp_path / "runs")
    write_json(run.restored, facts)
    if began_with(run, "MODEL_PATH") is None:
        assert given(run, tmp_path)["MODEL_PATH"] == "digits@best"
    else:
        with pytest.raises(BadInput):
            given(run, tmp_path)


def test_another_name_of_the_same_checkpoint_makes_no_difference(tmp_path: Path, file: Path) -> None:
    then = run_that_began_with(file, tmp_path / "runs")
    now = twin(then, lambda run: change(run.manifest, "parameters", "MODEL_PATH", to=str(file)))
    states = {one.name: one.state for one in compare(then, now).chain if one.state != "equal"}
    assert states == {"settings": "harmless"}
    files = {str(file): {"blake3": "1" * 64, "bytes": 7}}  # outside the folder of runs, it is read as data are
    write_json(now.inputs, {"files": json.loads(then.inputs.read_bytes())["files"] | files})
    assert {one.name for one in compare(then, now).chain if one.state != "equal"} == {"settings"}
    write_json(now.restored, {"model_from": str(file), "sha256": "0" * 64})
    assert "MODEL_PATH" in compare(then, now).cause
