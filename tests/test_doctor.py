"""The doctor names what is off, with its remedy, and where each setting comes from."""

from __future__ import annotations

import json
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
from running import labkit

from labkit.workbench import doctor

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict]:
    """What the doctor says, as text and as JSON, of a lab with a wrong lock and settings of its own."""
    folder = tmp_path_factory.mktemp("Ada's lab")
    (folder / "requirements.lock").write_text("torch==1.0\n")
    (folder / "pyproject.toml").write_text('[tool.labkit]\nruns = "elsewhere"\n')
    subprocess.run(["git", "init", "-q", folder], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        text, listed = (labkit("doctor", *option, XDG_CONFIG_HOME=str(folder)) for option in ([], ["--json"]))
    assert text.returncode == listed.returncode == 1 and text.stderr == ""
    return text.stdout, json.loads(listed.stdout)


def test_the_environment_and_the_differences_from_the_lock_are_shown(examined: tuple[str, dict]) -> None:
    text, found = examined
    assert "✗ 1 installed package differs from requirements.lock: torch" in text
    assert found["facts"]["torch"] == metadata.version("torch")
    assert any("torch" in finding["problem"] and finding["wrong"] for finding in found["findings"])


def test_each_setting_is_shown_with_its_origin(examined: tuple[str, dict]) -> None:
    text, found = examined
    assert found["settings"]["runs"]["value"] == "elsewhere"
    assert found["settings"]["runs"]["origin"].endswith("pyproject.toml")
    assert found["settings"]["grace_s"] == {"value": 30.0, "origin": "default"}
    assert "runs = 'elsewhere'" in text


def test_kernels_disk_and_the_missing_filter_of_git_are_shown(examined: tuple[str, dict]) -> None:
    text, found = examined
    assert "python3" in found["kernels"] and found["disk"]["free_gib"] > 0
    assert "· git would store outputs of notebooks\n  " in text


def test_the_last_line_is_the_verdict_and_the_exit_status_agrees(examined: tuple[str, dict]) -> None:
    text, found = examined
    assert "do what stands below each ✗, then `labkit doctor` again" in text.splitlines()[-1]
    nothing = found | {"findings": []}
    remark = found | {"findings": [{"problem": "p", "remedy": "r", "wrong": False}]}
    wrong = found | {"findings": [{"problem": "p", "remedy": "r", "wrong": True}]}
    assert [list(doctor.lines(one))[-1].partition(":")[0] for one in (nothing, remark, wrong)] == [
        "All fine",
        "All fine; 1 remark marked ·",
        "1 problem",
    ]
    assert [doctor.status(one) for one in (nothing, remark, wrong)] == [0, 0, 1]


def test_a_package_with_a_known_hole_is_named_with_the_version_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "FLOORS", {"click": ("999", "CVE-0000-0000")})
    (finding,) = doctor._floors()
    assert "known hole (CVE-0000-0000)" in finding["problem"] and finding["remedy"] == "pip install 'click>=999'"


def test_a_damaged_configuration_is_a_finding_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.labkit]\nrunz = 3\n")
    found = doctor.examine(tmp_path)
    assert any("there is no setting 'runz', did you mean runs?" in finding["problem"] for finding in found["findings"])
