"""What a notebook's parameters cell declares, read by syntax tree and never executed.

A line is `NAME: type = literal  # meaning, unit`; `labkit.record.allowed` says which values a declaration allows. A
name that anything else in the cell may change after its line is no parameter: its value in the kernel cannot be known.
"""

from __future__ import annotations

import ast
import io
import itertools
import tokenize
from dataclasses import dataclass
from typing import Any

UNDECLARED = ""
_NO_LITERAL = (ValueError, TypeError, SyntaxError, MemoryError, RecursionError)


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
    return list(_read(source).parameters.values())


def computed(source: str) -> dict[str, int]:
    """Returns the names that a cell's source computes, each with the line that does: no user can set them.

    Raises:
        SyntaxError: The source is not Python.
    """
    return _read(source).computed


def written(source: str) -> list[Parameter]:
    """Returns every plain value that a cell's source gives to a name, also where the name has another one later.

    Raises:
        SyntaxError: The source is not Python.
    """
    return _read(source).written


@dataclass(frozen=True)
class _Read:
    """A cell's parameters by name, what it computes or changes with the lines, and all plain values in it."""

    parameters: dict[str, Parameter]
    computed: dict[str, int]
    written: list[Parameter]


def _read(source: str) -> _Read:
    comments = _comments(source)
    found: dict[str, Parameter] = {}
    lines: dict[str, int] = {}
    plain: list[Parameter] = []
    for statement in ast.parse(source).body:
        changed = _stored(statement) | _changed(statement, found)
        for name, line in changed.items():
            found.pop(name, None)
            lines[name] = line
        for name, annotation, value in _assigned(statement):
            try:
                default = ast.literal_eval(value)
            except _NO_LITERAL:  # it follows from others
                found.pop(name, None)
                lines[name] = statement.lineno
                continue
            help_text = comments.get(value.end_lineno or statement.lineno, "")
            found[name] = Parameter(name, annotation, default, help_text, statement.lineno)
            plain.append(found[name])
            lines.pop(name, None)
    return _Read(found, lines, plain)


def _stored(statement: ast.stmt) -> dict[str, int]:
    """Returns the variables of the notebook that a statement may store or delete, with their lines."""
    found: dict[str, int] = {}
    todo: list[ast.AST] = [statement]
    while todo:
        node = todo.pop()
        found |= dict.fromkeys(_named(node), getattr(node, "lineno", statement.lineno))
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():  # its variables are its own
                todo += [node.args, *getattr(node, "decorator_list", [])]
            case ast.ClassDef():
                todo += [*node.bases, *node.keywords, *node.decorator_list]
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                todo += [inner.target for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr)]
            case ast.AnnAssign(value=None):
                pass  # it gives no value
            case _:
                todo += ast.iter_child_nodes(node)
    return found


def _named(node: ast.AST) -> list[str]:
    """Returns the variables that a node itself stores or deletes, whatever is in it."""
    match node:
        case ast.Name(name, ast.Store() | ast.Del()):
            return [name]
        case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
            inside = [inner.names for inner in ast.walk(node) if isinstance(inner, ast.Global)]
            return [name, *itertools.chain(*inside)]
        case ast.alias(module, name):
            return [name or module.partition(".")[0]]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(str(name)):
            return [name]
        case ast.MatchMapping(rest=str(name)):
            return [name]
    return []


def _changed(statement: ast.stmt, known: dict[str, Parameter]) -> dict[str, int]:
    """Returns the known names whose value a statement may change without storing them, with their lines."""
    mutable = {name for name, parameter in known.items() if isinstance(parameter.default, (list, dict, set))}
    found: dict[str, int] = {}
    for node in ast.walk(statement):
        match node:
            case ast.Subscript(ctx=ast.Store() | ast.Del()) | ast.Attribute(ctx=ast.Store() | ast.Del()):
                found |= dict.fromkeys(mutable & {_root(node)}, node.lineno)
            case ast.Expr(ast.Call(ast.Attribute() as method)):  # a call for its effect, as `LAYERS.append(8)`
                found |= dict.fromkeys(mutable & {_root(method)}, node.lineno)
            case ast.ImportFrom(names=[ast.alias("*")]):
                found |= dict.fromkeys(known, node.lineno)
    return found


def _root(node: ast.expr) -> str:
    """Returns the variable that a part belongs to; empty where it belongs to none."""
    while isinstance(node, (ast.Subscript, ast.Attribute)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _assigned(statement: ast.stmt) -> list[tuple[str, str, ast.expr]]:
    """Returns (name, annotation, value) for each plain name that a statement gives a value."""
    match statement:
        case ast.AnnAssign(ast.Name(name), annotation, ast.expr() as value):
            return [(name, ast.unparse(annotation), value)]
        case ast.Assign(targets, value):
            return [pair for target in targets for pair in _paired(target, value)]
    return []


def _paired(target: ast.expr, value: ast.expr) -> list[tuple[str, str, ast.expr]]:
    """Returns what a target of an assignment gets; of `A, B = 1, 2` each name its own."""
    match target, value:
        case ast.Name(name), _:
            return [(name, UNDECLARED, value)]
        case ((ast.Tuple(names) | ast.List(names)), (ast.Tuple(values) | ast.List(values))):
            if len(names) == len(values) and not any(isinstance(one, ast.Starred) for one in values):
                pairs = zip(names, values, strict=True)
                return [(name.id, UNDECLARED, one) for name, one in pairs if isinstance(name, ast.Name)]
    return []


def _comments(source: str) -> dict[int, str]:
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError):
        return {}
    return {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}
