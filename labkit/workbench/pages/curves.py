"""The course of a metric as a small picture that needs no script: a line of at most some hundred points."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT, MARGIN = 240, 56, 4
BUCKETS = 60  # each gives its lowest and highest value, so that no peak is lost


def curve(values: Sequence[float], name: str) -> Markup | None:
    """Returns the course of a metric as a picture; None where fewer than three values are finite numbers."""
    points = thinned(values)
    if len(points) < 3:
        return None
    low, high = min(value for _, value in points), max(value for _, value in points)
    span, last = (high - low) or 1.0, max(len(values) - 1, 1)
    if not math.isfinite(span):
        return None
    line = " ".join(
        f"{MARGIN + place / last * (WIDTH - 2 * MARGIN):.1f},"
        f"{HEIGHT - MARGIN - (value - low) / span * (HEIGHT - 2 * MARGIN):.1f}"
        for place, value in points
    )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">'
        f'<polyline points="{line}" fill="none" stroke="#4078b0" stroke-width="1.5" stroke-linejoin="round"/></svg>'
    )
    coded = base64.b64encode(svg.encode()).decode()
    return Markup('<img class="curve" src="data:image/svg+xml;base64,{}" alt="{}" width="{}" height="{}">').format(
        coded, f"course of {name}", WIDTH, HEIGHT
    )


def thinned(values: Sequence[float], buckets: int = BUCKETS) -> list[tuple[int, float]]:
    """Returns places and values of the lowest and highest finite value of each of so many stretches."""
    if len(values) <= 2 * buckets:
        return [(place, value) for place, value in enumerate(values) if math.isfinite(value)]
    points: list[tuple[int, float]] = []
    for bucket in range(buckets):
        begin, end = bucket * len(values) // buckets, (bucket + 1) * len(values) // buckets
        part = list(values[begin:end])
        finite = part if math.isfinite(sum(part)) else [value for value in part if math.isfinite(value)]
        if finite:
            extremes = {(begin + part.index(value), value) for value in (min(finite), max(finite))}
            points.extend(sorted(extremes))
    return points
