"""A notebook file as the user left it: read, checked, and looked into without running anything."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from labkit.errors import NotebookProblem
from labkit.record import lab
from labkit.record.declared import Parameter, computed, declared, written
from labkit.record.files import dumps
from labkit.workbench.notebooks import outline

LIMIT_BYTES = 100 * 2**20
# As git leaves them in a file, and as labkit and nbdime leave them in a cell.
CONFLICT = re.compile(rb'^(<{7} |={7}$|>{7} |[ \t]*+"(<{7} (ours|local)|labkit_conflict"))', re.MULTILINE)
CONFLICT_ADVICE = "labkit merge leads through"


@dataclass(frozen=True)
class Notebook:
    """A notebook that can be run.

    Attributes:
        path: Where it lies.
        content: The whole document in nbformat 4, without outputs.
    """

    path: Path
    content: dict[str, Any]

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    @property
    def cells(self) -> list[dict[str, Any]]:
        """All cells."""
        return self.content["cells"]

    @property
    def kernel(self) -> str:
        """The kernel that the notebook asks for."""
        found = self.content["metadata"].get("kernelspec")
        name = found.get("name") if isinstance(found, dict) else None
        return name if isinstance(name, str) and name else "python3"

    @property
    def language(self) -> str:
        """The language of its code cells."""
        spec, info = self.content["metadata"].get("kernelspec"), self.content["metadata"].get("language_info")
        for found in (
            spec.get("language") if isinstance(spec, dict) else None,
            info.get("name") if isinstance(info, dict) else None,
        ):
            if isinstance(found, str):
                return found
        return "python"

    @property
    def title(self) -> str:
        """The first heading, else the name."""
        return outline.title(cell["source"] for cell in self.cells if cell["cell_type"] == "markdown") or self.name

    @property
    def sha256(self) -> str:
        """A fingerprint of what decides what runs: types and sources of the cells, not outputs or metadata."""
        sources = [(cell["cell_type"], cell["source"]) for cell in self.cells]
        return hashlib.sha256(dumps(sources)).hexdigest()

    def is_plain_python(self) -> bool:
        """Tells whether the parameters cell can be read; where it holds magics or another language, none are known."""
        try:
            self.parameters()
        except NotebookProblem:
            return False
        return True

    def parameters(self) -> list[Parameter]:
        """Returns what the cell tagged `parameters` declares; nothing where there is none.

        Raises:
            NotebookProblem: More than one cell is tagged, or the cell is not Python.
        """
        return declared(self._parameters_source())

    def computed(self) -> dict[str, int]:
        """Returns the names that the cell tagged `parameters` computes, with their lines: none of them can be set."""
        return computed(self._parameters_source())

    def written(self) -> list[Parameter]:
        """Returns every plain value that the cell tagged `parameters` gives to a name, those in its later lines too."""
        return written(self._parameters_source())

    def _parameters_source(self) -> str:
        """Returns the source of the cell tagged `parameters`, which is Python; empty where there is none.

        Raises:
            NotebookProblem: More than one cell is tagged, or the cell is not Python.
        """
        tagged = [(number, cell) for number, cell in enumerate(self.cells, 1) if outline.is_parameters(cell)]
        if len(tagged) > 1:
            numbers = ", ".join(str(number) for number, _ in tagged)
            raise NotebookProblem(
                f"{self.path}: cells {numbers} are all tagged `parameters`; keep the tag on one of them"
            )
        if not tagged:
            return ""
        number, cell = tagged[0]
        try:
            declared(cell["source"])
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise NotebookProblem(
                f"{self.path}: cell {number}, tagged `parameters`, is not plain Python: {error}"
            ) from error
        return str(cell["source"])

    def dumps(self) -> bytes:
        """Returns the notebook as a file's content."""
        return orjson.dumps(self.content, option=orjson.OPT_INDENT_2) + b"\n"


def read(path: Path) -> Notebook:
    """Returns the notebook in a file, checked as far as running it needs.

    Raises:
        NotebookProblem: It cannot be run; the message says why and what to do.
    """
    data = bytes_of(path)
    if CONFLICT.search(data):
        raise NotebookProblem(f"{path} holds conflict markers of a merge; {CONFLICT_ADVICE}")
    try:
        content = orjson.loads(data)
    except ValueError as error:
        raise NotebookProblem(f"{path} is not a notebook: {error}; restore it, e.g. from git") from error
    _check(path, content)
    return Notebook(path, _without_outputs(content))


def bytes_of(path: Path) -> bytes:
    """Returns the content of a notebook's file.

    Raises:
        NotebookProblem: It is missing, too large, or cannot be read.
    """
    try:
        if path.is_dir():
            raise NotebookProblem(f"{path} is a folder; name one notebook in it")
        if not path.is_file():
            raise NotebookProblem(f"there is no notebook {path}{_near(path)}")
        size = path.stat().st_size
        if size > LIMIT_BYTES:
            raise NotebookProblem(
                f"{path} has {size / 2**20:.0f} MiB, more than the {LIMIT_BYTES / 2**20:.0f} MiB that are read;"
                " clear its outputs (jupyter nbconvert --clear-output --inplace)"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise NotebookProblem(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _near(path: Path) -> str:
    import difflib

    try:
        folders = (path.parent, lab.root(path.parent) / "notebooks")
        found = {other.name: other for folder in reversed(folders) for other in folder.glob("*.ipynb")}
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, found, 1, 0.5)
    return f"; did you mean {os.path.relpath(found[near[0]])}?" if near else ""


def _check(path: Path, content: Any) -> None:
    if not isinstance(content, dict) or "nbformat" not in content:
        raise NotebookProblem(f"{path} is JSON, but no notebook: it has no `nbformat`")
    version = content["nbformat"]
    if version != 4:
        raise NotebookProblem(
            f"{path} is in notebook format {version!r}; labkit runs format 4"
            " (jupyter nbconvert --to notebook converts it)"
        )
    cells = content.get("cells")
    if not isinstance(cells, list) or not isinstance(content.get("metadata", {}), dict):
        raise NotebookProblem(f"{path} is no valid notebook: `cells` is no list or `metadata` no object")
    seen: dict[str, int] = {}
    for number, cell in enumerate(cells, 1):
        _check_cell(path, number, cell)
        identity = cell.get("id")
        if isinstance(identity, str) and identity in seen:
            raise NotebookProblem(
                f"{path}: cells {seen[identity]} and {number} have the same id {identity!r}; give one of them another"
            )
        if isinstance(identity, str):
            seen[identity] = number


def _check_cell(path: Path, number: int, cell: Any) -> None:
    if not isinstance(cell, dict) or cell.get("cell_type") not in ("code", "markdown", "raw"):
        raise NotebookProblem(f"{path}: cell {number} is no cell of a notebook")
    source = cell.get("source")
    lines = isinstance(source, list) and all(isinstance(line, str) for line in source)
    if not (isinstance(source, str) or lines) or not isinstance(cell.get("metadata", {}), dict):
        raise NotebookProblem(f"{path}: cell {number} has no proper `source` or `metadata`")


def _without_outputs(content: dict[str, Any]) -> dict[str, Any]:
    """Returns the document with sources as text and without what an earlier run left in it."""
    cells = []
    for cell in content["cells"]:
        source = cell["source"]
        plain = cell | {
            "source": source if isinstance(source, str) else "".join(source),
            "metadata": dict(cell.get("metadata", {})),
        }
        plain["metadata"].pop("papermill", None)
        plain["metadata"].pop("execution", None)
        if cell["cell_type"] == "code":
            plain |= {"outputs": [], "execution_count": None}
        cells.append(plain)
    metadata = {key: value for key, value in content.get("metadata", {}).items() if key not in ("papermill", "widgets")}
    minor = content.get("nbformat_minor")
    return content | {"cells": cells, "metadata": metadata, "nbformat_minor": minor if isinstance(minor, int) else 5}
