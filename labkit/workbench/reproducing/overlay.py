"""Two courses of one metric in one picture, as inline SVG without a script, with the place of the first difference."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup

from labkit.record import metrics
from labkit.record.metrics import Column
from labkit.workbench.pages.curves import thinned
from labkit.workbench.reproducing.compare import Comparison
from labkit.workbench.wording import number, short

WIDTH, HEIGHT, EDGE = 1000, 300, 6
BUCKETS = 300
Point = tuple[float, float]


@dataclass(frozen=True)
class Overlay:
    """A picture and what stands around it.

    Attributes:
        metric: What is drawn.
        picture: The lines; it stretches to any width, and so has no text in it.
        low: The lowest value; likewise `high`, and `begin` and `end` of the steps.
        place: Where the first difference is, in words; empty where it lies outside, or there is none.
    """

    metric: str
    picture: Markup
    low: str
    high: str
    begin: str
    end: str
    place: str


def overlay(comparison: Comparison) -> Overlay | None:
    """Returns both courses of the metric that differs first, else of a main one; None where there is none to draw."""
    if comparison.now is None:
        return None
    then, now = metrics.read(comparison.then.metrics).columns, metrics.read(comparison.now.metrics).columns
    first = comparison.step.metric if comparison.step is not None else None
    names = [name for name in (first, *metrics.main(then), *then) if name is not None and name in then and name in now]
    for name in names:
        if max(len(then[name].values), len(now[name].values)) > 1 and (drawn := _drawn(name, then[name], now[name])):
            return drawn if comparison.step is None else _marked(drawn, comparison.step.step, then[name], now[name])
    return None


def _drawn(name: str, then: Column, now: Column) -> Overlay | None:
    lines = [_points(column) for column in (then, now)]
    values = [value for line in lines for _, value in line]
    steps = [step for line in lines for step, _ in line]
    if not all(lines) or not math.isfinite(max(values) - min(values)):
        return None
    body = Markup("").join(
        Markup('<polyline class="{}" points="{}"/>').format(kind, " ".join(f"{x:.1f},{y:.1f}" for x, y in line))
        for kind, line in zip(("then", "now"), (_scaled(line, steps, values) for line in lines), strict=True)
    )
    ends = number(min(values)), number(max(values)), number(min(steps)), number(max(steps))
    return Overlay(short(name), body, *ends, place="")


def _points(column: Column) -> list[Point]:
    return [(float(column.steps[place]), value) for place, value in thinned(column.values, BUCKETS)]


def _scaled(line: list[Point], steps: list[float], values: list[float]) -> list[Point]:
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return [
        (_across(step, steps), HEIGHT - EDGE - (value - low) / span * (HEIGHT - 2 * EDGE) if high > low else HEIGHT / 2)
        for step, value in line
    ]


def _across(step: float, steps: list[float]) -> float:
    return EDGE + (step - min(steps)) / ((max(steps) - min(steps)) or 1.0) * (WIDTH - 2 * EDGE)


def _marked(drawn: Overlay, step: int, then: Column, now: Column) -> Overlay:
    """Returns a picture with a line where the first difference is, under the curves."""
    steps = [float(one) for column in (then, now) for one in column.steps]
    if not min(steps) <= step <= max(steps):
        return drawn
    x = f"{_across(float(step), steps):.1f}"
    line = Markup('<line class="place" x1="{0}" x2="{0}" y1="0" y2="{1}"/>').format(x, HEIGHT)
    ends = drawn.low, drawn.high, drawn.begin, drawn.end
    return Overlay(drawn.metric, line + drawn.picture, *ends, place=f"first difference: step {step}")
