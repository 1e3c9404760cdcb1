"""In what work by hand differs from a clean run of the saved notebook: pure functions on a journal and a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from labkit.kernel.journal import Entry
from labkit.kernel.saved import Saved, differ, normal, only_declares

LISTED = 12  # cells in a message
WORDS = 32  # characters of a cell's beginning
SET_UP = ("%matplotlib", "%config")  # magics that say how results are shown, and change none


def deviations(
    entries: Sequence[Entry],
    saved: Saved,
    then: dict[str, Any],
    changed: Iterable[str],
    *,
    before: Sequence[Entry] = (),
    over: bool = False,
    began: Saved | None = None,
) -> list[str]:
    """Returns in what a run by hand differs from a clean run of the saved notebook; nothing where it does not.

    Args:
        entries: What was executed, beginning with the cell that started the run.
        saved: The notebook.
        then: The parameters at the start.
        changed: Those that did not stay what they were.
        before: What the kernel had executed before.
        over: The run is over: what has not been saved never was. Till then it may still be.
        began: The notebook as it was at the start, where cells above that have been edited for the next run since.
    """
    if began is not None:
        saved = _with_parameters(saved, began, then)
    places = _places(entries, saved)
    known = [place for place in places if place is not None]
    usual = _above(entries[0], saved) | (_above(entries[0], began) if began is not None else set())
    found = (
        ["the kernel had run other cells before the start"]
        if _ran_others(before, usual, entries[0], saved, over)
        else []
    )
    if any(after <= earlier for earlier, after in pairwise(known)):
        found.append(f"cells {_listed([saved.cells[place][0] for place in known])}")
    elif known:
        ran = set(known)
        missing = [saved.cells[place] for place in range(known[0], known[-1]) if place not in ran]
        found += [f"{_name(number, source)} did not run" for number, _, source in missing[:LISTED]]
    found += _edits(entries, places, saved, over)
    found += [f"{name} changed after the start" for name in changed]
    return found + [f"{name} is not what the notebook says" for name in other_values(saved, then)]


def _places(entries: Iterable[Entry], saved: Saved) -> list[int | None]:
    """Returns which of the saved cells each execution was, by its id, else by its source.

    Of several cells with one source it was the next one below the cell before; where there is none, the first.
    """
    by_id = any(identity for _, identity, _ in saved.cells)  # files of older formats have no ids
    places: list[int | None] = []
    previous = -1
    for entry in entries:
        if entry.cell and by_id:
            same = [place for place, (_, identity, _) in enumerate(saved.cells) if identity == entry.cell]
        else:
            same = [place for place, source in enumerate(saved.sources) if source == normal(entry.source)]
        place = next((place for place in same if place > previous), same[0] if same else None)
        previous = previous if place is None else place
        places.append(place)
    return places


def _with_parameters(saved: Saved, began: Saved, then: dict[str, Any]) -> Saved:
    """Returns a notebook with those parameters that a run took from it as they were at the start."""
    others = other_values(began, then)
    taken = {name: then[name] for name in began.parameters or {} if name in then and name not in others}
    return replace(saved, parameters=(saved.parameters or {}) | taken)


def _above(start: Entry, saved: Saved) -> set[str]:
    """Returns the sources above the cell that started a run; all where the notebook does not have that."""
    (place,) = _places([start], saved)
    return set(saved.sources[:place])


def _ran_others(before: Sequence[Entry], usual: set[str], start: Entry, saved: Saved, over: bool) -> bool:
    """Tells whether the kernel had run what a clean run would not have run before the cell that started this one.

    Cells below that one are others until it ran for the first time; another Run All after that changes nothing.
    Parameters are told by their values.
    """
    for entry in before:
        source = normal(entry.source)
        if source == normal(start.source):
            usual = usual | {source, *saved.sources}
        if source in usual or _only_sets_up(source) or only_declares(source, saved.parameters or {}):
            continue
        if over or entry.ended_s < saved.saved_s:
            return True
    return False


def _only_sets_up(source: str) -> bool:
    return all(line.startswith(SET_UP) for line in source.split("\n") if line.strip())


def _edits(entries: Sequence[Entry], places: Sequence[int | None], saved: Saved, over: bool) -> list[str]:
    """Returns the cells whose saved source is not what ran; what ran after the last save may not be saved yet."""
    found: dict[int | str, str] = {}
    for entry, place in zip(entries, places, strict=True):
        if place is None:
            key: int | str = entry.cell or entry.source
            name, edited = _name(None, entry.source), "changed or deleted after it ran"
        else:
            number, _, source = saved.cells[place]
            key, name, edited = place, _name(number, entry.source), "edited after it ran"
            found.pop(place, None)
            if normal(source) == normal(entry.source):
                continue
        late = entry.ended_s >= saved.saved_s
        if over or not late:
            found[key] = f"{name} {'ran in a form that was never saved' if late else edited}"
    return list(dict.fromkeys(found.values()))[:LISTED]


def of_this_run(entries: Sequence[Entry], closed_by: Entry | None, saved: Saved) -> Sequence[Entry]:
    """Returns the entries of a run that is closed: with the cell that closes it, without those of the next run.

    Where a run is closed because the next one starts, the cells above the start may have run again just before: Run All
    does that.

    Args:
        entries: What was executed, beginning with the cell that started the run.
        closed_by: The cell that is executed while the run is closed, if any is.
        saved: The notebook.
    """
    if closed_by is None:
        return entries
    *places, closing = _places([*entries, closed_by], saved)
    start = places[0]
    if closing != start and "start(" not in closed_by.source:
        return [*entries, closed_by]
    count = len(entries)
    while count > 1 and _is_above(entries[count - 1], places[count - 1], start, saved):
        count -= 1
    return entries[:count]


def _is_above(entry: Entry, place: int | None, start: int | None, saved: Saved) -> bool:
    """Tells whether a cell stands above the start; parameters that have not been saved yet do."""
    if place is None or start is None:
        return only_declares(entry.source, saved.parameters or {})
    return place < start


def other_values(saved: Saved, then: dict[str, Any]) -> list[str]:
    """Returns the parameters that were not, at the start, what the saved notebook says."""
    said = saved.parameters or {}
    return [name for name, value in said.items() if name in then and differ(then[name], value)]


def failed(entries: Sequence[Entry], saved: Saved | None) -> list[str]:
    """Returns the cells whose last execution raised.

    Only what ran last counts where the notebook no longer has it: without ids, a cell that was mended is another.
    """
    last = {entry.cell or entry.source: entry for entry in entries}
    raised = [entry for entry in last.values() if not entry.ok]
    return [
        _named(entry, saved)
        for entry in raised
        if saved is None or entry is entries[-1] or _places([entry], saved) != [None]
    ]


def unsaved(entries: Sequence[Entry], saved: Saved) -> list[str]:
    """Returns the cells that ran in a form which the notebook has not saved.

    What the notebook does not have was edited or deleted where it was saved since; and where it raised, and another
    did not, it was mended.
    """
    last = {entry.cell or entry.source: entry for entry in entries}
    succeeded_s = max((entry.ended_s for entry in entries if entry.ok), default=0.0)
    found = []
    for entry in last.values():
        if not entry.source.strip() or normal(entry.source) in saved.sources:
            continue
        is_gone = _places([entry], saved) == [None]
        if is_gone and (entry.ended_s < saved.saved_s or (not entry.ok and entry.ended_s < succeeded_s)):
            continue
        found.append(_named(entry, saved))
    return found


def _named(entry: Entry, saved: Saved | None) -> str:
    place = _places([entry], saved)[0] if saved is not None else None
    return _name(None if saved is None or place is None else saved.cells[place][0], entry.source)


def _name(number: int | None, source: str) -> str:
    """Returns how a person finds a cell: by its place in the notebook, and by how it begins. Ids are seen nowhere."""
    begins = next((line.strip() for line in source.split("\n") if line.strip()), "")
    begins = f"{begins[:WORDS].rstrip()}…" if len(begins) > WORDS else begins
    return f"{'a cell' if number is None else f'cell {number}'} `{begins}`"


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:LISTED]))
    return f"{shown}, …" if len(numbers) > LISTED else shown
