"""The verdict on a run made again, as one HTML file that asks for nothing and runs nothing of the notebook."""

from __future__ import annotations

from functools import cache
from typing import Any

from labkit.workbench.pages.looks import PAGE, breakable, page_parts, with_code
from labkit.workbench.reproducing import overlay
from labkit.workbench.reproducing.compare import DIVERGED, IDENTICAL, NOT_RUN, WITHIN, Comparison
from labkit.workbench.wording import date, short

SENTENCES = {
    IDENTICAL: "The run gave the same numbers again.",
    WITHIN: "The run gave the same final numbers again, within the tolerance.",
    DIVERGED: "The run gave other numbers.",
    NOT_RUN: "The run could not be made again.",
}
MARKS = {"equal": "✓", "differs": "✗", "unknown": "?", "harmless": "~"}
STATES = {"equal": "equal", "differs": "differs", "unknown": "unknown", "harmless": "no matter"}


def render(comparison: Comparison) -> str:
    """Returns the page of a comparison, whose runs must still be there: their curves are drawn."""
    parts: dict[str, Any] = {
        "one": comparison,
        "title": short(f"{comparison.then.path.parent.name}: {comparison.verdict}"),
        "sentence": SENTENCES[comparison.verdict],
        "step": str(comparison.step or ""),
        "figure": overlay.overlay(comparison),
        "facts": _facts(comparison),
    }
    return str(_environment().get_template("verdict.html.j2").render(**parts, **page_parts()))


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    rows = [
        ("Recorded", short(comparison.then.name)),
        ("Made again", short(comparison.now.name) if comparison.now is not None else "no"),
        ("Compared", date(comparison.created)),
        ("Expected", short(comparison.expected)),
        ("Tolerance", short(comparison.tolerance)),
        ("Set as then", short("; ".join(comparison.as_recorded))),
    ]
    return [(name, text) for name, text in rows if text]


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader

    made = Environment(loader=FileSystemLoader(PAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {
        "breakable": breakable,
        "mark": MARKS.__getitem__,
        "state": STATES.__getitem__,
        "with_code": with_code,
    }
    return made
