"""What a sweep came to: `summary.json`, the page `report.html`, and the table that a terminal shows at the end."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from labkit.record import metrics, sweepdir
from labkit.record.files import now, plain_json, write_atomic, write_json
from labkit.record.metrics import Column
from labkit.record.rundir import NO_RESULT, RunDir
from labkit.record.spread import is_seed
from labkit.record.sweepdir import SweepDir
from labkit.record.text import counted
from labkit.workbench.pages.looks import PAGE, breakable, page_parts
from labkit.workbench.sweeps import ranking
from labkit.workbench.sweeps.courses import COLOURS, Courses, courses, progress
from labkit.workbench.sweeps.points import Point
from labkit.workbench.sweeps.ranking import Goal, Group
from labkit.workbench.sweeps.space import Space
from labkit.workbench.wording import date, duration, mean_and_spread, number, short

LISTED = 200  # groups, and failed points, on the page
SHOWN = 10  # groups in the terminal
DRAWN_RUNS = 5  # of each group
COLUMNS = 6  # metrics of the table on the page


@dataclass(frozen=True)
class Summary:
    """A sweep's results, taken together.

    Attributes:
        sweep: Its directory.
        manifest: What was asked.
        points: All of its points.
        results: The accepted results by point.
        aim: What decides which is best; None where that is not known.
        groups: The points taken together over seeds, the best first.
    """

    sweep: SweepDir
    manifest: Mapping[str, Any]
    points: Sequence[Point]
    results: Mapping[int, Mapping[str, Any]]
    aim: Goal | None
    groups: Sequence[Group]

    @cached_property
    def best(self) -> Group | None:
        """The best group; None where nothing decides, or none has a finite mean."""
        first = self.groups[0] if self.groups else None
        return first if self.aim and first and math.isfinite(first.mean(self.aim.metric)) else None

    @cached_property
    def sentence(self) -> str:
        """What is best, in words, or why that is not known; empty where there is nothing to say."""
        if self.best is None or self.aim is None:
            return self.missing
        said = f"{self.aim}: {_value(self.best, self.aim.metric)} with {_said(self, self.best)}{self.shared}"
        return f"{said}; {self.lacking}" if self.lacking else said

    @cached_property
    def tied(self) -> list[Group]:
        """The groups that are exactly as good as the best, with it."""
        best, aim = self.best, self.aim
        if best is None or aim is None:
            return []
        return [group for group in self.groups if group.order(aim) == best.order(aim)]

    @cached_property
    def shared(self) -> str:
        """With how many others the best is best, to be said after it; empty where it is alone."""
        return f", and {counted(len(self.tied) - 1, 'other')}" if len(self.tied) > 1 else ""

    @cached_property
    def lacking(self) -> str:
        """How many results the best group lacks, in words; empty where it has them all, or where there is none."""
        if self.best is None or self.aim is None or self.best.is_complete(self.aim.metric):
            return ""
        count, points = self.best.metrics[self.aim.metric]["count"], len(self.best.points)
        return f"only {count} of its {points} runs finished with a value"

    @cached_property
    def missing(self) -> str:
        """That no finished run has logged what was asked for, in words; empty where one has, or none finished."""
        known = ranking.logged(self.results.values())
        has_any = any(map(ranking.counts, self.results.values()))
        return ranking.unknown(self.aim.metric, known) if self.aim and has_any else ""

    @cached_property
    def left_out(self) -> str:
        """Which finished runs are not ranked, and why; empty where all are."""
        found = [ranking.left_out(one) for one in self.results.values() if ranking.is_finished(one)]
        left = [labels for labels in found if labels]
        names = [label for label in NO_RESULT if any(label in labels for labels in left)]
        return f"{counted(len(left), 'finished run')} not ranked, as labelled {' or '.join(names)}" if left else ""

    @cached_property
    def total(self) -> int:
        """How many points there are in the end."""
        return sweepdir.total(self.manifest) if "search" in self.manifest else len(self.points)

    @cached_property
    def failed(self) -> list[tuple[Point, Mapping[str, Any]]]:
        """The points whose result is a run that came to no end of its own."""
        return self._those(ranking.is_failed)

    @cached_property
    def pruned(self) -> list[tuple[Point, Mapping[str, Any]]]:
        """The points whose runs the search has stopped."""
        return self._those(ranking.is_pruned)

    def _those(self, are: Callable[[Mapping[str, Any] | None], bool]) -> list[tuple[Point, Mapping[str, Any]]]:
        return [(one, self.results[one.number]) for one in self.points if are(self.results.get(one.number))]

    @cached_property
    def ranked(self) -> list[Group]:
        """The groups that are compared: not those of which each run was stopped by the search."""
        away = {point.number for point, _ in self.pruned}
        return [group for group in self.groups if not away.issuperset(group.points)]

    @cached_property
    def tried(self) -> Column:
        """What each point came to by what decides; those without a finite number are left out."""
        found, aim = Column(), self.aim
        if aim is None:
            return found
        for place, result in sorted(self.results.items()):
            value = ranking.values_of(result).get(aim.metric, math.nan) if ranking.counts(result) else math.nan
            if math.isfinite(value):
                found.steps.append(place)
                found.values.append(value)
        return found

    @cached_property
    def improved(self) -> Column:
        """The best so far at each point that was tried, and at the last one of all."""
        found, aim = Column(self.tried.steps[:]), self.aim
        if aim is None:
            return found
        for value in self.tried.values:
            found.values.append(min([*found.values[-1:], value], key=aim.order))
        if found.values and (last := max(self.results)) > found.steps[-1]:
            found.steps.append(last)
            found.values.append(found.values[-1])
        return found

    @cached_property
    def stopped(self) -> Column:
        """Where each run stood that the search has stopped."""
        found = Column()
        for point, result in sorted(self.pruned, key=lambda pair: pair[0].number):
            found.steps.append(point.number)
            found.values.append(float(result["pruned"]["value"]))
        return found

    @cached_property
    def names(self) -> list[str]:
        """The parameters that differ between points, but for the seed."""
        return [name for name in self.varied if not is_seed(name)]

    @cached_property
    def varied(self) -> list[str]:
        """The parameters that differ between points."""
        return ranking.varied(self.points)

    def facts(self) -> dict[str, Any]:
        """Returns what `summary.json` keeps."""
        finished = sum(map(ranking.is_finished, self.results.values()))
        return {
            "format": 1,
            "sweep": self.sweep.id,
            "points": self.total,
            "accepted": len(self.results),
            "finished": finished,
            "metric": self.aim.metric if self.aim else None,
            "best_is": ("lowest" if self.aim.lowest else "highest") if self.aim else None,
            "best": _facts(self.best) if self.best else None,
            "sentence": self.sentence,
            "left_out": self.left_out,
            "groups": [_facts(group) for group in self.groups],
            "failed": [_why(point, one) for point, one in self.failed],
            **({"pruned": [_why(point, one) | one["pruned"] for point, one in self.pruned]} if self.pruned else {}),
            "created": now(),
        }


def _facts(group: Group) -> dict[str, Any]:
    return {
        "values": plain_json(group.values),
        "points": list(group.points),
        "finished": group.finished,
        "metrics": plain_json(group.metrics),
        "runs": list(group.runs),
    }


def _why(point: Point, result: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: result.get(name) for name in ("run", "status", "reason")}
    return {"point": point.number, "values": plain_json(point.values), **kept}


def summarise(
    sweep: SweepDir,
    manifest: Mapping[str, Any],
    points: Sequence[Point],
    results: Mapping[int, Mapping[str, Any]],
    metric: str | None = None,
    lowest: bool | None = None,
) -> Summary:
    """Returns a sweep's results, taken together over seeds.

    Args:
        sweep: Its directory.
        manifest: What was asked.
        points: All of its points.
        results: The accepted results by point.
        metric: What decides; None for a main metric whose name says which way is better.
        lowest: The lowest is best; None for what the name says.
    """
    results = dict(sorted(results.items()))  # not as they came: the order of metrics may decide which of them counts
    aim = ranking.goal(ranking.logged(results.values()), metric, lowest)
    return Summary(sweep, manifest, points, results, aim, ranking.groups(points, results, aim))


def write(summary: Summary) -> None:
    """Writes the page, and where every point has a result `summary.json`, after which the sweep is over.

    Raises:
        OSError: It cannot be written.
    """
    write_atomic(summary.sweep.report, render(summary).encode("utf-8", "replace"), durable=False)
    if len(summary.results) == summary.total:
        write_json(summary.sweep.summary, summary.facts())


def lines(summary: Summary) -> list[str]:
    """Returns what a terminal shows at the end: how many finished, the best, the groups, what failed."""
    finished = sum(map(ranking.is_finished, summary.results.values()))
    pruned = f", {len(summary.pruned)} pruned" if summary.pruned else ""
    found = [f"{finished} of {summary.total} points finished{pruned}"]
    found += filter(None, [summary.left_out, summary.sentence])
    if summary.aim is not None and len(summary.groups) > 1:
        shown = [group for group in summary.groups if group.finished][:SHOWN]
        rows = [(_value(group, summary.aim.metric), _over(group), _said(summary, group)) for group in shown]
        widths = [max((len(row[place]) for row in rows), default=0) for place in range(2)]
        found += [f"  {one.ljust(widths[0])}  {two.ljust(widths[1])}  {said}" for one, two, said in rows]
        more = len(summary.ranked) - len(shown)
        found += [f"  and {more} more"] if more else []
    for point, result in summary.failed[:SHOWN]:
        said = ranking.told(point.values, summary.varied)
        found.append(f"{result['status']}: {said}: {result.get('reason')} ({result['run']})")
    more = len(summary.failed) - SHOWN
    return found + ([f"and {more} more that did not finish"] if more > 0 else [])


def _said(summary: Summary, group: Group) -> str:
    return ranking.told(group.values, summary.names) or "the notebook's defaults"


def _value(group: Group, metric: str) -> str:
    found = group.metrics.get(metric)
    if not found:
        return "–"
    some = f" (n={found['count']})" if found["count"] < group.finished else ""
    return mean_and_spread(found["mean"], found.get("std")) + some


def _over(group: Group) -> str:
    """Returns over how many runs a group's numbers are."""
    return f"{group.finished} of {len(group.points)}" if group.finished < len(group.points) else f"n={group.finished}"


def render(summary: Summary) -> str:
    """Returns the page."""
    manifest, aim = summary.manifest, summary.aim
    shown = _metrics(summary)
    has_seeds = any(len(group.points) > 1 for group in summary.groups)
    tied = {group.points for group in summary.tied}
    rows = [
        {
            "values": [short(group.values.get(name)) for name in summary.names],
            "metrics": [_value(group, name) for name in shown],
            "over": _over(group) if has_seeds else "–" * (not group.runs),
            "runs": [_link(summary.sweep, run) for run in group.runs[:LISTED]],
            "best": group.points in tied,
        }
        for group in summary.ranked[:LISTED]
    ]
    failed = [
        (ranking.told(point.values, summary.varied), result, _link(summary.sweep, str(result["run"])))
        for point, result in summary.failed[:LISTED]
    ]
    parts: dict[str, Any] = {
        "title": short(f"Sweep of {Path(str(manifest.get('notebook'))).stem}"),
        "heading": short(manifest.get("title") or manifest.get("notebook")),
        "best": _best(summary),
        "notes": _notes(summary),
        "figure": _figure(summary),
        "search": _search(summary),
        "names": summary.names,
        "shown": shown,
        "aim": aim,
        "rows": rows,
        "more_rows": len(summary.ranked) - len(rows),
        "has_seeds": has_seeds,
        "failed": failed,
        "more_failed": len(summary.failed) - len(failed),
        "pruned": _pruned(summary),
        "more_pruned": len(summary.pruned[LISTED:]),
        "about": _about(summary),
    }
    return str(_environment().get_template("sweep.html.j2").render(**parts, **page_parts()))


def _metrics(summary: Summary) -> list[str]:
    """Returns the metrics of the page's table: what decides first, then the main ones; none that only counts."""
    names = list(dict.fromkeys(name for group in summary.groups for name in group.metrics))
    names = [name for name in names if name not in ranking.COUNTS] or names
    first = [summary.aim.metric] if summary.aim and summary.aim.metric in names else []
    return list(dict.fromkeys([*first, *metrics.main(names), *names]))[:COLUMNS]


def _best(summary: Summary) -> dict[str, str] | None:
    if summary.best is None or summary.aim is None:
        return None
    aim = summary.aim
    return {
        "name": str(aim),
        "value": _value(summary.best, aim.metric),
        "said": _said(summary, summary.best) + summary.shared,
    }


def _notes(summary: Summary) -> list[str]:
    """Returns what a reader must know of the ranking: what is missing in it, and what was left out."""
    lacking = f"the best has no complete results: {summary.lacking}" if summary.lacking else ""
    notes = filter(None, (lacking, summary.missing, summary.left_out))
    return [f"{note[:1].upper()}{note[1:]}{'.' * (not note.endswith('?'))}" for note in notes]


def _search(summary: Summary) -> Courses | None:
    """Returns how the best result came to be; None where nothing was searched."""
    if summary.aim is None or "search" not in summary.manifest:
        return None
    return progress(summary.aim.metric, summary.improved, summary.tried, summary.stopped)


def _pruned(summary: Summary) -> list[tuple[str, str, int, tuple[str, str]]]:
    return [
        (
            ranking.told(point.values, summary.varied),
            number(one["pruned"]["value"]),
            one["pruned"]["after"],
            _link(summary.sweep, str(one["run"])),
        )
        for point, one in summary.pruned[:LISTED]
    ]


def _figure(summary: Summary) -> Courses | None:
    """Returns the learning curves of the best groups, of what decides or else of the first metric with a course."""
    ranked = [group for group in summary.groups if group.runs]
    read = [
        (
            _said(summary, group),
            [metrics.read(summary.sweep.runs / run / "metrics.jsonl").columns for run in group.runs[:DRAWN_RUNS]],
        )
        for group in ranked[: len(COLOURS)]
    ]
    names = dict.fromkeys(name for _, runs in read for columns in runs for name in columns)
    for name in dict.fromkeys([*_metrics(summary), *names]):
        drawn = courses(name, [(said, _named(name, runs)) for said, runs in read], len(ranked))
        if drawn is not None:
            return drawn
    return None


def _named(name: str, runs: Sequence[Mapping[str, Column]]) -> list[Column]:
    return [columns[name] for columns in runs if name in columns]


def _link(sweep: SweepDir, run: str) -> tuple[str, str]:
    """Returns the address of a run's page, as seen from the sweep's, and what the link says."""
    page = os.path.relpath(RunDir(sweep.runs / run).report, sweep.path)
    return quote(page), run[-6:]


def _fixed(summary: Summary) -> dict[str, Any]:
    """Returns the parameters that were given and that are the same in all points."""
    first = summary.points[0].values if summary.points else {}
    return {name: value for name, value in first.items() if name not in summary.varied}


def _about(summary: Summary) -> list[tuple[str, str]]:
    manifest = summary.manifest
    took = sum(one.get("duration_s") or 0.0 for one in summary.results.values())
    rows = [
        ("Notebook", manifest.get("notebook")),
        ("Points", ", ".join([f"{summary.total:,}", *_states(summary)])),
        ("In all of them", ranking.told(_fixed(summary))),
        ("Search", _asked(manifest.get("search"))),
        ("Begun", date(manifest.get("created"))),
        ("By", f"{manifest.get('user') or ''} on {manifest.get('host') or ''}"),
        ("Runs took", f"{duration(took)} in all"),
        ("Command", " ".join(map(str, manifest.get("command") or []))),
        ("Sweep", summary.sweep.id),
    ]
    return [(name, short(text)) for name, text in rows if text]


def _states(summary: Summary) -> list[str]:
    """Returns how many points ended in which way, `37 finished`, `13 pruned`, and how many are still to come."""
    results = summary.results.values()
    ways = {"finished": ranking.is_finished, "pruned": ranking.is_pruned, "failed": ranking.is_failed}
    counts = {way: sum(map(came, results)) for way, came in ways.items()}
    counts["without a result"] = summary.total - len(results)
    return [f"{count:,} {way}" for way, count in counts.items() if count]


def _asked(search: Mapping[str, Any] | None) -> str:
    """Returns what a search was asked for; empty where there was none."""
    if not search:
        return ""
    free = "  ".join(f"{name}={one}" for name, one in Space.of(search["space"]).free.items())
    return f"{search['sampler']}, seed {search['seed']}{', without pruning' * (not search['prune'])}: {free}"


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader

    made = Environment(loader=FileSystemLoader(PAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"breakable": breakable, "number": number}
    return made
