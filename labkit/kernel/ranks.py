"""Several processes that train one model under torchrun: which one this is, and what they tell each other.

What one of them tells the others, all of them must ask for: a process that does not come along leaves the rest waiting.
They talk by gloo, from memory to memory, so that no step waits for a GPU.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from labkit.errors import RunProblem
from labkit.launch import signals

if TYPE_CHECKING:
    from torch import Tensor, nn

SET_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")
EXCHANGE_S = 0.25  # about so often they ask each other whether to save or to stop
MOST_STEPS = 64  # between two such questions

_control: Any = None  # the group of processes in which they tell each other numbers and objects


def rank() -> int:
    """Returns the number of this process, from 0; under torchrun the one with 0 writes the record."""
    group = _group()
    return group.get_rank() if group is not None else _told("RANK", 0)


def world_size() -> int:
    """Returns how many processes train together: 1 without torchrun."""
    group = _group()
    return group.get_world_size() if group is not None else _told("WORLD_SIZE", 1)


def is_main() -> bool:
    """Tells whether this is the process that writes the record."""
    return rank() == 0


def local_rank() -> int | None:
    """Returns the number of this process on this machine; None without torchrun."""
    return _told("LOCAL_RANK", 0) if world_size() > 1 and "LOCAL_RANK" in os.environ else None


def _told(name: str, default: int) -> int:
    told = [os.environ.get(each, "") for each in SET_BY_TORCHRUN]
    return int(os.environ[name]) if all(told) and os.environ[name].isdecimal() else default


def _group() -> Any:
    """Returns torch.distributed where it is in use; it is not loaded for the question."""
    found = sys.modules.get("torch.distributed")
    return found if found is not None and found.is_available() and found.is_initialized() else None


def parallel(model: nn.Module, **settings: Any) -> nn.Module:
    """Returns the model for training in all processes of torchrun; with one process, the model as it is.

    >>> model = labkit.parallel(Net().to(device))

    Each process begins with the weights of the first, and each step has the mean of all their gradients
    (`torch.nn.parallel.DistributedDataParallel`). `labkit.seed` gives all processes the same random numbers; for
    dropout that differs, seed by `RANDOM_SEED + labkit.rank()` after this.

    Args:
        model: On its device already.
        **settings: Of DistributedDataParallel, such as `find_unused_parameters`.
    """
    if world_size() == 1:
        return model
    from torch.nn.parallel import DistributedDataParallel

    join()
    device = next((parameter.device for parameter in model.parameters()), None)
    if device is not None and device.type == "cuda":
        settings.setdefault("device_ids", [device.index])
    return DistributedDataParallel(model, **settings)


def join() -> Any:
    """Joins the other processes, unless that is done; returns the group in which they talk."""
    global _control
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device((local_rank() or 0) % torch.cuda.device_count())
        dist.init_process_group()  # gloo, and NCCL for what is on a GPU
        atexit.register(_leave)
    if _control is None:
        has_gloo = "cpu:gloo" in str(dist.get_backend_config())
        _control = dist.group.WORLD if has_gloo else dist.new_group(backend="gloo")
    return _control


def _leave() -> None:
    """Leaves the group at a good end; where one has failed, the others would wait for it."""
    group = _group()
    if group is not None and getattr(sys, "last_value", None) is None:
        group.destroy_process_group()


def gathered(value: Any) -> list[Any]:
    """Returns the value that each process gave, in the order of their numbers."""
    if world_size() == 1:
        return [value]
    group, found = join(), [None] * world_size()
    sys.modules["torch.distributed"].all_gather_object(found, value, group=group)
    return found


def gathered_on_main(value: Any) -> list[Any]:
    """Returns the values of all processes in the main one, and nothing in the others."""
    if world_size() == 1:
        return [value]
    group, found = join(), [None] * world_size() if is_main() else None
    sys.modules["torch.distributed"].gather_object(value, found, dst=0, group=group)
    return found or []


def from_main(value: Any = None) -> Any:
    """Returns the value that the main process gave."""
    if world_size() == 1:
        return value
    group, found = join(), [value]
    sys.modules["torch.distributed"].broadcast_object_list(found, src=0, group=group)
    return found[0]


def wait_for_all() -> None:
    """Returns when every process has come here."""
    gathered(None)


def shard(samples: int, is_even: bool) -> slice | None:
    """Returns which places in the order of an epoch are those of this process, every N-th; None where it has all.

    Args:
        samples: In the epoch.
        is_even: Leave out the last few, so that all processes have as many.

    Raises:
        RunProblem: There are fewer samples than processes.
    """
    size = world_size()
    if size == 1:
        return None
    if samples < size:
        raise RunProblem(f"{samples} samples are too few for {size} processes")
    return slice(rank(), samples - samples % size if is_even else samples, size)


def shared_module(model: nn.Module) -> nn.Module:
    """Returns a model to be evaluated by processes that may have different numbers of batches.

    DistributedDataParallel would wait for the others in each batch; the buffers that it would send are sent here.
    """
    from labkit.kernel.parts import unwrapped

    if world_size() == 1:
        return model
    module: nn.Module = unwrapped(model)
    if module is not model:
        for buffer, first in zip(module.buffers(), _buffers_of_main(module), strict=True):
            buffer.copy_(first)
    return module


def _buffers_of_main(module: nn.Module) -> list[Tensor]:
    buffers = [buffer.detach().cpu() for buffer in module.buffers()]
    return list(from_main(buffers)) if buffers else []


def interleaved(own: Tensor) -> Tensor:
    """Returns the rows of all processes in the order of the samples, of which each had every N-th."""
    parts = gathered(own)
    whole = own.new_empty((sum(len(part) for part in parts), *own.shape[1:]))
    for number, part in enumerate(parts):
        whole[number :: len(parts)] = part
    return whole


class Boundary:
    """Lets all processes decide at the same step whether to save and whether to stop.

    They ask each other only every few steps: the first process says after how many the next time, so that it is about
    every quarter of a second.
    """

    def __init__(self) -> None:
        self._steps, self._left, self._since = 0, 1, time.monotonic()
        self._is_alone: bool | None = None  # until it is asked: the question costs a few microseconds

    def reached(self, is_due: Callable[[], bool] = lambda: False) -> bool:
        """Marks a step boundary; a stop request that any process has got is then one of all of them.

        Args:
            is_due: Tells in the first process whether it is time to save.

        Returns:
            Whether to save.
        """
        if self._is_alone is None:
            self._is_alone = world_size() == 1
        if self._is_alone:
            return is_due()
        self._steps, self._left = self._steps + 1, self._left - 1
        if self._left > 0:
            return False
        import torch
        import torch.distributed as dist

        group, due, name = join(), is_main() and is_due(), signals.requested()
        told = torch.tensor([int(signal.Signals[name]) if name else 0, due, self._next() if is_main() else 0])
        dist.all_reduce(told, dist.ReduceOp.MAX, group=group)
        number, should_save, self._left = told.tolist()
        if number:
            signals.agree(signal.Signals(number).name)
            self._left = 1
        return bool(should_save)

    def _next(self) -> int:
        """Returns after how many steps to ask again."""
        steps, now = self._steps, time.monotonic()
        per_second = steps / max(now - self._since, 1e-6)
        self._steps, self._since = 0, now
        return max(1, min(int(per_second * EXCHANGE_S), 2 * steps, MOST_STEPS))
