"""VERSION says from which state of the lab a run was made, where the notebook leaves it empty."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from running import started
from tiny import parameters, plain_environment, write

from labkit.record import version
from labkit.record.files import read_json, write_json
from labkit.record.find import every
from labkit.workbench.notebooks import notebook
from labkit.workbench.notebooks.yamlfile import read_yaml
from labkit.workbench.pages import reports
from labkit.workbench.running import job

COMMIT = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "commit", "-q", "--allow-empty", "-m", "x"]
CELL = 'VERSION: str = ""  # of the lab, from git\nEPOCHS: int = 3\n'


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(lab: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab in git with a tag, and a notebook that asks for its version."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    git(lab, "init", "-q", "-b", "main")
    (lab / ".gitignore").write_text("runs/\n")
    write(lab / "notebooks" / "versioned.ipynb", parameters(CELL), "import labkit", "run = labkit.start()")
    git(lab, "add", ".")
    git(lab, *COMMIT)
    git(lab, "tag", "v1.2")
    return lab


def prepared(lab: Path, **asked: object) -> tuple[job.Job, dict]:
    made = job.prepare(lab / "notebooks" / "versioned.ipynb", asked)
    manifest = read_json(made.directory.manifest)
    assert manifest is not None
    return made, manifest


def test_an_empty_version_is_filled_from_the_tag_and_does_not_count_as_given(repository: Path):
    made, manifest = prepared(repository, EPOCHS=5)
    assert made.values == {"EPOCHS": 5, "VERSION": "v1.2"}
    assert manifest["parameters"] == {"VERSION": "v1.2", "EPOCHS": 5}
    assert manifest["given"] == {"EPOCHS": 5}


def test_commits_after_the_tag_and_changes_are_part_of_the_version(repository: Path):
    git(repository, *COMMIT)
    (repository / "new.py").write_text("")  # untracked files change nothing
    after = version.described(repository)
    assert after.startswith("v1.2-1-g")
    (repository / ".gitignore").write_text("runs/\nreports/\n")
    assert version.described(repository) == f"{after}-dirty"


def test_without_a_tag_it_is_the_commit(repository: Path):
    git(repository, "tag", "-d", "v1.2")
    assert version.described(repository) == git(repository, "rev-parse", "--short", "HEAD")


@pytest.mark.parametrize("state", ["no repository", "no commit", "no git", "damaged"])
def test_where_git_cannot_tell_it_stays_empty_and_nothing_fails(lab: Path, monkeypatch, state: str):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(lab.parent))
    write(lab / "notebooks" / "versioned.ipynb", parameters(CELL))
    if state != "no repository":
        git(lab, "init", "-q")
    if state == "damaged":
        (lab / ".git" / "HEAD").write_text("nonsense")
    if state == "no git":
        monkeypatch.setenv("PATH", str(lab))
    made, manifest = prepared(lab)
    assert made.values == {} and manifest["parameters"] == {"VERSION": "", "EPOCHS": 3}


@pytest.mark.parametrize("given", ["2.0", ""])
def test_a_version_that_is_given_stays(repository: Path, given: str):
    made, manifest = prepared(repository, version=given)
    assert made.values == manifest["given"] == {"VERSION": given}


@pytest.mark.parametrize("cell", ['VERSION: str = "2.0"', "VERSION = None", "EPOCHS = 3"])
def test_a_notebook_with_its_own_version_or_none_is_left_alone(repository: Path, cell: str):
    write(repository / "notebooks" / "versioned.ipynb", parameters(cell))
    assert prepared(repository)[0].values == {}


def test_the_file_of_parameters_can_be_given_again_without_an_old_version(repository: Path):
    made, _ = prepared(repository, EPOCHS=5)
    assert read_yaml(made.directory.params) == {"EPOCHS": 5}
    assert "# VERSION: 'v1.2', from git" in made.directory.params.read_text()


def test_a_report_does_not_grow_stale_when_the_version_moves(repository: Path):
    made, manifest = prepared(repository)
    write_json(made.directory.exit, {"status": "finished"})
    git(repository, *COMMIT)
    source = notebook.read(repository / "notebooks" / "versioned.ipynb")
    assert reports.stale_reasons(source, repository, made.directory, manifest) == ()
    page = reports.choose(source, repository, repository / "runs", repository / "reports", {})
    assert page.run == made.directory and page.stale == ()
    asked = reports.choose(source, repository, repository / "runs", repository / "reports", {"VERSION": "v9"})
    assert asked.run is None


@pytest.mark.slow
def test_the_kernel_gets_the_version_under_labkit_run_and_the_record_has_it_by_hand(repository: Path):
    path = repository / "notebooks" / "versioned.ipynb"
    script = repository / "notebooks" / "by_hand.py"
    script.write_text("VERSION = ''\nimport labkit\nrun = labkit.start()\nprint(repr(VERSION), run.parameters)\n")
    write(path, parameters(CELL), "import labkit", "run = labkit.start()", "print(VERSION, run.parameters)")
    with started(path) as under_way:
        by_hand = subprocess.run([sys.executable, script], capture_output=True, text=True, env=plain_environment())
        ended = under_way.ended()
    assert ended.log == "v1.2-dirty {'VERSION': 'v1.2-dirty', 'EPOCHS': 3}\n"
    assert by_hand.stdout.endswith("\n'' {'VERSION': 'v1.2-dirty'}\n"), by_hand.stderr
    (scratch,) = [run for run in every(repository / "runs") if ".scratch" in run.path.parts]
    manifest = read_json(scratch.manifest)
    assert manifest is not None and manifest["parameters"] == {"VERSION": "v1.2-dirty"}
    assert "explored" not in manifest["labels"]
