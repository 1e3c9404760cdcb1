"""Pictures of metrics: what is drawn, and that any values can be."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from labkit.record.metrics import Column
from labkit.workbench.sweeps.courses import HEIGHT, WIDTH, courses, progress


def column(values: Iterable[float]) -> Column:
    values = list(values)
    return Column(array("q", range(1, len(values) + 1)), array("d", values))


def corners(picture: str) -> list[tuple[float, float]]:
    (points,) = re.findall(r'points="([^"]*)"', picture)
    return [(float(x), float(y)) for x, y in (point.split(",") for point in points.split())]


def test_the_best_so_far_is_drawn_as_steps_with_a_dot_for_each_run():
    drawn = progress("loss", column([5.0, 3.0, 3.0, 1.0]), column([5.0, 3.0, 4.0, 1.0]))
    assert drawn is not None and drawn.picture.count("<line ") == 4
    line = corners(drawn.picture)
    for (x, y), (next_x, next_y) in pairwise(line):
        assert x == next_x or y == next_y
    assert [said for _, said in drawn.keys] == ["best so far", "each run"]
    assert (drawn.low, drawn.high, drawn.begin, drawn.end) == ("1", "5", "1", "4")


def test_the_best_so_far_is_drawn_to_the_last_of_many_runs():
    drawn = progress("loss", column([2.0] * 10 + [1.0] * 990), column([2.0] * 10 + [1.0] * 990))
    assert drawn is not None and drawn.end == "1000"


def test_fewer_than_three_values_are_not_drawn():
    assert progress("loss", column([2.0, 1.0]), column([2.0, 1.0])) is None
    assert progress("loss", column([]), column([])) is None
    assert courses("loss", []) is None


@given(st.lists(st.floats(), min_size=3, max_size=40))
def test_every_point_lies_in_the_picture_whatever_was_logged(values: list[float]):
    drawn = courses("loss", [("all", [column(values)])])
    if drawn is not None:
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in corners(drawn.picture))
