"""A training loop with all of labkit on, beside a bare loop, Accelerate and PyTorch Lightning: steps a second.

    pip install accelerate pytorch-lightning    # either may be missing
    python benchmarks/peers.py [--rounds 9] [--json]

The arithmetic, the model and the DataLoader are the same, the ways take turns. labkit records the metrics of each
step, shows progress and saves a checkpoint at the end of the epoch; Lightning logs each step to a CSV file, shows its
progress bar and saves a checkpoint at the end of the epoch; Accelerate only runs the loop.
"""

from __future__ import annotations

import contextlib
import io
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rounds
import torch
from loop import STEPS, Loop

import labkit


def with_labkit(loop: Loop, run: labkit.Run) -> Callable[[], float]:
    """Returns what makes an epoch with metrics, progress and a checkpoint."""

    def epoch() -> float:
        began = time.perf_counter()
        loop.recorded(run)
        run.checkpoint(model=loop.model, optimizer=loop.optimizer, state={"epoch": 1}, keep=1)
        return time.perf_counter() - began

    return epoch


def with_accelerate(loop: Loop) -> Callable[[], float]:
    """Returns what makes an epoch with Accelerate."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model, optimizer, loader = accelerator.prepare(loop.model, loop.optimizer, loop.loader)

    def epoch() -> float:
        began = time.perf_counter()
        for inputs, targets in loader:
            loss = loop.loss_function(model(inputs), targets)
            optimizer.zero_grad(set_to_none=True)
            accelerator.backward(loss)
            optimizer.step()
        return time.perf_counter() - began

    return epoch


def with_lightning(loop: Loop, folder: Path) -> Callable[[], float]:
    """Returns what makes two epochs with Lightning, and times the second."""
    import pytorch_lightning as lightning
    from pytorch_lightning.callbacks import ModelCheckpoint
    from pytorch_lightning.loggers import CSVLogger

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.began, self.taken = loop.model, 0.0, 0.0

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            loss = loop.loss_function(self.model(batch[0]), batch[1])
            self.log("loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.model.parameters(), lr=1e-3)

        def on_train_epoch_start(self) -> None:
            self.began = time.perf_counter()

    class Clock(lightning.Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            module.taken = time.perf_counter() - module.began  # called after the checkpoint of the epoch before

    def epochs() -> float:
        module = Module()
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=2,
            logger=CSVLogger(folder),
            log_every_n_steps=1,
            callbacks=[ModelCheckpoint(folder / "lightning", save_top_k=1, every_n_epochs=1), Clock()],
            enable_model_summary=False,
        )
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            trainer.fit(module, loop.loader)
        return module.taken

    return epochs


def measure(count: int) -> dict[str, float]:
    """Returns the median steps per second of each way, and their ratios to the bare loop."""
    with rounds.own_runs() as folder:
        run = labkit.start()

        def bare(loop: Loop) -> Callable[[], float]:
            def epoch() -> float:
                began = time.perf_counter()
                loop.bare(loop.loader)
                return time.perf_counter() - began

            return epoch

        ways = {"bare": bare(Loop()), "labkit": with_labkit(Loop(), run)}
        for name, make in {
            "accelerate": with_accelerate,
            "lightning": lambda loop: with_lightning(loop, folder),
        }.items():
            try:
                ways[name] = make(Loop())
            except ImportError as error:
                print(f"{name} is left out: {error}")
        times: rounds.Times = {name: [] for name in ways}
        for number in range(count + 1):
            for name, way in ways.items():
                taken = way()
                if number:
                    times[name].append(taken)
        run.finish()
    result = {f"{name}, steps/s": STEPS / statistics.median(found) for name, found in times.items()}
    return result | {f"{name} / bare": rounds.ratio(times, "bare", name) for name in ways if name != "bare"}


def main() -> None:
    """Prints steps per second and ratios."""
    asked = rounds.parser(__doc__ or "", 9).parse_args()
    torch.set_num_threads(1)
    rounds.show(measure(asked.rounds), as_json=asked.json)


if __name__ == "__main__":
    main()
