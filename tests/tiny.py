"""Tiny notebooks, built in memory for one test each, and a plain environment to start programs in."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def markdown(text: str) -> NotebookNode:
    return new_markdown_cell(text)


def parameters(text: str) -> NotebookNode:
    return new_code_cell(text, metadata={"tags": ["parameters"]})


def notebook(*cells: str | NotebookNode) -> NotebookNode:
    """A notebook of these cells, plain text being code; cell ids are `cell-1`, `cell-2`, … in order."""
    made = [new_code_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    for number, cell in enumerate(made, start=1):
        cell["id"] = f"cell-{number}"
    return new_notebook(cells=made, metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}})


def write(path: Path, *cells: str | NotebookNode) -> Path:
    """Write a notebook of these cells to `path` and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook(*cells), path)
    return path


def plain_environment(**more: str) -> dict[str, str]:
    """The environment without what an outer make hands down, and without any conda."""
    dropped = ("MAKE", "MFLAGS", "LABKIT_", "MAMBA", "CONDA", "PYTHON", "PYTEST_")
    typed = {"ARGS", "BASE", "F", "NB", "P", "RERUN", "RUN"}  # after `make test`
    kept = {name: one for name, one in os.environ.items() if not name.startswith(dropped) and name not in typed}
    return kept | more
