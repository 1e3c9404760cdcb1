"""What a sweep shows while it goes on: a live table in a terminal, else a line for each result.

What it shows it also writes, each second, for whoever follows it from elsewhere.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from labkit.record import metrics, sweepstate
from labkit.record.files import read_json
from labkit.record.sweepstate import COLUMNS
from labkit.workbench.sweeps import ranking
from labkit.workbench.sweeps.ranking import Goal
from labkit.workbench.terminal import COLOURS, printable
from labkit.workbench.wording import duration, number

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

    from labkit.record.rundir import RunDir
    from labkit.workbench.sweeps.points import Point
    from labkit.workbench.sweeps.sweep import Sweeper

SHOWN = 8  # results that the table shows, the newest
SQUEEZED = 12  # characters that parameters and progress keep before a column is left out
DROPPED_FIRST = ("took", "progress", "parameters")  # where a terminal is narrow
GAP = 2
WRITE_S = 1.0  # between two times that it is written


class Watch:
    """Follows a sweep: counts, the best so far, the time left.

    Args:
        sweeper: The sweep that is worked on.
        metric: What decides, where that was asked for; likewise `lowest`.
        lowest: Whether the lowest is best.
    """

    def __init__(self, sweeper: Sweeper, metric: str | None = None, lowest: bool | None = None) -> None:
        self.sweeper = sweeper
        self.began = time.monotonic()
        self.taken = 0
        self.lasting: list[tuple[Point, Mapping[str, Any]]] = []
        self.aim: Goal | None = sweeper.search.goal if sweeper.search is not None else None
        self.best: tuple[Point, float] | None = None
        self._asked = (metric, lowest)
        self._logged: list[str] = []
        self._counted = 0  # finished runs whose numbers stand for something
        self._has_told = False
        self._written = 0.0
        self._names = ranking.varied(sweeper.points) if sweeper.search is None else sweeper.search.names
        self._failed = self._pruned = 0
        self._by_number = {point.number: point for point in sweeper.points}
        for place, result in sweeper.results.items():
            self._note(self._by_number[place], result)

    def _note(self, point: Point, result: Mapping[str, Any]) -> None:
        self._failed += ranking.is_failed(result)
        self._pruned += ranking.is_pruned(result)
        if not ranking.counts(result):
            return
        self._counted += 1
        if new := [name for name in ranking.values_of(result) if name not in self._logged]:
            self._logged += new
            self._aim_anew()
        self._compare(point, result)

    def _aim_anew(self) -> None:
        """Chooses what decides among all metrics that were logged, as the report does, and compares by it."""
        aim = self.aim if self.sweeper.search is not None else ranking.goal(self._logged, *self._asked)
        if aim != self.aim:
            self.aim, self.best = aim, None
            for place, result in self.sweeper.results.items():
                if place in self._by_number and ranking.counts(result):
                    self._compare(self._by_number[place], result)

    def _compare(self, point: Point, result: Mapping[str, Any]) -> None:
        value = ranking.values_of(result).get(self.aim.metric, math.nan) if self.aim else math.nan
        if self.aim is None or not math.isfinite(value):
            return
        if self.best is None or self.aim.order(value) < self.aim.order(self.best[1]):
            self.best = (point, value)

    def take(self, point: Point, result: Mapping[str, Any]) -> None:
        """Takes note of a result."""
        self.taken += 1
        self.lasting = [*self.lasting, (point, result)][-SHOWN:]
        self._by_number[point.number] = point
        self._note(point, result)

    def said(self, point: Point) -> str:
        """Returns the parameters of a point that others have otherwise."""
        return printable(ranking.told(point.values, self._names) or f"point {point.number}")

    def line(self, point: Point, result: Mapping[str, Any]) -> str:
        """Returns a result as one line."""
        done = f"{len(self.sweeper.results)}/{self.sweeper.total}"
        parts = [done, str(result["status"]), self.said(point), self.value(result), duration(result.get("duration_s"))]
        reason = f": {result.get('reason') or ''}" if ranking.is_failed(result) else ""
        return printable("  ".join(filter(None, parts)) + reason)

    def lines(self, point: Point, result: Mapping[str, Any]) -> list[str]:
        """Returns a result as one line, and once, as soon as a run has finished, that none has logged what decides."""
        missing = "" if self._has_told else self.missing()
        self._has_told = self._has_told or bool(missing)
        return [self.line(point, result), *([f"labkit: {missing}"] if missing else [])]

    def value(self, result: Mapping[str, Any]) -> str:
        """Returns a result's value of what decides."""
        values = ranking.values_of(result)
        return f"{self.aim.metric} {number(values[self.aim.metric])}" if self.aim and self.aim.metric in values else ""

    def head(self) -> str:
        """Returns where the sweep stands."""
        sweeper = self.sweeper
        total, done = sweeper.total, len(sweeper.results)
        parts = [f"{done} of {total} done", f"{len(sweeper.running)} running"]
        parts += [f"{self._pruned} pruned"] if self._pruned else []
        parts += [f"{self._failed} failed"] if self._failed else []
        parts.append(duration(time.monotonic() - self.began))
        if self.taken and done < total:
            left_s = (time.monotonic() - self.began) / self.taken * (total - done)
            parts.append(f"{duration(left_s)} left")
        if sweeper.stopping:
            parts.append("stopping at the next step; Ctrl-C again stops at once")
        return " · ".join(parts)

    def facts(self) -> dict[str, Any]:
        """Returns all that is shown."""
        sweeper = self.sweeper
        rows = [
            self._row(point, str(result["status"]), self.value(result), result.get("duration_s"), result["run"])
            for point, result in self.lasting
        ]
        for one in list(sweeper.running.values()):
            took_s = time.monotonic() - one.began
            rows.append(self._row(one.point, "running", self._progress(one.run), took_s, one.run.name))
        counts = {"points": sweeper.total, "done": len(sweeper.results), "failed": self._failed}
        return {**counts, "head": self.head(), "best": self.best_line(), "rows": rows}

    def _progress(self, run: RunDir) -> str:
        """Returns where a run stands: its loop, and two of its newest values, what decides first."""
        bar = read_json(run.progress) or {}
        parts = [f"{bar.get('description') or 'step'} {bar.get('done', 0)}/{bar['total']}"] if bar.get("total") else []
        newest = metrics.last(run.metrics)
        decides = [self.aim.metric] if self.aim else []
        names = dict.fromkeys(name for name in [*decides, *metrics.main(newest), *newest] if name in newest)
        parts += [f"{name} {number(newest[name])}" for name in names if name not in (*ranking.COUNTS, "t")][:2]
        return " · ".join(parts)

    def _row(self, point: Point, state: str, progress: str, took_s: Any, run: str) -> dict[str, Any]:
        said = {"parameters": self.said(point), "progress": progress, "took": duration(took_s)}
        return {"point": point.number, "status": state, **said, "run": run}

    def write(self, is_last: bool = False) -> None:
        """Writes what is shown, at most each second; a disk that refuses it changes nothing about the sweep."""
        if is_last or time.monotonic() - self._written > WRITE_S:
            self._written = time.monotonic()
            sweepstate.write(self.sweeper.sweep, self.facts())

    def best_line(self) -> str:
        """Returns the best single run so far; which parameters are best over seeds, the report says in the end."""
        if self.best is None or self.aim is None:
            return self.missing()
        point, value = self.best
        return f"{self.aim} of a single run so far: {number(value)} with {self.said(point)}"

    def missing(self) -> str:
        """Returns what to tell who asked for a metric that no finished run has logged; empty where one has."""
        return printable(ranking.unknown(self._asked[0], self._logged)) if self._counted else ""


@contextmanager
def shown(watch: Watch, *, quiet: bool) -> Iterator[None]:
    """Shows a sweep while the block runs: live in a terminal, else a line for each result on standard error."""
    watch.sweeper.tick = watch.write
    watch.write()  # what is there is of an earlier session
    try:
        with _on_terminal(watch, quiet=quiet):
            yield
    finally:
        watch.write(is_last=True)


@contextmanager
def _on_terminal(watch: Watch, *, quiet: bool) -> Iterator[None]:
    from rich.console import Console

    console = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
    if quiet or not console.is_terminal:

        def say(point: Point, result: Mapping[str, Any]) -> None:
            watch.take(point, result)
            for line in [] if quiet else watch.lines(point, result):
                console.print(line, markup=False)

        watch.sweeper.say = say
        yield
        return
    watch.sweeper.say = watch.take
    with live(watch.facts):
        yield


def live(facts: Callable[[], dict[str, Any]]) -> Live:
    """Returns the table of a sweep, which is on the terminal while its block runs."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    return Live(
        get_renderable=lambda: _table(facts(), console.width), console=console, refresh_per_second=4, transient=True
    )


def _table(facts: dict[str, Any], room: int) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    rows = [{name: printable(str(row[name])) for name in COLUMNS} for row in facts["rows"]]
    widths = _widths(rows, room)
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for title, width in widths.items():
        table.add_column(title, no_wrap=True, overflow="ellipsis", width=width)
    for row in rows:
        colour = COLOURS.get(row["status"], "")
        table.add_row(*(Text(row[name], style=colour if name == "status" else "") for name in widths))
    head, best = Text(printable(facts["head"]), style="bold"), printable(facts["best"])
    return Group(head, *([Text(best)] if best else []), table)


def _widths(rows: Sequence[Mapping[str, str]], room: int) -> dict[str, int]:
    """Returns the columns that a terminal has room for, with their widths; long ones are squeezed before any goes."""
    from rich.cells import cell_len

    widths = {name: max(map(cell_len, [name, *(row[name] for row in rows)])) for name in COLUMNS}
    least = {name: min(width, SQUEEZED) if name in DROPPED_FIRST[1:] else width for name, width in widths.items()}
    for name in DROPPED_FIRST:
        if sum(least.values()) + GAP * (len(least) - 1) > room:
            del least[name]
    spare = room - sum(least.values()) - GAP * (len(least) - 1)
    for name in reversed(DROPPED_FIRST[1:]):
        if name in least:
            more = max(0, min(spare, widths[name] - least[name]))
            least[name] += more
            spare -= more
    return least
