"""The state of every random generator, as plain values, so that it can be saved and set again."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

LONG = 100  # numbers, from which on they are a tensor


def random_state() -> dict[str, Any]:
    """Returns the states of the global generators of Python, NumPy and PyTorch, on every device in use.

    Their hundreds of numbers are tensors: PyTorch takes 10 ms to read as many integers back, holding up the training.
    """
    version, numbers, gauss = random.getstate()
    state: dict[str, Any] = {
        "python": [version, torch.tensor(numbers), gauss],  # (625,)
        "numpy": _plain(np.random.get_state(legacy=False)),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Sets the global generators to what `random_state` returned."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(_listed(numbers)), gauss))
    np.random.set_state(_as_numpy_takes(state["numpy"]))
    torch.set_rng_state(state["torch"])
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])
    if "mps" in state:
        torch.mps.set_rng_state(state["mps"])


def is_generator(part: Any) -> bool:
    """Tells whether `part` is a random generator: of PyTorch, NumPy or Python."""
    return isinstance(part, torch.Generator | np.random.Generator | np.random.RandomState | random.Random)


def generator_state(generator: Any) -> Any:
    """Returns the state of a random generator of any kind, as plain values."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return _plain(generator.bit_generator.state)
    if isinstance(generator, np.random.RandomState):
        return _plain(generator.get_state(legacy=False))
    version, numbers, gauss = generator.getstate()
    return [version, torch.tensor(numbers), gauss]


def set_generator_state(generator: Any, state: Any) -> None:
    """Sets a random generator to what `generator_state` returned for one of its kind.

    Raises:
        ValueError: It was of another kind.
    """
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = _as_numpy_takes(state)
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(_as_numpy_takes(state))
    else:
        version, numbers, gauss = state
        generator.setstate((version, tuple(_listed(numbers)), gauss))


def _plain(value: Any) -> Any:
    """Returns a state of NumPy's with its arrays as lists, the long one as a tensor."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist() if len(value) < LONG else torch.from_numpy(value.astype(np.int64))
    return value.item() if isinstance(value, np.generic) else value


def _as_numpy_takes(state: Any) -> Any:
    """Returns a state in the form that NumPy sets; older checkpoints have that of the global generator as a list."""
    if isinstance(state, dict):
        return {name: _as_numpy_takes(item) for name, item in state.items()}
    if isinstance(state, list) and state and isinstance(state[0], str):
        kind, keys, *rest = state
        return (kind, np.array(_listed(keys), dtype=np.uint32), *rest)
    return state.tolist() if isinstance(state, torch.Tensor) else state


def _listed(numbers: torch.Tensor | list[int]) -> list[int]:
    """Returns integers as a list, as which older checkpoints hold them."""
    return numbers if isinstance(numbers, list) else numbers.tolist()
