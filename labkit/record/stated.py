"""What a notebook states about its run, beside what it logs: expectations, conclusions, labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from labkit.record.expectations import Expectation, read_facts
from labkit.record.files import read_json, write_json
from labkit.record.metrics import as_number

LONGEST = 300  # characters of a piece of evidence that is no number


class Stated:
    """One file, written anew with each statement; where the disk refuses it, the next statement brings it along.

    Attributes:
        lost: The file on disk lacks something.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._expectations: dict[tuple[str, str], Expectation] = {}
        self._conclusions: dict[str, dict[str, Any]] = {}
        self._labels: dict[str, None] = {}
        self.lost = False
        self._read()

    def _read(self) -> None:
        """Takes up what an earlier attempt at the same run stated."""
        facts = read_json(self._path) or {}
        for expected in read_facts(facts.get("expectations")):
            self._expectations[expected.text, expected.condition] = expected
        for one in facts.get("conclusions") or []:
            if isinstance(one, dict) and isinstance(one.get("text"), str):
                self._conclusions[one["text"]] = one
        self._labels |= dict.fromkeys(label for label in facts.get("labels") or [] if isinstance(label, str))

    @property
    def labels(self) -> list[str]:
        """The labels so far."""
        return list(self._labels)

    def expect(self, expected: Expectation) -> None:
        """Adds an expectation; one that was stated before, by a cell that ran again, keeps its time."""
        self._expectations.setdefault((expected.text, expected.condition), expected)
        self.write()

    def conclude(self, text: str, held: bool | None, evidence: dict[str, Any]) -> None:
        """Adds a conclusion; a later one with the same words replaces it."""
        plain = {name: _plain(value) for name, value in evidence.items()}
        self._conclusions[str(text)] = {"text": str(text), "held": held, "evidence": plain}
        self.write()

    def label(self, label: str) -> None:
        """Adds a label."""
        self._labels[str(label)] = None
        self.write()

    def read(self) -> None:
        """Takes over what the file says, which another process may have written."""
        if self.lost:
            return
        facts = read_json(self._path) or {}
        self._expectations = {(one.text, one.condition): one for one in read_facts(facts.get("expectations"))}
        self._conclusions = {one["text"]: one for one in facts.get("conclusions", [])}
        self._labels = dict.fromkeys(facts.get("labels", []))

    def write(self) -> None:
        """Writes the file, where there is anything to write."""
        facts = {
            "expectations": [expected.facts() for expected in self._expectations.values()],
            "conclusions": list(self._conclusions.values()),
            "labels": list(self._labels),
        }
        if not any(facts.values()):
            return
        try:
            write_json(self._path, facts)
            self.lost = False
        except OSError:
            self.lost = True


def truth(condition: Any) -> bool | None:
    """Returns whether something is true; None where it does not say: None, NaN, several values at once."""
    try:
        return None if condition is None or condition != condition else bool(condition)
    except Exception:  # arrays and tensors of several elements, anything foreign
        return None


def _plain(value: Any) -> Any:
    number = as_number(value)
    return str(value)[:LONGEST] if number is None or isinstance(value, bool) else number
