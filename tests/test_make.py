"""What make does before and after a target's own work, on a small lab that needs no package index."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import ROOT, plain_environment

# An empty lock, and a build backend of its own.
BACKEND = """\
import zipfile

INFO = {
    "METADATA": "Metadata-Version: 2.1\\nName: labkit\\nVersion: 0.0\\n",
    "WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    "RECORD": "",
}

def build_editable(folder, config_settings=None, metadata_directory=None):
    import pathlib
    name = "labkit-0.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as wheel:
        wheel.writestr("_labkit.pth", str(pathlib.Path.cwd()))
        for file, text in INFO.items():
            wheel.writestr(f"labkit-0.0.dist-info/{file}", text)
    return name
"""


def make_small(lab: Path) -> Path:
    (lab / "labkit").mkdir(parents=True)
    (lab / "labkit" / "__init__.py").touch()
    (lab / "backend.py").write_text(BACKEND)
    (lab / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "labkit"\nversion = "0.0"\n'
    )
    (lab / "requirements.lock").write_text("# nothing\n")
    shutil.copy(ROOT / "environment.yml", lab)
    shutil.copy(ROOT / "Makefile", lab)
    shutil.copytree(ROOT / "scripts", lab / "scripts")
    return lab


@pytest.fixture
def small_lab(lab: Path) -> Path:
    return make_small(lab)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A small lab whose environment has been made, and what make said; a test leaves it whole."""
    lab = make_small(tmp_path_factory.mktemp("built") / "Ada's lab")
    said = make("env", lab=lab)
    assert said.returncode == 0, said.stdout
    return lab, said.stdout


def make(*arguments: str, lab: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments],
        cwd=lab,
        env=plain_environment(**environment),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )


@pytest.mark.slow
def test_make_env_says_the_size_builds_a_venv_once_and_then_leaves_it(built: tuple[Path, str]):
    lab, said = built
    assert "GB to download" in said
    assert ".venv is ready" in said
    inode = (lab / ".venv").stat().st_ino
    second = make("env", lab=lab)
    assert second.stdout.startswith("labkit: .venv is up to date (Python 3.")
    (lab / "requirements.lock").touch()
    assert "up to date" in make("env", lab=lab).stdout, "the contents count, not the times"
    (lab / "requirements.lock").write_text("# other\n")
    assert "only what changed" in make("env", lab=lab).stdout
    assert (lab / ".venv").stat().st_ino == inode


@pytest.mark.slow
def test_a_failure_that_changed_nothing_costs_no_new_environment(built: tuple[Path, str]):
    lock = built[0] / "requirements.lock"
    before = lock.read_text()
    lock.write_text("labkit-no-such-package==1\n")
    failed = make("env", lab=built[0], PIP_NO_INDEX="1")
    assert failed.returncode == 2
    assert "pip could not finish" in failed.stdout
    lock.write_text(before)
    assert "up to date" in make("env", lab=built[0]).stdout


@pytest.mark.slow
def test_make_repairs_an_environment_whose_python_is_gone_or_that_was_left_half_way(built: tuple[Path, str]):
    lab, _ = built
    python = lab / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python")
    building = subprocess.Popen(
        ["make", "env"], cwd=lab, env=plain_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not python.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(building.pid, signal.SIGKILL)
    building.wait()
    half = lab / ".venv" / "half"
    half.touch()
    repaired = make("env", lab=lab)
    assert repaired.returncode == 0, repaired.stdout
    assert not half.exists(), "made anew, because half a package may lie there"
    assert "up to date" in make("env", lab=lab).stdout


@pytest.mark.slow
def test_somebody_elses_venv_is_not_removed(built: tuple[Path, str]):
    lab, _ = built
    (lab / ".venv" / ".labkit").unlink()  # without this mark it is not labkit's
    own = lab / ".venv" / "own"
    own.touch()
    assert ".venv is ready" in make("env", lab=lab).stdout
    assert own.exists()


def test_an_old_python_is_refused_with_advice(small_lab: Path):
    old = small_lab / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] || exit 1\necho Python 3.9.18\n')
    old.chmod(0o755)
    refused = make("env", f"PYTHON={old}")
    assert refused.returncode == 2
    assert "python3.9 is Python 3.9.18" in refused.stdout
    assert "make env PYTHON=/path/to/python" in refused.stdout
    assert not (small_lab / ".venv").exists()


@pytest.mark.slow
def test_mamba_makes_the_environment_from_environment_yml_where_it_is_found(small_lab: Path, built: tuple[Path, str]):
    """A stand-in for mamba: what is shown is how it is called, not what it does."""
    packages = Path(importlib.util.find_spec("pip").origin).parents[1]
    tools = small_lab / "tools"
    tools.mkdir()
    (tools / "mamba").write_text(
        f'#!/bin/sh\necho "$@" >>mamba.log\n[ "$2" = update ] || "{sys.executable}" -m venv --without-pip "$4"\n'
        f'printf "%s\\n" "$PWD" "{packages}" >"$(echo "$4"/lib/python3*/site-packages)/lab.pth"\n'
    )
    (tools / "mamba").chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    first = make("env", PATH=path)
    assert first.returncode == 0, first.stdout
    assert ".conda-env is ready" in first.stdout
    assert "up to date" in make("env").stdout, "kept to, with or without mamba on the PATH"
    (small_lab / "requirements.lock").write_text((built[0] / "requirements.lock").read_text() + "# more\n")
    assert make("env", PATH=path).returncode == 0
    options = f"--prefix {small_lab}/.conda-env --file environment.yml"
    assert (small_lab / "mamba.log").read_text().splitlines() == [
        f"env create {options}",
        f"env update {options}",
    ]
    shutil.copytree(built[0] / ".venv", ".venv", symlinks=True)  # takes less time than to make another
    assert "bringing .venv up to date" in make("env", "CONDA=no", PATH=path).stdout


def test_make_alone_lists_every_target_a_line_each():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.search(r"^\.PHONY: (.+)$", text, re.M)[1].split())
    listed = subprocess.run(["make"], cwd=ROOT, env=plain_environment(), text=True, capture_output=True, check=True)
    lines = listed.stdout.splitlines()
    assert {line.split()[1] for line in lines} == targets
    assert len(lines) == len(targets)


AWKWARD = 'notebooks/Ada\'s "first" $HOME $(USER) [α] book.ipynb'


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ([], []),
        ([f"NB={AWKWARD}"], [AWKWARD]),
        (["P=EPOCHS=3 BATCH_SIZE=8"], ["-p", "EPOCHS=3", "-p", "BATCH_SIZE=8"]),
        (
            ["P=NOTE='costs $5; `two` \"words\"' LR=1e-3"],
            ["-p", 'NOTE=costs $5; `two` "words"', "-p", "LR=1e-3"],
        ),
        (["F=a b.yaml", "RERUN=stale"], ["-f", "a b.yaml", "--rerun", "stale"]),
    ],
)
def test_make_hands_paths_and_values_to_labkit_as_they_were_typed(
    tmp_path: Path, given: list[str], arguments: list[str]
):
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text(encoding="utf-8"))
    (tmp_path / "scripts").mkdir()
    # In place of the set-up, and of labkit a program that says what it was given.
    (tmp_path / "scripts" / "environment.sh").write_text('PATH="$PWD:$PATH" exec "$@"\n')
    (tmp_path / "labkit").write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    (tmp_path / "labkit").chmod(0o755)
    said = subprocess.run(
        ["make", "report", *given], cwd=tmp_path, env=plain_environment(), text=True, capture_output=True
    )
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout) == ["report", *arguments]


def test_make_clean_keeps_runs_and_removes_reports_and_caches(small_lab: Path):
    for folder in (
        "runs/a/__pycache__",
        "reports",
        "labkit/__pycache__",
        ".ruff_cache",
        ".venv/lib/__pycache__",
    ):
        (small_lab / folder).mkdir(parents=True)
    (small_lab / "runs" / "a" / "run.json").write_text("{}")
    assert make("clean").returncode == 0
    assert (small_lab / "runs" / "a" / "__pycache__").is_dir()
    assert (small_lab / "runs" / "a" / "run.json").is_file()
    assert (small_lab / ".venv" / "lib" / "__pycache__").is_dir()
    for folder in ("reports", "labkit/__pycache__", ".ruff_cache"):
        assert not (small_lab / folder).exists()
