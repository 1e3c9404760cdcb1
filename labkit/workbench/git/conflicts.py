"""A merged notebook in which some places wait for a decision, and the notebook that the decisions make of it.

A notebook with undecided places is a valid one: it holds both sides, between marks at which Run All stops.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from labkit.workbench.git.align import Cell, fresh, has_id
from labkit.workbench.git.threeway import ABSENT, Disagreement, Hunk, settled

OURS, MIDDLE, THEIRS = "<<<<<<< ours", "=======", ">>>>>>> theirs"
MARK = "labkit_conflict"  # in metadata: what the sides disagree on
Take = Literal["ours", "theirs", "both", "text"]


@dataclass(frozen=True)
class Answer:
    """What was decided in one conflict: a side, both, or a text in place of them."""

    take: Take
    text: str = ""


@dataclass(frozen=True)
class Conflict:
    """A place where somebody has to decide.

    Attributes:
        key: Its name, the same whenever the same versions are merged.
        cell: The id of the cell; empty for the notebook as a whole.
        about: What the sides did, as a sentence.
        ours: Our side, as shown.
        theirs: The other side, as shown.
        choices: The answers that make sense.
        suffix: The ending of a file in which it can be edited; empty where it cannot.
    """

    key: str
    cell: str
    about: str
    ours: str
    theirs: str
    choices: tuple[Take, ...] = ("ours", "theirs", "both")
    suffix: str = ""


def is_answer(conflict: Conflict, answer: Answer | None) -> bool:
    """Tells whether an answer decides a conflict."""
    if answer is None or answer.take == "text":
        return answer is not None and bool(conflict.suffix)
    return answer.take in conflict.choices


@dataclass(frozen=True)
class Choice:
    """Lines of a cell that both sides changed."""

    conflict: Conflict
    hunk: Hunk


@dataclass(frozen=True)
class Joined:
    """One cell made of both sides: its source by lines, everything else by values that may hold a Disagreement."""

    cell: Cell
    lines: tuple[str | Choice, ...]
    conflict: Conflict | None = None


@dataclass(frozen=True)
class Either:
    """Whole cells of one side or the other."""

    conflict: Conflict
    ours: tuple[Cell, ...]
    theirs: tuple[Cell, ...]


@dataclass(frozen=True)
class Merged:
    """A merged notebook.

    Attributes:
        head: The notebook without its cells; its values may hold a Disagreement.
        parts: Its cells.
        about: The conflict about the notebook's metadata.
        order: The conflict about the order of its cells; it is settled by merging anew, with one side's order.
        notes: What had to be changed to bring both sides into one notebook.
    """

    head: dict[str, Any]
    parts: tuple[Joined | Either, ...]
    about: Conflict | None = None
    order: Conflict | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def conflicts(self) -> list[Conflict]:
        """Everything to decide, the order of the cells first, since other conflicts depend on it."""
        return [*filter(None, (self.order, self.about)), *(conflict for part in self.parts for conflict in _of(part))]


def _of(part: Joined | Either) -> Iterator[Conflict]:
    if isinstance(part, Either):
        yield part.conflict
        return
    yield from (line.conflict for line in part.lines if isinstance(line, Choice))
    if part.conflict:
        yield part.conflict


def resolved(merged: Merged, answers: Mapping[str, Answer]) -> dict[str, Any]:
    """Returns the notebook that some answers make of a merge; what has none stands between marks."""
    answers = {c.key: answers[c.key] for c in merged.conflicts if is_answer(c, answers.get(c.key))}
    head = _settled(merged.head, merged.about, answers) if merged.about else merged.head
    if merged.order:
        head = _marked(head, merged.order)
    cells: list[Cell] = []
    for number, part in enumerate(merged.parts, 1):
        cells += [_joined(part, answers)] if isinstance(part, Joined) else _either(part, answers, number)
    taken: set[str] = set()
    for cell in cells:
        if not has_id(cell) or cell["id"] in taken:
            cell["id"] = fresh(cell["id"] if isinstance(cell.get("id"), str) else "cell", taken)
        taken.add(cell["id"])
        cell["source"] = cell["source"].splitlines(keepends=True)
    return head | {"cells": cells}


def _joined(part: Joined, answers: Mapping[str, Answer]) -> Cell:
    lines: list[str] = []
    for line in part.lines:
        lines += [line] if isinstance(line, str) else _decided(line, answers.get(line.conflict.key))
    cell = _settled(part.cell, part.conflict, answers) if part.conflict else part.cell
    return cell | {"source": "\n".join(lines)}


def _decided(choice: Choice, answer: Answer | None) -> list[str]:
    ours, theirs = list(choice.hunk.ours), list(choice.hunk.theirs)
    if answer is None:
        return [OURS, *ours, MIDDLE, *theirs, THEIRS]
    if answer.take == "text":
        return answer.text.split("\n")
    return {"ours": ours, "theirs": theirs, "both": ours + theirs}[answer.take]


def _either(part: Either, answers: Mapping[str, Answer], number: int) -> list[Cell]:
    answer = answers.get(part.conflict.key)
    ours, theirs = [dict(cell) for cell in part.ours], [dict(cell) for cell in part.theirs]
    if answer is None:
        marks = (_mark(number, name, text) for name, text in (("ours", OURS), ("or", MIDDLE), ("theirs", THEIRS)))
        return [next(marks), *ours, next(marks), *theirs, next(marks)]
    if answer.take == "text":
        return [ours[0] | {"source": answer.text}]
    return {"ours": ours, "theirs": theirs, "both": ours + theirs}[answer.take]


def _mark(number: int, name: str, text: str) -> Cell:
    """Returns a cell that is no Python, so that nobody runs both sides by mistake."""
    cell = {"cell_type": "code", "id": f"conflict-{number}-{name}", "metadata": {}, "source": text}
    return cell | {"outputs": [], "execution_count": None}


def _settled(value: dict[str, Any], conflict: Conflict, answers: Mapping[str, Answer]) -> dict[str, Any]:
    answer = answers.get(conflict.key)
    if answer is not None:
        return settled(value, answer.take)
    return _marked(settled(value, "ours"), conflict)


def _marked(value: dict[str, Any], conflict: Conflict) -> dict[str, Any]:
    """Returns a cell or notebook that says in its metadata what is undecided."""
    marks = value["metadata"].get(MARK, {}) | {conflict.about: {"ours": conflict.ours, "theirs": conflict.theirs}}
    return value | {"metadata": value["metadata"] | {MARK: marks}}


def differing(value: Any, path: str = "") -> dict[str, Disagreement]:
    """Returns every Disagreement in a merged value by where it is."""
    if isinstance(value, Disagreement):
        return {path: value}
    if not isinstance(value, dict):
        return {}
    found = (differing(item, f"{path}.{key}" if path else key) for key, item in value.items())
    return {name: item for items in found for name, item in items.items()}


def shown(found: dict[str, Disagreement], side: str) -> str:
    """Returns a side's values where the sides disagree, a line each."""
    values = {name: getattr(item, side) for name, item in found.items()}
    texts = (
        f"{name} = {'(none)' if value is ABSENT else json.dumps(value, ensure_ascii=False)}"
        for name, value in values.items()
    )
    return "\n".join(texts)


def holds_marks(notebook: dict[str, Any]) -> bool:
    """Tells whether a notebook holds a conflict that nobody has decided."""
    sources = ["".join(cell["source"]) for cell in notebook["cells"]]
    metadata = [notebook["metadata"], *(cell.get("metadata", {}) for cell in notebook["cells"])]
    marked = any(line.startswith(("<<<<<<< ", ">>>>>>> ")) for source in sources for line in source.split("\n"))
    return marked or any(MARK in item for item in metadata)
