"""Everything that a check finds in a notebook: pure functions on its content in memory.

The parts: `structure` knows the contract, `hygiene` what git should not store. Here are the format, ids, what was left
over, and the whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import orjson

from labkit.record.files import is_deep
from labkit.record.secret import FORM
from labkit.workbench.notebooks import hygiene, outline, structure
from labkit.workbench.notebooks.finding import Finding
from labkit.workbench.notebooks.hygiene import Content
from labkit.workbench.notebooks.notebook import CONFLICT, CONFLICT_ADVICE

VALID_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
STOPS = re.compile(r"^[ \t]*+(%%?debug\b.*|%pdb\b.*|breakpoint\(\)|.*\bpdb\.set_trace\(\))[ \t]*$", re.MULTILINE)
HOME = re.compile(r"(?<![\w.:/~-])(/(?:home|Users)/[^/\s\"'`<>|:]+|/root(?=/))|\b[A-Za-z]:\\+Users\\+[^\\\s\"'`]+")
MINOR = 5  # the first minor version of format 4 whose cells have ids
TITLE_TO_WRITE = re.compile(r"\bTODO title\b", re.IGNORECASE)  # a template's {title} is filled by whoever uses it
LONGEST_FORMAT = 5  # errors of the format that are listed


def parse(data: bytes) -> tuple[Content | None, list[Finding]]:
    """Returns the notebook in a file's bytes, None where its cells cannot be looked at, and what breaks the format."""
    if CONFLICT.search(data):
        return None, [Finding("it holds conflict markers of a merge", CONFLICT_ADVICE)]
    try:
        orjson.loads(data)  # it is the stricter of the two: NaN and halves of characters are no JSON
        content = json.loads(data)  # and this one keeps large integers
    except (ValueError, RecursionError) as error:
        return None, [Finding(f"it is not a notebook: {error}", "restore it, e.g. from git")]
    if is_deep(content):
        return None, [Finding("it is nested too deep to be looked at", "restore it, e.g. from git")]
    if not isinstance(content, dict) or content.get("nbformat") != 4:
        version = content.get("nbformat") if isinstance(content, dict) else None
        problem = "it is JSON, but no notebook" if version is None else f"it is in notebook format {version!r:.20}"
        return None, [Finding(problem, "write format 4 (`jupyter nbconvert --to notebook` converts older ones)")]
    problems = list(_format(content))
    return (content if _is_walkable(content) else None), problems


def _is_walkable(content: Content) -> bool:
    """Tells whether a document has cells with sources and metadata, whatever else is wrong in it."""
    cells = content.get("cells")
    return (
        isinstance(content.get("metadata"), dict)
        and isinstance(cells, list)
        and all(isinstance(cell, dict) and isinstance(cell.get("metadata"), dict) for cell in cells)
        and all(cell.get("cell_type") in ("code", "markdown", "raw") for cell in cells)
        and all(_is_text(cell.get("source")) for cell in cells)
    )


def _is_text(source: object) -> bool:
    lines = source if isinstance(source, list) else [source]
    return all(isinstance(line, str) for line in lines)


def findings(content: Content, *, in_git: bool = True) -> list[Finding]:
    """Returns everything that is wrong in a notebook, in the order of its cells.

    Args:
        content: A notebook that `parse` has returned.
        in_git: Git stores it as it is, so what a run has left in it counts.
    """
    cells = content["cells"]
    found = [*structure.findings(cells), *_ids(content), *_leftovers(cells)]
    if in_git:
        found += hygiene.stored(content)
    if not is_in_order(content):
        problem = "its keys are not in the order in which Jupyter writes them"
        found.append(Finding(problem, f"{structure.FIX} sorts them"))
    return in_order(found)


def in_order(found: Iterable[Finding]) -> list[Finding]:
    """Returns findings in the order of cells and lines, problems before notes; each once."""
    return sorted(dict.fromkeys(found), key=lambda one: (one.note, one.cell, one.line))


def _format(content: Content) -> Iterator[Finding]:
    """Yields where a document is not what nbformat calls a notebook; ids are looked at elsewhere."""
    from nbformat.validator import better_validation_error, get_validator

    minor, cells = content.get("nbformat_minor"), content.get("cells")
    if not isinstance(minor, int) or isinstance(minor, bool) or minor < 0:
        yield Finding("`nbformat_minor` is no number", f'write `"nbformat_minor": {MINOR}`')
        minor = MINOR
    checked = content | {"nbformat_minor": MINOR}  # also of an older one: what it lacks is its ids
    if isinstance(cells, list):
        checked["cells"] = [cell | {"id": "good"} if isinstance(cell, dict) else cell for cell in cells]
    if not get_validator(4, MINOR).iter_errors(checked):  # this one is fast, and names one error
        return
    errors = get_validator(4, MINOR, name="jsonschema").iter_errors(checked)
    for error in islice(errors, LONGEST_FORMAT):
        try:
            said = better_validation_error(error, 4, MINOR).message
        except (TypeError, AttributeError):  # it trips over some of what it should explain
            said = error.message
        path = list(error.path)
        number = path[1] + 1 if len(path) > 1 and path[0] == "cells" else 0
        where = ".".join(map(str, path[2:] if number else path))
        problem = f"the format knows no such thing: {f'`{where}`: ' if where else ''}{said:.120}"
        yield Finding(problem, "restore it, e.g. from git", number)


def _ids(content: Content) -> Iterator[Finding]:
    """Yields what is wrong with ids in any notebook: missing, not valid, the same twice."""
    cells = content["cells"]
    if has_no_ids(content):
        yield Finding("it is in an older format, whose cells have no ids", f"{structure.FIX} gives them some")
        return
    seen: dict[str, int] = {}
    for number, cell in enumerate(cells, 1):
        identity = cell.get("id")
        if not isinstance(identity, str) or not VALID_ID.fullmatch(identity):
            advice = f"an id is 1 to 64 letters, digits, - and _; {structure.FIX} gives it one"
            yield Finding("the cell has no valid id", advice, number, identity if isinstance(identity, str) else "")
        elif identity in seen:
            problem = f"cell {seen[identity]} has the same id"
            yield Finding(problem, f"{structure.FIX} gives this one another", number, identity)
        else:
            seen[identity] = number


def has_no_ids(content: Content) -> bool:
    """Tells whether a notebook is of a format from before the cells had ids."""
    minor = content.get("nbformat_minor")
    return isinstance(minor, int) and minor < MINOR


def _leftovers(cells: list[dict[str, Any]]) -> Iterator[Finding]:
    for number, cell in enumerate(cells, 1):
        source = outline.source(cell)
        at = (number, cell["id"] if isinstance(cell.get("id"), str) else "")
        if not source.strip():
            yield Finding("the cell is empty", "delete it", *at)
        if cell["cell_type"] == "code":
            for found in STOPS.finditer(source):
                problem = f"`{found[1].strip():.40}` waits for an answer that no run gives"
                yield Finding(problem, "remove the line", *at, _line(source, found))
        for found in HOME.finditer(source):
            problem, advice = f"`{found[0]}` is a folder of one machine", "write a path from the lab's folder"
            yield Finding(problem, advice, *at, _line(source, found))
        for found in FORM.finditer(source):
            problem, advice = "the line holds what looks like a secret", "read it from the environment: os.environ"
            yield Finding(problem, advice, *at, _line(source, found))
        if cell["cell_type"] == "markdown" and (unwritten := TITLE_TO_WRITE.search(source)):
            problem = "the title is still to be written"
            yield Finding(problem, "say what was tried, in a line", *at, _line(source, unwritten), note=True)


def _line(source: str, found: re.Match[str]) -> int:
    return source.count("\n", 0, found.start()) + 1


def is_in_order(value: Any) -> bool:
    """Tells whether the keys of a document, and of all in it but outputs, are sorted."""
    if isinstance(value, dict):
        keys = list(value)
        return keys == sorted(keys) and all(is_in_order(value[key]) for key in keys if key != "outputs")
    return not isinstance(value, list) or all(map(is_in_order, value))
