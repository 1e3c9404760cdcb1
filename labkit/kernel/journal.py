"""What was executed by hand, cell by cell, and in what it differs from a clean run of the saved notebook."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from labkit.kernel import cells
from labkit.record.declared import declared
from labkit.record.files import dumps, read_json

LISTED = 12  # cells in a message


@dataclass(frozen=True)
class Entry:
    """One execution of a cell.

    Attributes:
        cell: The cell's id; empty where the front end does not say it.
        source: What was executed.
        ended_s: When it ended, in seconds since the epoch.
        ok: It raised nothing.
    """

    cell: str
    source: str
    ended_s: float
    ok: bool = True


class Journal:
    """Notes each cell that a notebook's kernel executes, in memory and as a line of a file."""

    def __init__(self, path: Path) -> None:
        self.entries: list[Entry] = []
        self._path = path
        self._shell = cells.shell()
        if self._shell is not None:
            self._shell.events.register("post_run_cell", self._note)

    def close(self) -> None:
        """Ends the journal; cells that run from now on are another run's."""
        if self._shell is not None:
            self._shell.events.unregister("post_run_cell", self._note)
            self._shell = None

    def failed(self) -> list[str]:
        """Returns the cells whose last execution raised."""
        last = {entry.cell or entry.source: entry for entry in self.entries}
        return [entry.cell or "a cell" for entry in last.values() if not entry.ok]

    def _note(self, result: Any) -> None:
        if not result.info.store_history or result.info.silent:
            return  # a front end's own question, such as for its list of variables
        entry = Entry(cells.current_cell(), result.info.raw_cell, time.time(), bool(result.success))
        self.entries.append(entry)
        order = len(self.entries)
        line = {"order": order, "cell": entry.cell, "source": entry.source, "ok": entry.ok, "t": entry.ended_s}
        try:
            with self._path.open("ab") as file:
                file.write(dumps(line) + b"\n")
        except OSError:
            pass  # the entry in memory is what decides


@dataclass(frozen=True)
class Saved:
    """A notebook as it was saved.

    Attributes:
        saved_s: When, in seconds since the epoch.
        cells: Number, id and source of each cell with code, in their order.
        parameters: The parameters that it declares, with their defaults.
    """

    saved_s: float
    cells: tuple[tuple[int, str, str], ...]
    parameters: dict[str, Any]


def read_saved(path: Path) -> Saved | None:
    """Returns the saved notebook, or None where there is none that can be read."""
    try:
        saved_s = path.stat().st_mtime
    except OSError:
        return None
    content = (read_json(path) or {}).get("cells")
    found: list[tuple[int, str, str]] = []
    parameters: dict[str, Any] = {}
    for number, cell in enumerate(content if isinstance(content, list) else [], 1):
        if not isinstance(cell, dict) or cell.get("cell_type") != "code":
            continue
        source = cell.get("source")
        source = "".join(map(str, source)) if isinstance(source, list) else str(source or "")
        if "parameters" in ((cell.get("metadata") or {}).get("tags") or []):
            parameters = _defaults(source)
        if source.strip():
            found.append((number, str(cell.get("id") or ""), source))
    return Saved(saved_s, tuple(found), parameters) if found else None


def _defaults(source: str) -> dict[str, Any]:
    try:
        return {parameter.name: parameter.default for parameter in declared(source)}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def deviations(entries: Sequence[Entry], saved: Saved, then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Returns in what a run by hand differs from a clean run of the saved notebook; nothing where it does not.

    Args:
        entries: What was executed, beginning with the cell that started the run.
        saved: The notebook.
        then: The parameters at the start.
        now: The notebook's variables now.
    """
    places = [_place(entry, saved) for entry in entries]
    known = [place for place in places if place is not None]
    found = []
    if any(after <= before for before, after in pairwise(known)):
        found.append(f"cells {_listed([saved.cells[place][0] for place in known])}")
    elif known:
        ran = set(known)
        missing = [saved.cells[place] for place in range(known[0], known[-1]) if place not in ran]
        found += [f"{_name(number, identity)} did not run" for number, identity, _ in missing[:LISTED]]
    found += _edits(entries, places, saved)
    found += [
        f"{name} changed after the start" for name, value in then.items() if name in now and _differ(now[name], value)
    ]
    return found + [f"{name} is not what the notebook says" for name in other_values(saved, then)]


def _differ(one: Any, other: Any) -> bool:
    return type(one) is not type(other) or repr(one) != repr(other)  # of literals; NaN equals itself here


def _place(entry: Entry, saved: Saved) -> int | None:
    """Returns which of the saved cells was executed, by its id, else by its source."""
    for place, (_, identity, source) in enumerate(saved.cells):
        if (entry.cell and identity == entry.cell) or (not entry.cell and source == entry.source):
            return place
    return None


def other_values(saved: Saved, then: dict[str, Any]) -> list[str]:
    """Returns the parameters that were not, at the start, what the saved notebook says."""
    return [name for name, value in saved.parameters.items() if name in then and _differ(then[name], value)]


def _edits(entries: Sequence[Entry], places: Sequence[int | None], saved: Saved) -> list[str]:
    """Returns the cells whose saved source is not what ran; what ran after the last save may not be saved yet."""
    found = {}
    for entry, place in zip(entries, places, strict=True):
        if place is None:
            if entry.ended_s < saved.saved_s:
                found[entry.cell or entry.source] = f"{entry.cell or 'a cell'} changed or deleted after it ran"
            continue
        number, identity, source = saved.cells[place]
        found.pop(identity, None)
        if source != entry.source and entry.ended_s < saved.saved_s:
            found[identity] = f"{_name(number, identity)} edited after it ran"
    return list(found.values())[:LISTED]


def unsaved(entries: Sequence[Entry], saved: Saved) -> list[str]:
    """Returns the cells that ran in a form which the notebook has not saved."""
    last = {entry.cell or entry.source: entry for entry in entries}
    sources = {source for _, _, source in saved.cells}
    return [entry.cell or "a cell" for entry in last.values() if entry.source.strip() and entry.source not in sources]


def _name(number: int, identity: str) -> str:
    return identity or f"cell {number}"


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:LISTED]))
    return f"{shown}, …" if len(numbers) > LISTED else shown
