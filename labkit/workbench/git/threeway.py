"""Three-way merges of plain values: what one side changed is taken, what both changed differently is kept apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

PAIRS_MOST = 50_000  # of equal items in two sequences; beyond, aligning takes minutes, and what differs is one hunk
ABSENT: Any = object()  # the value of a key that a side does not have


@dataclass(frozen=True)
class Hunk:
    """Lines that both sides changed, each in its own way.

    Attributes:
        base: The lines as they were; empty where both added some.
        ours: The lines of our side.
        theirs: The lines of the other side.
    """

    base: tuple[str, ...]
    ours: tuple[str, ...]
    theirs: tuple[str, ...]


@dataclass(frozen=True)
class Disagreement:
    """A value that both sides changed, each in its own way; ABSENT where a side has none."""

    ours: Any
    theirs: Any


def merge_text(base: str | None, ours: str, theirs: str, *, by_line: bool = False) -> list[str | Hunk]:
    """Returns the lines of a merged text, with a Hunk wherever the sides disagree.

    Args:
        base: The text that both sides started from; None where there was none.
        ours: Our text.
        theirs: The other side's text.
        by_line: Each line stands for itself, as in a cell of parameters: changes of neighbouring lines do not collide.
    """
    if ours == theirs or theirs == base:
        return list(ours.split("\n"))
    if ours == base:
        return list(theirs.split("\n"))
    old = [] if base is None else base.split("\n")
    parts = _merge_lines(old, ours.split("\n"), theirs.split("\n"))
    return [piece for part in parts for piece in (_per_line(part) if by_line else [part])]


def _merge_lines(base: list[str], ours: list[str], theirs: list[str]) -> list[str | Hunk]:
    found: list[str | Hunk] = []
    at, at_ours, at_theirs = 0, 0, 0
    for start, start_ours, start_theirs, length in _shared(base, ours, theirs):
        chunk = base[at:start], ours[at_ours:start_ours], theirs[at_theirs:start_theirs]
        found += _chunk(*chunk) if base else _two_way(*chunk[1:])
        found += ours[start_ours : start_ours + length]
        at, at_ours, at_theirs = start + length, start_ours + length, start_theirs + length
    return found


def _chunk(base: list[str], ours: list[str], theirs: list[str]) -> list[str | Hunk]:
    if theirs == base or ours == theirs:
        return list(ours)
    return list(theirs) if ours == base else [Hunk(tuple(base), tuple(ours), tuple(theirs))]


def _two_way(ours: list[str], theirs: list[str]) -> list[str | Hunk]:
    """Returns lines that had no base: what both have is settled, the rest is not, as nobody knows who took it out."""
    found: list[str | Hunk] = []
    at, at_theirs = 0, 0
    for start, start_theirs, length in blocks(ours, theirs):
        if start > at or start_theirs > at_theirs:
            found.append(Hunk((), tuple(ours[at:start]), tuple(theirs[at_theirs:start_theirs])))
        found += ours[start : start + length]
        at, at_theirs = start + length, start_theirs + length
    return found


def _shared(base: list[str], ours: list[str], theirs: list[str]) -> list[tuple[int, int, int, int]]:
    """Returns the stretches that all three share, as their starts and their length; the last is the end."""
    found = []
    with_theirs = blocks(base, theirs)
    for at, at_ours, length in blocks(base, ours):
        for other, at_theirs, other_length in with_theirs:
            start, end = max(at, other), min(at + length, other + other_length)
            if start < end:
                found.append((start, at_ours + start - at, at_theirs + start - other, end - start))
    return [*found, (len(base), len(ours), len(theirs), 0)]


def blocks(first: Sequence[Any], second: Sequence[Any]) -> list[tuple[int, int, int]]:
    """Returns the stretches that two sequences share, as their starts and their length; the last is the end."""
    shortest = min(len(first), len(second))
    head = next((n for n in range(shortest) if first[n] != second[n]), shortest)
    tail = next((n for n in range(shortest - head) if first[-1 - n] != second[-1 - n]), shortest - head)
    found = [(0, 0, head)]
    middle, other = first[head : len(first) - tail], second[head : len(second) - tail]
    if _pairs(middle, other) <= PAIRS_MOST:
        matches = SequenceMatcher(None, middle, other, autojunk=False).get_matching_blocks()
        found += [(match.a + head, match.b + head, match.size) for match in matches]
    found.append((len(first) - tail, len(second) - tail, tail))
    return [*(block for block in found if block[2]), (len(first), len(second), 0)]


def _pairs(first: Sequence[Any], second: Sequence[Any]) -> int:
    counts = Counter(second)
    return sum(number * counts[item] for item, number in Counter(first).items())


def _per_line(part: str | Hunk) -> list[str | Hunk]:
    if isinstance(part, str) or not len(part.base) == len(part.ours) == len(part.theirs):
        return [part]
    lines = zip(part.base, part.ours, part.theirs, strict=True)
    return [piece for base, ours, theirs in lines for piece in _chunk([base], [ours], [theirs])]


def merge_values(base: Any, ours: Any, theirs: Any, name: str = "") -> Any:
    """Returns a merged JSON value, with a Disagreement wherever both sides changed it; objects merge key by key.

    Lists are values of their own, except one named `tags`, whose members come and go one by one.
    """
    if _same(ours, theirs) or _same(theirs, base):
        return ours
    if _same(ours, base):
        return theirs
    if isinstance(ours, dict) and isinstance(theirs, dict):
        old = base if isinstance(base, dict) else {}
        merged = {
            key: merge_values(old.get(key, ABSENT), ours.get(key, ABSENT), theirs.get(key, ABSENT), key)
            for key in [*ours, *(key for key in (*theirs, *old) if key not in ours)]
        }
        return {key: value for key, value in merged.items() if value is not ABSENT}
    if name == "tags" and all(_is_texts(value) for value in (ours, theirs)):
        old = base if _is_texts(base) else []
        kept = [tag for tag in ours if tag in theirs or tag not in old]
        return kept + [tag for tag in theirs if tag not in ours and tag not in old]
    return Disagreement(ours, theirs)


def _same(first: Any, second: Any) -> bool:
    if first is ABSENT or second is ABSENT:
        return first is second
    return type(first) is type(second) and bool(first == second)  # True is no 1


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def disagreements(value: Any) -> list[Disagreement]:
    """Returns every Disagreement in a merged value."""
    if isinstance(value, Disagreement):
        return [value]
    return [found for item in value.values() for found in disagreements(item)] if isinstance(value, dict) else []


def settled(value: Any, side: str) -> Any:
    """Returns a merged value with each Disagreement settled for a side, `ours` or `theirs`."""
    if isinstance(value, Disagreement):
        return getattr(value, side)
    if not isinstance(value, dict):
        return value
    chosen = {key: settled(item, side) for key, item in value.items()}
    return {key: item for key, item in chosen.items() if item is not ABSENT}
