"""Gradient flow: how large each layer's gradient is after a backward pass, and which layers' vanish."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.errors import RunProblem
from labkit.kernel.style import COLOURS, SIZE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import Tensor, nn

VANISHING = 1e-6  # mean absolute gradient of a layer
COLUMNS = ["layer", "mean_abs", "max_abs"]


def gradient_flow_data(model: nn.Module) -> pd.DataFrame:
    """Returns how large the gradient of each layer is, in the model's order, from its parameters' `grad`.

    Call it after `loss.backward()` and before the gradients are cleared. A layer is a module that holds trainable
    parameters of its own; weights and biases count together. A parameter that two layers share counts in the first.

    Returns:
        Columns `layer`; `mean_abs`, `max_abs`: mean and greatest absolute value over the layer's parameters, 0 where
        the backward pass did not reach them.

    Raises:
        RunProblem: No parameter has a gradient.
    """
    import pandas as pd

    layers = [(name, [p.grad for p in parameters], _size(parameters)) for name, parameters in _layers(model)]
    if not any(gradient is not None for _, gradients, _ in layers for gradient in gradients):
        raise RunProblem(
            f"{type(model).__name__} has no gradients: call this after loss.backward() and before zero_grad()"
        )
    rows = [(name, *_magnitude([g for g in gradients if g is not None], size)) for name, gradients, size in layers]
    return pd.DataFrame(rows, columns=COLUMNS)


def vanishing_layers(table: pd.DataFrame, threshold: float = VANISHING) -> list[str]:
    """Returns the names of the layers in `gradient_flow_data` whose gradient vanishes.

    Args:
        table: What `gradient_flow_data` returned.
        threshold: A layer's gradient vanishes where its mean absolute value is below this number. It is compared as it
            is, not with other layers, and suits a loss that is a mean over the batch. Measure early in training: near
            a minimum the gradients of all layers become small, which is no fault. Zero always counts; NaN never does.
    """
    mean = table["mean_abs"].to_numpy(dtype=float)
    vanished = (mean < threshold) | (mean == 0)
    return [str(name) for name in table["layer"].to_numpy()[vanished]]


def gradient_flow(data: pd.DataFrame, figure: Figure) -> None:
    """Draws `gradient_flow_data`: a line a layer from its mean to its greatest gradient, on a logarithmic axis.

    Layers whose gradient vanishes stand out; one that is zero or not finite has no place on the axis, and says so.
    """
    names = [str(name) for name in data["layer"]]
    mean, top = (data[column].to_numpy(dtype=float) for column in ("mean_abs", "max_abs"))
    vanished = set(vanishing_layers(data))
    figure.set_size_inches(SIZE[0], min(11.0, max(2.2, 0.24 * len(names) + 1.1)))
    ax = figure.subplots()
    ax.set_xscale("log")
    ax.set_xlim(*_limits(np.concatenate([mean, top])))
    for row, name in enumerate(names):
        colour = COLOURS[1] if name in vanished else COLOURS[0]
        if mean[row] > 0 and np.isfinite(top[row]):
            ax.plot([mean[row], top[row]], [row, row], color=colour, linewidth=1.2, alpha=0.5)
            ax.plot(mean[row], row, "o", color=colour, markersize=5)
            ax.plot(top[row], row, "|", color=colour, markersize=7)
        else:
            text = "zero" if mean[row] == 0 else "not finite"
            ax.annotate(text, (0.01, row), xycoords=("axes fraction", "data"), va="center", color=COLOURS[1])
    if vanished:
        ax.axvline(VANISHING, color=COLOURS[1], linestyle="--", linewidth=0.8)
    every = -(-len(names) // 60)  # more names than this would overlap
    ax.set_yticks(range(0, len(names), every), names[::every])
    for name, label in zip(names[::every], ax.get_yticklabels(), strict=True):
        label.set_color(COLOURS[1] if name in vanished else "black")
    ax.set_ylim(len(names) - 0.5, -0.5)  # the first layer on top
    ax.grid(axis="y", visible=False)
    said = f"{len(vanished)} of {len(names)} layers vanish (dashed: {VANISHING:g})" if vanished else "none vanishes"
    ax.set(xlabel="absolute gradient: mean (dot) to greatest (bar)", title=f"gradient of each layer: {said}")


def _layers(model: nn.Module) -> Iterator[tuple[str, list[Any]]]:
    """Yields each module that has trainable parameters of its own, with those that no earlier one has."""
    counted: set[int] = set()
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.requires_grad and id(p) not in counted]
        counted.update(map(id, own))
        if own:
            yield name or "(model)", own


def _size(parameters: list[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _magnitude(gradients: list[Tensor], size: int) -> tuple[float, float]:
    """Returns mean and greatest absolute value of gradients of `size` parameters; those without one count as 0."""
    total, greatest = 0.0, 0.0
    for gradient in gradients:
        values = (gradient.coalesce().values() if gradient.is_sparse else gradient).detach().abs()
        values = values.float() if values.element_size() < 4 else values  # sums in 16 bits overflow
        if values.numel():
            total += values.sum().item()
            greatest = float(np.maximum(greatest, values.max().item()))  # unlike max(), keeps NaN
    return total / max(size, 1), greatest


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Returns the ends of a logarithmic axis that holds the values, or what there is of them."""
    drawn = values[np.isfinite(values) & (values > 0)]
    if not len(drawn):
        return VANISHING / 10, 1.0
    return float(drawn.min()) / 3, float(drawn.max()) * 3
