"""Figures and tables in a run's folder: raw data first, then the picture drawn from what was saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.errors import RunProblem
from labkit.record.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKS = {"debug": "debug run", "stand-in": "stand-in data"}  # by the run's label


def check_name(name: str) -> None:
    """Raises a RunProblem where a figure's name is no file name."""
    if not name or name != Path(name).name or name.startswith(".") or len(name.encode()) > 200:
        raise RunProblem(f"a figure cannot be called {name!r:.80}: use some letters, digits and hyphens")


def keep_table(folder: Path | None, name: str, data: Any) -> Any:
    """Saves data, and returns it as read back; without a folder it is as if it had been."""
    from labkit.kernel.rawdata import as_read_back, load_data, save_data

    if folder is None:
        return as_read_back(data)
    folder.mkdir(exist_ok=True)
    return load_data(save_data(folder / name, data))


def keep_figure(
    folder: Path | None,
    name: str,
    data: Any,
    draw: Callable[[Any, Figure], object],
    size: tuple[float, float] | None,
    mark: str,
) -> bytes:
    """Saves data and the picture drawn from it, where there is a folder, and returns the picture."""
    from labkit.kernel.style import SIZE, picture

    png = picture(keep_table(folder, name, data), draw, size or SIZE, mark)
    if folder is not None:
        write_atomic(folder / f"{name}.png", png)
    return png


def mark(labels: list[str]) -> str:
    """Returns what the figures of a run with these labels say of it; empty for an ordinary run."""
    return " · ".join(text for label, text in MARKS.items() if label in labels)
