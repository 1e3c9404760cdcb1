"""Where two versions of Python code first differ in what they do; comments, layout and the like do not count."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass
from itertools import zip_longest

from labkit.record.declared import declared
from labkit.record.secret import masked
from labkit.workbench.notebooks.outline import MAGIC

LONGEST = 80  # characters of a line that is shown
RUNS_PYTHON = re.compile(r"\s*%%(time|timeit|capture|prun)\b")  # cell magics around a cell of Python
_UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
Place = tuple[int, int]  # lines then and now, from 1; negative where nothing stands there


@dataclass(frozen=True)
class Change:
    """The first place where code differs: the line now, and both lines where they say it."""

    line: int
    then: str = ""
    now: str = ""

    def __str__(self) -> str:
        if self.then == self.now:
            return f"line {self.line}"
        return f"line {self.line}: {_quoted(self.now)} here, {_quoted(self.then)} then"


def first_change(then: str, now: str) -> Change | None:
    """Returns where two versions of code first differ; None where they do the same.

    Code is compared by its syntax trees, magics and what is no Python line by line.
    """
    if then == now:
        return None
    try:
        place = _first(_tree(then), _tree(now), (1, 1))
        magics = _differing(_magics(then), _magics(now))
        place = min(filter(None, (place, magics)), key=lambda one: abs(one[1]), default=None)
    except _UNREADABLE:
        place = _differing(_lines(then), _lines(now))
    return _change(then, now, place) if place is not None else None


def differs_in_defaults_only(then: str, now: str) -> bool:
    """Tells whether two versions of a parameters cell differ in nothing but the values that names are given."""
    try:
        return _first(_without_defaults(then), _without_defaults(now), (1, 1)) is None
    except _UNREADABLE:
        return False


def does_nothing(source: str) -> bool:
    """Tells whether code holds only comments and blank lines."""
    return first_change("", source) is None


def imported(source: str) -> set[str]:
    """Returns the top-level names that code imports; nothing where it is no Python."""
    try:
        tree = _tree(source)
        nodes = list(ast.walk(tree))
    except _UNREADABLE:
        return set()
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.partition(".")[0] for name in names}


def _tree(source: str) -> ast.Module:
    """Returns the syntax tree of a cell, with `pass` in place of its magics."""
    if source.lstrip().startswith("%%") and not RUNS_PYTHON.match(source):
        raise ValueError("a cell in another language")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source)
        except SyntaxError:
            return ast.parse(MAGIC.sub(_pass, source))


def _pass(found: re.Match[str]) -> str:
    line = found[0]
    return line[: len(line) - len(line.lstrip(" \t"))] + "pass"


def _magics(source: str) -> list[tuple[int, str]]:
    """Returns the lines of magics with their numbers; none where the code is Python as it stands."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(source)
            return []
        except SyntaxError:
            found = MAGIC.finditer(source)
            return [(source.count("\n", 0, one.start()) + 1, one[0].strip()) for one in found]


def _lines(source: str) -> list[tuple[int, str]]:
    return [(number, line.rstrip()) for number, line in enumerate(source.split("\n"), 1) if line.strip()]


def _differing(then: list[tuple[int, str]], now: list[tuple[int, str]]) -> Place | None:
    """Returns the first lines whose texts differ."""
    before, after = (lines[-1] if lines else (1, "") for lines in (then, now))
    for old, new in zip_longest(then, now):
        if old is None or new is None or old[1] != new[1]:
            return (old[0] if old else -before[0]), (new[0] if new else -after[0])
    return None


def _without_defaults(source: str) -> ast.Module:
    names = {parameter.name for parameter in declared(source)}
    tree = _tree(source)
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if isinstance(statement, ast.Assign | ast.AnnAssign) and any(
            isinstance(target, ast.Name) and target.id in names for target in targets
        ):
            statement.value = ast.Constant(None)
    return tree


def _first(then: object, now: object, at: Place) -> Place | None:
    """Returns the lines of the first nodes that differ, in the order of the code."""
    if isinstance(then, ast.AST) and isinstance(now, ast.AST):
        at = getattr(then, "lineno", at[0]), getattr(now, "lineno", at[1])
        if type(then) is not type(now):
            return at
        parts = ((getattr(then, name, None), getattr(now, name, None)) for name in then._fields if name != "kind")
        return next((found for old, new in parts if (found := _first(old, new, at))), None)
    if isinstance(then, list) and isinstance(now, list):
        for old, new in zip(then, now, strict=False):
            if found := _first(old, new, at):
                return found
        return _extra(then, now, at) if len(then) != len(now) else None
    return None if type(then) is type(now) and repr(then) == repr(now) else at  # 1 is not True, 0.0 is not -0.0


def _extra(then: list[object], now: list[object], at: Place) -> Place:
    count = min(len(then), len(now))
    if len(then) > count:
        return getattr(then[count], "lineno", at[0]), -abs(at[1])
    return -abs(at[0]), getattr(now[count], "lineno", at[1])


def _change(then: str, now: str, place: Place) -> Change:
    return Change(abs(place[1]), _line(then, place[0]), _line(now, place[1]))


def _line(source: str, number: int) -> str:
    lines = source.split("\n")
    text = masked(lines[number - 1].strip()) if 0 < number <= len(lines) else ""
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _quoted(line: str) -> str:
    return f"`{line}`" if line else "nothing"
