"""The notebook as it was saved: its cells, and the parameters that it declares."""

from __future__ import annotations

import ast
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.record.declared import declared
from labkit.record.files import read_json

NO_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)


@dataclass(frozen=True)
class Saved:
    """A notebook as it was saved.

    Attributes:
        saved_s: When, in seconds since the epoch.
        cells: Number, id and source of each cell with code, in their order.
        parameters: The parameters that it declares, with their defaults; None where it has no cell for them.
    """

    saved_s: float
    cells: tuple[tuple[int, str, str], ...]
    parameters: dict[str, Any] | None = None

    @property
    def sources(self) -> list[str]:
        """The sources in the order of the cells, as `normal` makes them."""
        return [normal(source) for _, _, source in self.cells]


def read_saved(path: Path) -> Saved | None:
    """Returns the saved notebook, or None where there is none that can be read."""
    try:
        saved_s = path.stat().st_mtime
    except OSError:
        return None
    content = (read_json(path) or {}).get("cells")
    found: list[tuple[int, str, str]] = []
    parameters: dict[str, Any] | None = None
    for number, cell in enumerate(content if isinstance(content, list) else [], 1):
        if not isinstance(cell, dict) or cell.get("cell_type") != "code":
            continue
        source = cell.get("source")
        source = "".join(map(str, source)) if isinstance(source, list) else str(source or "")
        if "parameters" in _tags(cell):
            parameters = _defaults(source)
        if source.strip():
            found.append((number, str(cell.get("id") or ""), source))
    return Saved(saved_s, tuple(found), parameters) if found else None


def _tags(cell: dict[str, Any]) -> list[Any]:
    """Returns a cell's tags, whatever a front end or a hand has written there."""
    metadata = cell.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    return tags if isinstance(tags, list) else []


def _defaults(source: str) -> dict[str, Any] | None:
    try:
        return {parameter.name: parameter.default for parameter in declared(source)}
    except NO_PYTHON:
        return None


def normal(source: str) -> str:
    """Returns a cell's source without what front ends, files and IPython's history treat differently."""
    return source.replace("\r\n", "\n").rstrip()


def differ(one: Any, other: Any) -> bool:
    """Tells whether two plain values differ, in type or in what they say; NaN equals itself."""
    try:
        return type(one) is not type(other) or repr(one) != repr(other)
    except Exception:  # of whatever class a cell has made
        return True


def only_declares(source: str, names: Container[str]) -> bool:
    """Tells whether a cell does nothing but give literals to some of these names."""
    try:
        statements = ast.parse(source).body
        found = {parameter.name for parameter in declared(source)}
    except NO_PYTHON:
        return False
    targets = [target for statement in statements for target in _targets(statement)]
    return all(isinstance(target, ast.Name) and target.id in found and target.id in names for target in targets)


def _targets(statement: ast.stmt) -> Sequence[ast.AST]:
    match statement:
        case ast.Assign(targets=targets):
            return targets
        case ast.AnnAssign(target=target):
            return [target]
    return [statement]  # it does something else


def parameter_names(saved: Saved, executed: Sequence[str]) -> list[str]:
    """Returns the names that a notebook's parameters cell declares; also those that it has not been saved with yet.

    Args:
        saved: The notebook, which has a parameters cell.
        executed: What the kernel executed so far; the newest that declares a parameter is that cell as it ran.
    """
    names = dict.fromkeys(saved.parameters or {})
    for source in reversed(executed):
        found = _defaults(source) or {}
        if any(name in names for name in found):
            return list(names | dict.fromkeys(found))
    return list(names)
