"""The state of every random generator, as plain values, so that it can be saved and set again."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """Returns the states of the global generators of Python, NumPy and PyTorch, on every device in use.

    Their hundreds of numbers are tensors: PyTorch takes 10 ms to read as many integers back, holding up the training.
    """
    version, numbers, gauss = random.getstate()
    kind, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": [version, torch.tensor(numbers), gauss],  # (625,)
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), place, has_gauss, cached],  # (624,)
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
    kind, keys, place, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(_listed(keys), dtype=np.uint32), place, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])
    if "mps" in state:
        torch.mps.set_rng_state(state["mps"])


def _listed(numbers: torch.Tensor | list[int]) -> list[int]:
    """Returns integers as a list, as which older checkpoints hold them."""
    return numbers if isinstance(numbers, list) else numbers.tolist()
