"""Runs a notebook with several seeds, and once more with the first: how far do its results spread?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.errors import BadInput, WorkFailed
from labkit.record import metrics, spread
from labkit.record.rundir import RunDir
from labkit.record.spread import SEED, Spread
from labkit.workbench.notebooks import notebook, params
from labkit.workbench.running import job
from labkit.workbench.running.job import Job
from labkit.workbench.wording import mean_and_spread, number


@dataclass(frozen=True)
class Wanted:
    """What to repeat.

    Attributes:
        path: The notebook.
        seeds: How many seeds, from that of the parameters on.
        repeats: How many further runs with the first seed.
        asked: The other parameters.
        runs: The folder of runs; None for the lab's.
        command: The command line, for the record.
    """

    path: Path
    seeds: int
    repeats: int = 1
    asked: params.Asked = field(default_factory=dict)
    runs: Path | None = None
    command: list[str] = field(default_factory=list)


def repeat(wanted: Wanted, execute: Callable[[Job], str], say: Callable[[str], object]) -> tuple[Spread, list[RunDir]]:
    """Runs a notebook again and again, and keeps in each of the runs how far they spread.

    Args:
        wanted: What to repeat.
        execute: Executes a prepared run and returns how it ended.
        say: Takes a line about what is being done.

    Raises:
        BadInput: The notebook has no RANDOM_SEED, or cannot be run.
        WorkFailed: A run failed; the others are kept.
    """
    source = notebook.read(wanted.path.absolute())
    declared = source.parameters()
    if not any(one.name == SEED for one in declared):
        raise BadInput(f"{source.path.name} has no parameter {SEED}, so there is nothing to vary")
    given = params.admit(declared, wanted.asked, source.path.name, source.computed())
    first = params.effective(declared, given)[SEED]
    if type(first) is not int:
        raise BadInput(f"{SEED} is {first!r:.40}, which is no number to count from")
    seeds = [*range(first, first + wanted.seeds), *[first] * wanted.repeats]
    by_seed: dict[int, list[dict[str, float]]] = {}
    made: list[RunDir] = []
    for place, seed in enumerate(seeds, 1):
        say(f"{place} of {len(seeds)}: {SEED}={seed}{' again' if seed in by_seed else ''}")
        values = [params.Source("", tuple((given | {SEED: seed}).items()))]
        prepared = job.prepare(source, values, runs=wanted.runs, command=wanted.command)
        state = execute(prepared)
        if state != "finished":
            raise WorkFailed(f"{prepared.directory.name} {state}; see {prepared.directory.path}")
        made.append(prepared.directory)
        by_seed.setdefault(seed, []).append(_last_values(prepared.directory))
    found = spread.measure(by_seed, [run.id for run in made])
    for run in made:
        spread.write(run, found)
    return found, made


def _last_values(run: RunDir) -> dict[str, float]:
    columns = metrics.read(run.metrics).columns
    return {name: columns[name].values[-1] for name in metrics.main(columns)}


def lines(found: Spread) -> list[str]:
    """Returns the spread as lines of a table."""
    rows = [("metric", "mean ± spread", "lowest", "highest", "same seed again")]
    for name, facts in found.metrics.items():
        apart: Any = found.repeated.get(name)
        again = "" if apart is None else "equal" if apart == 0 else f"{number(apart)} apart"
        rows.append(
            (name, mean_and_spread(facts["mean"], facts.get("std")), number(facts["min"]), number(facts["max"]), again)
        )
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
