"""A progress bar that costs a step next to nothing: live where somebody looks, one line where it is kept."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

EVERY_S = 0.5  # between two states of a bar
TELL_S = 1.0  # between two calls of `on_update`, which may write a file; shorter loops make none
BAR_COLUMNS = 100


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
        self.total = length(iterable) if total is None else total
        self.done = 0
        self._write_live, self._write_final, self._on_update = write_live, write_final, on_update
        self._values: dict[str, Any] = {}
        self._started = self._due = time.monotonic()
        self._told: float | None = None
        self._shown = 0  # characters of the state on the screen
        self._closed = False

    @property
    def position(self) -> Any:
        """Where the walk under the bar stands, where it knows."""
        return getattr(self._iterable, "position", None)

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


def length(iterable: Iterable[Any]) -> int | None:
    """Returns how many items there are; None where that is not known."""
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
