"""Recorded values as a reader meets them."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

LONGEST_VALUE = 300  # characters of a parameter or reason
RANDOM_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){0,3}(-[0-9a-f]{12})?")  # as JupyterLab and nbformat give them


def date(text: object) -> str:
    """Returns a recorded time as `21 November 2026, 10:15 UTC`.

    >>> date("2026-11-21T10:15:00.123Z")
    '21 November 2026, 10:15 UTC'
    """
    try:
        moment = datetime.fromisoformat(str(text)).astimezone(UTC)
    except (ValueError, OverflowError):
        return short(text)
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"


def duration(seconds: object) -> str:
    """Returns a length of time as a person says it.

    >>> duration(12.345), duration(3725)
    ('12.3 s', '1 h 2 min')
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e10:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def number(value: object) -> str:
    """Returns a metric's value for reading: four significant digits, integers whole."""
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value)
    if isinstance(value, float) and not (value.is_integer() and abs(value) < 1e6):
        return f"{value:.4g}"
    return f"{value:.0f}" if isinstance(value, float) else short(value)


def mean_and_spread(mean: float, std: object) -> str:
    """Returns a mean and its standard deviation, of which two digits mean something.

    >>> mean_and_spread(0.90556, 0.01273), mean_and_spread(12.0, None)
    ('0.906 ± 0.013', '12')
    """
    if not isinstance(std, float) or not math.isfinite(std) or not math.isfinite(mean):
        return number(mean)
    if std == 0:
        return f"{number(mean)} ± 0"
    places = 1 - math.floor(math.log10(std))
    if not 0 <= places <= 8:
        return f"{mean:.4g} ± {std:.2g}"
    return f"{mean:.{places}f} ± {std:.{places}f}"


def cell_name(number: int, cell_id: object) -> str:
    """Returns what a cell is called wherever a reader meets it: its place in the notebook, and an id that says more.

    >>> cell_name(13, "training-loop"), cell_name(13, None), cell_name(13, "3f2a9c1d")
    ('cell 13 (training-loop)', 'cell 13', 'cell 13')
    """
    said = told_id(cell_id)
    return f"cell {number} ({said})" if said else f"cell {number}"


def told_id(cell_id: object) -> str:
    """Returns a cell's id for a reader; empty where a front end drew it at random, for nobody sees those."""
    return short(cell_id) if isinstance(cell_id, str) and not RANDOM_ID.fullmatch(cell_id) else ""


def short(value: object) -> str:
    """Returns any value as text of at most LONGEST_VALUE characters."""
    text = value if isinstance(value, str) else "" if value is None else repr(value)
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"


def detail(value: object) -> str:
    """Returns a value of the environment check as text, lists and mappings in a line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return short(", ".join(detail(item) for item in value))
    if isinstance(value, dict):
        return short(", ".join(f"{name} {detail(item)}" for name, item in value.items()))
    return short(value)
