"""The list of runs: its rows, and the table that a terminal shows of them."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import click

from labkit.errors import FolderProblem, RunNotFound
from labkit.record import metrics, sweepdir, sweepstate
from labkit.record.expectations import in_short
from labkit.record.files import read_json
from labkit.record.find import every
from labkit.record.rundir import RunDir, folder_name
from labkit.record.status import status
from labkit.record.summary import kept_verdicts
from labkit.workbench.slurm import slurmqueue
from labkit.workbench.terminal import COLOURS, local_time, main_metrics, metric_entries, printable, told_job
from labkit.workbench.wording import duration

COLUMNS = ("notebook", "id", "status", "job", "started", "took", "metrics", "verdicts", "given")
GIVEN_COLUMNS = 48  # of the parameters that were given; `labkit show` has them all
DROPPED_FIRST = ("given", "job", "took", "started", "verdicts", "metrics")


def rows(
    folder: Path, notebook: str | None, state: str | None, count: int | None, *, scratch: bool
) -> list[dict[str, Any]]:
    """Returns the runs that a list shows, oldest first; a damaged one is shown as far as it can be read.

    Raises:
        RunNotFound: No run is of that notebook.
    """
    names = {run.path.parent.name for run in every(folder)}
    if notebook and folder_name(notebook) not in names:
        raise RunNotFound(f"no run of {notebook!r} in {folder}; there are runs of {', '.join(sorted(names)) or 'none'}")
    found: list[dict[str, Any]] = []
    runs = every(folder)
    queue = slurmqueue.Queue(runs)
    for run in reversed(runs):
        if (not scratch and run.is_scratch) or (notebook and run.path.parent.name != folder_name(notebook)):
            continue
        row = _row(run, queue)
        if state is None or row["status"] == state:
            found.append(row)
            if len(found) == count:
                break
    return found[::-1]


def _row(run: RunDir, queue: slurmqueue.Queue) -> dict[str, Any]:
    found, job = queue.of(run, status(run))
    try:
        manifest = run.read_manifest()
    except FolderProblem:
        manifest = {}
    return {
        "id": run.id,
        "run": run.name,
        "path": str(run.path),
        "notebook": run.path.parent.name,
        "status": found.state,
        "progress": _progress(run) if found.state == "running" else "",
        "reason": found.reason,
        "job": job,
        "created": manifest.get("created", ""),
        "duration_s": found.duration_s,
        "given": manifest.get("given", {}),
        "sweep": manifest.get("sweep", ""),
        "labels": [*manifest.get("labels", []), *_further_labels(run, found.state)],
        "metrics": _last_values(run, manifest),
        "verdicts": in_short(kept_verdicts(run, manifest)),
    }


def _further_labels(run: RunDir, state: str) -> list[str]:
    """Returns what is known of a run beside its manifest: its search has stopped it for good, or it is by hand."""
    pruned = state == "interrupted" and (read_json(run.stop) or {}).get("pruned") is not None
    return ["pruned"] * pruned + ["scratch"] * run.is_scratch


def _progress(run: RunDir) -> str:
    """Returns how far the newest loop of a run has come, as `12/40`; empty where it does not say."""
    bar = read_json(run.progress) or {}
    done, total = bar.get("done"), bar.get("total")
    return f"{done}/{total}" if isinstance(done, int) and isinstance(total, int) and total else ""


def _last_values(run: RunDir, manifest: dict[str, Any]) -> dict[str, Any]:
    """Returns the last value of each metric; of a run without a summary, running or killed, those of its last step."""
    entries = metric_entries(manifest.get("summary", {}))
    if entries:
        return {name: entry.get("last") for name, entry in entries.items()}
    return {name: value for name, value in metrics.last(run.metrics).items() if name not in ("step", "t")}


def print_rows(found: list[dict[str, Any]], folder: Path) -> None:
    """Prints a table of runs, in a narrow terminal without the columns that say least, and sweeps that go on."""
    if not found:
        print(f"no runs in {printable(str(folder))}")
    else:
        _print_table(found)
    for sweep in sweepdir.every(folder):
        if sweepdir.holder(sweep) is not None:
            print(printable(f"{sweep.name}: {(sweepstate.as_written(sweep) or {}).get('head') or 'begins'}"))


def _print_table(found: list[dict[str, Any]]) -> None:
    lines = [_titles(), *map(_cells, found)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(COLUMNS))]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10**6
    shown = [place for place, name in enumerate(COLUMNS) if name != "job" or any(line[place] for line in lines[1:])]
    for name in DROPPED_FIRST:
        if COLUMNS.index(name) in shown and sum(widths[place] + 2 for place in shown) - 2 > room:
            shown.remove(COLUMNS.index(name))
    for row, line in enumerate(lines):
        texts = [line[place].ljust(widths[place]) for place in shown]
        if row == 0:
            texts = [click.style(text, bold=True) for text in texts]
        else:
            texts[2] = click.style(texts[2], fg=COLOURS.get(found[row - 1]["status"]))
        click.echo("  ".join(texts).rstrip())


def _titles() -> tuple[str, ...]:
    """Returns the columns' titles; times are this machine's, and say of which zone."""
    return tuple(f"started ({time.strftime('%Z')})" if name == "started" else name for name in COLUMNS)


def _given(given: dict[str, Any]) -> str:
    """Returns what a run was given, as much of it as a column takes; a file gives all there is."""
    shown: list[str] = []
    for name, value in given.items():
        text = f"{name}={value}"
        text = text if len(text) <= GIVEN_COLUMNS // 2 else f"{text[: GIVEN_COLUMNS // 2 - 1]}…"
        if shown and len("  ".join([*shown, text])) > GIVEN_COLUMNS:
            break
        shown.append(text)
    more = len(given) - len(shown)
    return "  ".join(shown + ([f"and {more} more"] if more else []))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Returns one run as the texts of COLUMNS."""
    labels = f" ({', '.join(map(str, row['labels']))})" if row["labels"] else ""
    texts = (
        row["notebook"],
        row["id"][-6:],
        f"{row['status']} {row['progress']}".rstrip() + labels,
        told_job(row["job"]),
        local_time(row["created"]),
        duration(row["duration_s"]),
        main_metrics(row["metrics"], 2),
        row["verdicts"],
        _given(row["given"]),
    )
    return tuple(printable(text) for text in texts)
