"""Where the code came from is recorded, and what cannot be known holds nobody up."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labkit.record import provenance
from labkit.record.files import read_json

COMMIT = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "commit", "-q", "--allow-empty", "-m", "x"]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one committed file, apart from any configuration of this machine's user."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder = tmp_path / "a repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "code.py").write_text("A = 1\n")
    git(folder, "add", ".")
    subprocess.run(COMMIT, cwd=folder, check=True)
    return folder


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_a_clean_repository_has_commit_and_branch_and_no_patch(repository: Path):
    head = git(repository, "rev-parse", "HEAD")
    assert provenance.git_state(repository) == {"commit": head, "branch": "main", "dirty": False, "problem": ""}
    assert provenance.git_patch(repository) == (b"", "")


def test_uncommitted_changes_are_kept_as_a_patch_that_applies(repository: Path):
    (repository / "code.py").write_text("A = 2\n")
    patch, problem = provenance.git_patch(repository)
    assert (provenance.git_state(repository)["dirty"], problem) == (True, "")
    git(repository, "checkout", "-q", "code.py")
    subprocess.run(["git", "apply"], input=patch, cwd=repository, check=True)
    assert (repository / "code.py").read_text() == "A = 2\n"


def test_a_detached_head_is_recorded(repository: Path):
    git(repository, "checkout", "-q", "--detach")
    state = provenance.git_state(repository)
    assert (state["branch"], state["problem"]) == (None, "")
    assert state["commit"]


def test_a_lock_of_another_git_is_left_alone_and_in_nobodys_way(repository: Path):
    (repository / ".git" / "index.lock").touch()
    (repository / "code.py").write_text("A = 2\n")
    state = provenance.git_state(repository)
    assert (state["dirty"], state["problem"]) == (True, "")
    assert provenance.git_patch(repository)[0]
    assert (repository / ".git" / "index.lock").exists()


def test_a_huge_patch_is_left_out_and_its_size_recorded(repository: Path):
    (repository / "code.py").write_text("x" * (provenance.PATCH_LIMIT_BYTES + 1))
    patch, problem = provenance.git_patch(repository)
    assert patch == b""
    assert f"more than the {provenance.PATCH_LIMIT_BYTES} that are kept" in problem


def test_a_submodule_is_not_descended_into(repository: Path, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    subprocess.run(COMMIT, cwd=other, check=True)
    git(repository, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other), "sub")
    subprocess.run([*COMMIT, "-a"], cwd=repository, check=True)
    (repository / "sub" / "new").touch()
    assert provenance.git_state(repository)["dirty"] is False


@pytest.mark.parametrize("kind", ["no repository", "no commit", "no git", "broken repository"])
def test_what_git_cannot_say_is_unknown_with_the_reason(repository: Path, tmp_path: Path, monkeypatch, kind: str):
    folder = repository
    match kind:
        case "no repository":
            folder = tmp_path
        case "no commit":
            folder = tmp_path / "fresh"
            folder.mkdir()
            git(folder, "init", "-q")
        case "no git":
            monkeypatch.setenv("PATH", str(tmp_path))
        case "broken repository":
            (repository / ".git" / "HEAD").write_text("\0\0")
    state = provenance.git_state(folder)
    patch, problem = provenance.git_patch(folder)
    assert (state["commit"], patch) == (None, b"")
    assert state["problem"]
    assert problem


def test_a_git_that_hangs_is_given_up(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(provenance, "GIT_TIMEOUT_S", 0.2)
    began = time.perf_counter()
    state = provenance.git_state(repository)
    assert time.perf_counter() - began < 2
    assert "took more than 0.2 s" in state["problem"]


def test_a_git_that_is_too_slow_to_look_for_changes_still_tells_the_commit(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    expected = provenance.git_state(repository)["commit"]
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\ncase "$*" in *status*) exec sleep 60;; esac\nexec {shutil.which("git")} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(provenance, "GIT_TIMEOUT_S", 1.0)
    state = provenance.git_state(repository)
    assert expected and (state["commit"], state["dirty"]) == (expected, None) and "git status took" in state["problem"]


def test_hooks_external_diffs_and_monitors_of_a_repository_are_not_executed(repository: Path, tmp_path: Path):
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch '{tmp_path}/sprung'\n")
    trap.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(trap))
    git(repository, "config", "diff.external", str(trap))
    git(repository, "config", "diff.evil.command", str(trap))
    git(repository, "config", "diff.evil.textconv", str(trap))
    git(repository, "config", "core.pager", str(trap))
    for hook in ("post-index-change", "fsmonitor-watchman"):
        (repository / ".git" / "hooks" / hook).symlink_to(trap)
    (repository / ".gitattributes").write_text("* diff=evil\n")
    (repository / "code.py").write_text("A = 2\n")
    (tmp_path / "sprung").unlink(missing_ok=True)
    assert provenance.git_state(repository)["dirty"]
    assert provenance.git_patch(repository)[0]
    assert not (tmp_path / "sprung").exists()


def test_the_author_is_who_git_knows_else_who_is_logged_in(repository: Path, tmp_path: Path):
    assert provenance.author(tmp_path) == provenance.user()
    git(repository, "config", "user.name", "Ada Lovelace")
    assert provenance.author(repository) == "Ada Lovelace"


def test_a_user_without_a_name_is_nobody(monkeypatch: pytest.MonkeyPatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 3_999_999_999)
    assert provenance.user() == ""


def test_packages_are_exact_sorted_and_each_named_once():
    found = provenance.packages()
    assert any(line.startswith("numpy==") for line in found)
    names = [line.partition("==")[0].lower().replace("_", "-") for line in found]
    assert names == sorted(set(names))


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Imports modules by name from folders of a lab, and forgets them afterwards."""
    lab = tmp_path / "lab"
    (lab / "notebooks").mkdir(parents=True)
    monkeypatch.chdir(lab / "notebooks")
    before = set(sys.modules)

    def load(entry: str, name: str, text: str) -> Path:
        folder = Path(os.path.abspath(entry))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(entry)
        importlib.invalidate_caches()
        importlib.import_module(name)
        return folder / f"{name}.py"

    yield lab, load
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_modules_of_the_lab_are_recorded_with_their_content(modules, tmp_path: Path):
    lab, load = modules
    load(str(lab / "src"), "lab_model", "A = 1\n")
    load("../helpers", "lab_helper", "B = 1\n")
    provenance.record_modules(tmp_path / "source", lab)
    assert not (tmp_path / "source").exists()  # never made beside a run
    (tmp_path / "source").mkdir()
    provenance.record_modules(tmp_path / "source", lab)
    record = read_json(tmp_path / "source" / "modules.json")
    assert record["lab_model"] == {"path": "src/lab_model.py", "sha256": hashlib.sha256(b"A = 1\n").hexdigest()}
    assert record["lab_helper"]["path"] == "helpers/lab_helper.py"
    assert (tmp_path / "source" / "modules" / "src" / "lab_model.py").read_text() == "A = 1\n"


def test_a_module_that_only_seems_to_lie_in_the_lab_is_not_recorded_and_nothing_written_outside(
    modules, tmp_path: Path
):
    lab, load = modules
    load("../../shared", "lab_outside", "C = 1\n")
    record, contents = provenance.modules(lab)
    assert "lab_outside" not in record
    assert all(".." not in Path(path).parts for path in contents)


def test_installed_packages_and_the_standard_library_are_no_modules_of_the_lab():
    record, _ = provenance.modules(Path(sys.prefix).parent)
    assert not [name for name in record if name.partition(".")[0] in ("numpy", "json", "pytest", "orjson")]


def test_a_large_module_is_recorded_by_its_fingerprint_only(modules):
    lab, load = modules
    load(str(lab), "lab_large", "#" * provenance.MODULE_LIMIT_BYTES + "\n")
    record, contents = provenance.modules(lab)
    assert record["lab_large"]["sha256"]
    assert "lab_large.py" not in contents


def test_a_module_that_is_gone_by_now_is_left_out(modules):
    lab, load = modules
    load(str(lab), "lab_gone", "D = 1\n").unlink()
    assert "lab_gone" not in provenance.modules(lab)[0]
