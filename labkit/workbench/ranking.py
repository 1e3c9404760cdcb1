"""Which points of a sweep did best: their results taken together over seeds, and ordered by one metric. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labkit.record import metrics, spread
from labkit.record.spread import NO_SEED
from labkit.workbench.literals import literal
from labkit.workbench.points import Point

# Words in the names of metrics of which less, or more, is better.
LOWER = frozenset("loss error err perplexity ppl nll mae mse rmse mape wer cer fid bpc bpd regret".split())
HIGHER = frozenset(
    "accuracy acc auc auroc auprc f1 precision recall score r2 dice iou map bleu rouge psnr ssim".split()
)


@dataclass(frozen=True)
class Goal:
    """What decides which point is best.

    Attributes:
        metric: Its last value counts.
        lowest: The lowest is best, not the highest.
    """

    metric: str
    lowest: bool

    def __str__(self) -> str:
        return f"{'lowest' if self.lowest else 'highest'} {self.metric}"

    def order(self, value: float) -> float:
        """Returns what sorts the best first, and what is no number last."""
        if math.isnan(value):
            return math.inf
        return value if self.lowest else -value


@dataclass(frozen=True)
class Group:
    """Points that differ in nothing but the seed, taken together.

    Attributes:
        values: What they were given, without the seed.
        points: Their numbers.
        finished: How many of them have a result that is a finished run.
        metrics: For each metric that all of those have `mean`, `std` (None for one run), `min`, `max`, `count`.
        runs: The names of the finished runs.
    """

    values: Mapping[str, Any]
    points: tuple[int, ...]
    finished: int
    metrics: Mapping[str, Mapping[str, Any]]
    runs: tuple[str, ...]

    def mean(self, metric: str) -> float:
        """Returns the mean of a metric; NaN where it has none."""
        return float(self.metrics.get(metric, {}).get("mean", math.nan))


def goal(names: Iterable[str], metric: str | None = None, lowest: bool | None = None) -> Goal | None:
    """Returns what decides: what was asked for, else the first main metric whose name says which way is better.

    >>> goal(["loss", "val_accuracy"])
    Goal(metric='val_accuracy', lowest=False)
    """
    names = list(names)
    for name in [metric] if metric else [*metrics.main(names), *names]:
        direction = _direction(name) if lowest is None else lowest
        if direction is not None:
            return Goal(name, direction)
    return None


def _direction(name: str) -> bool | None:
    words = set(re.split(r"[_\W]+", name.lower()))
    if words & LOWER:
        return True
    return False if words & HIGHER else None


def groups(points: Sequence[Point], results: Mapping[int, Mapping[str, Any]], aim: Goal | None) -> list[Group]:
    """Returns the points taken together over seeds, the best first; those without a result are last.

    Args:
        points: All of the sweep.
        results: The accepted results by point: `run`, `status`, `metrics`.
        aim: What decides; None leaves them in their order.
    """
    together: dict[tuple[tuple[str, str], ...], list[Point]] = {}
    for point in points:
        together.setdefault(tuple(pair for pair in point.key if pair[0] not in NO_SEED), []).append(point)
    found = [_group(members, results) for members in together.values()]
    if aim is not None:
        found.sort(key=lambda group: (math.isnan(group.mean(aim.metric)), aim.order(group.mean(aim.metric))))
    return found


def _group(members: Sequence[Point], results: Mapping[int, Mapping[str, Any]]) -> Group:
    done = [(one.number, results[one.number]) for one in members if is_finished(results.get(one.number))]
    found = spread.measure({number: [values_of(result)] for number, result in done}).metrics if done else {}
    values = {name: value for name, value in members[0].values.items() if name not in NO_SEED}
    runs = tuple(str(result["run"]) for _, result in done)
    return Group(values, tuple(one.number for one in members), len(done), found, runs)


def is_finished(result: Mapping[str, Any] | None) -> bool:
    """Tells whether a result is there and is that of a run that finished."""
    return result is not None and result.get("status") == "finished"


def is_pruned(result: Mapping[str, Any] | None) -> bool:
    """Tells whether a result is there and is that of a run that its search has stopped."""
    return result is not None and result.get("status") == "pruned"


def is_failed(result: Mapping[str, Any] | None) -> bool:
    """Tells whether a result is there and is that of a run that came to no end of its own."""
    return result is not None and not is_finished(result) and not is_pruned(result)


def values_of(result: Mapping[str, Any]) -> dict[str, float]:
    """Returns a result's metrics; what JSON cannot say stands in it as text."""
    return {name: float(value) for name, value in (result.get("metrics") or {}).items()}


def varied(points: Sequence[Point]) -> list[str]:
    """Returns the parameters that differ between points, in their order; of a single point all."""
    names = list(dict.fromkeys(name for point in points for name in point.values))
    if len(points) < 2:
        return names
    return [
        name
        for name in names
        if len({literal(point.values[name]) if name in point.values else "" for point in points}) > 1
    ]


def told(values: Mapping[str, Any], names: Iterable[str] | None = None) -> str:
    """Returns parameters as a reader meets them: `LEARNING_RATE=0.1  EPOCHS=3`."""
    wanted = values if names is None else [name for name in names if name in values]
    return "  ".join(f"{name}={values[name]}" for name in wanted)
