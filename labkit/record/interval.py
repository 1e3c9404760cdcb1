"""A range of numbers as a comment states it: `in [0, 1)`, `in (0, inf)`."""

from __future__ import annotations

import re
from dataclasses import dataclass

STATED = re.compile(r"(?<!\bas )\bin\s*([\[(])([^\[\]()]*)([\])]?)")


@dataclass(frozen=True)
class Interval:
    """A range of numbers.

    Attributes:
        low: Its lower end.
        high: Its upper end.
        with_low: The lower end belongs to it.
        with_high: The upper end belongs to it.
    """

    low: float
    high: float
    with_low: bool
    with_high: bool

    def holds(self, number: float) -> bool:
        """Tells whether a number lies inside; NaN never does."""
        above = self.low <= number if self.with_low else self.low < number
        return above and (number <= self.high if self.with_high else number < self.high)

    def __str__(self) -> str:
        return f"{'(['[self.with_low]}{self.low}, {self.high}{')]'[self.with_high]}"


def stated(text: str) -> Interval | None:
    """Returns the range that a comment states; prose that only looks like one, `in (roughly) 5`, is none.

    Raises:
        ValueError: It holds nothing, is not closed, or there are two.
    """
    found = []
    for opening, inside, closing in STATED.findall(text):
        low, comma, high = inside.partition(",")
        ends = _end(low), _end(high)
        if not comma or ends[0] is None or ends[1] is None:
            continue
        if not closing:
            raise ValueError(f"has a range that is not closed: in {opening}{inside}")
        found.append(Interval(ends[0], ends[1], opening == "[", closing == "]"))
    if len(found) > 1:
        raise ValueError(f"has more than one range: {' and '.join(map(str, found))}")
    if found and not (found[0].low < found[0].high or found[0].holds(found[0].low)):
        raise ValueError(f"has a range that holds nothing: {found[0]}")
    return found[0] if found else None


def _end(text: str) -> float | None:
    text = text.strip().replace("∞", "inf").replace("−", "-")
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return None if number != number else number
    return None
