"""Starts what a cell asks for and what outlives its kernel.

`python -m labkit.workbench.running.submit` is asked on its input.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from labkit.errors import LabkitError
from labkit.workbench.notebooks import notebook as notebooks
from labkit.workbench.notebooks import params
from labkit.workbench.running import execute, job


def main() -> int:
    """Starts the run or the sweep that a line of JSON asks for, prints its directory, and returns the exit status.

    The line has `notebook` and `values`, the parameters by name; `promoted_from`, a run by hand, where that is what the
    new one repeats; and for a sweep, whose values are lists, `sweep`: what `labkit.sweep` takes beside parameters.
    """
    order = json.loads(sys.stdin.readline())
    try:
        print(_sweep(**order) if "sweep" in order else _run(**order))
    except LabkitError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


def _run(notebook: str, values: dict[str, Any], promoted_from: str | None = None) -> Path:
    asked = [params.Source("labkit.submit", tuple(values.items()))] if values else []
    if promoted_from is None:
        prepared = job.prepare(Path(notebook), asked, command=["labkit.submit()"])
    else:
        prepared = job.prepare(Path(notebook), asked, command=["run.promote()"], promoted_from=promoted_from)
    execute.detach(prepared)
    return prepared.directory.path


def _sweep(notebook: str, values: dict[str, Any], sweep: dict[str, Any]) -> Path:
    from labkit.workbench.sweeps import apart, points, search, space, sweeping

    source = notebooks.read(Path(notebook))
    wanted: list[points.Point] | search.Plan
    if sweep["search"]:
        wanted = search.Plan(space.space(source, (), values=values), sweep["search"], sweep["trials"])
    else:
        wanted = points.points(source, (), values=values, zipped=sweep["zipped"])
    lowest = True if sweep["minimize"] else False if sweep["maximize"] else None
    settings = sweeping.Settings(metric=sweep["minimize"] or sweep["maximize"], lowest=lowest)
    room = {"jobs": sweep["jobs"], "gpus": sweep["gpus"]}
    apart.refuse_without_room(source, settings, None, room)
    opened = sweeping.begin(source, wanted, settings, command=["labkit.sweep()"])
    apart.leave(opened, room)
    return opened.sweep.path


if __name__ == "__main__":
    sys.exit(main())
