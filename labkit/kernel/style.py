"""The one style of labkit's figures, and how a figure becomes a picture."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 144
SIZE = (8.0, 3.6)  # inches: the width of a report's text

# Okabe and Ito's colours, which colour-blind readers tell apart, less the yellow: a white page swallows it.
# Source: https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

STYLE = {
    "figure.dpi": DPI,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same letters everywhere
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "labkit",
}

Draw = Callable[[Any, "Figure"], Any]


def picture(data: Any, draw: Draw, size: tuple[float, float] = SIZE) -> bytes:
    """Returns the picture that `draw(data, figure)` makes, as PNG; the same data give the same bytes.

    The style holds for this figure alone; matplotlib's own settings are neither read nor changed.

    Args:
        data: What `load_data` returned.
        draw: Draws on the empty figure that it is given.
        size: Width and height in inches; `draw` may set another size.
    """
    from cycler import cycler
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style.context({**STYLE, "axes.prop_cycle": cycler(color=COLOURS)}, after_reset=True):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        draw(data, figure)
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    return png.getvalue()


def shown(name: str, png: bytes) -> Any:
    """Returns a picture as a notebook shows it, at its size in inches; None outside of one."""
    if "IPython" not in sys.modules:
        return None
    from IPython.display import Image

    class Picture(Image):
        def __repr__(self) -> str:
            return f"[figure {name}]"  # what a log, a shell and a reader without images see

    return Picture(png, format="png", retina=True, alt=name)
