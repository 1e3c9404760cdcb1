"""Where the numbers of two runs first differ, found while both files are read once, line by line."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.record import metrics
from labkit.record.files import open_record
from labkit.record.text import counted
from labkit.workbench.reproducing.chain import ABSENT, Difference, Link, here_then, lacking, link
from labkit.workbench.wording import short

Number = int | float


@dataclass(frozen=True)
class Step:
    """The first difference.

    Attributes:
        line: Its place among the lines that both runs logged, from 1.
        step: The recorded run's step; where that run is over, the other's.
        metric: What differs first in it; None where one run has no such line, or the steps differ.
        then: The recorded value, else None.
        now: The value now, else None.
    """

    line: int
    step: int
    metric: str | None
    then: Number | None
    now: Number | None

    @property
    def relative(self) -> float | None:
        """The difference as a part of the recorded value; None where it has no meaning."""
        if self.metric is None or self.then is None or self.now is None or self.then == 0:
            return None
        try:
            found = abs(self.now - self.then) / abs(self.then)
        except OverflowError:
            return None
        return found if math.isfinite(found) else None

    def __str__(self) -> str:
        place = f"step {self.step} (line {self.line})"
        if self.metric is None and self.then is not None and self.now is not None:
            return f"line {self.line} is of step {self.now} here, of step {self.then} then"
        if self.metric is None:
            return f"{place} was logged {'then, and not here' if self.now is None else 'here, and not then'}"
        texts = [repr(value) if value is not None else "not logged" for value in (self.then, self.now)]
        relative = self.relative
        more = f" (relative difference {relative:.2g})" if relative is not None else ""
        return f"{place}: {here_then(short(self.metric), *texts)}{more}"


@dataclass
class Walk:
    """What a walk through both files found.

    Attributes:
        first: The first difference; None where there is none.
        lines: Whole lines of the recorded run, and of the other.
        torn: Lines that could not be read, of both.
        last: The last value of each metric, in each.
        missing: Files that are not there.
    """

    first: Step | None = None
    lines: list[int] = field(default_factory=lambda: [0, 0])
    torn: list[int] = field(default_factory=lambda: [0, 0])
    last: tuple[dict[str, Number], dict[str, Number]] = field(default_factory=lambda: ({}, {}))
    missing: tuple[bool, bool] = (False, False)


def walk(then: Path, now: Path) -> Walk:
    """Walks through two files of metrics together and returns where they first differ, and their last values.

    A line that cannot be read holds its place: it is compared with nothing. Only the steps and values count, not the
    order in which a line names them; bits decide, so that -0.0 is not 0.0, 1 is not 1.0, and NaN is NaN.
    """
    found = Walk(missing=(not _is_there(then), not _is_there(now)))
    sides = metrics.records(then), metrics.records(now)
    place = 0
    while True:
        place += 1
        pair: list[Any] = [next(side, ABSENT) for side in sides]
        if pair[0] is ABSENT and pair[1] is ABSENT:
            return found
        for side, record in enumerate(pair):
            found.torn[side] += record is None
            if isinstance(record, dict):
                record.pop("t", None)
                found.lines[side] += 1
                found.last[side].update(record)
        if found.first is None and None not in pair:
            then_line, now_line = ({} if record is ABSENT else record for record in pair)
            found.first = _difference(place, then_line, now_line)


def steps(found: Walk, at_checkpoints: list[Difference]) -> Link:
    """Returns the link of what was logged step by step."""
    notes = []
    if any(found.missing):
        notes.append(lacking("the metrics", *(None if missing else "" for missing in found.missing)))
    for count, when in zip(found.torn, ("then", "here"), strict=True):
        if count:
            notes.append(f"{counted(count, 'line')} of the metrics {when} could not be read")
    differences = [Difference(str(found.first), "steps", "result")] if found.first is not None else []
    return link("steps", differences + at_checkpoints, notes)


def last_values(found: Walk) -> Link:
    """Returns the link of the last value of each metric, those that stand for the result first."""
    differences = []
    then, now = ({name: value for name, value in one.items() if name != "step"} for one in found.last)
    main = metrics.main(then)
    for name in sorted(then | now, key=lambda name: name not in main):
        before, after = then.get(name), now.get(name)
        if before is None or after is None:
            text = f"{short(name)} was logged {'then, and not here' if after is None else 'here, and not then'}"
        elif same(before, after):
            continue
        else:
            text = here_then(short(name), repr(before), repr(after))
        differences.append(Difference(text, "metrics", "result"))
    notes = [lacking("the metrics", *(None if one else "" for one in found.missing))] if any(found.missing) else []
    return link("metrics", differences, notes)


def same(then: Number, now: Number) -> bool:
    """Tells whether two values have the same bits; NaN has those of any NaN."""
    if type(then) is not type(now):
        return False
    if then == now:
        return then != 0 or math.copysign(1, then) == math.copysign(1, now)
    return then != then and now != now


def _difference(place: int, then: dict[str, Any], now: dict[str, Any]) -> Step | None:
    if not then or not now:
        return Step(place, (then or now)["step"], None, then.get("step"), now.get("step"))
    if then["step"] != now["step"]:
        return Step(place, then["step"], None, then["step"], now["step"])
    for name in then | now if then.keys() != now.keys() else then:
        before, after = then.get(name), now.get(name)
        if before is None or after is None or not same(before, after):
            return Step(place, then["step"], name, before, after)
    return None


def _is_there(path: Path) -> bool:
    file = open_record(path)
    if file is not None:
        file.close()
    return file is not None
