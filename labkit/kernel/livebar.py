"""Where the states of a progress bar are shown while it goes on: never in the log, which keeps its last one only."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from labkit.kernel import cells
from labkit.launch import capture


def writer() -> Callable[[str], object]:
    """Returns what shows the states of one bar."""
    if capture.current is None and hasattr(cells.shell(), "kernel"):
        return _Display()
    return _to_stream


class _Display:
    """A display of a notebook's own, changed in place: whatever is printed meanwhile, the bar stands once."""

    def __init__(self) -> None:
        self._handle: Any = None

    def __call__(self, text: str) -> None:
        from IPython.display import DisplayHandle

        data = {"text/plain": text.strip("\r\n").rstrip()}
        if self._handle is None:
            self._handle = DisplayHandle()
            self._handle.display(data, raw=True)
        else:
            self._handle.update(data, raw=True)


def _to_stream(text: str) -> None:
    stream = sys.stderr
    show = getattr(stream, "show", None)
    if capture.current is not None and show is not None:
        show(text)  # of the notebook's view
    elif cells.shell() is not None or stream.isatty():
        stream.write(text)
        stream.flush()
