"""A notebook put in order: ids that are words, keys as Jupyter writes them, nothing left of a run.

Sources are never changed, no cell is lost, and what is not known here stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labkit.workbench.notebooks import clean, hygiene, lint, outline
from labkit.workbench.notebooks.hygiene import Content
from labkit.workbench.notebooks.outline import Cell


def tidied(content: Content, *, strip: bool = True, earlier: Sequence[Cell] = ()) -> tuple[Content, list[str]]:
    """Returns a notebook in order, and what was changed for it; doing it twice changes nothing more.

    Args:
        content: A notebook that `lint.parse` has returned.
        strip: Take out what a run has left; not where git does that by a filter, or keeps no such file.
        earlier: The cells of an earlier version, from which a cell with the same source gets its id back.
    """
    changes = []
    made, renamed = with_ids(content, earlier)
    if renamed:
        changes.append(f"ids: {', '.join(renamed)}")
    if strip and any(hygiene.stored(made)):
        changes.append("what a run had left: outputs, counts, metadata")
        made = clean.cleaned(made)
    if not lint.is_in_order(content):
        changes.append("the order of keys")
    return made, changes


def with_ids(content: Content, earlier: Sequence[Cell] = ()) -> tuple[Content, list[str]]:
    """Returns a notebook whose ids are right, good ones kept, and a text `old → new` for each that changed."""
    cells = content["cells"]
    old = [None if lint.has_no_ids(content) else cell.get("id") for cell in cells]
    new = _ids(cells, old, earlier)
    if new == old and not lint.has_no_ids(content):
        return content, []
    made = [cell | {"id": identity} for cell, identity in zip(cells, new, strict=True)]
    minor = max(lint.MINOR, content["nbformat_minor"]) if isinstance(content.get("nbformat_minor"), int) else lint.MINOR
    renamed = [f"{before or 'none'} → {now}" for before, now in zip(old, new, strict=True) if before != now]
    return content | {"cells": made, "nbformat_minor": minor}, renamed


def _ids(cells: Sequence[Cell], old: Sequence[Any], earlier: Sequence[Cell]) -> list[str]:
    fixed, sections = outline.fixed_ids(cells), outline.sections_of(cells)
    has_words = outline.uses_labkit(cells) and bool(outline.first_headings(cells))
    taken = set(fixed.values()) if has_words else set()
    new: dict[int, str] = dict(fixed) if has_words else {}

    def is_good(index: int, identity: object) -> bool:
        if not isinstance(identity, str) or identity in taken or not lint.VALID_ID.fullmatch(identity):
            return False
        return not has_words or outline.is_good_id(identity, sections[index], None)

    for index, identity in enumerate(old):
        if index not in new and is_good(index, identity):
            new[index] = identity
            taken.add(identity)
    known = {(cell.get("cell_type"), outline.source(cell)): cell.get("id") for cell in earlier}
    for index, cell in enumerate(cells):
        if index in new:
            continue
        before = known.get((cell["cell_type"], outline.source(cell)))
        first = sections.index(sections[index]) if has_words else 0
        word = sections[index].lower() if has_words else "cell"
        new[index] = str(before) if is_good(index, before) else _free(word, index - first + 1, taken)
        taken.add(new[index])
    return [new[index] for index in range(len(cells))]


def _free(word: str, number: int, taken: set[str]) -> str:
    while f"{word}-{number}" in taken:
        number += 1
    return f"{word}-{number}"


def dumps(content: Content) -> bytes:
    """Returns a notebook as the content of a file, as Jupyter writes it."""
    cells = [cell | {"source": outline.source(cell).splitlines(keepends=True)} for cell in content["cells"]]
    return clean.dumps(content | {"cells": cells})
