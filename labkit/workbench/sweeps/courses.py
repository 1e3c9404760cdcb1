"""The courses of one metric in many runs, in one picture, as inline SVG without a script or a style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from labkit.record.metrics import Column
from labkit.workbench.pages.curves import thinned
from labkit.workbench.wording import number, short

WIDTH, HEIGHT, EDGE = 1000, 300, 6
BUCKETS = 150
# The colours of Okabe and Ito, which people who see few colours can tell apart (2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5c00", "#666666")


@dataclass(frozen=True)
class Courses:
    """A picture and what stands around it.

    Attributes:
        title: What is drawn, in words.
        picture: The lines; it stretches to any width, and so has no text in it.
        keys: For each colour its mark and its words.
        low: The lowest value; likewise `high`, and `begin` and `end` of the steps.
    """

    title: str
    picture: Markup
    keys: list[tuple[Markup, str]]
    low: str
    high: str
    begin: str
    end: str


Line = list[tuple[float, float]]  # steps and values


def courses(metric: str, groups: Sequence[tuple[str, Sequence[Column]]], ranked: int = 0) -> Courses | None:
    """Returns the courses of runs, those of one group in one colour; None where there is nothing to draw.

    Args:
        metric: What is drawn.
        groups: Words for each group, and the columns of its runs; at most as many as there are COLOURS, the best first.
        ranked: Of how many groups these are.
    """
    lines = [
        (colour, _points(column)) for colour, (_, columns) in zip(COLOURS, groups, strict=False) for column in columns
    ]
    scale = _scale([line for _, line in lines])
    if scale is None:
        return None
    picture = Markup("").join(_line(colour, scale.places(line)) for colour, line in reversed(lines))
    keys = [(_key("M0 4h20", 3, colour), short(said)) for colour, (said, _) in zip(COLOURS, groups, strict=False)]
    which = f" of the {len(keys)} best of {ranked}" if ranked > len(keys) else ""
    return Courses(f"{short(metric)}: courses{which}", picture, keys, *scale.ends())


def progress(metric: str, best: Column, each: Column, pruned: Column | None = None) -> Courses | None:
    """Returns how the best value came to be: as steps, with a dot for each value; None where there is too little.

    Runs that were pruned may have diverged, so that they do not set the scale: one beyond it stands at its edge.

    Args:
        metric: What is drawn.
        best: The best so far.
        each: All values.
        pruned: Where the runs that were stopped early stood.
    """
    line, dots = _points(best), _points(each)
    if line and line[-1][0] < best.steps[-1]:  # the last of many that are equal was thinned out
        line.append((float(best.steps[-1]), line[-1][1]))
    scale = _scale([line, dots])
    if scale is None:
        return None
    away = _points(pruned or Column())
    shown, beyond = scale.around(away)
    before = [line[0], *line]
    stairs = [
        point for (_, old), (step, new) in zip(before, line, strict=False) for point in ((step, old), (step, new))
    ]
    picture = (
        _rings(COLOURS[-1], shown.places(away))
        + _dots(COLOURS[-1], shown.places(dots))
        + _line(COLOURS[0], shown.places(stairs))
    )
    keys = [(_key("M0 4h20", 3, COLOURS[0]), "best so far"), (_key("M10 4h0", 6, COLOURS[-1]), "each run")]
    if away:
        keys.append((_RING_KEY.format(COLOURS[-1]), f"pruned{' (at an edge: off the scale)' * beyond}"))
    return Courses(f"{short(metric)}: best so far", picture, keys, *shown.ends())


def _points(column: Column) -> Line:
    return [(float(column.steps[at]), value) for at, value in thinned(column.values, BUCKETS)]


@dataclass(frozen=True)
class _Scale:
    begin: float
    end: float
    low: float
    high: float

    def places(self, line: Line) -> list[tuple[str, str]]:
        """Returns where in the picture each point lies."""
        length, span = (self.end - self.begin) or 1.0, self.high - self.low
        return [
            (
                f"{EDGE + (step - self.begin) / length * (WIDTH - 2 * EDGE):.1f}",
                f"{HEIGHT / 2 if not span else HEIGHT - EDGE - self._share(value) * (HEIGHT - 2 * EDGE):.1f}",
            )
            for step, value in line
        ]

    def _share(self, value: float) -> float:
        """Returns how far up a value lies, from 0 to 1; what lies beyond the scale lies at its edge."""
        return (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)

    def around(self, line: Line) -> tuple[_Scale, bool]:
        """Returns the scale with the steps of a line too, and whether one of its values lies beyond it."""
        steps = [self.begin, self.end, *(step for step, _ in line)]
        beyond = any(not self.low <= value <= self.high for _, value in line)
        return replace(self, begin=min(steps), end=max(steps)), beyond

    def ends(self) -> tuple[str, str, str, str]:
        """Returns lowest and highest value, first and last step, in words."""
        return number(self.low), number(self.high), number(self.begin), number(self.end)


def _scale(lines: Sequence[Line]) -> _Scale | None:
    """Returns the scale that holds all of them; None where none has three points, or they are too far apart."""
    steps = [step for line in lines for step, _ in line]
    values = [value for line in lines for _, value in line]
    if max(map(len, lines), default=0) < 3 or not math.isfinite(max(values) - min(values)):
        return None
    return _Scale(min(steps), max(steps), min(values), max(values))


def _line(colour: str, places: Sequence[tuple[str, str]]) -> Markup:
    points = " ".join(map(",".join, places))
    return Markup('<polyline stroke="{}" stroke-width="1.5" points="{}"/>').format(colour, points)


def _dots(colour: str, places: Sequence[tuple[str, str]]) -> Markup:
    """Returns lines without a length, whose round ends stay round where the picture is stretched."""
    dot = Markup('<line stroke="{}" stroke-width="5" stroke-linecap="round" x1="{x}" x2="{x}" y1="{y}" y2="{y}"/>')
    return Markup("").join(dot.format(colour, x=x, y=y) for x, y in places)


def _rings(colour: str, places: Sequence[tuple[str, str]]) -> Markup:
    """Returns hollow dots: dots with smaller ones of the page's own colour in them."""
    hole = Markup('<line class="hole" stroke-width="3" stroke-linecap="round" x1="{x}" x2="{x}" y1="{y}" y2="{y}"/>')
    return Markup("").join(_dots(colour, [(x, y)]) + hole.format(x=x, y=y) for x, y in places)


_RING_KEY = Markup(
    '<svg width="20" height="8" aria-hidden="true"><circle cx="10" cy="4" r="2.5" fill="none" stroke="{}"/></svg>'
)


def _key(path: str, width: int, colour: str) -> Markup:
    return Markup(
        '<svg width="20" height="8" aria-hidden="true"><path d="{}" stroke="{}" stroke-width="{}"'
        ' stroke-linecap="round"/></svg>'
    ).format(path, colour, width)
