"""What the benchmarks share: ways that take turns, medians over rounds, and how results are printed."""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Times = dict[str, list[float]]  # seconds of each round, by way


def parser(documentation: str, rounds: int = 7) -> argparse.ArgumentParser:
    """Returns a parser with the options of every benchmark, whose help is the documentation's first line."""
    made = argparse.ArgumentParser(description=documentation.splitlines()[0])
    made.add_argument("--rounds", type=int, default=rounds, help="of all ways; those before the first are not counted")
    made.add_argument("--json", action="store_true")
    return made


def interleaved(
    ways: dict[str, Callable[[], object]],
    rounds: int,
    settle: int = 1,
    after: Callable[[], object] = lambda: None,
) -> tuple[Times, Times]:
    """Returns the wall times and the CPU times of ways that take turns, in another order each round.

    Single rounds vary by a quarter, ratios within one round by little. The first `settle` rounds fill caches and do not
    count. `after` is called after each way and does not count either: it ends what would disturb the next.
    """
    wall: Times = {name: [] for name in ways}
    cpu: Times = {name: [] for name in ways}
    for number in range(settle + rounds):
        for name in random.sample(sorted(ways), len(ways)):
            began, cpu_began = time.perf_counter(), time.process_time()
            ways[name]()
            if number >= settle:
                wall[name].append(time.perf_counter() - began)
                cpu[name].append(time.process_time() - cpu_began)
            after()
    return wall, cpu


def medians(times: Times, unit: str, scale: float = 1.0) -> dict[str, float]:
    """Returns the median of each way, named with its unit."""
    return {f"{name}, {unit}": statistics.median(found) * scale for name, found in times.items()}


def ratio(times: Times, way: str, over: str) -> float:
    """Returns the median, over rounds, of one way's time over another's in the same round."""
    return statistics.median(one / other for one, other in zip(times[way], times[over], strict=True))


def show(result: dict[str, float], *, as_json: bool) -> None:
    """Prints names and numbers, as a table or as JSON."""
    if as_json:
        print(json.dumps(result, indent=2))
        return
    for name, value in result.items():
        print(f"{name:<32} {value:10.3f}")


@contextmanager
def own_runs() -> Iterator[Path]:
    """Makes a folder for the runs of a benchmark, which goes with it."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LABKIT_RUNS"] = str(Path(folder, "runs"))
        yield Path(folder)
