"""Which cells of three versions of a notebook are the same cell, and in which order a merged notebook has them.

A cell is known by its id. Only where ids are missing, or where none is left of what there was, nbdime's comparison of
their text says which is which.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from labkit.workbench.notebooks.outline import PARAMETERS, tags

Cell = dict[str, Any]
Cells = dict[str, Cell]  # by key, in the notebook's order; the same key is the same cell in all versions

GOOD_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Aligned:
    """Three versions whose cells have common keys.

    Attributes:
        base: What both sides started from; empty where both added the notebook.
        ours: Our side.
        theirs: The other side.
        notes: What had to be changed for it, as sentences.
    """

    base: Cells
    ours: Cells
    theirs: Cells
    notes: tuple[str, ...] = ()


def align(base: list[Cell], ours: list[Cell], theirs: list[Cell]) -> Aligned:
    """Returns three lists of cells under common keys."""
    old = dict(zip(_own_keys(base, "base"), base, strict=True))
    first = _keyed(old, ours, "ours")
    second = _keyed(old or first, theirs, "theirs")
    taken = {cell["id"] for cells in (old, first, second) for cell in cells.values() if has_id(cell)}
    renamed: Cells = {}
    notes = []
    for key, cell in second.items():
        if key in first and key not in old and not _related(first[key], cell):
            identity = fresh(key, taken)
            taken.add(identity)
            notes.append(f"both sides added a cell {key}, and not the same one: theirs is {identity} now")
            key, cell = identity, cell | {"id": identity}
        renamed[key] = cell
    return Aligned(old, first, renamed, tuple(notes))


def has_id(cell: Cell) -> bool:
    """Tells whether a cell has an id that the format allows."""
    return isinstance(cell.get("id"), str) and GOOD_ID.fullmatch(cell["id"]) is not None


def fresh(identity: str, taken: set[str]) -> str:
    """Returns an id like the given one that is not taken."""
    stem = "".join(re.findall(r"[A-Za-z0-9_-]", identity))[:56] or "cell"
    return next(name for number in range(2, len(taken) + 3) if (name := f"{stem}-{number}") not in taken)


def _own_keys(cells: list[Cell], side: str) -> list[str]:
    keys: list[str] = []
    for number, cell in enumerate(cells):
        is_known = has_id(cell) and cell["id"] not in keys
        keys.append(cell["id"] if is_known else f"{number} of {side}")  # a space is in no id
    return keys


def _keyed(known: Cells, cells: list[Cell], side: str) -> Cells:
    """Returns a side's cells under the keys of the cells that they are versions of, new ones under their own."""
    keys = _own_keys(cells, side)
    lost = [key for key in known if key not in keys]
    new = [place for place, key in enumerate(keys) if key not in known]
    knows_ids = len(lost) < len(known) and all(map(has_id, [*(known[key] for key in lost), *(cells[n] for n in new)]))
    if lost and new and not knows_ids:
        for at, place in _similar([known[key] for key in lost], [cells[place] for place in new]):
            keys[new[place]] = lost[at]
    return dict(zip(keys, cells, strict=True))


def _similar(cells: list[Cell], others: list[Cell]) -> list[tuple[int, int]]:
    """Returns the pairs of places at which two lists hold what seem versions of one cell."""
    from nbdime.diffing.notebooks import compare_cell_approximate, compare_cell_moderate, compare_cell_strict
    from nbdime.diffing.snakes import compute_snakes_multilevel

    levels = [compare_cell_approximate, compare_cell_moderate, compare_cell_strict]
    stretches = compute_snakes_multilevel(cells, others, levels)
    return [(at + step, place + step) for at, place, length in stretches for step in range(length)]


def _related(first: Cell, second: Cell) -> bool:
    """Tells whether two cells added under one id are one: they have a line in common or the tag, or one is empty."""
    if all(PARAMETERS in tags(cell) for cell in (first, second)):
        return True
    lines, others = ({line.strip() for line in cell["source"].split("\n")} - {""} for cell in (first, second))
    return first["cell_type"] == second["cell_type"] and (not lines or not others or bool(lines & others))


def woven(cells: Aligned, frame: str = "") -> tuple[list[str], bool]:
    """Returns the keys of all cells of both sides in a merged order, and whether the sides moved cells differently.

    Cells that a side added stand after the cell that they follow there; where both added some, ours come first.

    Args:
        cells: The three versions.
        frame: Whose order wins where both sides moved cells, `ours` or `theirs`; ours by default.
    """
    common = cells.base.keys() & cells.ours.keys() & cells.theirs.keys()
    base, ours, theirs = (
        [key for key in version if key in common] for version in (cells.base, cells.ours, cells.theirs)
    )
    disagree = ours != base and theirs != base and ours != theirs
    takes_theirs = theirs != base and (ours == base or frame == "theirs")
    leading, other = (cells.theirs, cells.ours) if takes_theirs else (cells.ours, cells.theirs)
    order = list(leading)
    place = 0
    for key in other:
        if key in leading:
            place = order.index(key) + 1
            continue
        while not takes_theirs and place < len(order) and order[place] not in other and order[place] not in cells.base:
            place += 1  # ours come first
        order.insert(place, key)
        place += 1
    return order, disagree
