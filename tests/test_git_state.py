"""What a run's record says of the repository: the state, or why it is unknown; looking starts nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from labkit.record import provenance


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "file.txt").write_text("one\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_a_clean_repository_has_commit_and_branch_and_no_problem(repository):
    state = provenance.git_state(repository)
    assert (len(state["commit"]), state["branch"], state["dirty"], state["problem"]) == (40, "main", False, "")


def test_a_changed_file_makes_it_dirty_and_an_untracked_one_does_not(repository):
    (repository / "new.txt").write_text("new")
    assert provenance.git_state(repository)["dirty"] is False
    (repository / "file.txt").write_text("two\n")
    assert provenance.git_state(repository)["dirty"] is True


def test_a_detached_head_has_a_commit_and_no_branch(repository):
    git(repository, "checkout", "-q", "--detach")
    state = provenance.git_state(repository)
    assert state["branch"] is None and len(state["commit"]) == 40


def test_the_patch_holds_the_change(repository):
    (repository / "file.txt").write_text("two\n")
    patch, missing = provenance.git_patch(repository)
    assert b"-one\n+two\n" in patch and missing == ""


def test_a_huge_patch_is_left_out_and_its_size_said(repository):
    (repository / "file.txt").write_text("x" * 5_000_000)
    patch, missing = provenance.git_patch(repository)
    assert patch == b"" and "5000" in missing


def test_a_left_over_index_lock_stops_nothing(repository):
    (repository / ".git" / "index.lock").touch()
    assert len(provenance.git_state(repository)["commit"]) == 40


def test_a_folder_outside_of_any_repository_says_so(tmp_path):
    state = provenance.git_state(tmp_path)
    assert state["commit"] is None and state["problem"].startswith("not a git repository")


def test_a_repository_without_a_commit_says_so(tmp_path):
    git(tmp_path, "init", "-q")
    assert provenance.git_state(tmp_path)["problem"] == "there is no commit yet"


def test_a_missing_git_says_so(repository, monkeypatch):
    monkeypatch.setenv("PATH", str(repository / "empty"))
    assert provenance.git_state(repository)["problem"] == "git is not installed"


def test_a_slow_git_is_given_up(repository, monkeypatch):
    slow = repository / "git"
    slow.write_text("#!/bin/sh\nexec sleep 5\n")
    slow.chmod(0o755)
    monkeypatch.setattr(provenance, "GIT_TIMEOUT_S", 0.1)
    monkeypatch.setenv("PATH", str(repository), prepend=":")
    assert provenance.git_state(repository)["problem"] == "git status took more than 0.1 s"


def test_a_repository_names_no_program_that_looking_starts(repository):
    hook = repository / "hook"
    hook.write_text(f"#!/bin/sh\ntouch '{repository}/started'\n")
    hook.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(hook))
    git(repository, "config", "diff.external", str(hook))
    (repository / "file.txt").write_text("two\n")
    provenance.git_state(repository)
    provenance.git_patch(repository)
    assert not (repository / "started").exists()
