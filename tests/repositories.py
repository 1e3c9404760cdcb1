"""Real git repositories for tests, and notebooks in them whose cells have names."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import nbformat
from click.testing import CliRunner, Result
from nbformat.v4 import new_code_cell, new_markdown_cell
from tiny import KERNEL

from labkit.cli import main
from labkit.workbench.notebooks.clean import dumps

Book = dict[str, str]  # the sources of a notebook's cells by id; `parameters` has the tag, `# …` is Markdown
NAME = "notebooks/x.ipynb"
IDENTITY = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false")


def git(folder: Path, *arguments: str, fails: bool = False) -> str:
    """Run git and return all that it says; it must fail where that is expected, and only there."""
    command = ["git", *IDENTITY, *arguments]
    done = subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert bool(done.returncode) is fails, done.stdout
    return done.stdout


def make_repository(folder: Path) -> Path:
    """Make an empty repository whose branch is main."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q", "-b", "main")
    return folder


def book(cells: Book) -> dict[str, Any]:
    """A notebook of these cells, as its file has it."""
    made = []
    for name, source in cells.items():
        new = new_markdown_cell if source.startswith("# ") else new_code_cell
        made.append(new(source, id=name, metadata={"tags": ["parameters"]} if name == "parameters" else {}))
    content = {"cells": made, "metadata": {"kernelspec": KERNEL, "language_info": {"name": "python"}}}
    return json.loads(nbformat.writes(nbformat.from_dict(content | {"nbformat": 4, "nbformat_minor": 5})))


def put(repository: Path, cells: Book, name: str = NAME) -> Path:
    """Write a notebook into a repository."""
    path = repository / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dumps(book(cells)))
    return path


def commit(repository: Path, what: str) -> None:
    """Commit everything."""
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", what)


def diverged(repository: Path, base: Book | None, ours: Book | None, theirs: Book | None) -> Path:
    """Commit three versions of a notebook: what main and feature started from, and what each has; None for no file."""
    (repository / "README").write_text("a lab\n")
    for branch, cells, what in (("main", base, "base"), ("feature", theirs, "theirs"), ("main", ours, "ours")):
        if what != "base":
            git(repository, "checkout", "-q", *(["-b"] if branch == "feature" else []), branch)
        if cells is None:
            (repository / NAME).unlink(missing_ok=True)
        else:
            put(repository, cells)
        (repository / what).touch()
        commit(repository, what)
    return repository / NAME


def cells_of(path: Path) -> Book:
    """The sources of a notebook's cells by id; the notebook must be valid."""
    content = nbformat.read(path, as_version=4)
    nbformat.validate(content)
    assert len({cell.id for cell in content.cells}) == len(content.cells)
    return {cell.id: cell.source for cell in content.cells}


def labkit(*arguments: str, answers: str = "") -> Result:
    """Run a labkit command here, in this process, with what somebody types."""
    return CliRunner().invoke(main, list(arguments), input=answers, catch_exceptions=False)


def edited(cells: Book, **sources: str | None) -> Book:
    """A notebook with other sources in some cells; None takes a cell away, a new one comes last."""
    return {name: source for name, source in (cells | sources).items() if source is not None}


def after(cells: Book, place: str, **new: str) -> Book:
    """A notebook with new cells after one of its cells."""
    found: Book = {}
    for name, source in cells.items():
        found[name] = source
        found |= new if name == place else {}
    return found
