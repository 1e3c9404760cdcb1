"""The one style of labkit's figures, and how a figure becomes a picture."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 192  # shown at half of that: an inch is 96 pixels of a page, as in CSS
SIZE = (8.0, 3.6)  # inches: the width of a report's text
LINE, LETTER = 0.17, 0.085  # inches, of the band's text; the letter is a wide one
BAND_INK, BAND_PAPER = "#6b4a00", "#fdf3d9"

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


def picture(data: Any, draw: Draw, size: tuple[float, float] = SIZE, mark: str = "") -> bytes:
    """Returns the picture that `draw(data, figure)` makes, as PNG; the same data give the same bytes.

    The style holds for this figure alone; matplotlib's own settings are neither read nor changed.

    Args:
        data: What `load_data` returned.
        draw: Draws on the empty figure that it is given.
        size: Width and height in inches; `draw` may set another size.
        mark: What a band above the figure says, in short parts with " · " between; by default there is none.
    """
    from cycler import cycler
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context({**STYLE, "axes.prop_cycle": cycler(color=COLOURS)}, after_reset=True):
        figure = Figure(figsize=size, layout="constrained")
        draw(data, figure)
        pixels = _pixels(figure)
        if mark:
            pixels = np.concatenate([_band(mark, pixels.shape[1]), pixels])
    return _png(pixels)


def _pixels(figure: Figure) -> np.ndarray:
    """Returns a figure's picture, (height, width, 4) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def _band(mark: str, width: int) -> np.ndarray:
    """Returns a band of `width` pixels with a text, on several lines where it is too long for one."""
    from matplotlib.figure import Figure

    parts = mark.split(" · ")
    lines = [mark] if len(mark) * LETTER < width / DPI else parts
    size = ((width + 0.5) / DPI, LINE * len(lines) + 0.07)  # half a pixel, or rounding could lose one
    figure = Figure(figsize=size, facecolor=BAND_PAPER)
    figure.text(0.5, 0.47, "\n".join(lines), color=BAND_INK, fontsize=9, ha="center", va="center", linespacing=1.25)
    return _pixels(figure)


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    png = io.BytesIO()
    Image.fromarray(pixels).save(png, format="png", dpi=(DPI, DPI))
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
