"""Where a sweep stands, for whoever looks at it from elsewhere: as its process wrote it, or as its directory tells."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from labkit.record import sweepdir
from labkit.record.files import read_json, write_json
from labkit.record.sweepdir import SweepDir

COLUMNS = ("point", "status", "parameters", "progress", "took")  # of the rows of a table
NO_FAILURE = ("finished", "pruned")


def where_it_stands(sweep: SweepDir) -> dict[str, Any]:
    """Returns what a table of a sweep shows: `points`, `done`, `failed`, `head`, `best`, `rows`.

    While somebody works on it, it is what they wrote. Once it is over, what is best is that of its report.

    Raises:
        FolderProblem: Its manifest is missing or damaged.
    """
    shown = as_written(sweep)
    if shown is not None and sweepdir.holder(sweep) is not None:
        return shown
    counts = counted(sweep)
    head = f"{counts['done']} of {counts['points']} done" + f" · {counts['failed']} failed" * bool(counts["failed"])
    so_far = shown or {"best": "", "rows": []}
    best = summed_up(sweep) if sweep.is_over() else so_far["best"]
    rows = [row for row in so_far["rows"] if row["status"] != "running"]
    return {**counts, "head": head, "best": best, "rows": rows}


def counted(sweep: SweepDir) -> dict[str, int]:
    """Returns how many points a sweep has, how many of them a result, and how many of those are failures.

    Raises:
        FolderProblem: Its manifest is missing or damaged.
    """
    results, total = sweepdir.results(sweep), sweepdir.total(sweep.read_manifest())
    failed = sum(one["status"] not in NO_FAILURE for one in results.values())
    return {"points": total, "done": len(results), "failed": failed}


def write(sweep: SweepDir, facts: Mapping[str, Any]) -> None:
    """Writes what is shown of a sweep by who works on it; a disk that refuses it changes nothing about the sweep."""
    newest = sweepdir.session(sweep)
    with suppress(OSError):
        write_json(sweep.progress, {"session": newest.name if newest else "", **facts}, durable=False)


def as_written(sweep: SweepDir) -> dict[str, Any] | None:
    """Returns what the newest session has written of itself; None where it has not, or where that is damaged."""
    newest, found = sweepdir.session(sweep), read_json(sweep.progress)
    if newest is None or found is None or found.get("session") != newest.name:
        return None
    counts = {name: found.get(name) for name in ("points", "done", "failed")}
    texts = {name: found.get(name) for name in ("head", "best")}
    rows = found.get("rows")
    is_sound = (
        all(type(count) is int for count in counts.values())
        and all(isinstance(text, str) for text in texts.values())
        and isinstance(rows, list)
        and all(isinstance(row, dict) and set(COLUMNS) <= row.keys() for row in rows)
    )
    return {**counts, **texts, "rows": [_row(row) for row in rows or []]} if is_sound else None


def _row(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(row[name]) for name in COLUMNS}


def summed_up(sweep: SweepDir) -> str:
    """Returns what came of a sweep that is over, in a sentence; empty where that cannot be read."""
    sentence = (read_json(sweep.summary) or {}).get("sentence")
    return sentence if isinstance(sentence, str) else ""
