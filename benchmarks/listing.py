"""How long `labkit list` takes in a lab of many runs.

    python benchmarks/listing.py [--runs 2000] [--steps 1000] [--rounds 7] [--json]

Each round starts every command anew; the files are in the page cache. Wanted: at most 2 s for 2,000 runs of 1,000
steps.

    list          the newest twenty
    list --all    every run
    list --json   every run, for a program
    show          the best run of a notebook, chosen among all
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from labkit.record.files import write_json
from labkit.record.metrics import MetricsWriter
from labkit.record.rundir import create

NOTEBOOKS = 8
COMMANDS = {
    "list": ["list"],
    "list --all": ["list", "--all"],
    "list --json": ["list", "--all", "--json"],
    "show": ["show", "notebook-1@best:val_accuracy"],
}


def make_runs(runs: Path, count: int, steps: int) -> None:
    """Makes finished runs that differ in their last values."""
    metrics = runs.parent / "metrics.jsonl"
    writer = MetricsWriter(metrics)
    for step in range(steps):
        writer.log(step, {"loss": 1 / (step + 1), "val_accuracy": step / steps, "learning_rate": 1e-3})
    writer.close()
    for number in range(count):
        run = create(runs, f"notebook-{number % NOTEBOOKS}", {"title": "A notebook", "given": {"SEED": number}})
        shutil.copyfile(metrics, run.metrics)
        last = {"loss": 1 / steps, "val_accuracy": random.random(), "learning_rate": 1e-3}
        entries = {name: {"last": value, "min": 0.0, "max": 1.0, "count": steps} for name, value in last.items()}
        run.update_manifest(summary={"metrics": entries, "steps": steps, "torn": 0})
        write_json(run.exit, {"status": "finished", "reason": "", "duration_s": 12.5}, durable=False)


def measure(runs: Path, rounds: int) -> dict[str, float]:
    """Returns the median seconds of each command, from the start of Python to its end."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(1 + rounds):
        for name in random.sample(sorted(COMMANDS), len(COMMANDS)):
            command = [sys.executable, "-m", "labkit.cli", *COMMANDS[name], "--runs", str(runs)]
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if number:  # the first warms the page cache
                times[name].append(time.perf_counter() - started)
    return {f"{name}, s": statistics.median(found) for name, found in times.items()}


def main() -> int:
    """Prints the seconds of each command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7, help="of all commands; the first one more is not counted")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_runs(Path(folder) / "runs", options.runs, options.steps)
        result = measure(Path(folder) / "runs", options.rounds)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        for name, value in result.items():
            print(f"{name:<24} {value:10.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
