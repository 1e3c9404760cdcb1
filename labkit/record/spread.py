"""How far the results of an experiment spread over seeds: kept in each of the runs that were measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labkit.record.files import read_json, write_json
from labkit.record.rundir import RunDir

NAME = "spread.json"
SEED = "RANDOM_SEED"
SEEDS = (SEED, "SEED")


def is_seed(name: str) -> bool:
    """Tells whether a parameter is the seed of a run, by its name."""
    return name.upper() in SEEDS


@dataclass(frozen=True)
class Spread:
    """The last values of metrics over runs that differ in their seed alone.

    Attributes:
        seeds: Those that were run.
        metrics: What each metric came to, as `taken_together` returns it.
        repeated: For each metric the largest difference of two runs with the same seed; empty where none was repeated.
        runs: Their ids.
    """

    seeds: tuple[int, ...]
    metrics: Mapping[str, Mapping[str, Any]]
    repeated: Mapping[str, float] = field(default_factory=dict)
    runs: tuple[str, ...] = ()

    @property
    def deviations(self) -> dict[str, float]:
        """The standard deviation of each metric that has one."""
        found = {name: facts.get("std") for name, facts in self.metrics.items()}
        return {
            name: float(value) for name, value in found.items() if isinstance(value, float) and math.isfinite(value)
        }

    def facts(self) -> dict[str, Any]:
        """Returns what a record keeps."""
        return {
            "seeds": list(self.seeds),
            "metrics": {name: dict(facts) for name, facts in self.metrics.items()},
            "repeated": dict(self.repeated),
            "runs": list(self.runs),
        }


def measure(by_seed: Mapping[int, Sequence[Mapping[str, float]]], runs: Sequence[str] = ()) -> Spread:
    """Returns the spread of last values.

    Args:
        by_seed: For each seed the last values of its runs, the first of which counts; the others are repeats.
        runs: The ids of all of them.
    """
    firsts = [found[0] for found in by_seed.values()]
    shared = [name for name in firsts[0] if all(name in one for one in firsts)]
    metrics, repeated = {}, {}
    for name in shared:
        values = [one[name] for one in firsts]
        metrics[name] = taken_together(values)
        apart = [
            0.0 if one[name] == found[0][name] else abs(one[name] - found[0][name])
            for found in by_seed.values()
            for one in found[1:]
            if name in one
        ]
        if apart:
            repeated[name] = max(apart)
    return Spread(tuple(by_seed), metrics, repeated, tuple(runs))


def taken_together(values: Sequence[float]) -> dict[str, Any]:
    """Returns `mean`, `std` (of the sample, None for one run), `min`, `max` and `count` of at least one value.

    What is not defined, or too large for a float, is NaN: the mean of both infinities, the deviation of any.
    """
    numbers = [value for value in values if not math.isnan(value)]
    return {
        "mean": float(statistics.mean(values)),  # unlike fmean's, its sum never overflows
        "std": _deviation(values) if len(values) > 1 else None,
        "min": min(numbers, default=math.nan),
        "max": max(numbers, default=math.nan),
        "count": len(values),
    }


def _deviation(values: Sequence[float]) -> float:
    try:
        return statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan
    except OverflowError:
        return math.nan


def write(run: RunDir, spread: Spread) -> None:
    """Keeps a spread in a run.

    Raises:
        OSError: It cannot be written.
    """
    write_json(run.path / NAME, spread.facts())


def read(run: RunDir) -> Spread | None:
    """Returns the spread that a run has; None where it has none that can be read."""
    return of_facts(read_json(run.path / NAME))


def of_facts(facts: Any) -> Spread | None:
    """Returns a spread from the content of its file; None where that is damaged."""
    if not isinstance(facts, dict) or not isinstance(facts.get("metrics"), dict):
        return None
    seeds, runs, repeated = (facts.get(name) for name in ("seeds", "runs", "repeated"))
    metrics = {
        name: one
        for name, one in facts["metrics"].items()
        if isinstance(one, dict) and all(isinstance(one.get(key), int | float) for key in ("mean", "min", "max"))
    }
    return Spread(
        tuple(seed for seed in seeds if type(seed) is int) if isinstance(seeds, list) else (),
        metrics,
        repeated if isinstance(repeated, dict) else {},
        tuple(map(str, runs)) if isinstance(runs, list) else (),
    )
