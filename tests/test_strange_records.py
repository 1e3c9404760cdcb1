"""What a stranger wrote into a record leads nowhere: not through variables, paths of modules, or names of data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from twins import change, recorded

from labkit.record import capsule
from labkit.record.files import write_json
from labkit.record.fingerprints import Known
from labkit.record.rundir import RunDir
from labkit.workbench.reproducing import asrecorded, placed, reproduce
from labkit.workbench.reproducing.unpack import LaidOut, lay_out


@pytest.mark.parametrize("value", ["a\0b", "\ud800", "x\ny", "/tmp/x.so", "x" * 1000, 3, None, ["1"]])
def test_a_variable_that_no_run_of_labkit_would_have_recorded_is_not_set(value: Any) -> None:
    found = asrecorded.settings({"variables": {"MKL_CBWR": value, "TORCH_X": "1"}})
    assert found.variables.get("MKL_CBWR") is None and found.variables["TORCH_X"] == "1"
    with found.in_place():
        assert os.environ["TORCH_X"] == "1"


@pytest.mark.parametrize("name", ["PATH", "LD_PRELOAD", "PYTHONPATH", "PYTHONSTARTUP", "IPYTHONDIR", "LABKIT_RUNS"])
def test_a_variable_that_leads_to_code_is_not_set(name: str) -> None:
    assert name not in asrecorded.settings({"variables": {name: "x"}}).variables


def test_a_time_zone_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TZ", raising=False)
    assert asrecorded.settings({"variables": {"TZ": "Europe/Berlin"}}).variables["TZ"] == "Europe/Berlin"
    for strange in ("/etc/x", ":/etc/x", "../x", "Europe/../../x"):
        assert asrecorded.settings({"variables": {"TZ": strange}}).variables.get("TZ") is None


def laid_out(tmp_path: Path, run: RunDir) -> LaidOut:
    return lay_out(capsule.of_run(run), tmp_path / "again")


def test_modules_are_found_in_the_new_lab_only(tmp_path: Path) -> None:
    run = recorded(tmp_path / "runs")
    outside = tmp_path / "outside" / "evil.py"
    outside.parent.mkdir()
    outside.touch()
    listed = {"evil": {"path": str(outside)}, "up": {"path": "../outside/evil.py"}, "odd": 3, "none": {"path": None}}
    write_json(run.source / "modules.json", listed | {"evil.x": {"path": "../outside/evil/x.py"}})
    laid = laid_out(tmp_path, run)
    assert reproduce._module_paths(laid) == []
    write_json(laid.record.source / "modules.json", {"scaling": {"path": "scaling.py"}})
    assert reproduce._module_paths(laid) == [str(laid.folder)]


def test_parameters_that_are_damaged_are_told(tmp_path: Path) -> None:
    run = recorded(tmp_path / "runs")
    for value in ("__import__('os')", 3, None, ["1"], "(" * 5000):
        change(run.manifest, "values", to={"LR": value})
        laid = lay_out(capsule.of_run(run), tmp_path / f"again-{value!s:.3}")
        with pytest.raises(reproduce.BadInput, match="damaged"):
            reproduce._values(laid)


@pytest.mark.parametrize("name", ["../x.csv", "data/../../x.csv", "a\0b"])
def test_data_are_put_nowhere_but_into_the_new_lab(tmp_path: Path, name: str) -> None:
    run = recorded(tmp_path / "runs")
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "x.csv").write_text("1")
    write_json(run.inputs, {"files": {name: {"blake3": blake3(b"1").hexdigest(), "bytes": 1}}})
    (tmp_path / "lab" / "data").mkdir(parents=True)
    found = placed.place(run, tmp_path / "lab", tmp_path / "given", [tmp_path / "given"], Known(tmp_path))
    assert len(found.missing) == 1 and "out of the lab" in found.missing[0]
    assert not (tmp_path / "x.csv").exists()


def test_what_labkit_sets_for_every_kernel_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    assert "PYTHONHASHSEED" not in asrecorded.settings({"variables": {"PYTHONHASHSEED": "0"}}).variables
    assert asrecorded.settings({"variables": {"PYTHONHASHSEED": "7"}}).variables["PYTHONHASHSEED"] == "7"
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    assert asrecorded.settings({"variables": {"PYTHONHASHSEED": "0"}}).variables["PYTHONHASHSEED"] == "0"
