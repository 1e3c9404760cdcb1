"""A new lab: `labkit init` writes what a lab needs, and one notebook to begin with."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from labkit import __version__
from labkit.errors import FolderProblem, GitProblem
from labkit.workbench.git import gitrepo
from labkit.workbench.notebooks import pins, template

SKELETON = Path(__file__).parent / "skeleton"
FIRST = "First experiment"
LISTED = 5  # files in the way that a message names
MESSAGE = "chore: a new lab"


@dataclass(frozen=True)
class NewLab:
    """A lab that was made.

    Attributes:
        path: Its folder.
        notebook: Its first notebook.
        git: What became of it in git.
    """

    path: Path
    notebook: Path
    git: str


def init(folder: Path) -> NewLab:
    """Makes a lab in a folder that is new or empty.

    Raises:
        FolderProblem: The folder holds something, or cannot be written.
    """
    folder = Path(os.path.abspath(folder))
    try:
        _refuse_what_is_in_the_way(folder)
        for inside, content in contents(folder.name).items():
            path = folder / inside
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        raise FolderProblem(f"{folder} cannot be made a lab: {error.strerror or error}") from error
    notebook = template.new(FIRST, "experiment", folder)
    return NewLab(folder, notebook, _first_commit(folder))


def _refuse_what_is_in_the_way(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FolderProblem(f"{folder} is a file; name a folder")
    there = sorted(name for name in os.listdir(folder) if name != ".git")
    if there:
        shown = ", ".join(there[:LISTED]) + (f" and {len(there) - LISTED} more" if len(there) > LISTED else "")
        raise FolderProblem(f"{folder} is not empty: {shown} would be in the way; name a new folder, or an empty one")


def contents(name: str) -> dict[str, bytes]:
    """Returns the files of a new lab by their path in it, but for the notebook.

    Args:
        name: The lab's name.
    """
    word = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "lab"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    values = {"NAME": word, "TITLE": name, "PYTHON": python, "LABKIT": __version__}
    files = {}
    for path in sorted(SKELETON.rglob("*.in")):
        text = path.read_text(encoding="utf-8")
        for key, value in values.items():
            text = text.replace(f"@{key}@", value)
        inside = path.relative_to(SKELETON).as_posix().removesuffix(".in").replace("dot-", ".")
        files[inside] = text.encode()
    lock, wheel = pins.lock()
    files["requirements.lock"] = lock.encode()
    if wheel is not None:
        files[f"{pins.FOLDER}/{wheel.name}"] = wheel.read_bytes()
    own = template.own_folder()
    return files | {f"templates/{path.relative_to(own).as_posix()}": path.read_bytes() for path in _templates(own)}


def _templates(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]


def _first_commit(folder: Path) -> str:
    """Puts the lab into a git repository of its own, unless it lies in one, and returns what became of that."""
    try:
        return f"it lies in the git repository {gitrepo.top(folder)}: commit it there"
    except GitProblem:
        pass
    try:
        gitrepo.git(folder, "-c", "init.defaultBranch=main", "init", "--quiet")
        gitrepo.git(folder, "add", "--all")
    except GitProblem as error:
        return f"it is in no git repository ({error})"
    try:
        gitrepo.git(folder, "commit", "--quiet", "-m", MESSAGE)
    except GitProblem as error:
        return f"the first commit is left to you: git commit -m {MESSAGE!r} ({error})"
    return "it is a git repository with a first commit"
