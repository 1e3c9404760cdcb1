"""A table of a model's layers: what goes out of each, and how many parameters it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import pandas as pd


def layer_table(model: nn.Module, example_input: Any) -> pd.DataFrame:
    """Returns name, type, output shape and number of parameters of each layer, and a last row of totals.

    The example runs through the model once, in evaluation mode and without gradients; mode, buffers and
    random generators are then as they were.

    Args:
        model: Any module.
        example_input: What its forward takes: a tensor (batch, ...), or a tuple of arguments. It is moved
            nowhere.
    """
    import pandas as pd

    layers = {name: layer for name, layer in model.named_modules() if _is_layer(layer)}
    shapes = _output_shapes(model, list(layers.values()), example_input)
    counted: set[int] = set()
    rows = [
        (
            name or "(model)",
            type(layer).__name__,
            shapes.get(layer, "not called"),
            _new_parameters(layer, counted),
        )
        for name, layer in layers.items()
    ]
    total = sum(row[3] for row in rows)
    rows.append(("total", type(model).__name__, shapes.get(model, ""), total))
    return pd.DataFrame(rows, columns=["name", "type", "output shape", "parameters"])


def _is_layer(module: nn.Module) -> bool:
    """Says whether a module computes by itself: it holds no other modules, or holds parameters of its own."""
    return not any(module.children()) or any(True for _ in module.parameters(recurse=False))


def _output_shapes(model: nn.Module, layers: list[nn.Module], example: Any) -> dict[nn.Module, str]:
    from labkit.kernel.training import evaluating

    shapes: dict[nn.Module, str] = {}

    def note(layer: nn.Module, _inputs: Any, output: Any) -> None:
        shapes.setdefault(layer, _shape(output))  # a layer used twice shows its first output

    buffers = {name: value.clone() for name, value in model.named_buffers()}
    hooks = [layer.register_forward_hook(note) for layer in {*layers, model}]
    try:
        # Not inference mode: lazy modules make their parameters now, and these must be trainable.
        with evaluating(model, torch.no_grad), torch.random.fork_rng(_gpus(model)):
            model(*example) if isinstance(example, tuple) else model(example)
    finally:
        for hook in hooks:
            hook.remove()
        with torch.no_grad():
            for name, value in model.named_buffers():
                if name in buffers and buffers[name].shape == value.shape:
                    value.copy_(buffers[name])
    return shapes


def _gpus(model: nn.Module) -> list[int]:
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    return sorted(device.index or 0 for device in devices)


def _shape(output: Any) -> str:
    if isinstance(output, Tensor):
        return str(tuple(output.shape))
    if isinstance(output, dict):
        return ", ".join(f"{key} {_shape(item)}" for key, item in output.items())
    if isinstance(output, list | tuple):
        return ", ".join(_shape(item) for item in output)
    return type(output).__name__


def _new_parameters(layer: nn.Module, counted: set[int]) -> int:
    """Returns how many parameters a layer holds itself; one shared by two layers counts in the first."""
    new = [parameter for parameter in layer.parameters(recurse=False) if id(parameter) not in counted]
    counted.update(map(id, new))
    return sum(parameter.numel() for parameter in new)
