"""What `labkit run` costs: a trivial notebook from the command line, beside papermill's own command line.

    python benchmarks/run.py [--rounds 7] [--json]

The commands take turns, in another order each round; compared are the medians of their wall times.

    labkit       labkit run, record and report included
    bare         labkit run --no-report
    papermill    papermill IN OUT
    lean         papermill IN OUT without rfc3987_syntax, whose import alone takes a second; for information
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NOTEBOOK = Path(__file__).resolve().parent.parent / "tests" / "notebooks" / "minimal.ipynb"
LEAN = "import sys; sys.modules['rfc3987_syntax'] = None; from papermill.cli import papermill; papermill()"


def commands(folder: Path) -> dict[str, list[str]]:
    """Returns the command lines by name."""
    notebook = str(shutil.copy(NOTEBOOK, folder))
    labkit = [sys.executable, "-m", "labkit.cli", "run", notebook, "--runs", str(folder / "runs")]
    arguments = [notebook, str(folder / "out.ipynb")]
    return {
        "labkit": labkit,
        "bare": [*labkit, "--no-report"],
        "papermill": [sys.executable, "-m", "papermill", *arguments],
        "lean": [sys.executable, "-c", LEAN, *arguments],
    }


def measure(rounds: int) -> dict[str, list[float]]:
    """Returns the wall times of each command in seconds; the first round, which fills caches, is left out."""
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        offered = commands(Path(folder))
        for number in range(rounds + 1):
            for name in random.sample(list(offered), len(offered)):
                began = time.perf_counter()
                subprocess.run(offered[name], check=True, capture_output=True, cwd=folder, env=os.environ)
                if number:
                    taken.setdefault(name, []).append(time.perf_counter() - began)
    return taken


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="labkit run beside papermill.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    taken = measure(asked.rounds)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    ratios = {name: medians["labkit"] / medians[name] for name in ("papermill", "lean")}
    if asked.json:
        print(
            json.dumps({"rounds": asked.rounds, "median_s": medians, "labkit_over": ratios, "times_s": taken}, indent=2)
        )
        return
    for name, median_s in medians.items():
        print(f"{name:10} {median_s:.2f} s  ({min(taken[name]):.2f} to {max(taken[name]):.2f})")
    for name, ratio in ratios.items():
        print(f"labkit / {name}: {ratio:.2f}")


if __name__ == "__main__":
    main()
