"""Many runs of one notebook."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from labkit.cli.options import grace_option, json_option, runs_option, timeout_option


@click.command()
@click.argument("notebook", type=click.Path(path_type=Path), required=False)
@click.option(
    "-p", "--parameter", "parameters", multiple=True, metavar="NAME=V1,V2", help="Values, or a range as 1..5, of NAME."
)
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Parameters in a YAML file, whose lists are swept; -p wins over -f.",
)
@click.option("--zip", "zipped", is_flag=True, help="Take first values together, then second ones, not each with each.")
@click.option("--continue", "name", metavar="SWEEP", help="Go on with this sweep; `last` for the newest.")
@click.option("--retry-failed", is_flag=True, help="With --continue: points that did not finish are tried again.")
@click.option("--jobs", type=click.IntRange(min=1, max=1024), help="How many runs at once.")
@click.option("--gpus", metavar="free|N|0,2|none", help="GPUs, one a run; default: all free ones, where there are any.")
@click.option("--wait", is_flag=True, help="Wait for GPUs that are in use.")
@click.option("--detach", is_flag=True, help="Leave it to itself, and return at once: see labkit watch, stop.")
@click.option("--minimize", metavar="METRIC", help="The lowest is best.")
@click.option("--maximize", metavar="METRIC", help="The highest is best.")
@click.option("--kernel", help="The Jupyter kernel; default: the one that the notebook names.")
@timeout_option
@grace_option
@click.option("--report/--no-report", default=True, help="Write the report.html of each run; default: yes.")
@runs_option
@json_option
@click.pass_context
def sweep(
    ctx: click.Context,
    notebook: Path | None,
    parameters: tuple[str, ...],
    files: tuple[Path, ...],
    zipped: bool,
    name: str | None,
    retry_failed: bool,
    jobs: int | None,
    gpus: str | None,
    wait: bool,
    detach: bool,
    minimize: str | None,
    maximize: str | None,
    kernel: str | None,
    timeout_s: float | None,
    grace_s: float | None,
    report: bool,
    runs: Path | None,
    as_json: bool,
) -> None:
    """Run NOTEBOOK once for each combination of parameters.

    \b
    labkit sweep notebooks/digits-cnn.ipynb -p LEARNING_RATE=0.1,0.01 -p RANDOM_SEED=1..5
    labkit sweep notebooks/digits-cnn.ipynb -f sweep.yaml --jobs 4 --minimize val_loss
    labkit sweep --continue last

    Several runs go on at a time. The same command goes on with a sweep that was stopped or killed. Ctrl-C stops its
    runs at their next step; a second one at once. Exit status: 0 every run finished, 1 some did not.
    """
    from labkit.workbench.stops import Stops

    if (notebook is None) == (name is None):
        raise click.UsageError("name a NOTEBOOK, or a sweep with --continue")
    if name is not None and (parameters or files or zipped or minimize or maximize or kernel or timeout_s or grace_s):
        raise click.UsageError("--continue goes on with the points and settings that the sweep has")
    if detach and (retry_failed or as_json):
        raise click.UsageError("--detach goes without --retry-failed and --json")
    if retry_failed and name is None:
        raise click.UsageError("--retry-failed says what --continue does")
    if minimize and maximize:
        raise click.UsageError("either --minimize or --maximize")
    with Stops() as stops:
        from labkit.workbench import notebook as notebooks
        from labkit.workbench import points, slots, sweeping

        command = ["labkit", *sys.argv[1:]]
        source = notebooks.read(Path(os.path.abspath(notebook))) if notebook else None
        wanted = points.points(source, parameters, files, zipped=zipped) if source else []
        lowest = True if minimize else False if maximize else None
        settings = sweeping.Settings(kernel, timeout_s, grace_s, minimize or maximize, lowest, report)
        if detach:
            opened = _opened(source, wanted, settings, runs, name, command)
            return _leave(opened, {"jobs": jobs, "gpus": gpus, "wait": wait})
        with slots.slots(jobs, gpus, wait=wait) as room:
            opened = _opened(source, wanted, settings, runs, name, command)
            found, stopping = sweeping.work(
                opened, room, stops, quiet=as_json, retry_failed=retry_failed, command=command
            )
        ctx.exit(sweeping.tell(opened, found, stopping, as_json=as_json))


def _opened(source: Any, wanted: Any, settings: Any, runs: Path | None, name: str | None, command: list[str]) -> Any:
    """Returns the sweep to work on: the one of that name, else that of these points, a new one where there is none."""
    from labkit.workbench import sweeping

    if source is None:
        return sweeping.reopen(str(name), runs)
    return sweeping.begin(source, wanted, settings, runs, command)


def _leave(opened: Any, room: dict[str, Any]) -> None:
    from labkit.workbench import apart

    apart.leave(opened, room)
    name = opened.sweep.name
    click.echo(f"labkit: {name} goes on by itself: labkit watch {name}, labkit stop {name}", err=True)
    click.echo(opened.sweep.path)
