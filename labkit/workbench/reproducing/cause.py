"""Why two runs differ, in a sentence, from the links of the chain that come before their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from labkit.record.claims import Claim
from labkit.workbench.reproducing.chain import Difference, Link

UNKNOWN = "unknown"
SAME = "every number is the same, bit for bit"
BEFORE = ("source", "packages", "hardware", "settings", "data", "initial weights")  # what decides over the first step
ORDER = (  # of topics, the likeliest first
    "source",
    "labkit",
    "parameters",
    "seed",
    "files",
    "weights file",
    "data",
    "weights",
    "packages",
    "settings",
    "threads",
    "variables",
    "hardware",
)
EXPLAINS = {  # a topic that follows from others, and from which
    "data": {"source", "labkit", "parameters", "seed", "files", "packages"},
    "weights": {"source", "labkit", "parameters", "seed", "weights file", "packages", "settings"},
}
NAMED = 4  # causes in a sentence


def of_difference(links: Sequence[Link], claim: Claim | None) -> str:
    """Returns the likely cause of other numbers; beginning with UNKNOWN where the record holds none.

    Args:
        links: The whole chain.
        claim: What the runs claim, which says what else may be a cause.
    """
    causes, derived = _weighed(links, "cause"), _weighed(links, "derived")
    doubts = _weighed(links, "doubt")
    topics = {cause.topic for cause in causes} or {doubt.topic for doubt in doubts}
    explained = [one for one in derived if topics & EXPLAINS[one.topic]]
    alone = [one for one in derived if one not in explained]
    named = _in_order([*causes, *alone])
    if not named and not doubts:
        return _without_trace(links, claim)
    if alone and len(alone) == len(named):
        text = _joined(one.text for one in named)
        text += f", though nothing recorded before {'it' if len(alone) == 1 else 'them'} does"
        return f"{text}; {_doubtful(claim)}" if claim is not None and claim.reasons else text
    if not explained:
        return (
            _joined(one.text for one in named) if named else f"perhaps {_joined(one.text for one in _in_order(doubts))}"
        )
    words = [word for word in EXPLAINS if any(one.topic == word for one in explained)]
    topics = set().union(*(EXPLAINS[word] for word in words))
    first = [one for one in named if one.topic in topics]
    text = _joined(one.text for one in first) if first else f"perhaps {_joined(one.text for one in _in_order(doubts))}"
    text += f", so the {' and the '.join(words).replace('weights', 'initial weights')} differ"
    rest = [one for one in named if one not in first]
    return f"{text}; besides, {_joined(one.text for one in rest)}" if rest else text


def of_equality(links: Sequence[Link], has_numbers: bool) -> str:
    """Returns what there is to say of two runs with the same numbers: what differed and did not matter."""
    found = _in_order([one for weight in ("cause", "derived", "doubt") for one in _weighed(links, weight)])
    said = SAME if has_numbers else "nothing differs, but no number was logged that could"
    return f"{said}, although {_joined(one.text for one in found)}" if found else said


def differing(links: Sequence[Link]) -> list[str]:
    """Returns the names of the links before the first step that differ in something that may matter."""
    return [one.name for one in links if one.name in BEFORE and _weighed([one], "cause")]


def _weighed(links: Sequence[Link], weight: str) -> list[Difference]:
    return [found for one in links if one.name in BEFORE for found in one.differences if found.weight == weight]


def _in_order(found: Sequence[Difference]) -> list[Difference]:
    return sorted(found, key=lambda one: ORDER.index(one.topic))


def _joined(texts: Iterable[str]) -> str:
    """Returns a list in words; what is many is counted."""
    found = list(texts)
    rest = len(found) - NAMED
    if rest > 0:
        found = [*found[:NAMED], f"{rest} more {'difference' if rest == 1 else 'differences'}"]
    return found[0] if len(found) == 1 else f"{'; '.join(found[:-1])}; and {found[-1]}"


def _doubtful(claim: Claim) -> str:
    """Returns why runs that claim no more may differ without a trace."""
    return f"as the run is only {claim.label}, it may be this: {_joined(reason.problem for reason in claim.reasons)}"


def _without_trace(links: Sequence[Link], claim: Claim | None) -> str:
    if claim is not None and claim.reasons:
        return f"nothing that was recorded differs; {_doubtful(claim)}"
    blank = [one.name for one in links if one.name in BEFORE and one.state == "unknown"]
    if blank:
        return f"{UNKNOWN}: nothing that was recorded differs, but not all was ({', '.join(blank)})"
    return f"{UNKNOWN}: nothing that was recorded differs"
