"""Git as the commands for its notebooks ask it: one process a question, errors as sentences."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from labkit.errors import GitProblem


def git(folder: Path, *arguments: str, stdin: bytes = b"", index: Path | None = None) -> bytes:
    """Returns what a git command prints.

    Args:
        folder: Where it is started.
        arguments: Those of git.
        stdin: What it reads.
        index: A file that takes the place of the index.

    Raises:
        GitProblem: git is not installed, or failed; the message is its own.
    """
    program = shutil.which("git")
    if program is None:
        raise GitProblem("git is not installed")
    env = os.environ | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
    if index is not None:
        env["GIT_INDEX_FILE"] = str(index)
    done = subprocess.run([program, *arguments], cwd=folder, env=env, input=stdin, capture_output=True)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        reason = said.splitlines()[0].removeprefix("fatal: ") if said else f"status {done.returncode}"
        raise GitProblem(f"git {arguments[0]}: {reason}")
    return done.stdout


def answer(folder: Path, *arguments: str) -> str:
    """Returns the line that a git command prints; empty where it has none to give."""
    try:
        return git(folder, *arguments).decode(errors="surrogateescape").rstrip("\n")
    except GitProblem:
        return ""


def top(folder: Path) -> Path:
    """Returns the root of the working tree that a folder lies in.

    Raises:
        GitProblem: It lies in none, or git is not installed.
    """
    try:
        return Path(os.fsdecode(git(folder, "rev-parse", "--show-toplevel").rstrip(b"\n")))
    except GitProblem as error:
        if "not a git repository" in str(error):
            raise GitProblem(f"{folder} lies in no git repository; git init makes one") from None
        raise


def inside(root: Path, path: Path) -> str:
    """Returns a file's path inside a working tree, as git writes it.

    Raises:
        GitProblem: The file lies elsewhere.
    """
    found = os.path.relpath(os.path.join(os.path.realpath(path.parent), path.name), os.path.realpath(root))
    if found.startswith(".." + os.sep):
        raise GitProblem(f"{path} lies outside of the repository {root}")
    return found


def under_way(root: Path) -> tuple[str, str, str]:
    """Returns what is ours and what is theirs in what git is in the middle of, and the command that goes on, if any."""
    folder = Path(answer(root, "rev-parse", "--absolute-git-dir"))
    if (folder / "rebase-merge").is_dir() or (folder / "rebase-apply").is_dir():
        return "what you rebase onto", _commit(root, "REBASE_HEAD"), "git rebase --continue"
    here = answer(root, "symbolic-ref", "--short", "-q", "HEAD") or _commit(root, "HEAD")
    goes_on = {"MERGE_HEAD": "git commit", "CHERRY_PICK_HEAD": "git cherry-pick --continue"}
    for head, command in (goes_on | {"REVERT_HEAD": "git revert --continue"}).items():
        if (folder / head).exists():
            return here, _commit(root, head), command
    if (folder / "SQUASH_MSG").exists():
        return here, "what you squash", "git commit"
    return here, "what was applied", ""


def _commit(root: Path, name: str) -> str:
    return answer(root, "log", "-1", "--format=%h %s", name) or name
