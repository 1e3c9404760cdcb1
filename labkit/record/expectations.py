"""Hypotheses stated before training and judged after it.

A condition is a metric, a comparison and a number, as in `test_accuracy > 0.70`: parsed, never evaluated as code.
"""

from __future__ import annotations

import math
import operator
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from labkit.record.metrics import Column, Metrics

VERDICTS = ("held", "not held", "undecided")
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
CONDITION = re.compile(r"\s*([^\s<>=!]+)\s*(>=|<=|==|!=|>|<)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*")
WHY_UNDECIDED = {  # by the run's label
    "debug": "a debug run",
    "stand-in": "stand-in data",
    "explored": "explored by hand",
}


@dataclass(frozen=True)
class Expectation:
    """What a metric was expected to be.

    Attributes:
        text: The expectation in words.
        metric: The metric's name.
        comparison: One of COMPARISONS.
        number: What the metric is compared with.
        by_epoch: The epoch up to which it must have held at least once; None to judge the last value.
        late: It was stated after the first metric had been logged.
    """

    text: str
    metric: str
    comparison: str
    number: float
    by_epoch: int | None = None
    late: bool = False

    @property
    def condition(self) -> str:
        """The condition as a reader sees it."""
        by = f" by epoch {self.by_epoch}" if self.by_epoch is not None else ""
        return f"{self.metric} {self.comparison} {self.number:.12g}{by}"

    def holds(self, value: float) -> bool:
        """Tells whether a value meets the condition; NaN meets none."""
        return not math.isnan(value) and COMPARISONS[self.comparison](value, self.number)

    def facts(self) -> dict[str, Any]:
        """Returns what a record keeps."""
        return asdict(self)


def parse(text: str, condition: str, by_epoch: int | None = None, *, late: bool = False) -> Expectation:
    """Returns the expectation that a condition states.

    Raises:
        ValueError: The condition is not `METRIC > NUMBER`, or the epoch is no whole number from 1 up.
    """
    found = CONDITION.fullmatch(condition) if isinstance(condition, str) else None
    if found is None:
        raise ValueError(
            f"{condition!r:.80} is no condition: write METRIC COMPARISON NUMBER, as in 'test_accuracy > 0.70'"
            f" (comparisons: {' '.join(COMPARISONS)})"
        )
    if not math.isfinite(float(found[3])):
        raise ValueError(f"{condition!r:.80}: that number is too large")
    if by_epoch is not None and (type(by_epoch) is not int or by_epoch < 1):
        raise ValueError(f"by_epoch={by_epoch!r:.40} is no epoch: a whole number from 1 up")
    return Expectation(str(text), found[1], found[2], float(found[3]), by_epoch, late)


def read_facts(record: Any) -> list[Expectation]:
    """Returns the expectations in a record; what is damaged is left out."""
    found = []
    for facts in record if isinstance(record, list) else []:
        try:
            condition = f"{facts['metric']} {facts['comparison']} {facts['number']!r}"
            found.append(parse(facts["text"], condition, facts["by_epoch"], late=facts["late"] is True))
        except (TypeError, ValueError, KeyError):
            continue
    return found


@dataclass(frozen=True)
class Verdict:
    """What became of an expectation.

    Attributes:
        text: The expectation in words.
        condition: Its condition; empty for a conclusion that numbers cannot state.
        verdict: One of VERDICTS.
        value: What the metric was; None where it is not known.
        reason: Why it is undecided or not held, where the numbers do not say it.
        late: It was stated after the first metric.
        evidence: What a conclusion was drawn from, by name.
    """

    text: str
    condition: str
    verdict: str
    value: float | None = None
    reason: str = ""
    late: bool = False
    evidence: dict[str, Any] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """Returns what a record and a program get."""
        return asdict(self)


def judge(expected: Expectation, metrics: Metrics, state: str, labels: Sequence[str]) -> Verdict:
    """Returns the verdict on an expectation when its run is over. Never raises.

    Args:
        expected: The expectation.
        metrics: What the run logged.
        state: What became of the run.
        labels: The run's labels; some mean that its numbers stand for nothing.
    """
    verdict, value, reason = _judged(expected, metrics)
    doubts = _doubts(state, labels)
    if metrics.torn:
        doubts.append(f"{metrics.torn} records could not be read")
    if doubts:
        verdict, reason = "undecided", ", ".join(doubts)
    return Verdict(expected.text, expected.condition, verdict, value, reason, expected.late)


def _doubts(state: str, labels: Sequence[str]) -> list[str]:
    """Returns why the numbers of a run decide nothing."""
    doubts = [WHY_UNDECIDED[label] for label in labels if label in WHY_UNDECIDED]
    return doubts if state == "finished" else [*doubts, f"the run has not finished ({state})"]


def _judged(expected: Expectation, metrics: Metrics) -> tuple[str, float | None, str]:
    column = metrics.columns.get(expected.metric)
    if column is None:
        return "undecided", None, f"{expected.metric} was not logged"
    if expected.by_epoch is None:
        value = column.values[-1]
        return "held" if expected.holds(value) else "not held", value, ""
    best: float | None = None
    last_epoch = 0.0
    for epoch, value in _by_epoch(column, metrics.columns.get("epoch")):
        last_epoch = max(last_epoch, epoch)
        if epoch <= expected.by_epoch:
            best = value
            if expected.holds(value):
                return "held", value, f"in epoch {epoch:g}"
    if last_epoch < expected.by_epoch:
        return "undecided", best, f"training ended with epoch {last_epoch:g}"
    return "not held", best, ""


def _by_epoch(column: Column, epochs: Column | None) -> Iterator[tuple[float, float]]:
    """Yields (epoch, value), epochs counted from one.

    A step lies in the epoch that was logged with it, or next after it; what follows the last one belongs to it. Where
    no epoch was logged, the steps are the epochs.
    """
    ends = sorted(zip(epochs.steps, epochs.values, strict=True)) if epochs is not None else []
    first = min((epoch for _, epoch in ends), default=float(min(column.steps)))
    shift = 1.0 if first == 0 else 0.0  # counted from zero by the notebook
    for step, value in zip(column.steps, column.values, strict=True):
        place = min(bisect_left(ends, (step, -math.inf)), len(ends) - 1)
        yield (ends[place][1] if ends else float(step)) + shift, value


def concluded(record: Any, state: str, labels: Sequence[str]) -> list[Verdict]:
    """Returns the verdicts that the notebook itself stated; of a run that stands for nothing they are undecided."""
    found = []
    doubts = ", ".join(_doubts(state, labels))
    for facts in record if isinstance(record, list) else []:
        if not isinstance(facts, dict):
            continue
        held = facts.get("held")
        verdict = "held" if held is True else "not held" if held is False else "undecided"
        evidence = facts.get("evidence")
        evidence = evidence if isinstance(evidence, dict) else {}
        text = str(facts.get("text", ""))
        found.append(Verdict(text, "", "undecided" if doubts else verdict, None, doubts, False, evidence))
    return found


def in_short(verdicts: Sequence[Verdict]) -> str:
    """Returns verdicts in a few words: `2 held, 1 not held`; empty where there are none."""
    counts = {name: sum(one.verdict == name for one in verdicts) for name in VERDICTS}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)
