"""What a check has found: where it is, what is wrong, and what to write instead."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong in a notebook, or worth a note.

    Attributes:
        problem: What is wrong.
        advice: What to write or do instead.
        cell: The cell's number, from 1; 0 for the whole notebook.
        cell_id: The cell's id.
        line: The line in the cell, from 1; 0 for the whole cell.
        note: It is worth a word, and no problem.
    """

    problem: str
    advice: str
    cell: int = 0
    cell_id: str = ""
    line: int = 0
    note: bool = False

    def __str__(self) -> str:
        """The finding without its notebook: `cell 4 (data-load), line 2: what is wrong; what to write instead`."""
        place = f"cell {self.cell}" if self.cell else ""
        if place and self.cell_id:
            place += f" ({self.cell_id})"
        if self.line:
            place += f", line {self.line}"
        return f"{place + ': ' if place else ''}{'note: ' if self.note else ''}{self.problem}; {self.advice}"

    def facts(self) -> dict[str, Any]:
        """Returns the finding for a program to read."""
        return asdict(self)
