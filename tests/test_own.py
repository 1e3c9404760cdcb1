"""What is executed without asking is what this lab's own run has, to the byte."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from twins import change, recorded

from labkit.errors import BadInput
from labkit.record import capsule
from labkit.record.capsule import Capsule
from labkit.record.files import write_json
from labkit.record.rundir import RunDir
from labkit.workbench.pages import report
from labkit.workbench.reproducing import again
from labkit.workbench.reproducing.own import own_run

VALUES = b"1\n2\n"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run of a lab whose notebook read one small file."""
    made = recorded(tmp_path / "runs")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.csv").write_bytes(VALUES)
    files = {"data/x.csv": {"blake3": blake3(VALUES).hexdigest(), "bytes": len(VALUES)}}
    write_json(made.inputs, {"files": files, "left_out": {}})
    change(made.manifest, "lab", to=str(tmp_path))
    change(made.manifest, "values", to={"LR": "0.1"})
    return made


def packed(run: RunDir) -> Capsule:
    found = capsule.of_run(run)
    assert "data/data/x.csv" in found.files
    return found


def of_lab(run: RunDir, found: Capsule) -> RunDir | None:
    return own_run(found, run.path.parents[1])


def test_a_report_of_the_labs_own_run_is_its_own(run: RunDir) -> None:
    found = of_lab(run, packed(run))
    assert found is not None and found.path == run.path


def test_labels_and_a_summary_that_came_later_make_it_no_stranger(run: RunDir) -> None:
    before = packed(run)
    change(run.manifest, "labels", to=["looked-at"])
    change(run.manifest, "summary", to={})
    assert of_lab(run, before) is not None


def test_data_that_have_changed_since_make_it_no_stranger(run: RunDir) -> None:
    before = packed(run)
    (run.path.parents[2] / "data" / "x.csv").write_text("3\n")
    assert of_lab(run, before) is not None


def manifest(**changes: object) -> Callable[[dict[str, bytes]], None]:
    def write(files: dict[str, bytes]) -> None:
        files["run.json"] = json.dumps(json.loads(files["run.json"]) | changes).encode()

    return write


STRANGE: dict[str, Callable[[dict[str, bytes]], object]] = {
    "a cell": lambda files: files.update({"source/notebook.ipynb": files["source/notebook.ipynb"] + b" "}),
    "a module": lambda files: files.update({"source/modules/scaling.py": b"import os\n"}),
    "a further module": lambda files: files.update({"source/modules/json.py": b"import os\n"}),
    "compiled code among the data": lambda files: files.update({"data/notebooks/json.so": b"\x7fELF"}),
    "other data": lambda files: files.update({"data/data/x.csv": b"3\n"}),
    "data that the record now names": lambda files: files.update(
        {
            "data/torch.pyc": b"code",
            "inputs.json": json.dumps(
                {"files": {"torch.pyc": {"blake3": blake3(b"code").hexdigest(), "bytes": 4}}}
            ).encode(),
        }
    ),
    "the wheel": lambda files: files.update({"source/labkit-9-py3-none-any.whl": b"PK"}),
    "the packages": lambda files: files.update({"requirements.txt": b"evil==1\n"}),
    "a lock": lambda files: files.update({"source/requirements.lock": b"--index-url https://example.org\n"}),
    "the machine": lambda files: files.update({"machine.json": b'{"variables": {"TORCH_X": "1"}}'}),
    "a value": manifest(values={"LR": "0.2"}),
    "the kernel": manifest(kernel="other"),
    "the notebook's place": manifest(notebook="data/x.ipynb"),
    "the lab": manifest(lab="/elsewhere"),
    "the metrics": lambda files: files.update({"metrics.jsonl": b""}),
    "another id": manifest(id="20261121T101500.123Z-3f9a1c"),
}


@pytest.mark.parametrize("what", STRANGE)
def test_a_record_that_goes_by_the_name_of_an_own_run_and_has_something_else_is_of_elsewhere(
    run: RunDir, what: str
) -> None:
    files = dict(packed(run).files)
    STRANGE[what](files)
    assert of_lab(run, Capsule(files)) is None


def test_verify_executes_nothing_of_a_strange_report_unless_told_to(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    executed: list[str] = []

    def remember(*_: object) -> None:
        executed.append("")
        raise BadInput("executed")

    monkeypatch.setattr(again, "reproduced", remember)
    page = report.write_report(run, tmp_path / "page.html")
    empty = again.Wanted(runs=tmp_path / "none")
    assert again.verify([page], empty, yes=False, as_json=False) == 2
    assert not executed and "elsewhere" in capsys.readouterr().out
    again.verify([page], empty, yes=True, as_json=False)
    again.verify([page], dataclasses.replace(empty, runs=run.path.parents[1]), yes=False, as_json=False)
    assert len(executed) == 2
