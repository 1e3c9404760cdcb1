"""The links that a result hangs on, each deciding over those after it, and how two runs differ in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Weight = Literal["cause", "doubt", "derived", "result", "harmless"]
State = Literal["equal", "differs", "unknown", "harmless"]

LINKS = (
    "source",
    "packages",
    "hardware",
    "settings",
    "data",
    "initial weights",
    "steps",
    "final weights",
    "metrics",
    "expectations",
)
SHOWN = 20  # differences of one link that are told; the rest is counted
ABSENT = object()  # what a record does not say, as opposed to None


@dataclass(frozen=True)
class Difference:
    """Something that is not as it was.

    Attributes:
        text: What, as a part of a sentence: `numpy 2.5.0 here, 2.4.6 then`.
        topic: What it is about; of one topic, only the first explains anything.
        weight: `cause` where it may change numbers by itself; `doubt` where it seldom does; `derived` where other
            differences explain it, if there are any; `result` where it only follows; `harmless` where it cannot matter.
    """

    text: str
    topic: str
    weight: Weight = "cause"


@dataclass(frozen=True)
class Link:
    """One link of the chain.

    Attributes:
        name: One of LINKS.
        state: Whether both runs have the same; `harmless` where what differs cannot matter.
        differences: In what they differ, the first one first.
        notes: What could not be compared, as sentences.
        first: It is the first link of the chain that differs.
    """

    name: str
    state: State
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    first: bool = False

    @property
    def told(self) -> list[str]:
        """What there is to say about the link, at most SHOWN lines and how many more."""
        texts = [difference.text for difference in self.differences] + list(self.notes)
        more = len(texts) - SHOWN
        return texts[:SHOWN] + ([f"and {more} more"] if more > 0 else [])

    def facts(self) -> dict[str, Any]:
        """Returns what the verdict's file says of the link."""
        return {"link": self.name, "state": self.state, "differences": self.told, "first": self.first}


def link(name: str, differences: Sequence[Difference] = (), notes: Sequence[str] = ()) -> Link:
    """Returns a link whose state follows from how it differs and from what could not be compared."""
    state: State = "equal"
    if any(difference.weight != "harmless" for difference in differences):
        state = "differs"
    elif notes:
        state = "unknown"
    elif differences:
        state = "harmless"
    return Link(name, state, tuple(differences), tuple(notes))


def marked(links: Sequence[Link]) -> tuple[Link, ...]:
    """Returns the links with the first one that differs marked."""
    first = next((place for place, one in enumerate(links) if one.state == "differs"), None)
    return tuple(replace(one, first=place == first) for place, one in enumerate(links))


def here_then(name: str, then: str, now: str) -> str:
    """Returns a difference in words.

    >>> here_then("numpy", "2.4.6", "2.5.0")
    'numpy 2.5.0 here, 2.4.6 then'
    """
    return f"{name} {now} here, {then} then"


def mapping(value: object) -> dict[str, Any]:
    """Returns a mapping from a record; an empty one where it is damaged."""
    return value if isinstance(value, dict) else {}


def lacking(what: str, then: object, now: object) -> str:
    """Returns the note on something that cannot be compared."""
    when = "" if then is None and now is None else " then" if then is None else " here"
    return f"{what} cannot be compared: not recorded{when}, or unreadable"
