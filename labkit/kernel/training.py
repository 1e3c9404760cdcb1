"""An epoch of training, an evaluation, and predictions: functions to read, not a trainer.

Results are means over samples, so that a smaller last batch counts less. Sums stay on the device until the
end of the epoch: a step never waits for the GPU. A request to stop is acted on between two steps.

Under torchrun each function is called by all processes, and returns in each of them the result over all samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn

from labkit.errors import RunProblem
from labkit.kernel import prints, ranks
from labkit.kernel.claim import watch
from labkit.kernel.position import Position
from labkit.launch import signals

Precision = Literal["float32", "bf16", "fp16"]
AUTOCAST = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

LossFunction = Callable[[Any, Any], Tensor]  # (outputs, targets) -> mean over the batch, ()


@dataclass(frozen=True)
class Result:
    """What an epoch or an evaluation came to.

    Attributes:
        loss: Mean over the samples.
        accuracy: Share of right classes, from 0 to 1; None where the outputs are no scores of classes.
        samples: How many were seen.
        seconds: Wall-clock time.
    """

    loss: float
    accuracy: float | None
    samples: int
    seconds: float

    def __str__(self) -> str:
        accuracy = "" if self.accuracy is None else f", accuracy {self.accuracy:.4f}"
        return f"loss {self.loss:.4f}{accuracy} ({self.samples:,} samples in {self.seconds:.1f} s)"


def train_one_epoch(
    model: nn.Module,
    batches: Iterable[Any],
    loss_function: LossFunction,
    optimizer: torch.optim.Optimizer,
    *,
    device: torch.device | str,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    clip_norm: float | None = None,
    accumulate: int = 1,
    precision: Precision = "float32",
    scaler: torch.amp.GradScaler | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
    sums: EpochSums | None = None,
) -> Result:
    """Trains `model` once on each batch.

    Args:
        model: On `device` already; left in training mode.
        batches: Pairs of inputs (batch, ...) and targets (batch, ...).
        loss_function: Takes outputs and targets; returns the mean over the batch.
        optimizer: Of the model's parameters.
        device: Where to compute; batches that are elsewhere are moved there.
        scheduler: Stepped after each step of the optimizer, not each epoch.
        clip_norm: Scale the gradient down to this 2-norm where it is longer.
        accumulate: Batches whose gradients make one step. Each sample counts the same, also in a last group
            that is smaller; the batches of a group are in memory together.
        precision: Of the forward pass; the parameters stay as they are.
        scaler: Needed for fp16, whose small gradients vanish unscaled; the same one in all epochs.
        on_step: Called after each step with its number in this epoch, from 0, and its mean loss, a tensor ()
            on `device`: to read its number at once is to wait for the GPU. Under torchrun it is the loss of this
            process's batch.
        sums: The sums of the epoch, for a run that saves checkpoints in `on_step`: given to `run.restore` too, they
            let an epoch that goes on in the middle have the result of a whole one.

    Raises:
        RunProblem: There is no batch, fp16 has no scaler, or an epoch goes on in the middle without its sums.
        labkit.launch.signals.StopRequested: A stop was asked for; the last step is whole.
    """
    device = torch.device(device)
    if precision == "fp16" and (scaler is None or not scaler.is_enabled()):
        raise RunProblem(
            f"precision 'fp16' needs a scaler: make torch.amp.GradScaler({device.type!r}) before the epochs"
        )
    watch.look()
    _refuse_uneven(batches)
    prints.noted(model=model, batches=batches)
    model.train()
    boundary = ranks.Boundary()
    sums, started = _sums_of(batches, sums, device), time.perf_counter()
    for step, group in _groups(batches, accumulate):
        if not signals.is_saving():  # else the processes decide it in `run.checkpoint`
            boundary.reached()
        signals.check()
        samples = sum(len(targets) for _, targets in group)
        losses = []
        optimizer.zero_grad(set_to_none=True)
        for inputs, targets in group:
            inputs, targets = move(inputs, device), move(targets, device)
            with autocast(device, precision):
                outputs = model(inputs)
                loss = loss_function(outputs, targets)  # ()
                if len(group) > 1:
                    loss = loss * (len(targets) / samples)
            (loss if scaler is None else scaler.scale(loss)).backward()
            sums.count(outputs, targets)
            losses.append(loss.detach())
        step_loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        sums.add(step_loss, samples)
        _update(model, optimizer, scheduler, clip_norm, scaler)
        if on_step is not None:
            on_step(step, step_loss)
    return sums.result(time.perf_counter() - started)


def evaluate(
    model: nn.Module,
    batches: Iterable[Any],
    loss_function: LossFunction,
    *,
    device: torch.device | str,
    precision: Precision = "float32",
) -> Result:
    """Measures `model` on each batch, in evaluation mode and without gradients.

    The arguments are those of `train_one_epoch`. Every module is then in its earlier mode again.

    Raises:
        RunProblem: There is no batch.
        labkit.launch.signals.StopRequested: A stop was asked for.
    """
    watch.look()
    device, model = torch.device(device), ranks.shared_module(model)
    sums, started = EpochSums(device), time.perf_counter()
    with evaluating(model), autocast(device, precision):
        for inputs, targets in batches:
            signals.check()
            inputs, targets = move(inputs, device), move(targets, device)
            outputs = model(inputs)
            sums.count(outputs, targets)
            sums.add(loss_function(outputs, targets), len(targets))
    return sums.result(time.perf_counter() - started)


def predict(model: nn.Module, batches: Iterable[Any], *, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Returns the model's outputs (samples, ...) and the targets (samples, ...) of all batches, on the CPU.

    Raises:
        RunProblem: There is no batch.
        labkit.launch.signals.StopRequested: A stop was asked for.
    """
    device, model = torch.device(device), ranks.shared_module(model)
    outputs, all_targets = [], []
    with evaluating(model):
        for inputs, targets in batches:
            signals.check()
            outputs.append(model(move(inputs, device)))
            all_targets.append(targets)
    if not outputs:
        raise RunProblem("nothing to predict: the loader gave no batch")
    found = torch.cat(outputs).cpu(), torch.cat(all_targets).cpu()
    if getattr(batches, "shard", None) is None:  # each process has all samples
        return found
    return ranks.interleaved(found[0]), ranks.interleaved(found[1])


def move(batch: Any, device: torch.device | str) -> Any:
    """Returns a batch with its tensors, in dicts, lists and tuples too, on `device`; waits for no copy."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: move(item, device) for key, item in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):  # a named tuple takes its fields one by one
        return type(batch)(*(move(item, device) for item in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(move(item, device) for item in batch)
    return batch


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Returns the context of a forward pass in the precision asked for.

    Raises:
        RunProblem: The precision is not known.
    """
    if precision not in AUTOCAST:
        raise RunProblem(f"precision {precision!r} is not known; known: {', '.join(AUTOCAST)}")
    dtype = AUTOCAST[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


@contextmanager
def evaluating(
    model: nn.Module, no_gradients: Callable[[], AbstractContextManager[Any]] = torch.inference_mode
) -> Iterator[None]:
    """Puts `model` into evaluation mode without gradients, and each of its modules back into its own mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with no_gradients():
            yield
    finally:
        for module, training in modes:  # not model.train(): a frozen part may have been in evaluation mode
            module.training = training


def settings(
    optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
) -> dict[str, Any]:
    """Returns what an optimizer and its scheduler are set to, as plain numbers and text for the record."""
    groups = [
        {name: value for name, value in group.items() if name != "params" and _is_plain(value)}
        for group in optimizer.param_groups
    ]
    found: dict[str, Any] = {"optimizer": type(optimizer).__name__, "groups": groups}
    if scheduler is not None:
        state = {name: value for name, value in vars(scheduler).items() if _is_plain(value)}
        public = {name: value for name, value in state.items() if not name.startswith("_")}
        found |= {"scheduler": type(scheduler).__name__, "schedule": public}
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _refuse_uneven(batches: Any) -> None:
    """Refuses what would give the processes different numbers of samples: the mean gradient would be no mean."""
    shard = getattr(batches, "shard", None)
    if shard is not None and shard.stop % shard.step:
        raise RunProblem(
            f"{shard.stop} samples are not shared out evenly among {shard.step} processes, which would wait for each "
            "other: give shuffle=True to the batches to train on, which leaves out the rest"
        )


def _sums_of(batches: Any, sums: EpochSums | None, device: torch.device) -> EpochSums:
    """Returns the sums to go on with: empty ones, or what they came to before a resumed run was stopped."""
    position = getattr(batches, "position", None)
    if sums is not None and not isinstance(position, Position):
        raise RunProblem("sums need batches that know where they stand: those of labkit.batches or labkit.loader")
    if not isinstance(position, Position) or not position.first:
        return EpochSums(device) if sums is None else sums.reset(device)
    if sums is None:
        raise RunProblem(
            "this epoch goes on in the middle, so its means lack the beginning: give sums=labkit.EpochSums() to "
            "train_one_epoch and to run.restore, or save checkpoints between epochs"
        )
    sums.loss, sums.right = sums.loss.to(device), sums.right.to(device)
    return sums


class EpochSums:
    """Sums over the samples of an epoch, which stay on the device until the end.

    Under torchrun they are those of this process; `result` is that of all.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.reset(torch.device(device))

    def reset(self, device: torch.device) -> EpochSums:
        """Begins an epoch."""
        exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self.loss = torch.zeros((), dtype=exact, device=device)
        self.right = torch.zeros((), dtype=torch.int64, device=device)
        self.samples = self.labels = 0
        return self

    def state_dict(self) -> dict[str, Any]:
        """Returns the sums."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with sums that were saved."""
        self.loss, self.right = state["loss"].clone(), state["right"].clone()
        self.samples, self.labels = state["samples"], state["labels"]

    def add(self, mean_loss: Tensor, samples: int) -> None:
        """Adds a batch, or a step of several."""
        self.loss.add_(mean_loss.detach(), alpha=samples)
        self.samples += samples

    def count(self, outputs: Any, targets: Any) -> None:
        """Counts right classes where outputs are scores (batch, classes, …) and targets (batch, …)."""
        if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor) or targets.is_floating_point():
            return
        if outputs.ndim < 2 or outputs.shape[1] < 2 or outputs[:, 0].shape != targets.shape:
            return
        self.right += (outputs.argmax(dim=1) == targets).sum()
        self.labels += targets.numel()

    def result(self, seconds: float) -> Result:
        """Returns the means over the samples of all processes."""
        own = (self.loss.item(), self.right.item(), self.samples, self.labels)  # the one wait for the device
        loss, right, samples, labels = map(sum, zip(*ranks.gathered(own), strict=True))
        if not samples:
            raise RunProblem("an epoch without a batch: the loader gave none")
        return Result(loss / samples, right / labels if labels else None, int(samples), seconds)


def _groups(batches: Iterable[Any], size: int) -> Iterator[tuple[int, list[Any]]]:
    """Yields the batches of each step, and the step's number in the epoch, which may go on in the middle."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise RunProblem(f"accumulate {size!r} is not a whole number from 1 up")
    number = getattr(getattr(batches, "position", None), "first", 0) // size
    walk = iter(batches)
    while group := list(islice(walk, size)):
        yield number, group
        number += 1


def _update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None,
    clip_norm: float | None,
    scaler: torch.amp.GradScaler | None,
) -> None:
    """Makes one step of the optimizer and its scheduler."""
    if scaler is not None and clip_norm is not None:
        scaler.unscale_(optimizer)  # the norm is that of the gradient, not of its scaled form
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    if scaler is None:
        optimizer.step()
        stepped = True
    else:
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        stepped = scaler.get_scale() >= scale  # it falls when the gradient overflowed and no step was made
    if scheduler is not None and stepped:
        scheduler.step()
