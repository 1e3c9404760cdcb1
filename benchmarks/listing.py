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

import random
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import rounds

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


def command(arguments: list[str], runs: Path) -> None:
    """Runs one command, from the start of Python to its end."""
    whole = [sys.executable, "-m", "labkit.cli", *arguments, "--runs", str(runs)]
    subprocess.run(whole, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Prints the seconds of each command."""
    parser = rounds.parser(__doc__ or "")
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=1000)
    asked = parser.parse_args()
    with rounds.own_runs() as folder:
        make_runs(folder / "runs", asked.runs, asked.steps)
        ways = {name: partial(command, arguments, folder / "runs") for name, arguments in COMMANDS.items()}
        wall, _ = rounds.interleaved(ways, asked.rounds)
    rounds.show(rounds.medians(wall, "s"), as_json=asked.json)


if __name__ == "__main__":
    main()
