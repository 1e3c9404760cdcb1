"""The built wheel is the whole of labkit: package, templates, commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from tiny import ROOT, markdown, parameters, plain_environment, write


@pytest.fixture(scope="module")
def installed_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment with the wheel; the packages that labkit needs are this one's."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT],
        check=True,
    )
    (wheel,) = folder.glob("labkit-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    (site,) = folder.glob("venv/lib/python3*/site-packages")
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")  # after the wheel on the path
    shutil.rmtree(folder / "venv" / "share", ignore_errors=True)
    (folder / "venv" / "share").symlink_to(Path(sys.prefix) / "share")  # nbconvert's own templates
    return folder / "venv"


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_its_templates(installed_wheel: Path):
    (package,) = installed_wheel.glob("lib/python3*/site-packages/labkit")
    sources = {path.relative_to(ROOT) for path in (ROOT / "labkit").rglob("*.py")}
    assert sources <= {path.relative_to(package.parent) for path in package.rglob("*.py")}
    for source in (ROOT / "templates").rglob("*"):
        assert (package / "templates" / source.relative_to(ROOT / "templates")).exists()
    assert (installed_wheel / "etc" / "jupyter" / "jupyter_server_config.d" / "labkit.json").is_file()
    found = subprocess.run(
        [installed_wheel / "bin" / "python", "-c", "import labkit; print(labkit.__file__)"],
        cwd="/", text=True, capture_output=True, check=True, env=plain_environment(),
    )  # fmt: skip
    assert found.stdout.strip() == str(package / "__init__.py")


@pytest.mark.slow
def test_every_command_works_from_the_wheel_beside_nothing_but_a_notebook(
    installed_wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    where = tmp_path / "only a notebook"
    monkeypatch.chdir(write(where / "tiny.ipynb", markdown("# Tiny"), parameters("N: int = 3"), "print(N)").parent)

    def labkit(*arguments: str) -> str:
        said = subprocess.run(
            [installed_wheel / "bin" / "labkit", *arguments],
            env=plain_environment(), stdin=subprocess.DEVNULL, text=True, capture_output=True,
        )  # fmt: skip
        assert said.returncode == 0, f"labkit {' '.join(arguments)}:\n{said.stdout}\n{said.stderr}"
        return said.stdout

    run = Path(labkit("run", "tiny.ipynb", "-p", "N=41").splitlines()[-1])
    assert (run / "run.json").is_file()
    assert (run / "report.html").is_file()
    assert "41" in labkit("log", "last")
    assert run.name.rpartition("-")[2] in labkit("list")
    assert "finished" in labkit("show", "tiny@last")
    labkit("report", "last")
    labkit("doctor")


@pytest.mark.slow
def test_a_lab_made_from_the_wheel_passes_its_own_check_report_and_tests(installed_wheel: Path, tmp_path: Path):
    environment = plain_environment(PATH=f"{installed_wheel / 'bin'}:{os.environ['PATH']}")

    def says(*command: str | Path, folder: Path = tmp_path) -> str:
        said = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert said.returncode == 0, said.stdout
        return said.stdout

    says("labkit", "init", "a new lab")
    lab = tmp_path / "a new lab"
    assert (lab / "wheels").is_dir() and "./wheels/labkit-" in (lab / "requirements.lock").read_text()
    assert "3 notebooks: nothing wrong" in says("make", "check", folder=lab)
    assert "reports/first-experiment.html" in says("make", "report", folder=lab)
    assert json.loads(says("labkit", "list", "--json", folder=lab))[0]["verdicts"] == "2 held"
    assert "2 passed" in says("make", "test", folder=lab)
    assert not (lab / ".venv").exists()
