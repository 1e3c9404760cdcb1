"""Values as Python writes them, so that a cell which assigns them gives the kernel equal ones: data, never code.

Papermill's own translator leaves the text of a cell to `black` where that is installed, and knows no tuples.
"""

from __future__ import annotations

import ast
import math
from typing import Any

TOO_LARGE = 10**4300  # Python neither writes nor reads longer integers


def literal(value: Any) -> str:
    """Returns the source of a plain value: text, numbers, None, and lists, tuples and mappings of them.

    Raises:
        ValueError: It is no such value, or no source can say it.
    """
    kind = type(value)
    if kind is float:
        return repr(value) if math.isfinite(value) else f'float("{_sign(value)}{abs(value)}")'
    if kind is str and not any(0xD800 <= ord(character) < 0xE000 for character in value):
        return repr(value)
    if kind in (bool, type(None)) or (kind is int and abs(value) < TOO_LARGE):
        return repr(value)
    if kind is list:
        return f"[{', '.join(map(literal, value))}]"
    if kind is tuple:
        return f"({', '.join(map(literal, value))}{',' * (len(value) == 1)})"
    if kind is dict:
        return f"{{{', '.join(f'{literal(key)}: {literal(item)}' for key, item in value.items())}}}"
    raise ValueError(f"{kind.__name__} cannot be given to a notebook")


def _sign(value: float) -> str:
    return "-" if math.copysign(1.0, value) < 0 else ""


def read_literal(source: str) -> Any:
    """Returns the value that `literal` wrote as `source`; nothing is executed.

    Raises:
        ValueError: It wrote no such thing.
    """
    try:
        return ast.literal_eval(_Floats().visit(ast.parse(source, mode="eval")).body)
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"not a value: {source!r:.80}") from error


class _Floats(ast.NodeTransformer):
    """Puts the floats that have no literal in place of the calls that make them."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """Returns the float; any other call is left, and refused later."""
        match node:
            case ast.Call(ast.Name("float"), [ast.Constant("nan" | "-nan" | "inf" | "-inf" as text)], []):
                return ast.Constant(float(text))
        return node


def cell(values: dict[str, Any], comment: str) -> str:
    """Returns the source of a cell that assigns values, a name a line."""
    return "".join([f"# {comment}\n", *(f"{name} = {literal(value)}\n" for name, value in values.items())])
