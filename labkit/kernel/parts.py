"""The parts of a training and their states: what a checkpoint is made of, copied out and put back.

A part is whatever has `state_dict()` and `load_state_dict()`, as modules, optimizers, schedulers, scalers and labkit's
batches and loaders do, or a random generator.
"""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit.errors import RunProblem
from labkit.kernel.randomness import generator_state, is_generator, set_generator_state

ADVICE = {
    "ndarray": "store torch.from_numpy(…) or .tolist()",
    "DataFrame": 'store .to_dict("list")',
    "set": "store sorted(…), a list",
    **dict.fromkeys(
        ("Generator", "RandomState", "Random"), "give it as a part of its own: run.restore(…, generator=generator)"
    ),
    "PosixPath": "store str(…)",
}


def state_of(part: Any, name: str) -> Any:
    """Returns the state of a part.

    Raises:
        RunProblem: It has none.
    """
    part = unwrapped(part)
    if is_generator(part):
        return generator_state(part)
    if not hasattr(part, "state_dict") or not hasattr(part, "load_state_dict"):
        hint = "; make it by labkit.loader(…)" if isinstance(part, torch.utils.data.DataLoader) else ""
        raise RunProblem(
            f"{name}: a {type(part).__name__} has no state_dict() and load_state_dict(), so it cannot be saved{hint}"
        )
    return part.state_dict()


def load_into(part: Any, state: Any, name: str) -> None:
    """Puts a saved state back into a part.

    Raises:
        RunProblem: It does not fit.
    """
    part = unwrapped(part)
    try:
        if is_generator(part):
            set_generator_state(part, state)
        elif isinstance(part, torch.optim.Optimizer):
            part.load_state_dict(copy.deepcopy(state))  # it would keep the saved tensors and change them in place
        else:
            part.load_state_dict(state)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunProblem(f"{name}: the saved state does not fit this {type(part).__name__}: {error}") from error


def changes_of_weights(parts: Mapping[str, Any]) -> int | None:
    """Returns a number that grows with each change of the modules' parameters; None where that is not known."""
    modules = [part for part in parts.values() if isinstance(part, nn.Module)]
    weights = [weight for module in modules for weight in module.parameters()]
    if not weights or any(weight.is_inference() for weight in weights):
        return None
    return sum(weight._version for weight in weights)


def unwrapped(part: Any) -> Any:
    """Returns the module inside of what torch.compile or DistributedDataParallel made of it."""
    while isinstance(part, nn.Module):
        inner = getattr(part, "_orig_mod", None)
        if inner is None and isinstance(part, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = part.module
        if inner is None:
            break
        part = inner
    return part


class Copies:
    """Copies of states in memory that is kept from one time to the next: making it anew costs more than copying."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def of(self, value: Any, where: str) -> Any:
        """Returns a plain copy of a value, its tensors on the CPU; good until the same place is copied again.

        Raises:
            RunProblem: Something in it is not plain, that is, could not be read back without executing code.
        """
        copied = self._copied(value, where)
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.current_stream().synchronize()
        return copied

    def _copied(self, value: Any, where: str) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value, where)
        if value is None or type(value) in (bool, int, float, str, bytes):
            return value
        if type(value) in (dict, OrderedDict, Counter):
            return self._mapping(value, where)
        if type(value) in (list, tuple):
            return type(value)(self._copied(item, f"{where}[{index}]") for index, item in enumerate(value))
        kind = type(value).__name__
        if isinstance(value, np.generic):
            advice = f"store {kind} as a plain number, by .item()"
        else:
            advice = ADVICE.get(kind, "store numbers, text, lists, dicts and tensors")
        raise RunProblem(f"{where} is a {kind}, which cannot be read back safely; {advice}")

    def _mapping(self, value: dict[Any, Any], where: str) -> Any:
        for key in value:
            if type(key) not in (str, int):
                raise RunProblem(f"{where} has the key {key!r:.40}, a {type(key).__name__}; use text or integers")
        made: Any = type(value)() if isinstance(value, Counter) else None
        if made is not None:  # whose constructor would count the pairs
            made.update({key: self._copied(item, f"{where}[{key!r}]") for key, item in value.items()})
            return made
        made = type(value)((key, self._copied(item, f"{where}[{key!r}]")) for key, item in value.items())
        versions = getattr(value, "_metadata", None)  # of the modules, which loading looks at
        if versions is not None:
            made._metadata = versions
        return made

    def _tensor(self, value: Tensor, where: str) -> Tensor:
        value = value.detach()
        if value.layout is not torch.strided:
            return value.cpu().clone()
        kept = self._kept.get(where)
        if kept is None or kept.shape != value.shape or kept.dtype != value.dtype or kept.stride() != value.stride():
            kept = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
            self._kept[where] = kept
        return kept.copy_(value, non_blocking=True)
