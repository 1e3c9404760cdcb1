"""What labkit costs a training loop, and what it saves: steps a second beside a bare PyTorch loop.

    python benchmarks/loop.py [--rounds 15] [--json]

Four loops take turns in one process, an epoch each, in another order each round: a single one varies by a quarter, the
medians of their ratios by little. CPU time is less noisy still where other programs run.

    bare      a plain loop over a DataLoader
    labkit    the same over the same DataLoader, with the metrics of each step and a progress bar that counts steps
    batches   a plain loop over labkit.batches
    epoch     labkit.train_one_epoch over the same DataLoader
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import labkit

SAMPLES, BATCH_SIZE = 16384, 64
STEPS = SAMPLES // BATCH_SIZE
SETTLE = 2  # rounds before the first that counts


class Loop:
    """A model whose step takes 1 to 2 ms on one core, its data in memory, and the loops over them."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
        )
        self.loss_function = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        data = torch.rand(SAMPLES, 1, 8, 8), torch.randint(0, 10, (SAMPLES,))
        self.loader = DataLoader(TensorDataset(*data), batch_size=BATCH_SIZE, shuffle=True)
        self.batches = labkit.batches(*data, batch_size=BATCH_SIZE, shuffle=True)

    def step(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Makes one step and returns its loss."""
        loss = self.loss_function(self.model(inputs), targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def bare(self, batches: Iterable[Any]) -> None:
        """An epoch without labkit."""
        for inputs, targets in batches:
            self.step(inputs, targets)

    def recorded(self, run: labkit.Run) -> None:
        """An epoch with all that labkit does in a notebook's loop."""
        progress = run.progress(self.loader, "step")
        for step, (inputs, targets) in enumerate(progress):
            loss = self.step(inputs, targets)
            run.log(step, loss=loss)
            progress.set(loss=loss)

    def epoch(self) -> None:
        """An epoch of labkit's own loop."""
        labkit.train_one_epoch(self.model, self.loader, self.loss_function, self.optimizer, device="cpu")


def measure(rounds: int) -> dict[str, float]:
    """Returns the median steps per second of each loop, and their ratios to the bare one."""
    loop, run = Loop(), labkit.start()
    loops: dict[str, Callable[[], None]] = {
        "bare": lambda: loop.bare(loop.loader),
        "labkit": lambda: loop.recorded(run),
        "batches": lambda: loop.bare(loop.batches),
        "epoch": loop.epoch,
    }
    wall: dict[str, list[float]] = {name: [] for name in loops}
    cpu: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(SETTLE + rounds):
        for name in random.sample(sorted(loops), len(loops)):
            started, cpu_started = time.perf_counter(), time.process_time()
            loops[name]()
            if number >= SETTLE:
                wall[name].append(time.perf_counter() - started)
                cpu[name].append(time.process_time() - cpu_started)
    run.finish()
    result = {f"{name} steps/s": STEPS / statistics.median(times) for name, times in wall.items()}
    return result | ratios(wall, "") | ratios(cpu, ", CPU time")


def ratios(seconds: dict[str, list[float]], note: str) -> dict[str, float]:
    """Returns how fast each loop is beside the bare one in the same round, as medians."""
    return {
        f"{name}/bare{note}": statistics.median(b / t for b, t in zip(seconds["bare"], times, strict=True))
        for name, times in seconds.items()
        if name != "bare"
    }


def main() -> int:
    """Prints steps per second and ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="of all loops; the first one more is not counted")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of PyTorch")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        here = Path.cwd()
        os.chdir(folder)  # the scratch run goes here
        try:
            result = measure(options.rounds)
        finally:
            os.chdir(here)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        for name, value in result.items():
            print(f"{name:<24} {value:10.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
