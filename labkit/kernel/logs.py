"""Log lines that say where they come from."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.kernel import cells


class PlaceFormatter(logging.Formatter):
    """`2026-11-21 10:15:00.123 INFO [digits-cnn.ipynb training: train: 12] message`, in local time.

    The place is the notebook and the cell, or the file, then function and line.

    Args:
        notebook: The notebook's file name.
        cell_of: Takes the file name of a cell's compiled code; returns the cell's id, empty where not known.
    """

    def __init__(self, notebook: str, cell_of: Callable[[str], str]) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(levelname)s [%(place)s] %(message)s", "%Y-%m-%d %H:%M:%S")
        self._notebook, self._cell_of = notebook, cell_of

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record as one line, with the traceback's lines after it where there is one."""
        if is_cell(record.pathname):
            parts = [f"{self._notebook} {self._cell_of(record.pathname)}".strip()]
        else:
            parts = [Path(record.pathname).name]
        if record.funcName and not record.funcName.startswith("<"):  # "<module>" says nothing
            parts.append(record.funcName)
        record.place = ": ".join([*parts, str(record.lineno)])
        return super().format(record)


def is_cell(filename: str) -> bool:
    """Says whether a code's file name is one that IPython or ipykernel gives to a cell."""
    return filename.startswith("<ipython-input-") or Path(filename).parent.name.startswith("ipykernel_")


class CellNames:
    """Knows which cell a function was defined in, which need not be the one that runs."""

    def __init__(self, current_cell: Callable[[], str]) -> None:
        self._current_cell = current_cell
        self._ids: dict[str, str] = {}

    def enter(self, source: str) -> None:
        """Notes that the cell running now has this source; to be called before each cell."""
        shell = cells.shell()
        if shell is not None and (cell := self._current_cell()):
            self._ids[shell.compile.get_code_name(source, source, shell.execution_count)] = cell

    def __call__(self, filename: str) -> str:
        """Returns the id of the cell compiled under this name, at worst that of the cell running now."""
        return self._ids.get(filename) or self._current_cell()


class StreamHandler(logging.Handler):
    """Writes each record to standard output as it is now, above any tqdm bar on the screen."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record by one call, so that lines of several threads stay whole."""
        try:
            line = self.format(record) + "\n"
            with _bars_cleared():
                sys.stdout.write(line)
                sys.stdout.flush()
        except Exception:
            self.handleError(record)


class SinkHandler(logging.Handler):
    """Gives each record, as a line with its end, to a function."""

    def __init__(self, write: Callable[[str], object]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        """Gives one line to the function."""
        try:
            self._write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


def run_logger(
    notebook: str,
    current_cell: Callable[[], str],
    *,
    write_log: Callable[[str], object] | None = None,
    log_level: int = logging.DEBUG,
    level: int = logging.INFO,
) -> logging.Logger:
    """Returns the logger of a run, named `labkit.run`, with fresh handlers.

    Args:
        notebook: The notebook's file name.
        current_cell: Returns the id of the cell that runs, empty where it is not known.
        write_log: Takes lines for the log alone; by default the log is what captures standard output.
        log_level: The least level of these lines.
        level: The least level of what goes to standard output.
    """
    logger = logging.getLogger("labkit.run")
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
    names = CellNames(current_cell)
    handlers: list[tuple[logging.Handler, int]] = [(StreamHandler(), level)]
    if write_log is not None:
        handlers.append((SinkHandler(write_log), log_level))
    for handler, least in handlers:
        handler.setLevel(least)
        handler.setFormatter(PlaceFormatter(notebook, names))
        logger.addHandler(handler)
    logger.setLevel(min(least for _, least in handlers))
    logger.propagate = False  # the root logger of a notebook would print the line again
    _note_cells(names)
    return logger


def _note_cells(names: CellNames) -> None:
    """Lets IPython tell `names` of each cell before it runs, the one that runs now included."""
    shell = cells.shell()
    if shell is None:
        return
    for hook in shell.events.callbacks["pre_run_cell"][:]:
        if getattr(hook, "labkit_cell_names", False):
            shell.events.unregister("pre_run_cell", hook)

    def before(info: Any) -> None:
        names.enter(info.raw_cell)

    before.labkit_cell_names = True  # type: ignore[attr-defined]
    shell.events.register("pre_run_cell", before)


def _bars_cleared() -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which tqdm's bars are off the screen; where none was drawn, tqdm is not loaded."""
    tqdm = sys.modules.get("tqdm")
    return tqdm.tqdm.external_write_mode(file=sys.stdout) if tqdm is not None else contextlib.nullcontext()
