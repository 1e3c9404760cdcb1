"""What commands show of a run in a terminal: its live line, how it ended, its facts; and the same as JSON."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from labkit.errors import FolderProblem
from labkit.record import attempts, checkpoints, claims, counts, metrics
from labkit.record.expectations import Verdict
from labkit.record.files import dumps, read_json
from labkit.record.rundir import RunDir
from labkit.record.status import status
from labkit.record.summary import kept_verdicts
from labkit.record.text import counted
from labkit.workbench.reproducing import reproductions
from labkit.workbench.running import trackers
from labkit.workbench.slurm import slurmqueue
from labkit.workbench.wording import duration, number, told_id

if TYPE_CHECKING:
    from rich.text import Text

    from labkit.record.status import Status
    from labkit.workbench.prune import Scratch
    from labkit.workbench.running.execute import Progress

COLOURS = {
    "finished": "green",
    "running": "cyan",
    "queued": "cyan",
    "failed": "red",
    "killed": "red",
    "timeout": "red",
    "interrupted": "yellow",
    "pruned": "yellow",
    "unknown": "magenta",
}


def print_json(value: Any) -> None:
    """Prints a value as indented strict JSON."""
    sys.stdout.write(dumps(value, pretty=True).decode("utf-8", "replace") + "\n")


@contextmanager
def live_line(run: RunDir, progress: Progress, *, quiet: bool) -> Iterator[None]:
    """Shows one line that follows a run: cell, epoch, loss, time left. Outside of a terminal, only its name."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, emoji=False)
    if quiet:
        yield
    elif not console.is_terminal:
        console.print(f"running {run.name}", markup=False)
        yield
    else:
        from rich.live import Live

        with Live(get_renderable=lambda: _line(run, progress), console=console, refresh_per_second=4, transient=True):
            yield


def _line(run: RunDir, progress: Progress) -> Text:
    from rich.text import Text

    parts = [f"cell {progress.cell}/{progress.cells} {told_id(progress.cell_id)}".rstrip()]
    bar = read_json(run.progress) or {}
    if bar.get("total"):
        parts.append(f"{bar.get('description') or 'step'} {bar.get('done', 0)}/{bar['total']}")
    newest = metrics.last(run.metrics)
    parts += [f"{name} {number(value)}" for name, value in newest.items() if name not in ("step", "t")][:3]
    parts.append(duration(time.time() - progress.began))
    if isinstance(bar.get("left_s"), (int, float)) and bar["left_s"] > 0:
        parts.append(f"{duration(bar['left_s'])} left")
    if progress.stopping:
        parts.append("stopping at the next step; Ctrl-C again stops at once")
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(run.path.parent.name, style="bold")
    text.append("  " + " · ".join(parts))
    return text


def print_end(run: RunDir, ended: Status) -> None:
    """Prints how a run ended, and its directory as the last line of standard output."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
    text = Text(ended.state, style=COLOURS.get(ended.state, ""))
    if ended.duration_s is not None:
        text.append(f" in {duration(ended.duration_s)}", style="default")
    if ended.reason:
        text.append(f": {ended.reason}", style="default")
    console.print(text)
    numbers = main_metrics({name: entry.get("last") for name, entry in metric_entries(_summary(run)).items()})
    if numbers:
        console.print(numbers, markup=False)
    if lost := _lost(read_json(run.kernel)):
        console.print(f"data are incomplete: {lost}", markup=False)
    for line in [*verdict_lines(run), *map(printable, trackers.told(trackers.outcomes(run)))]:
        console.print(line, markup=False)
    if ended.state == "failed":
        console.print(f"see: labkit log {shlex.quote(os.path.relpath(run.path))}", markup=False)
    if ended.state != "finished" and checkpoints.every(run):
        console.print(f"go on with: labkit resume {shlex.quote(os.path.relpath(run.path))}", markup=False)
    print(run.path)


def verdict_lines(run: RunDir) -> list[str]:
    """Returns a line for each expectation and conclusion of a run: verdict, words, condition, value."""
    try:
        manifest = run.read_manifest()
    except FolderProblem:
        manifest = {}
    return [printable(_verdict_line(one)) for one in kept_verdicts(run, manifest)]


def _verdict_line(one: Verdict) -> str:
    condition = f" ({one.condition}" + (f"; it was {number(one.value)})" if one.value is not None else ")")
    late = "; stated after the first metric" if one.late else ""
    reason = f": {one.reason}" if one.reason else ""
    return f"{one.verdict:<9}  {one.text}{condition if one.condition else ''}{reason}{late}"


def facts(run: RunDir) -> dict[str, Any]:
    """Returns everything that is known of a run, with paths."""
    found, job = slurmqueue.Queue([run]).of(run, status(run))
    try:
        manifest = run.read_manifest()
        problem = ""
    except FolderProblem as error:
        manifest, problem = {}, str(error)
    manifest.pop("creator", None)
    summary = manifest.get("summary") or metrics.read(run.metrics).summary()
    claim, reproduced = claims.kept(run, manifest), reproductions.latest(run)
    return {
        **manifest,
        "id": run.id,
        "run": run.name,
        "path": str(run.path),
        "status": found.state,
        "reason": found.reason,
        "job": job,
        "duration_s": found.duration_s,
        "attempts": asdict(attempts.of_run(run)),
        "summary": summary,
        "verdicts": [one.facts() for one in kept_verdicts(run, manifest)],
        "claim": claim.facts() if claim is not None else None,
        "exit": found.exit,
        "left": list(found.left),
        "counts": counts.read(run, is_over=found.is_over),
        "trackers": trackers.outcomes(run),
        "reproduced": reproduced.facts() if reproduced is not None else None,
        "git": read_json(run.source / "git.json"),
        "environment": read_json(run.environment),
        "problem": problem,
    }


def _summary(run: RunDir) -> dict[str, Any]:
    try:
        return dict(run.read_manifest()["summary"])
    except FolderProblem:
        return {}


def metric_entries(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns what a summary says of each metric; what is malformed is left out."""
    found = summary.get("metrics")
    return (
        {str(name): entry for name, entry in found.items() if isinstance(entry, dict)}
        if isinstance(found, dict)
        else {}
    )


def main_metrics(values: dict[str, Any], most: int = 3) -> str:
    """Returns the few metrics that say most about a run."""
    return "  ".join(f"{name} {number(values[name])}" for name in metrics.main(values)[:most])


def told_job(job: dict[str, str] | None) -> str:
    """Returns the number of a run's job, and what the queue has it as."""
    return f"{job['number']} {job['state']}".rstrip() if job else ""


def printable(text: str) -> str:
    """Returns text without characters that would steer a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def local_time(text: Any) -> str:
    """Returns a recorded time as this machine's clock shows it."""
    try:
        return datetime.fromisoformat(str(text)).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError):
        return ""


def print_facts(found: dict[str, Any]) -> None:
    """Prints what is known of one run; a terminal breaks long lines, so that they can be copied whole."""
    import click

    took = f" in {duration(found['duration_s'])}" if found["duration_s"] is not None else ""
    click.secho(printable(str(found.get("title") or found["run"])), bold=True)
    click.echo(f"{'status':<11} {click.style(found['status'], fg=COLOURS.get(found['status']))}{took}")
    for name, text in _described(found).items():
        if text:
            click.echo(f"{name:<11} {printable(text)}")
    _print_metrics(found["summary"])
    if found["verdicts"]:
        print()
        for facts in found["verdicts"]:
            click.echo(printable(_verdict_line(Verdict(**facts))))


def _label(label: Any, found: dict[str, Any]) -> str:
    """Returns a label, and the reason for it where the record has one."""
    why = found.get("explored") if label == "explored" else None
    return f"{label}: {why}" if why else str(label)


def _described(found: dict[str, Any]) -> dict[str, str]:
    given = found.get("given") or {}
    marked = {
        name: f"{name}={value}{' (given)' if name in given else ''}"
        for name, value in (found.get("parameters") or {}).items()
    }
    git = found.get("git") or {}
    claim = claims.read(found["claim"])
    started = local_time(found.get("created"))
    return {
        "reason": " ".join(found["reason"].splitlines()),
        "job": told_job(found["job"]),
        "problem": found["problem"],
        "run": found["run"],
        "notebook": str(found.get("notebook") or ""),
        "started": f"{started} {time.strftime('%Z')}" if started else "",
        "by": f"{found.get('author') or found.get('user') or ''} on {found.get('host') or '?'}",
        "labels": ", ".join(_label(label, found) for label in found.get("labels") or []),
        "attempts": str(attempts.Attempts(**found["attempts"])),
        "parameters": "  ".join(marked.values()),
        "commit": _commit(git),
        "claim": str(claim or ""),
        "lost": _lost(found.get("counts")),
        "reproduced": _reproduced(found.get("reproduced")),
        "trackers": ", ".join(trackers.told(found.get("trackers") or {})),
        "left behind": ", ".join(found["left"]),
        "path": found["path"],
    }


def _lost(counts: dict[str, Any] | None) -> str:
    """Returns what a kernel's counts say of what it refused and lost; empty where that is nothing."""
    return ", ".join(
        f"{kind} {what}: {entry[what]}"
        for kind, entry in (counts or {}).items()
        if isinstance(entry, dict)
        for what in ("refused", "lost")
        if entry.get(what)
    )


def _reproduced(facts: dict[str, Any] | None) -> str:
    if not facts:
        return ""
    cause = "" if facts["verdict"] == "identical" else f": {facts['cause']}"
    return f"{facts['verdict']}, {local_time(facts['created'])} {time.strftime('%Z')}{cause}"


def _commit(git: dict[str, Any]) -> str:
    if not git:
        return ""
    dirty = " with uncommitted changes" if git.get("dirty") else ""
    if git.get("commit") and git.get("dirty") is None and git.get("problem"):
        dirty = f", changes unknown: {git['problem']}"
    return f"{git.get('commit') or git.get('problem') or 'unknown'}{dirty}"


def _print_metrics(summary: dict[str, Any]) -> None:
    entries = metric_entries(summary)
    if not entries:
        return
    lines: list[tuple[str, ...]] = [("metric", "last", "lowest", "highest", "logged")]
    for name, entry in entries.items():
        values = [number(entry.get(key)) for key in ("last", "min", "max")]
        lines.append((printable(name), *map(printable, values), printable(str(entry.get("count", "")))))
    widths = [max(len(line[place]) for line in lines) for place in range(5)]
    print()
    for first, *rest in lines:
        print(
            "  ".join(
                [first.ljust(widths[0]), *(text.rjust(width) for text, width in zip(rest, widths[1:], strict=True))]
            )
        )


def print_pruned(found: list[Scratch], removed: Iterator[tuple[Scratch, str]] | None) -> int:
    """Prints what would go, or what went and what did not; returns the exit status."""
    total = sum(one.size_bytes for one in found) / 2**20
    what = f"{counted(len(found), 'run')} by hand, {total:.1f} MiB"
    if removed is None:
        for one in found:
            print(f"{one.size_bytes / 2**20:9.1f} MiB  {printable(one.run.name)}")
        print(f"{what}; --yes removes {'it' if len(found) == 1 else 'them'}" if found else "no runs by hand are over")
        return 0
    kept = [(one, why) for one, why in removed if why]
    for one, why in kept:
        print(f"labkit: {printable(str(one.run.path))} could not be removed: {why}", file=sys.stderr)
    print(what + (f", all but {len(kept)} removed" if kept else " removed"))
    return int(bool(kept))
