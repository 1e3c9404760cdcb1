"""What one logged step costs, and what importing labkit costs.

    python benchmarks/log.py [--rounds 15] [--json]

The ways to log four numbers take turns in one process, in another order each round; the medians are of the rounds.

    bare      orjson.dumps and os.write of the same line
    writer    labkit.record.metrics.MetricsWriter.log
    run       run.log, as in a notebook
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson

import labkit
from labkit.record.metrics import MetricsWriter

CALLS = 20_000
SETTLE = 1  # rounds before the first that counts
VALUES = {"loss": 0.693147, "accuracy": 0.5, "learning_rate": 1e-3, "gradient_norm": 1.25}


def bare(fd: int) -> None:
    """Appends the lines with nothing around them."""
    for step in range(CALLS):
        os.write(fd, orjson.dumps({"step": step, **VALUES, "t": time.time()}, option=orjson.OPT_APPEND_NEWLINE))


def written(writer: MetricsWriter) -> None:
    """Appends them by the record's writer."""
    for step in range(CALLS):
        writer.log(step, VALUES)


def logged(run: labkit.Run) -> None:
    """Appends them as a notebook does."""
    for step in range(CALLS):
        run.log(step, **VALUES)


def measure(rounds: int) -> dict[str, float]:
    """Returns the median cost of a call in microseconds, and beside the bare way's in the same round."""
    fd = os.open("bare.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    writer, run = MetricsWriter(Path("metrics.jsonl")), labkit.start()
    ways: dict[str, Callable[[], None]] = {
        "bare": lambda: bare(fd),
        "writer": lambda: written(writer),
        "run": lambda: logged(run),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(SETTLE + rounds):
        for name in random.sample(sorted(ways), len(ways)):
            started = time.perf_counter()
            ways[name]()
            if number >= SETTLE:
                times[name].append((time.perf_counter() - started) / CALLS * 1e6)
    run.finish()
    writer.close()
    os.close(fd)
    result = {f"{name} us/call": statistics.median(found) for name, found in times.items()}
    for name in ("writer", "run"):
        pairs = zip(times["bare"], times[name], strict=True)
        result[f"{name}/bare"] = statistics.median(time_ / bare_ for bare_, time_ in pairs)
    return result


def measure_import(rounds: int) -> float:
    """Returns the median time of `import labkit` in a fresh interpreter, in milliseconds."""
    code = "import time; t = time.perf_counter(); import labkit; print((time.perf_counter() - t) * 1e3)"
    command = [sys.executable, "-c", code]
    return statistics.median(float(subprocess.check_output(command)) for _ in range(SETTLE + rounds))


def main() -> int:
    """Prints costs and ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="of all ways; the first one more is not counted")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        here = Path.cwd()
        os.chdir(folder)  # the scratch run goes here
        try:
            result = measure(options.rounds)
        finally:
            os.chdir(here)
    result["import labkit, ms"] = measure_import(options.rounds)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        for name, value in result.items():
            print(f"{name:<24} {value:10.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
