"""Which points of a sweep did best: their results taken together over seeds, and ordered by one metric. Pure."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labkit.record import metrics, spread
from labkit.record.rundir import NO_RESULT
from labkit.record.spread import is_seed
from labkit.workbench.notebooks.literals import literal
from labkit.workbench.sweeps.points import Point

# Words in the names of metrics of which less, or more, is better.
LOWER = frozenset("loss error err perplexity ppl nll mae mse rmse mape wer cer fid bpc bpd regret".split())
HIGHER = frozenset(
    "accuracy acc auc auroc auprc f1 precision recall score r2 dice iou map bleu rouge psnr ssim".split()
)

COUNTS = frozenset(("epoch", "step", "learning_rate", "lr"))  # that say where a training stands, not how good it is
NAMED = 12  # metrics that a sentence lists


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
        """Returns what sorts the best first, and what is no finite number last."""
        if not math.isfinite(value):
            return math.inf
        return value if self.lowest else -value


@dataclass(frozen=True)
class Group:
    """Points that differ in nothing but the seed, taken together.

    Attributes:
        values: What they were given, without the seed.
        points: Their numbers.
        finished: How many of them have a result that counts.
        metrics: For each metric that any of those has `mean`, `std` (None for one run), `min`, `max`, `count`.
        runs: The names of the runs that count.
    """

    values: Mapping[str, Any]
    points: tuple[int, ...]
    finished: int
    metrics: Mapping[str, Mapping[str, Any]]
    runs: tuple[str, ...]

    def mean(self, metric: str) -> float:
        """Returns the mean of a metric; NaN where it has none."""
        return float(self.metrics.get(metric, {}).get("mean", math.nan))

    def is_complete(self, metric: str) -> bool:
        """Tells whether every point has a value of a metric: a mean over fewer may be that of the lucky ones."""
        return bool(self.metrics.get(metric, {}).get("count") == len(self.points))

    def order(self, aim: Goal) -> tuple[bool, bool, float]:
        """Returns what sorts the best first: complete ones before others, and those without a finite mean last."""
        mean = self.mean(aim.metric)
        return not math.isfinite(mean), not self.is_complete(aim.metric), aim.order(mean)


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
    """Returns the points taken together over seeds, the best first.

    Groups that lack a value of what decides come after those that have all, and those without a finite mean are last.

    Args:
        points: All of the sweep.
        results: The accepted results by point: `run`, `status`, `metrics`.
        aim: What decides; None leaves them in their order.
    """
    together: dict[tuple[tuple[str, str], ...], list[Point]] = {}
    for point in points:
        together.setdefault(tuple(pair for pair in point.key if not is_seed(pair[0])), []).append(point)
    found = [_group(members, results) for members in together.values()]
    if aim is not None:
        found.sort(key=lambda group: group.order(aim))
    return found


def _group(members: Sequence[Point], results: Mapping[int, Mapping[str, Any]]) -> Group:
    done = [results[one.number] for one in members if counts(results.get(one.number))]
    last = [values_of(result) for result in done]
    names = dict.fromkeys(name for one in last for name in one)
    found = {name: spread.taken_together([one[name] for one in last if name in one]) for name in names}
    values = {name: value for name, value in members[0].values.items() if not is_seed(name)}
    runs = tuple(str(result["run"]) for result in done)
    return Group(values, tuple(one.number for one in members), len(done), found, runs)


def is_finished(result: Mapping[str, Any] | None) -> bool:
    """Tells whether a result is there and is that of a run that finished."""
    return result is not None and result.get("status") == "finished"


def counts(result: Mapping[str, Any] | None) -> bool:
    """Tells whether a result is that of a finished run whose numbers stand for something."""
    return result is not None and is_finished(result) and not left_out(result)


def left_out(result: Mapping[str, Any] | None) -> list[str]:
    """Returns the labels for which a run's numbers stand for nothing; empty where it has none."""
    labels = (result or {}).get("labels") or []
    return [label for label in NO_RESULT if label in labels]


def logged(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns the metrics of those results that count."""
    return list(dict.fromkeys(name for one in results if counts(one) for name in values_of(one)))


def unknown(metric: str | None, names: Sequence[str]) -> str:
    """Returns what to tell who asked for a metric that is none of those logged; empty where it is one.

    >>> unknown("val_los", ["loss", "val_loss"])
    'no finished run logged val_los; did you mean val_loss?'
    """
    if metric is None or metric in names:
        return ""
    near = difflib.get_close_matches(metric, names, n=1)
    known = f"did you mean {near[0]}?" if near else f"they logged {', '.join(names[:NAMED]) or 'nothing'}"
    return f"no finished run logged {metric}; {known}"


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
