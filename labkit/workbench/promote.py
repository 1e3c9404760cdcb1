"""Starts a clean, detached run of a notebook for a kernel that was worked in: `python -m labkit.workbench.promote`."""

from __future__ import annotations

import sys
from pathlib import Path

from labkit.errors import LabkitError
from labkit.workbench import execute, job


def main(arguments: list[str]) -> int:
    """Prepares and detaches a run of `NOTEBOOK`, prints its name, and returns the exit status."""
    path, scratch = arguments
    try:
        prepared = job.prepare(Path(path), {}, command=["run.promote()"], promoted_from=scratch)
        execute.detach(prepared)
    except LabkitError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    print(prepared.directory.name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
