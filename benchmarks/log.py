"""What one logged step costs, and what importing labkit costs.

    python benchmarks/log.py [--rounds 15] [--json]

The ways to log four numbers take turns in one process, in another order each round; the medians are of the rounds.

    bare      orjson.dumps and os.write of the same line
    writer    labkit.record.metrics.MetricsWriter.log
    run       run.log, as in a notebook
    step      all that labkit adds to a step: the progress bar's next and its number, and run.log of a tensor
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import orjson
import rounds
import torch

import labkit
from labkit.record.metrics import MetricsWriter

CALLS = 20_000
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


def stepped(run: labkit.Run, loss: torch.Tensor) -> None:
    """Goes through steps as a notebook does, without the training."""
    progress = run.progress(range(CALLS), "step")
    for step in progress:
        run.log(step, loss=loss)
        progress.set(loss=loss)


def measure(count: int) -> dict[str, float]:
    """Returns the median cost of a call in microseconds, and beside the bare way's in the same round."""
    with rounds.own_runs() as folder:
        fd = os.open(folder / "bare.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        writer, run = MetricsWriter(folder / "metrics.jsonl"), labkit.start()
        loss = torch.tensor(0.5)
        ways: dict[str, Callable[[], None]] = {
            "bare": lambda: bare(fd),
            "writer": lambda: written(writer),
            "run": lambda: logged(run),
            "step": lambda: stepped(run, loss),
        }
        wall, _ = rounds.interleaved(ways, count)
        run.finish()
        writer.close()
    result = rounds.medians(wall, "us a call", 1e6 / CALLS)
    return result | {f"{name} / bare": rounds.ratio(wall, name, "bare") for name in ("writer", "run")}


def import_ms(count: int) -> float:
    """Returns the median time of `import labkit` in a fresh interpreter."""
    code = "import time; t = time.perf_counter(); import labkit; print((time.perf_counter() - t) * 1e3)"
    command = [sys.executable, "-c", code]
    return statistics.median(float(subprocess.check_output(command)) for _ in range(count))


def main() -> None:
    """Prints costs and ratios."""
    asked = rounds.parser(__doc__ or "", 15).parse_args()
    rounds.show(measure(asked.rounds) | {"import labkit, ms": import_ms(asked.rounds)}, as_json=asked.json)


if __name__ == "__main__":
    main()
