"""Starts a detached run for a cell of another notebook: `python -m labkit.workbench.submit`, asked on its input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from labkit.errors import LabkitError
from labkit.workbench import execute, job, params


def main() -> int:
    """Prepares and detaches the run that a line of JSON asks for, prints its directory, and returns the exit status.

    The line has `notebook` and `values`: the parameters by name.
    """
    order = json.loads(sys.stdin.readline())
    asked = [params.Source("labkit.submit", tuple(order["values"].items()))] if order["values"] else []
    try:
        prepared = job.prepare(Path(order["notebook"]), asked, command=["labkit.submit()"])
        execute.detach(prepared)
    except LabkitError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    print(prepared.directory.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
