"""Log lines that say where they come from, and a progress bar that costs a step next to nothing."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

EVERY_S = 0.5  # between two states of a bar
TELL_S = 1.0  # between two calls of `on_update`, which may write a file; shorter loops make none
BAR_COLUMNS = 100


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
        self._cells: dict[str, str] = {}

    def enter(self, source: str) -> None:
        """Notes that the cell running now has this source; to be called before each cell."""
        shell = _shell()
        if shell is not None and (cell := self._current_cell()):
            self._cells[shell.compile.get_code_name(source, source, shell.execution_count)] = cell

    def __call__(self, filename: str) -> str:
        """Returns the id of the cell compiled under this name, at worst that of the cell running now."""
        return self._cells.get(filename) or self._current_cell()


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
    shell = _shell()
    if shell is None:
        return
    for hook in shell.events.callbacks["pre_run_cell"][:]:
        if getattr(hook, "labkit_cell_names", False):
            shell.events.unregister("pre_run_cell", hook)

    def before(info: Any) -> None:
        names.enter(info.raw_cell)

    before.labkit_cell_names = True  # type: ignore[attr-defined]
    shell.events.register("pre_run_cell", before)


class Progress(Generic[Item]):
    """Goes through an iterable with a bar that is drawn at most twice a second.

    A bar that was left early says so in its final line. What `set` is given is looked at when the next state
    is drawn, not before: a tensor there costs no synchronisation per step.
    """

    def __init__(
        self,
        iterable: Iterable[Item],
        description: str = "",
        *,
        total: int | None = None,
        write_live: Callable[[str], object],
        write_final: Callable[[str], object],
        on_update: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        self._iterable, self.description = iterable, description
        self.total = _length(iterable) if total is None else total
        self.done = 0
        self._write_live, self._write_final, self._on_update = write_live, write_final, on_update
        self._values: dict[str, Any] = {}
        self._started = self._due = time.monotonic()
        self._told: float | None = None
        self._shown = 0  # characters of the state on the screen
        self._closed = False

    def __len__(self) -> int:
        if self.total is None:
            raise TypeError("the length of this progress is not known")
        return self.total

    def __iter__(self) -> Iterator[Item]:
        self._started = time.monotonic()
        self._due = self._started  # the first state comes with the first item
        clock = time.monotonic
        try:
            for item in self._iterable:
                if clock() >= self._due:
                    self._show()
                yield item
                self.done += 1
        finally:
            self.close()

    def set(self, **values: Any) -> None:
        """Shows these values behind the bar, in place of earlier ones of the same name."""
        self._values.update(values)

    def close(self) -> None:
        """Draws the last state and writes the final line, once; called by itself when the loop ends."""
        if self._closed:
            return
        self._closed = True
        state = self._state()
        self._draw(state, end="\n")
        self._write_final(final_line(state) + "\n")
        if self._told is not None:
            self._tell(state)

    def _show(self) -> None:
        state = self._state()
        self._draw(state)
        now = time.monotonic()
        self._due = now + EVERY_S
        if now - (self._started if self._told is None else self._told) >= TELL_S:
            self._told = now
            self._tell(state)

    def _state(self) -> State:
        values = {name: _number(value) for name, value in self._values.items()}
        return State(self.description, self.done, self.total, time.monotonic() - self._started, values)

    def _draw(self, state: State, end: str = "") -> None:
        text = bar(state)
        self._write_live(f"\r{text.ljust(self._shown)}{end}")  # over all of the state before
        self._shown = len(text)

    def _tell(self, state: State) -> None:
        if self._on_update is not None:
            self._on_update(state.facts())


@dataclass(frozen=True)
class State:
    """Where a loop is. `total` is None where it is not known."""

    description: str
    done: int
    total: int | None
    elapsed_s: float
    values: dict[str, Any]

    def facts(self) -> dict[str, Any]:
        """Returns the state for a file: how far it is, for how long, and for how long still."""
        left_s = None
        if self.total is not None and self.done:
            left_s = round(max(self.total - self.done, 0) * self.elapsed_s / self.done, 3)
        return {
            "description": self.description,
            "done": self.done,
            "total": self.total,
            "elapsed_s": round(self.elapsed_s, 3),
            "left_s": left_s,
            "values": self.values,
        }


def bar(state: State) -> str:
    """Returns a state as tqdm draws it."""
    from tqdm import tqdm

    return tqdm.format_meter(
        state.done,
        state.total,
        state.elapsed_s,
        ncols=BAR_COLUMNS,
        prefix=state.description,
        postfix=_listed(state.values),
    )


def final_line(state: State) -> str:
    """Returns what the log keeps of a bar: `epoch: 20 of 20 in 4.2 s, loss=0.013`."""
    of = "" if state.total is None else f" of {state.total:,}"
    stopped = ", stopped" if state.total is not None and state.done < state.total else ""
    line = f"{state.description or 'progress'}: {state.done:,}{of}{stopped} in {state.elapsed_s:.1f} s"
    return f"{line}, {_listed(state.values)}" if state.values else line


def progress(
    iterable: Iterable[Item],
    description: str = "",
    *,
    total: int | None = None,
    write_live: Callable[[str], object] | None = None,
    write_final: Callable[[str], object] | None = None,
    on_update: Callable[[dict[str, Any]], object] | None = None,
) -> Progress[Item]:
    """Returns an iterable that shows how far the loop over it is.

    Args:
        iterable: What to go through.
        description: What an item is, such as "epoch".
        total: The number of items, where `iterable` has no length.
        write_live: Takes each state: text that begins with a carriage return, the last one with a line's end.
            By default standard error, where that is a terminal.
        write_final: Takes the one line that stays; by default standard output, where no bar was drawn.
        on_update: Takes the state as facts, at most once a second: description, done, total, elapsed_s, left_s, values.
    """
    terminal = sys.stderr is not None and sys.stderr.isatty()
    return Progress(
        iterable,
        description,
        total=total,
        write_live=write_live or (_to_terminal if terminal else _nowhere),
        write_final=write_final or (_nowhere if terminal and write_live is None else _to_output),
        on_update=on_update,
    )


def _to_terminal(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _to_output(text: str) -> None:
    sys.stdout.write(text)


def _nowhere(text: str) -> None:
    pass


def _length(iterable: Iterable[Any]) -> int | None:
    try:
        return len(iterable)  # type: ignore[arg-type]
    except TypeError:
        return None


def _number(value: Any) -> Any:
    """Returns a tensor's or array's number, and anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()
    )


def _bars_cleared() -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which tqdm's bars are off the screen; where none was drawn, tqdm is not loaded."""
    tqdm = sys.modules.get("tqdm")
    return tqdm.tqdm.external_write_mode(file=sys.stdout) if tqdm is not None else contextlib.nullcontext()


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None
