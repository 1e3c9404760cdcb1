"""What a notebook's parameters cell declares, read by syntax tree and never executed.

A line is `NAME: type = literal  # meaning, unit`; `labkit.record.allowed` says which values a declaration allows.
"""

from __future__ import annotations

import ast
import io
import tokenize
from dataclasses import dataclass
from typing import Any

UNDECLARED = ""
_NO_LITERAL = (ValueError, TypeError, SyntaxError, MemoryError, RecursionError)
_OWN_NAMES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)  # statements whose names are their own


@dataclass(frozen=True)
class Parameter:
    """One declared parameter.

    Attributes:
        name: The variable's name.
        type: The annotation as written; empty without one.
        default: The value in the cell.
        help: The comment behind it.
        line: Its line in the cell, from 1.
    """

    name: str
    type: str
    default: Any
    help: str
    line: int


def declared(source: str) -> list[Parameter]:
    """Returns the parameters that a cell's source declares, in their order; a repeated name counts by its last line.

    Raises:
        SyntaxError: The source is not Python (cell magics are not).
    """
    comments = _comments(source)
    found: dict[str, Parameter] = {}
    for statement in ast.parse(source).body:
        for name, annotation, value in _assigned(statement):
            found.pop(name, None)
            try:
                default = ast.literal_eval(value)
            except _NO_LITERAL:
                continue  # computed: not a parameter, it follows from others
            help_text = comments.get(value.end_lineno or statement.lineno, "")
            found[name] = Parameter(name, annotation, default, help_text, statement.lineno)
    return list(found.values())


def computed(source: str) -> dict[str, int]:
    """Returns the names that a cell's source computes, each with the line that does: no user can set them.

    Raises:
        SyntaxError: The source is not Python.
    """
    settable = {parameter.name for parameter in declared(source)}
    statements = [node for node in ast.parse(source).body if not isinstance(node, _OWN_NAMES)]
    stored = [node for statement in statements for node in ast.walk(statement) if isinstance(node, ast.Name)]
    return {node.id: node.lineno for node in stored if isinstance(node.ctx, ast.Store) and node.id not in settable}


def _assigned(statement: ast.stmt) -> list[tuple[str, str, ast.expr]]:
    """Returns (name, annotation, value) for each plain name that a statement gives a value."""
    match statement:
        case ast.AnnAssign(ast.Name(name), annotation, ast.expr() as value):
            return [(name, ast.unparse(annotation), value)]
        case ast.AugAssign(ast.Name(name) as target):
            return [(name, UNDECLARED, target)]  # it follows from what it was
        case ast.Assign(targets, value):
            return [pair for target in targets for pair in _paired(target, value)]
    return []


def _paired(target: ast.expr, value: ast.expr) -> list[tuple[str, str, ast.expr]]:
    """Returns what a target of an assignment gets; of `A, B = 1, 2` each name its own."""
    if isinstance(target, ast.Name):
        return [(target.id, UNDECLARED, value)]
    if not isinstance(target, (ast.Tuple, ast.List)):
        return []
    items = target.elts
    fits = isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(items)
    parts = value.elts if fits and isinstance(value, (ast.Tuple, ast.List)) else items
    return [(item.id, UNDECLARED, part) for item, part in zip(items, parts, strict=True) if isinstance(item, ast.Name)]


def _comments(source: str) -> dict[int, str]:
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError):
        return {}
    return {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}
