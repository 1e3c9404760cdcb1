"""A table of a model's layers: what goes out of each, and how many parameters it has."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from labkit.errors import RunProblem
from labkit.kernel.shapes import Axes, axes_text, check_shape

if TYPE_CHECKING:
    import pandas as pd

WHOLE = "(model)"  # a name for the model itself


def layer_table(model: nn.Module, example_input: Any, expected: Mapping[str, Axes] | None = None) -> pd.DataFrame:
    """Returns name, type, output shape and number of parameters of each layer, and a last row of totals.

    The example runs through the model once, in evaluation mode and without gradients; mode, buffers and
    random generators are then as they were. The shapes are those that came out.

    >>> labkit.layer_table(model, images[:2], {"pool": ("batch", 32, 4, 4), "(model)": ("batch", 10)})

    Args:
        model: Any module.
        example_input: What its forward takes: a tensor (batch, ...), or a tuple of arguments. It is moved
            nowhere.
        expected: The axes that should go out of modules, by name; those of the model itself under "(model)". A word
            stands for any size, the same in all of them. Each is verified, and shown in a column of its own.

    Raises:
        RunProblem: A shape is another one, or a name is no module of the model; the message says which.
    """
    import pandas as pd

    modules = dict(model.named_modules())
    layers = {name: layer for name, layer in modules.items() if _is_layer(layer)}
    wanted = {_known("" if name == WHOLE else name, modules): axes for name, axes in (expected or {}).items()}
    shown = {name: module for name, module in modules.items() if name and (name in layers or name in wanted)}
    shown |= {"": model} if _is_layer(model) else {}
    outputs = _outputs(model, {*shown.values(), model}, example_input)
    _verify(modules, wanted, outputs)
    counted: set[int] = set()
    rows = [
        (name or WHOLE, type(layer).__name__, _shape_in(outputs, layer), _new_parameters(layer, counted))
        for name, layer in shown.items()
    ]
    rows.append(("total", type(model).__name__, _shape_in(outputs, model, ""), sum(row[3] for row in rows)))
    table = pd.DataFrame(rows, columns=["name", "type", "output shape", "parameters"])
    if wanted:
        texts = {name or "total": axes_text(axes) for name, axes in wanted.items()}
        table.insert(3, "verified", [texts.get(name, "") for name in table["name"]])
    return table


def _known(name: str, modules: Collection[str]) -> str:
    if name in modules:
        return name
    near = difflib.get_close_matches(name, [one for one in modules if one], 1, 0)
    raise RunProblem(f"the model has no module {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def _verify(modules: Mapping[str, nn.Module], wanted: Mapping[str, Axes], outputs: Mapping[nn.Module, Any]) -> None:
    sizes: dict[str, int] = {}
    for name, axes in wanted.items():
        what = f"output of {name or 'the model'}"
        if modules[name] not in outputs:
            raise RunProblem(f"{what}: the model did not call it")
        if not isinstance(outputs[modules[name]], Tensor):
            raise RunProblem(f"{what} is no tensor: {_shape(outputs[modules[name]])}")
        check_shape(outputs[modules[name]], axes, what, sizes)


def _is_layer(module: nn.Module) -> bool:
    """Says whether a module computes by itself: it holds no other modules, or holds parameters of its own."""
    return not any(module.children()) or any(True for _ in module.parameters(recurse=False))


def _outputs(model: nn.Module, modules: Collection[nn.Module], example: Any) -> dict[nn.Module, Any]:
    """Returns what came out of each module that was called; of one that was called twice, what came first."""
    from labkit.kernel.training import evaluating

    outputs: dict[nn.Module, Any] = {}

    def note(layer: nn.Module, _inputs: Any, output: Any) -> None:
        outputs.setdefault(layer, _outline(output))

    buffers = {name: value.clone() for name, value in model.named_buffers()}
    hooks = [layer.register_forward_hook(note) for layer in modules]
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
    return outputs


def _gpus(model: nn.Module) -> list[int]:
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    return sorted(device.index or 0 for device in devices)


def _outline(output: Any) -> Any:
    """Returns an output with tensors that hold no memory in the places of its own."""
    if isinstance(output, Tensor):
        return torch.empty(output.shape, device="meta")
    if isinstance(output, dict):
        return {key: _outline(item) for key, item in output.items()}
    return [_outline(item) for item in output] if isinstance(output, list | tuple) else output


def _shape_in(outputs: Mapping[nn.Module, Any], module: nn.Module, missing: str = "not called") -> str:
    return _shape(outputs[module]) if module in outputs else missing


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
