"""What a notebook's parameters cell declares, read by syntax tree and never executed.

A line is `NAME: type = literal  # meaning, unit`.
"""

from __future__ import annotations

import ast
import io
import tokenize
from dataclasses import dataclass
from typing import Any

UNDECLARED = ""


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
    for node in ast.parse(source).body:
        for name, annotation, value in _assigned(node):
            try:
                default = ast.literal_eval(value)
            except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                continue  # computed: not a parameter, it follows from others
            help_text = comments.get(value.end_lineno or node.lineno, "")
            found.pop(name, None)
            found[name] = Parameter(name, annotation, default, help_text, node.lineno)
    return list(found.values())


def _assigned(node: ast.stmt) -> list[tuple[str, str, ast.expr]]:
    """Returns (name, annotation, value) for each plain name that a statement gives a value."""
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
        return [(node.target.id, ast.unparse(node.annotation), node.value)]
    if not isinstance(node, ast.Assign):
        return []
    pairs: list[tuple[str, str, ast.expr]] = []
    for target in node.targets:
        if isinstance(target, ast.Name):
            pairs.append((target.id, UNDECLARED, node.value))
        elif isinstance(target, (ast.Tuple, ast.List)) and isinstance(node.value, (ast.Tuple, ast.List)):
            names = [item.id for item in target.elts if isinstance(item, ast.Name)]
            if len(names) == len(node.value.elts):
                pairs += [(name, UNDECLARED, value) for name, value in zip(names, node.value.elts, strict=True)]
    return pairs


def _comments(source: str) -> dict[int, str]:
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError):
        return {}
    return {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}
