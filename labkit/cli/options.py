"""Options that several commands share, and the runs that they name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

runs_option = click.option(
    "--runs", type=click.Path(path_type=Path), help="The folder of runs; default: runs/ in this lab, or $LABKIT_RUNS."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for a program to read.")
parameters_option = click.option(
    "-p", "--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="Set a parameter; NAME in any case."
)
files_option = click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Set the parameters in a YAML file; -p wins over -f.",
)
timeout_option = click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), help="Stop after this many seconds."
)
grace_option = click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(min=0),
    help="Seconds from a stop to the kill; default: 30, or the lab's setting.",
)
on_option = click.option("--on", "cluster", type=click.Choice(["slurm"]), help="Submit it as a job of this cluster.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Print the batch script that --on would submit.")
report_option = click.option("--report/--no-report", default=True, help="Write the run's report.html; default: yes.")


def find_run_or_sweep(name: str, runs: Path | None) -> Any:
    """Returns the directory of the run or the sweep that goes by a name: of a sweep `sweeps/` and its id or `last`.

    Raises:
        BadInput: There is none, or several.
    """
    from labkit.errors import RunNotFound
    from labkit.record import find, lab, sweepdir

    folder = lab.runs_folder(Path.cwd(), runs)
    is_path = os.path.isfile(os.path.join(name, "sweep.json"))  # unlike pathlib's, never raises
    try:
        if is_path or name.startswith("sweeps/"):
            return sweepdir.find(name, folder)
        return find.find(name, folder)
    except RunNotFound as error:
        try:
            return sweepdir.find(name, folder)
        except RunNotFound:
            raise error from None


def find_run(name: str, runs: Path | None) -> Any:
    """Returns the directory of the run that goes by a name.

    Raises:
        BadInput: There is none, or several.
    """
    from labkit.errors import BadInput
    from labkit.record.sweepdir import SweepDir

    found = find_run_or_sweep(name, runs)
    if isinstance(found, SweepDir):
        raise BadInput(f"{found.name} is a sweep, no run: labkit watch {found.name}; its page is {found.report}")
    return found
