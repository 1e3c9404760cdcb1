"""What was executed by hand, cell by cell."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from labkit.kernel import cells
from labkit.kernel.saved import differ, normal
from labkit.record.files import dumps


@dataclass(frozen=True)
class Entry:
    """One execution of a cell.

    Attributes:
        cell: The cell's id; empty where the front end does not say it.
        source: What was executed.
        ended_s: When it ended, in seconds since the epoch.
        ok: It raised nothing.
        changed: The parameters that were then no longer what they had been at the start.
    """

    cell: str
    source: str
    ended_s: float
    ok: bool = True
    changed: tuple[str, ...] = ()


class Journal:
    """Notes each cell that a notebook's kernel executes, in memory and as a line of a file.

    Attributes:
        entries: The run's cells, beginning with the one that started it.
        before: What the kernel had executed before that one. Front ends keep what they run themselves out of the
            history, and so out of this.
    """

    _ended_s: ClassVar[dict[str, float]] = {}  # when a source ran last, in whatever run of this kernel

    def __init__(self, path: Path, parameters: dict[str, Any]) -> None:
        began_s = time.time()
        past = [(source, self._ended_s.get(normal(source), began_s)) for source in cells.history()[:-1]]
        self.before = tuple(Entry("", source, ended_s) for source, ended_s in past)
        self.entries: list[Entry] = []
        self._running: tuple[str, str] | None = None
        self._path = path
        self._parameters = parameters
        self._shell = cells.shell()
        if self._shell is not None:
            self._shell.events.register("pre_run_cell", self._begin)
            self._shell.events.register("post_run_cell", self._note)

    def close(self) -> None:
        """Ends the journal; cells that run from now on are another run's."""
        if self._shell is not None:
            self._shell.events.unregister("pre_run_cell", self._begin)
            self._shell.events.unregister("post_run_cell", self._note)
            self._shell = None

    def running(self) -> Entry | None:
        """Returns the cell that is executed now, where one is; None for the one that starts the run."""
        return Entry(*self._running, time.time(), changed=self.changed()) if self._running is not None else None

    def changed(self) -> tuple[str, ...]:
        """Returns the parameters that are not what they were at the start."""
        now = cells.values()
        return tuple(name for name, value in self._parameters.items() if name in now and differ(now[name], value))

    def _begin(self, info: Any) -> None:
        if info.store_history and not info.silent:
            self._running = (cells.current_cell(), info.raw_cell)

    def _note(self, result: Any) -> None:
        info = result.info
        if not info.store_history or info.silent or not info.raw_cell.strip():
            return  # a front end's own question, such as for its list of variables
        self._running = None
        entry = Entry(cells.current_cell(), info.raw_cell, time.time(), bool(result.success), self.changed())
        self._ended_s[normal(entry.source)] = entry.ended_s
        self.entries.append(entry)
        order = len(self.entries)
        line = {"order": order, "cell": entry.cell, "source": entry.source, "ok": entry.ok, "t": entry.ended_s}
        try:
            with self._path.open("ab") as file:
                file.write(dumps(line) + b"\n")
        except OSError:
            pass  # the entry in memory is what decides
