"""Figures as pure functions of raw data: `draw(data, figure)` draws, `picture` makes the PNG.

The data of a figure is saved beside its picture (`save_data`) and read back (`load_data`) before it is drawn,
so that the picture can be drawn again, by anyone, from the file alone. The functions named `…_data` make that
raw data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.errors import RunProblem
from labkit.kernel.gradients import gradient_flow, gradient_flow_data
from labkit.kernel.rawdata import load_data, save_data
from labkit.kernel.style import COLOURS, SIZE, picture, shown

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "class_distribution",
    "class_distribution_data",
    "confusion_data",
    "confusion_matrix",
    "gradient_flow",
    "gradient_flow_data",
    "image_grid",
    "learning_curves",
    "learning_data",
    "load_data",
    "picture",
    "roc",
    "roc_data",
    "save_data",
    "shown",
]


def learning_data(metrics: Path | str) -> pd.DataFrame:
    """Returns a run's metrics file as a table: `step`, and a column a metric, NaN where there is none."""
    import pandas as pd

    from labkit.record.metrics import read

    columns = read(Path(metrics)).columns
    series = {name: dict(zip(column.steps, column.values, strict=True)) for name, column in columns.items()}
    return pd.DataFrame(series, dtype=float).sort_index().rename_axis("step").reset_index()


def learning_curves(data: pd.DataFrame, figure: Figure) -> None:
    """Draws what was measured over the steps: losses on the left, all else (accuracies) on the right.

    The epoch, which is logged beside the metrics to say where they belong, is none of them.

    Args:
        data: Columns `step` and one a metric, NaN where it was not measured. A metric with a value for most
            steps is drawn pale, with its running mean over a fiftieth of them.
        figure: To draw on.
    """
    measured = [name for name in data.columns if name not in ("step", "epoch")]
    metrics = [name for name in measured if np.isfinite(data[name].astype(float)).any()]
    losses = [name for name in metrics if "loss" in name]
    panels = {"loss": losses, "share": [name for name in metrics if name not in losses]}
    drawn = {label: names for label, names in panels.items() if names}
    if not drawn:
        raise RunProblem("no learning curve: nothing finite was logged")
    axes = figure.subplots(1, len(drawn), squeeze=False)[0]
    for ax, (label, names) in zip(axes, drawn.items(), strict=True):
        for colour, name in zip(_colours(len(names)), names, strict=True):
            _curve(ax, data["step"].to_numpy(), data[name].to_numpy(dtype=float), name, colour)
        values = data[names].to_numpy(dtype=float)
        values = values[np.isfinite(values)]
        if label == "loss" and values.min() > 0 and values.max() > 30 * values.min():
            ax.set_yscale("log")
        ax.locator_params(axis="x", integer=True)
        ax.set(xlabel="step", title=" and ".join(names) if len(names) < 3 else label)
        ax.legend()


def _curve(ax: Axes, steps: np.ndarray, values: np.ndarray, name: str, colour: str) -> None:
    measured = np.isfinite(values)
    steps, values = steps[measured], values[measured]
    if len(values) < 100:
        ax.plot(steps, values, color=colour, label=name, marker="o", markersize=3)
        return
    window = max(5, len(values) // 50)
    ax.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    mean = np.convolve(values, np.full(window, 1 / window), mode="valid")
    ax.plot(steps[window - 1 :], mean, color=colour, label=f"{name}, mean of {window} steps")


def confusion_data(targets: Any, predictions: Any, labels: Sequence[Any]) -> pd.DataFrame:
    """Returns how often each class was taken for each: a row a pair with `target`, `predicted`, `count`.

    Args:
        targets: True classes, (samples,), as numbers from 0.
        predictions: Predicted classes, (samples,).
        labels: The name of each class.

    Raises:
        RunProblem: The lengths differ, or a class has no name.
    """
    import pandas as pd

    targets, predictions = _classes(targets, labels, "targets"), _classes(predictions, labels, "predictions")
    if len(targets) != len(predictions):
        raise RunProblem(f"{len(targets)} targets but {len(predictions)} predictions")
    size = len(labels)
    counts = np.bincount(targets * size + predictions, minlength=size * size)  # (classes · classes,)
    names = [str(label) for label in labels]
    return pd.DataFrame({"target": np.repeat(names, size), "predicted": names * size, "count": counts})


def confusion_matrix(data: pd.DataFrame, figure: Figure) -> None:
    """Draws `confusion_data`: a row a true class, shaded by its share of that class, with the counts."""
    names = list(dict.fromkeys(data["target"]))
    counts = data["count"].to_numpy().reshape(len(names), len(names))  # (target, predicted)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(9.0, max(4.2, 0.42 * len(names) + 1.6))
    figure.set_size_inches(side, side)
    ax = figure.subplots()
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(names) <= 20:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.5 else "#333333" if count else "#bbbbbb"
            ax.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=8)
    right, total = int(np.trace(counts)), int(counts.sum())
    ax.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 3 else 0)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="predicted", ylabel="true", title=f"{right} of {total} right ({right / max(total, 1):.2%})")
    ax.grid(False)


def roc_data(targets: Any, scores: Any, labels: Sequence[Any] | None = None) -> pd.DataFrame:
    """Returns the ROC curve of each class against the rest.

    Columns: `label`, `false_positive_rate`, `true_positive_rate`, `threshold` (infinite at the origin). A
        class that
    is missing from the targets, or alone in them, has no curve. Two classes have one curve, that of the
    second.

    Args:
        targets: True classes, (samples,), as numbers from 0.
        scores: A score for each class, (samples, classes): logits or probabilities, higher for likelier.
        labels: The name of each class; by default its number.

    Raises:
        RunProblem: Shapes do not fit, a score is NaN, or no class has a curve.
    """
    import pandas as pd
    from sklearn.metrics import roc_curve

    scores = _numpy(scores).astype(np.float64)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise RunProblem(f"scores have the shape {scores.shape}, expected (samples, classes)")
    labels = range(scores.shape[1]) if labels is None else labels
    targets = _classes(targets, labels, "targets")
    if scores.shape != (len(targets), len(labels)):
        raise RunProblem(f"scores {scores.shape} do not fit {len(targets)} targets of {len(labels)} classes")
    if np.isnan(scores).any():
        raise RunProblem("no ROC curve: some scores are NaN")
    curves = []
    for number, label in enumerate(labels):
        positive = targets == number
        if (len(labels) == 2 and number == 0) or positive.all() or not positive.any():
            continue
        false, true, threshold = roc_curve(positive, scores[:, number])
        columns = {"false_positive_rate": false, "true_positive_rate": true, "threshold": threshold}
        curves.append(pd.DataFrame({"label": str(label), **columns}))
    if not curves:
        raise RunProblem("no ROC curve: it needs samples of at least two classes")
    return pd.concat(curves, ignore_index=True)


def roc(data: pd.DataFrame, figure: Figure) -> None:
    """Draws `roc_data`, with the area under each curve."""
    figure.set_size_inches(6.4, 4.4)
    ax = figure.subplots()
    corner = ax.inset_axes((0.38, 0.14, 0.56, 0.56))  # where the curves of a good classifier differ
    areas = []
    for number, (label, curve) in enumerate(data.groupby("label", sort=False)):
        false, true = curve["false_positive_rate"].to_numpy(), curve["true_positive_rate"].to_numpy()
        areas.append(float(np.trapezoid(true, false)))
        colour, line = COLOURS[number % len(COLOURS)], ("-", "--", ":")[number // len(COLOURS) % 3]
        text = f"{label}  {_area(areas[-1])}" if number < 20 else None
        ax.plot(false, true, line, color=colour, label=text)
        corner.plot(false, true, line, color=colour)
    ax.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    ax.set(xlabel="false positive rate", ylabel="true positive rate")
    corner.set(xlim=(-0.002, 0.1), ylim=(0.9, 1.002), xticks=(0, 0.05, 0.1), yticks=(0.9, 0.95, 1))
    ax.set_title(f"each class against the rest, mean area {_area(float(np.mean(areas)))}")
    ax.legend(title="area", loc="center left", bbox_to_anchor=(1.02, 0.5))


def _area(area: float) -> str:
    return ">0.9999" if 0.99995 <= area < 1 else f"{area:.4f}"


def image_grid(data: Mapping[str, np.ndarray], figure: Figure) -> None:
    """Draws a grid of pictures.

    Args:
        data: `images`, (samples, height, width) or (samples, channels, height, width) with 1 or 3 channels,
            shown from their least to their greatest value; and `titles`, (samples,), where there are some.
        figure: To draw on.
    """
    images = np.asarray(data["images"])
    images = images[:, None] if images.ndim == 3 else images  # (samples, channels, height, width)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise RunProblem(f"images have the shape {images.shape}, expected (samples, 1 or 3, height, width)")
    titles = [str(title) for title in data["titles"]] if "titles" in data else [""] * len(images)
    columns = min(10, len(images))
    rows = -(-len(images) // columns)
    side = SIZE[0] / 10  # inches
    figure.set_size_inches(columns * side, rows * (side + 0.2) + 0.1)
    low, high = float(images.min()), float(images.max())
    for index, ax in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        ax.axis("off")
        if index < len(images):
            picture = (np.moveaxis(images[index], 0, -1) - low) / ((high - low) or 1)
            ax.imshow(picture[:, :, 0] if picture.shape[2] == 1 else picture, cmap="gray", vmin=0, vmax=1)
            ax.set_title(titles[index], fontsize=8, loc="center", pad=2)


def class_distribution_data(labels: Sequence[Any], **parts: Any) -> pd.DataFrame:
    """Returns how many samples each part has of each class: columns `part`, `label`, `count`.

    Args:
        labels: The name of each class.
        **parts: Classes (samples,) as numbers from 0, by the part's name: `train=…, test=…`.
    """
    import pandas as pd

    names = [str(label) for label in labels]
    tables = []
    for part, targets in parts.items():
        counts = np.bincount(_classes(targets, names, part), minlength=len(names))
        tables.append(pd.DataFrame({"part": part, "label": names, "count": counts}))
    return pd.concat(tables, ignore_index=True)


def class_distribution(data: pd.DataFrame, figure: Figure) -> None:
    """Draws `class_distribution_data`: a bar a class, in each part."""
    figure.set_size_inches(SIZE[0], 2.8)
    ax = figure.subplots()
    parts, names = list(dict.fromkeys(data["part"])), list(dict.fromkeys(data["label"]))
    width = 0.8 / len(parts)
    for number, (part, colour) in enumerate(zip(parts, _colours(len(parts)), strict=True)):
        counts = data[data["part"] == part]["count"].to_numpy()
        places = np.arange(len(names)) + (number - (len(parts) - 1) / 2) * width
        ax.bar(places, counts, width * 0.92, color=colour, label=f"{part} ({counts.sum():,})")
    is_long = len(names) * max(map(len, names)) > 100  # letters that fit side by side
    ax.set_xticks(range(len(names)), names, rotation=90 if is_long else 0, fontsize=8)
    ax.set(xlabel="class", ylabel="samples")
    ax.grid(axis="x", visible=False)
    ax.legend(ncols=len(parts), loc="lower left", bbox_to_anchor=(0, 1))


def _colours(number: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(number)]


def _numpy(values: Any) -> np.ndarray:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _classes(values: Any, labels: Sequence[Any], what: str) -> np.ndarray:
    classes = _numpy(values)
    if classes.ndim != 1 or classes.dtype.kind not in "iu":
        raise RunProblem(f"{what} are {classes.dtype} of shape {classes.shape}, expected integers (samples,)")
    if len(classes) and not (classes.min() >= 0 and classes.max() < len(labels)):
        raise RunProblem(f"{what} from {classes.min()} to {classes.max()} do not fit {len(labels)} labels")
    return classes.astype(np.int64)
