"""`labkit init` makes a lab that works, anywhere, and overwrites nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML
from tiny import plain_environment

from labkit import __version__
from labkit.cli import main
from labkit.errors import FolderProblem
from labkit.record import config
from labkit.workbench.git import gitsetup
from labkit.workbench.notebooks import pins
from labkit.workbench.notebooks.check import check
from labkit.workbench.notebooks.newlab import SKELETON, init

FILES = {
    ".gitattributes", ".github/workflows/ci.yml", ".gitignore", ".gitlab-ci.yml", "Makefile", "README.md",
    "environment.yml", "notebooks/first-experiment.ipynb", "pyproject.toml", "requirements.lock",
    "templates/labkit/experiment.ipynb", "templates/labkit/performance.ipynb", "tests/test_notebooks.py",
}  # fmt: skip


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git that knows who commits, and nothing else; the file says it."""
    path = tmp_path_factory.mktemp("home") / "gitconfig"
    path.write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(path))
    return path


@pytest.fixture
def short_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock of one line, where the test is about something else: the whole one takes half a second."""
    monkeypatch.setattr(pins, "lock", lambda: ("labkit\n", None))


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_a_new_lab_has_what_it_needs_passes_the_check_and_is_in_git(tmp_path: Path, identity: Path):
    lab = tmp_path / "Ada's lab"
    done = CliRunner().invoke(main, ["init", str(lab)])
    assert (done.exit_code, done.stdout) == (0, f"{lab}\n")
    assert "a git repository with a first commit" in done.stderr
    assert set(git(lab, "ls-files").splitlines()) == FILES
    assert git(lab, "status", "--porcelain") == "" and git(lab, "branch", "--show-current") == "main\n"
    assert [one.findings for one in check([lab / "notebooks", lab / "templates"])] == [()] * 3
    assert "# First experiment\\n" in (lab / "notebooks" / "first-experiment.ipynb").read_text()
    pinned = re.findall(r"^([a-z0-9-]+)==", (lab / "requirements.lock").read_text(), re.M)
    assert {"torch", "jupyterlab", "papermill", "pytest"} <= set(pinned) and pinned == sorted(pinned)


@pytest.mark.usefixtures("short_lock", "identity")
def test_the_files_of_a_new_lab_are_what_their_readers_take(tmp_path: Path):
    lab = init(tmp_path / "Ada's lab").path
    assert set(tomllib.loads((lab / "pyproject.toml").read_text())["tool"]) == {"labkit", "pytest"}
    assert config.settings(lab)["runs"].value == "runs"
    assert gitsetup.ATTRIBUTES in (lab / ".gitattributes").read_text().splitlines()
    environment = YAML(typ="safe").load(lab / "environment.yml")
    assert environment["name"] == "ada-s-lab" and environment["dependencies"][-1] == {"pip": ["-r requirements.lock"]}
    for name in (".github/workflows/ci.yml", ".gitlab-ci.yml"):
        assert "make check test report" in str(YAML(typ="safe").load(lab / name))
    assert not [name for name in FILES if re.search(r"@[A-Z]+@", (lab / name).read_text())]
    targets = set(re.search(r"^\.PHONY: (.+)$", (lab / "Makefile").read_text(), re.M)[1].split())
    listed = subprocess.run(["make"], cwd=lab, env=plain_environment(), text=True, capture_output=True, check=True)
    assert {line.split()[1] for line in listed.stdout.splitlines()} == targets


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        (["run", "NB=a b.ipynb", "P=LR=3 NOTE='a $5'"], ["run", "a b.ipynb", "-p", "LR=3", "-p", "NOTE=a $5"]),
        (["run", "NB=x.ipynb", "ARGS=-p EPOCHS=3"], ["run", "x.ipynb", "-p", "EPOCHS=3"]),
        (["report", "F=a b.yaml", "RERUN=stale"], ["report", "-f", "a b.yaml", "--rerun", "stale"]),
        (["reproduce"], ["reproduce", "--", "last"]),
        (["reproduce", "RUN=reports/a b.html"], ["reproduce", "--", "reports/a b.html"]),
        (["verify"], ["verify"]),
        (["diff", "BASE=dev"], ["diff", "--", "dev"]),
        (["diff-web"], ["diff", "--web", "--", "main"]),
    ],
)
def test_make_in_a_new_lab_hands_to_labkit_what_was_typed(tmp_path: Path, given: list[str], arguments: list[str]):
    (tmp_path / "Makefile").write_text((SKELETON / "Makefile.in").read_text())
    # In place of labkit a program that says what it was given; make takes the active environment for the rest.
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "labkit").write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    (tools / "labkit").chmod(0o755)
    environment = plain_environment(PATH=f"{tools}:{os.environ['PATH']}")
    said = subprocess.run(["make", *given], cwd=tmp_path, env=environment, text=True, capture_output=True)
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout) == arguments


@pytest.mark.usefixtures("short_lock", "identity")
def test_a_lab_inside_of_a_repository_is_left_to_its_owner_to_commit(tmp_path: Path):
    git(tmp_path, "init", "-q")
    made = init(tmp_path / "lab")
    assert f"lies in the git repository {tmp_path}" in made.git
    assert not (made.path / ".git").exists() and git(tmp_path, "diff", "--cached", "--name-only") == ""


@pytest.mark.usefixtures("short_lock", "identity")
def test_an_empty_clone_becomes_a_lab(tmp_path: Path):
    git(tmp_path, "init", "-q")
    made = init(tmp_path)
    assert "commit it there" in made.git and (tmp_path / "Makefile").is_file()


@pytest.mark.usefixtures("short_lock")
def test_a_git_that_knows_nobody_leaves_the_first_commit_to_the_user(
    tmp_path: Path, identity: Path, monkeypatch: pytest.MonkeyPatch
):
    identity.write_text("[user]\n\tuseConfigOnly = true\n")
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "EMAIL"):
        monkeypatch.delenv(name, raising=False)
    made = init(tmp_path / "lab")
    assert made.git.startswith("the first commit is left to you: git commit -m 'chore: a new lab' (git commit: ")


@pytest.mark.usefixtures("short_lock")
def test_without_git_there_is_a_lab_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    made = init(tmp_path / "lab")
    assert made.git == "it is in no git repository (git is not installed)" and made.notebook.is_file()


def test_what_is_in_the_way_is_named_and_kept(tmp_path: Path):
    for number in range(7):
        (tmp_path / f"{number}.txt").touch()
    with pytest.raises(FolderProblem, match=r"0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 2 more would be in the way"):
        init(tmp_path)
    with pytest.raises(FolderProblem, match="is a file; name a folder"):
        init(tmp_path / "0.txt")
    assert len(list(tmp_path.iterdir())) == 7


# the lock


@dataclass
class Installed:
    version: str
    requires: list[str] = field(default_factory=list)
    origin: str | None = None

    def read_text(self, name: str) -> str | None:
        return self.origin


def finder(**known: Installed) -> Callable[[str], Installed]:
    def find(name: str) -> Installed:
        if name.replace("-", "_") not in known:
            raise PackageNotFoundError(name)
        return known[name.replace("-", "_")]

    return find


def test_the_lock_pins_what_labkit_needs_here_and_leaves_the_rest_out():
    find = finder(
        labkit=Installed("0", ["torch==2.13.0", "Fancy_Name[big]>=1", "gone; python_version < '3'", "dev; extra=='x'"]),
        torch=Installed("2.13.0+cpu", ["nvidia-cublas==13", "triton==3", "setuptools", "labkit"]),
        fancy_name=Installed("1.5", ["more>=2; extra == 'big'", "other; extra == 'small'"]),
        more=Installed("2.1"), other=Installed("9"), dev=Installed("9"), setuptools=Installed("80"),
        nvidia_cublas=Installed("13"), triton=Installed("3"), gone=Installed("1"),
        pytest=Installed("8.3", ["pluggy"]), pluggy=Installed("1.7"),
    )  # fmt: skip
    text, wheel = pins.lock(find)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert wheel is None
    assert lines == [
        f"labkit=={__version__}", "fancy-name==1.5", "more==2.1", "pluggy==1.7", "pytest==8.3", "torch==2.13.0",
    ]  # fmt: skip


def test_a_lab_can_be_tested_where_pytest_is_not_installed_here():
    assert pins.lock(finder(labkit=Installed("0.1.0")))[0].splitlines()[-1] == "pytest>=8.2"


@pytest.mark.parametrize(
    ("origin", "line"),
    [
        (None, f"labkit=={__version__}"),
        (
            {"url": "https://git.example.org/labkit", "vcs_info": {"vcs": "git", "commit_id": "3f9a1c"}},
            "labkit @ git+https://git.example.org/labkit@3f9a1c",
        ),
        ({"url": "https://example.org/labkit.whl", "archive_info": {}}, "labkit @ https://example.org/labkit.whl"),
        (
            {"url": "file:///srv/Ada%27s/labkit", "dir_info": {"editable": True}},
            f"{pins.HERE_ONLY}labkit @ file:///srv/Ada%27s/labkit",
        ),
    ],
)
def test_the_lock_names_labkit_as_it_was_installed(origin: dict[str, object] | None, line: str):
    text = None if origin is None else json.dumps(origin)
    assert pins.own_line(finder(labkit=Installed("0.1.0", [], text))) == (line, None)


def test_a_wheel_comes_along(tmp_path: Path):
    wheel = tmp_path / "Ada's labkit-0.1.0-py3-none-any.whl"
    wheel.touch()
    origin = json.dumps({"url": wheel.as_uri(), "archive_info": {}})
    assert pins.own_line(finder(labkit=Installed("0.1.0", [], origin))) == (f"./wheels/{wheel.name}", wheel)
