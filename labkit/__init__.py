"""labkit: the experiment itself is the record.

A notebook needs few names, and each is loaded on its first use, so that importing labkit costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "EpochSums": "labkit.kernel.training",
    "Images": "labkit.kernel.datasets",
    "autocast": "labkit.kernel.training",
    "Run": "labkit.kernel.run",
    "batches": "labkit.kernel.data",
    "by_name": "labkit.kernel.byname",
    "check_shapes": "labkit.kernel.shapes",
    "cifar10": "labkit.kernel.datasets",
    "cifar10_stand_in": "labkit.kernel.datasets",
    "debug_subset": "labkit.kernel.data",
    "device": "labkit.kernel.determinism",
    "digits": "labkit.kernel.datasets",
    "environment": "labkit.kernel.environment",
    "epoch_table": "labkit.kernel.tables",
    "evaluate": "labkit.kernel.training",
    "figures": "labkit.kernel",
    "fingerprint": "labkit.kernel.determinism",
    "last_run": "labkit.kernel.past",
    "layer_table": "labkit.kernel.layers",
    "loader": "labkit.kernel.loading",
    "pad_collate": "labkit.kernel.data",
    "parallel": "labkit.kernel.ranks",
    "predict": "labkit.kernel.training",
    "random_flip": "labkit.kernel.augment",
    "random_shift": "labkit.kernel.augment",
    "rank": "labkit.kernel.ranks",
    "seed": "labkit.kernel.determinism",
    "start": "labkit.kernel.run",
    "submit": "labkit.kernel.submit",
    "sweep": "labkit.kernel.sweep",
    "torchrun": "labkit.kernel.torchrun",
    "train_one_epoch": "labkit.kernel.training",
    "training_settings": "labkit.kernel.tables",
    "vanishing_layers": "labkit.kernel.gradients",
    "world_size": "labkit.kernel.ranks",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Loads one of the names above from its module."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'labkit' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(home), name)
    except AttributeError:
        value = importlib.import_module(f"{home}.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
