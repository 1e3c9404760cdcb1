"""Three versions of a notebook merged cell by cell: what is clear is settled, what is not is left to decide.

A cell leaves the notebook only where one side deleted it and the other left it as it was. Outputs are no part of a
merge: they are no part of what git stores.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from labkit.workbench.git.align import Aligned, Cell, align, fresh, woven
from labkit.workbench.git.conflicts import Choice, Conflict, Either, Joined, Merged, Take, differing, shown
from labkit.workbench.git.threeway import ABSENT, Disagreement, Hunk, blocks, merge_text, merge_values
from labkit.workbench.notebooks.clean import cleaned
from labkit.workbench.notebooks.outline import PARAMETERS, tags

MINOR = 5  # of the format; cells have ids from here on
APART = ("source", "outputs", "execution_count")  # of a cell; everything else merges by key
DECLARED = re.compile(r"^([A-Za-z_]\w*)[ \t]*(?::|=(?!=))", re.MULTILINE)
Added = tuple[str, str, Cell]  # by which side, under which key, and what


def readable(content: Any) -> dict[str, Any]:
    """Returns a version of a notebook as it is merged: cleaned, and each cell with its source as one text.

    Raises:
        ValueError: It is no notebook of format 4.
    """
    if not isinstance(content, dict) or content.get("nbformat") != 4 or not isinstance(content.get("cells"), list):
        raise ValueError("it is no notebook of format 4")
    cells = [_plain(number, cell) for number, cell in enumerate(content["cells"], 1)]
    metadata = content.get("metadata")
    return cleaned(content | {"cells": cells, "metadata": metadata if isinstance(metadata, dict) else {}})


def _plain(number: int, cell: Any) -> Cell:
    source = cell.get("source") if isinstance(cell, dict) else None
    text = "".join(source) if isinstance(source, list) and all(isinstance(line, str) for line in source) else source
    if not isinstance(text, str) or cell.get("cell_type") not in ("code", "markdown", "raw"):
        raise ValueError(f"its cell {number} is no cell of a notebook")
    return cell | {"source": text, "metadata": cell["metadata"] if isinstance(cell.get("metadata"), dict) else {}}


def merge(base: dict[str, Any] | None, ours: dict[str, Any], theirs: dict[str, Any], order: str = "") -> Merged:
    """Returns two versions of a notebook merged.

    Args:
        base: What both sides started from, as `readable` returns it; None where both added the notebook.
        ours: Our side.
        theirs: The other side.
        order: Whose order of cells wins where both sides moved some: `ours` or `theirs`; empty to leave it open.
    """
    cells = align(base["cells"] if base else [], ours["cells"], theirs["cells"])
    keys, disagree = woven(cells, order)
    head = merge_values(_head(base), _head(ours), _head(theirs))
    about = None
    if differ := differing(head):
        text = "both sides changed the notebook's metadata"
        about = Conflict("head", "", text, shown(differ, "ours"), shown(differ, "theirs"), ("ours", "theirs"))
    by_order = _about_order(cells) if disagree and not order else None
    return Merged(head, tuple(_parts(cells, keys)), about, by_order, cells.notes)


def _head(version: dict[str, Any] | None) -> dict[str, Any]:
    """Returns a notebook without its cells, in the newest format that a merge makes."""
    head = {key: value for key, value in (version or {}).items() if key != "cells"}
    minor = head.get("nbformat_minor")
    return head | {"nbformat": 4, "nbformat_minor": max(MINOR, minor if isinstance(minor, int) else 0)}


def _about_order(cells: Aligned) -> Conflict:
    ours, theirs = ("  ".join(version) for version in (cells.ours, cells.theirs))
    return Conflict("order", "", "both sides moved cells", ours, theirs, ("ours", "theirs"))


def _parts(cells: Aligned, keys: list[str]) -> Iterator[Joined | Either]:
    run: list[Added] = []  # cells that one side added, one after another
    taken = {
        cell["id"] for version in (cells.base, cells.ours, cells.theirs) for cell in version.values() if "id" in cell
    }
    for key in keys:
        old, our, their = cells.base.get(key), cells.ours.get(key), cells.theirs.get(key)
        if old is None and (our is None or their is None):
            run.append(("ours", key, our) if our else ("theirs", key, their or {}))
            continue
        if our and their:
            part: Joined | Either | None = _changed(key, old, our, their, taken)
        else:
            part = _deleted(key, old or {}, our, their)
        if part is not None:
            yield from _added(run)
            run = []
            yield part
    yield from _added(run)


def _changed(key: str, old: Cell | None, our: Cell, their: Cell, taken: set[str]) -> Joined | Either:
    """Returns a cell that both sides have."""
    if our["cell_type"] != their["cell_type"] and old not in (our, their):
        their = their | {"id": fresh(_name(our), taken)}
        taken.add(their["id"])
        return _either(f"type:{key}", "one side made it a cell of another type, the other changed it", (our,), (their,))
    rest = merge_values(_rest(old), _rest(our), _rest(their))
    if isinstance(rest.get("id"), Disagreement):
        rest["id"] = our["id"]
    is_parameters = PARAMETERS in tags(our) + tags(their)
    pieces = merge_text(old["source"] if old else None, our["source"], their["source"], by_line=is_parameters)
    lines: list[str | Choice] = []
    for piece in pieces:
        number = sum(isinstance(line, Choice) for line in lines)
        lines.append(piece if isinstance(piece, str) else _choice(f"lines:{key}:{number}", piece, rest, is_parameters))
    about = None
    if differ := differing(rest):
        sides = shown(differ, "ours"), shown(differ, "theirs")
        about = Conflict(f"values:{key}", _name(rest), "both sides changed its metadata", *sides, ("ours", "theirs"))
    return Joined(rest | _emptied(rest), tuple(lines), about)


def _rest(cell: Cell | None) -> Any:
    return ABSENT if cell is None else {key: value for key, value in cell.items() if key not in APART}


def _emptied(cell: Cell) -> Cell:
    return {"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {}


def _choice(key: str, hunk: Hunk, cell: Cell, is_parameters: bool) -> Choice:
    ours, theirs = "\n".join(hunk.ours), "\n".join(hunk.theirs)
    choices: tuple[Take, ...] = ("ours", "theirs", "both")
    if is_parameters and (hunk.base or set(DECLARED.findall(ours)) & set(DECLARED.findall(theirs))):
        choices = ("ours", "theirs")  # one parameter has one value
    what = "changed these lines" if hunk.base else "have these lines, and not the same"
    suffix = ".py" if cell["cell_type"] == "code" else ".md"
    return Choice(Conflict(key, _name(cell), f"both sides {what}", ours, theirs, choices, suffix), hunk)


def _deleted(key: str, old: Cell, our: Cell | None, their: Cell | None) -> Either | None:
    """Returns a conflict where the other side changed what one deleted, else nothing: it is gone."""
    kept = our or their or old
    if all(kept.get(name) == old.get(name) for name in {*kept, *old} - {"id", *APART[1:]}):
        return None
    about = "ours changed the cell, theirs deleted it" if our else "ours deleted the cell, theirs changed it"
    return _either(f"deleted:{key}", about, (our,) if our else (), (their,) if their else ())


def _added(run: list[Added]) -> Iterator[Joined | Either]:
    """Yields cells that the sides added at one place: alone they stand, equal ones are one, others are a conflict."""
    ours, theirs = ([cell for side, _, cell in run if side == name] for name in ("ours", "theirs"))
    if not ours or not theirs:
        yield from (_whole(cell) for *_, cell in run)
        return
    keys = {name: [key for side, key, _ in run if side == name] for name in ("ours", "theirs")}
    at, at_theirs = 0, 0
    for start, start_theirs, length in blocks(*([_looks(cell) for cell in side] for side in (ours, theirs))):
        first, second = tuple(ours[at:start]), tuple(theirs[at_theirs:start_theirs])
        if first and second:
            about = "both sides added cells here" if len(first + second) > 2 else "both sides added a cell here"
            key = f"added:{keys['ours'][at]}:{keys['theirs'][at_theirs]}"
            yield _either(key, about, first, second)
        else:
            yield from (_whole(cell) for cell in first + second)
        yield from (_whole(cell) for cell in ours[start : start + length])
        at, at_theirs = start + length, start_theirs + length


def _looks(cell: Cell) -> tuple[str, str, tuple[str, ...]]:
    return cell["cell_type"], cell["source"], tuple(tags(cell))


def _whole(cell: Cell) -> Joined:
    return Joined(cell, tuple(cell["source"].split("\n")))


def _either(key: str, about: str, ours: tuple[Cell, ...], theirs: tuple[Cell, ...]) -> Either:
    name = _name(next(iter(ours + theirs)))
    choices: tuple[Take, ...] = ("ours", "theirs", "both")
    if all(any(PARAMETERS in tags(cell) for cell in side) for side in (ours, theirs)):
        choices = ("ours", "theirs")  # a notebook has one cell of parameters
    is_one = len(ours) == len(theirs) == 1 and ours[0]["cell_type"] == theirs[0]["cell_type"]
    suffix = (".py" if ours[0]["cell_type"] == "code" else ".md") if is_one else ""
    return Either(Conflict(key, name, about, _texts(ours), _texts(theirs), choices, suffix), ours, theirs)


def _texts(cells: tuple[Cell, ...]) -> str:
    """Returns cells as shown: alone its source, several each under a line that names it."""
    if len(cells) == 1:
        return str(cells[0]["source"])
    return "\n".join(f"[{cell['cell_type']} {_name(cell)}]\n{cell['source']}" for cell in cells)


def _name(cell: Cell) -> str:
    return cell["id"] if isinstance(cell.get("id"), str) else "without id"


def flaws(notebook: dict[str, Any], *sides: dict[str, Any]) -> list[str]:
    """Returns what is wrong with a merged notebook though each of its cells is right: parameters that are there twice.

    Args:
        notebook: The notebook.
        sides: What it was merged from; what is wrong there already is not the merge's doing.
    """
    tagged = [cell for cell in notebook["cells"] if PARAMETERS in tags(cell) and cell["cell_type"] == "code"]
    declared = [name for cell in tagged for name in DECLARED.findall("".join(cell["source"]))]
    twice = sorted({name for name in declared if declared.count(name) > 1})
    found = [f"the cell `parameters` gives {name} twice; keep one of the lines" for name in twice]
    if len(tagged) > 1:
        names = " and ".join(_name(cell) for cell in tagged)
        found = [f"cells {names} are both tagged `parameters`; keep the tag on one of them"]
    known = {text for side in sides for text in flaws(side)}
    return [text for text in found if text not in known]
