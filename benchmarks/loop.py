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

import statistics
from collections.abc import Callable, Iterable
from typing import Any

import rounds
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import labkit

SAMPLES, BATCH_SIZE = 16384, 64
STEPS = SAMPLES // BATCH_SIZE


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


def measure(count: int) -> dict[str, float]:
    """Returns the median steps per second of each loop, and how fast each is beside the bare one."""
    with rounds.own_runs():
        loop, run = Loop(), labkit.start()
        loops: dict[str, Callable[[], None]] = {
            "bare": lambda: loop.bare(loop.loader),
            "labkit": lambda: loop.recorded(run),
            "batches": lambda: loop.bare(loop.batches),
            "epoch": loop.epoch,
        }
        wall, cpu = rounds.interleaved(loops, count, settle=2)
        run.finish()
    result = {f"{name}, steps/s": STEPS / statistics.median(times) for name, times in wall.items()}
    for times, note in ((wall, ""), (cpu, ", CPU time")):
        others = (name for name in loops if name != "bare")
        result |= {f"{name} / bare{note}": rounds.ratio(times, "bare", name) for name in others}
    return result


def main() -> None:
    """Prints steps per second and ratios."""
    parser = rounds.parser(__doc__ or "", 15)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of PyTorch")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    rounds.show(measure(asked.rounds), as_json=asked.json)


if __name__ == "__main__":
    main()
