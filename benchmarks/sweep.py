"""What a sweep costs: short trainings at many points, beside papermill's command line two at a time.

    python benchmarks/sweep.py [--rounds 3] [--points 24] [--json]

From the command's start to its end, records and reports included; the ways take turns.

    labkit       labkit sweep, as many runs at once as there are cores
    bare         labkit sweep --no-report
    papermill    papermill IN OUT for each point, two at a time, with the same parameters; the median of its processes

Then, without kernels: what 1,000 and 10,000 points take to schedule, with runs that do nothing and real files of
results; and what a sweep adds to the time that its runs of 10 s take, with cold kernels.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import rounds

from labkit.record import sweepdir
from labkit.workbench.running.job import Job
from labkit.workbench.running.outcome import Outcome
from labkit.workbench.sweeps.points import Point
from labkit.workbench.sweeps.sweep import Sweeper

CELLS = (
    "STEPS: int = 50  # of the training\nRANDOM_SEED: int = 0  # of everything\nPAUSE_S: float = 0.0  # a step",
    "import time\nimport torch\nfrom torch import nn\nimport labkit",
    "run = labkit.start()\ntorch.manual_seed(RANDOM_SEED)",
    "model = nn.Linear(8, 1)\noptimizer = torch.optim.SGD(model.parameters(), lr=0.01)\ninputs = torch.randn(64, 8)",
    "for step in range(STEPS):\n"
    "    loss = ((model(inputs) - inputs.sum(1, keepdim=True)) ** 2).mean()\n"
    "    optimizer.zero_grad()\n    loss.backward()\n    optimizer.step()\n    run.log(step, loss=loss.detach())\n"
    "    time.sleep(PAUSE_S)",
)


def write_notebook(path: Path) -> Path:
    """Writes the notebook that is run."""
    cells = [
        {
            "cell_type": "code",
            "id": f"c{number}",
            "metadata": {},
            "source": text,
            "outputs": [],
            "execution_count": None,
        }
        for number, text in enumerate(CELLS)
    ]
    cells[0]["metadata"] = {"tags": ["parameters"]}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def swept(notebook: Path, points: int, *options: str, **environment: str) -> None:
    """Sweeps over so many seeds; no server of warm kernels is there yet, the sweep starts its own."""
    command = [sys.executable, "-m", "labkit.cli", "sweep", str(notebook), "-p", f"RANDOM_SEED=1..{points}", *options]
    own = {"TORCH_OF_THIS_SWEEP": str(time.time()), "LABKIT_WARM_IDLE_S": "60"}  # a server stands for what is set
    subprocess.run(command, check=True, capture_output=True, cwd=notebook.parent, env=os.environ | own | environment)


def papermilled(notebook: Path, points: int) -> None:
    """Executes the notebook once for each seed with papermill's command line, two at a time."""

    def one(seed: int) -> None:
        arguments = [str(notebook), str(notebook.with_name(f"out-{seed}.ipynb")), "-p", "RANDOM_SEED", str(seed)]
        subprocess.run([sys.executable, "-m", "papermill", *arguments], check=True, capture_output=True)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, range(1, points + 1)))


class AtOnce(Executor):
    """Answers at once that a run finished."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(Outcome(args[0].run, "finished", "", 0.0, {"loss": 1.0}))
        return future


def schedule(folder: Path, count: int) -> float:
    """Returns the seconds that so many points take without their runs."""
    points = [Point(number, {"X": number}) for number in range(1, count + 1)]
    sweep = sweepdir.create(folder, {"points": [point.facts() for point in points]})

    def begin(point: Point, _: Any) -> Job:
        return Job(str(folder / "none" / str(point.number)), "none.ipynb", {}, "none")

    began = time.perf_counter()
    Sweeper(sweep, points, begin).work(AtOnce(), 2)
    seconds = time.perf_counter() - began
    assert len(sweepdir.results(sweep)) == count
    shutil.rmtree(sweep.path)
    return seconds


def added(notebook: Path) -> float:
    """Returns what a sweep of eight runs of 10 s, two at a time, takes beyond the time that its runs took."""
    runs = notebook.parent.parent / "long"
    began = time.perf_counter()
    swept(notebook, 8, "-p", "PAUSE_S=0.2", "--jobs", "2", "--runs", str(runs), LABKIT_WARM="0")
    whole = time.perf_counter() - began
    took = [one["duration_s"] for one in sweepdir.results(sweepdir.every(runs)[0]).values()]
    return whole / (sum(took) / 2) - 1


def main() -> None:
    """Prints seconds and ratios."""
    parser = rounds.parser(__doc__ or "", rounds=3)
    parser.add_argument("--points", type=int, default=24)
    asked = parser.parse_args()
    with rounds.own_runs() as folder:
        notebook = write_notebook(folder / "notebooks" / "short.ipynb")
        ways = {
            "labkit": partial(swept, notebook, asked.points),
            "bare": partial(swept, notebook, asked.points, "--no-report"),
            "papermill": partial(papermilled, notebook, asked.points),
        }
        wall, _ = rounds.interleaved(ways, asked.rounds, settle=0)
        result = {f"{name}, s a run": statistics.median(found) / asked.points for name, found in wall.items()}
        result["papermill / labkit"] = rounds.ratio(wall, "papermill", "labkit")
        result |= {f"{count:,} points, ms each": schedule(folder, count) / count * 1e3 for count in (1000, 10000)}
        result["added to runs of 10 s, %"] = added(notebook) * 100
    rounds.show(result, as_json=asked.json)


if __name__ == "__main__":
    main()
