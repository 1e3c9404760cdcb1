"""The courses of one metric in many runs, in one picture, as inline SVG without a script or a style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from labkit.record.metrics import Column
from labkit.workbench.curves import thinned
from labkit.workbench.wording import number, short

WIDTH, HEIGHT, EDGE = 1000, 300, 6
BUCKETS = 150
# The colours of Okabe and Ito, which people who see few colours can tell apart (2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5c00", "#666666")


@dataclass(frozen=True)
class Courses:
    """A picture and what stands around it.

    Attributes:
        metric: What is drawn.
        picture: The lines; it stretches to any width, and so has no text in it.
        keys: For each colour its mark and its words.
        low: The lowest value; likewise `high`, and `begin` and `end` of the steps.
    """

    metric: str
    picture: Markup
    keys: list[tuple[Markup, str]]
    low: str
    high: str
    begin: str
    end: str


def courses(metric: str, groups: Sequence[tuple[str, Sequence[Column]]]) -> Courses | None:
    """Returns the courses of runs, those of one group in one colour; None where there is nothing to draw.

    Args:
        metric: What is drawn.
        groups: Words for each group, and the columns of its runs; at most as many as there are COLOURS.
    """
    lines = [
        (COLOURS[place], [(float(column.steps[at]), value) for at, value in thinned(column.values, BUCKETS)])
        for place, (_, columns) in enumerate(groups[: len(COLOURS)])
        for column in columns
    ]
    steps = [step for _, line in lines for step, _ in line]
    values = [value for _, line in lines for _, value in line]
    if max((len(line) for _, line in lines), default=0) < 3 or not math.isfinite(max(values) - min(values)):
        return None
    picture = Markup("").join(_line(colour, line, steps, values) for colour, line in reversed(lines))
    keys = [
        (
            Markup(
                '<svg width="20" height="8" aria-hidden="true"><path d="M0 4h20" stroke="{}" stroke-width="3"/></svg>'
            ).format(colour),
            short(said),
        )
        for colour, (said, _) in zip(COLOURS, groups, strict=False)
    ]
    ends = number(min(values)), number(max(values)), number(min(steps)), number(max(steps))
    return Courses(short(metric), picture, keys, *ends)


def _line(colour: str, line: list[tuple[float, float]], steps: list[float], values: list[float]) -> Markup:
    low, span = min(values), max(values) - min(values)
    begin, length = min(steps), (max(steps) - min(steps)) or 1.0
    places = " ".join(
        f"{EDGE + (step - begin) / length * (WIDTH - 2 * EDGE):.1f},"
        f"{HEIGHT / 2 if not span else HEIGHT - EDGE - (value - low) / span * (HEIGHT - 2 * EDGE):.1f}"
        for step, value in line
    )
    return Markup('<polyline stroke="{}" stroke-width="1.5" points="{}"/>').format(colour, places)
