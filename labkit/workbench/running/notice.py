"""Tells somebody that a run has ended, by the command that the lab or its user has set as `on_end`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from labkit.errors import ConfigProblem
from labkit.record import config, lab
from labkit.record.rundir import RunDir
from labkit.record.status import Status

PATIENCE_S = 60.0


def tell(run: RunDir, ended: Status, notebook: Path) -> None:
    """Runs the command of `on_end`, if there is one; that it fails is said and changes nothing about the run.

    The command is a line for the shell; it finds the run's directory in $LABKIT_RUN, the status in $LABKIT_STATUS and
    the reason in $LABKIT_REASON.
    """
    try:
        command = str(config.settings(lab.root(notebook.parent))["on_end"].value)
    except ConfigProblem:
        return  # it was refused before the run, or broken since
    if not command:
        return
    told = {"LABKIT_RUN": str(run.path), "LABKIT_STATUS": ended.state, "LABKIT_REASON": ended.reason}
    try:
        done = subprocess.run(
            command, shell=True, env=os.environ | told, stdin=subprocess.DEVNULL, stdout=sys.stderr, timeout=PATIENCE_S
        )
        problem = f"status {done.returncode}" if done.returncode else ""
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if problem:
        print(f"labkit: the command on_end failed ({problem}): {command:.200}", file=sys.stderr)
