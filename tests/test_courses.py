"""Pictures of metrics: what is drawn, and that any values can be."""

from __future__ import annotations

import math
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


def test_what_was_pruned_is_drawn_hollow_with_its_own_key_and_sets_no_scale():
    all_of = column([5.0, 3.0, 4.0, 1.0])
    pruned = Column(array("q", [5, 6, 7]), array("d", [4.5, 4.0, math.nan]))
    drawn = progress("loss", all_of, all_of, pruned)
    assert drawn is not None and drawn.picture.count('class="hole"') == 2 and drawn.end == "6"
    assert [said for _, said in drawn.keys] == ["best so far", "each run", "pruned"]
    pruned.values[1] = 1e300
    drawn = progress("loss", all_of, all_of, pruned)
    assert drawn is not None and drawn.high == "5"
    assert all(0 <= float(y) <= HEIGHT for y in re.findall(r'y1="([^"]*)"', drawn.picture))
    assert drawn.keys[-1][1] == "pruned (at an edge: off the scale)"


def test_a_title_says_what_is_drawn_and_of_how_many_the_best_are_shown():
    some = [(str(number), [column([3.0, 2.0, 1.0])]) for number in range(2)]
    titles = [drawn.title for ranked in (2, 9) if (drawn := courses("loss", some, ranked))]
    assert titles == ["loss: courses", "loss: courses of the 2 best of 9"]
    best = progress("loss", column([3.0, 2.0, 1.0]), column([3.0, 2.0, 1.0]))
    assert best is not None and best.title == "loss: best so far"


def test_fewer_than_three_values_are_not_drawn():
    assert progress("loss", column([2.0, 1.0]), column([2.0, 1.0])) is None
    assert progress("loss", column([]), column([])) is None
    assert courses("loss", []) is None


@given(st.lists(st.floats(), min_size=3, max_size=40))
def test_every_point_lies_in_the_picture_whatever_was_logged(values: list[float]):
    drawn = courses("loss", [("all", [column(values)])])
    if drawn is not None:
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in corners(drawn.picture))
