"""Many runs of one notebook."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from labkit.cli.options import (
    dry_run_option,
    grace_option,
    json_option,
    runs_option,
    timeout_option,
)
from labkit.errors import BadInput

IN_FILES = (  # options that a sweep's file may say, under the same names
    "--zip --jobs --search --trials --search-seed --prune --no-prune --minimize --maximize --kernel --timeout --grace"
).split()


def _take_options(ctx: click.Context, _: click.Parameter, files: tuple[Path, ...]) -> tuple[Path, ...]:
    """Lets the keys of files that begin with two dashes stand for options; those of the command line win."""
    found: dict[str, Any] = {}
    for path in files:
        from labkit.workbench.sweeps import points

        for name, value in points.options(path).items():
            option = next((one for one in ctx.command.params if name in (*one.opts, *one.secondary_opts)), None)
            if option is None or option.name is None or name not in IN_FILES:
                raise click.UsageError(f"{path}: {name} is none of the options of a file: {', '.join(IN_FILES)}")
            found[option.name] = not value if name in option.secondary_opts else value
    ctx.default_map = found
    return files


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
    is_eager=True,
    callback=_take_options,
    help="Parameters in a YAML file, whose lists are swept; -p wins over -f. Options too: `--jobs: 4`.",
)
@click.option("--zip", "zipped", is_flag=True, help="Take first values together, then second ones, not each with each.")
@click.option("--continue", "name", metavar="SWEEP", help="Go on with this sweep; `last` for the newest.")
@click.option("--retry-failed", is_flag=True, help="With --continue: points that did not finish are tried again.")
@click.option(
    "--on",
    "cluster",
    metavar="slurm|dask://HOST:PORT",
    help="Submit it as a job array of Slurm, or run on the workers of this Dask cluster, one each.",
)
@click.option("--jobs", type=click.IntRange(min=1, max=1024), help="How many runs at once.")
@click.option("--gpus", metavar="free|N|0,2|none", help="GPUs, one a run; default: all free ones, where there are any.")
@click.option("--wait", is_flag=True, help="Wait for GPUs that are in use.")
@click.option("--detach", is_flag=True, help="Leave it to itself, and return at once: see labkit watch, stop.")
@click.option("--minimize", metavar="METRIC", help="The lowest is best.")
@click.option("--maximize", metavar="METRIC", help="The highest is best.")
@click.option(
    "--search",
    "sampler",
    type=click.Choice(["tpe", "random"]),
    help="Have points proposed by what earlier ones came to.",
)
@click.option("--trials", type=click.IntRange(min=1, max=100_000), help="With --search: how many points.")
@click.option("--search-seed", type=click.IntRange(min=0), help="With --search: the seed of the proposals; default: 0.")
@click.option(
    "--prune/--no-prune",
    default=None,
    help="With --search: stop runs early that are worse than the median of earlier ones; default: yes.",
)
@click.option("--kernel", help="The Jupyter kernel; default: the one that the notebook names.")
@timeout_option
@grace_option
@click.option("--report/--no-report", default=True, help="Write the report.html of each run; default: yes.")
@dry_run_option
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
    cluster: str | None,
    jobs: int | None,
    gpus: str | None,
    wait: bool,
    detach: bool,
    minimize: str | None,
    maximize: str | None,
    sampler: str | None,
    trials: int | None,
    search_seed: int | None,
    prune: bool | None,
    kernel: str | None,
    timeout_s: float | None,
    grace_s: float | None,
    report: bool,
    dry_run: bool,
    runs: Path | None,
    as_json: bool,
) -> None:
    """Run NOTEBOOK once for each combination of parameters.

    \b
    labkit sweep notebooks/digits-cnn.ipynb -p LEARNING_RATE=0.1,0.01 -p RANDOM_SEED=1..5
    labkit sweep notebooks/digits-cnn.ipynb -f sweep.yaml --jobs 4 --minimize val_loss
    labkit sweep notebooks/digits-cnn.ipynb --search tpe --trials 50 --maximize val_accuracy \\
      -p LEARNING_RATE=log:1e-4..1e-1 -p BATCH_SIZE=16..128..16
    labkit sweep --continue last
    labkit sweep notebooks/digits-cnn.ipynb -f sweep.yaml --on slurm --dry-run

    With --search, LOW..HIGH is a range of integers or floats, log:LOW..HIGH one on a logarithmic scale, and a list is a
    choice. A search does not choose RANDOM_SEED: give it one value, and compare the best points over seeds afterwards.

    Several runs go on at a time. The same command goes on with a sweep that was stopped or killed. Ctrl-C stops its
    runs at their next step; a second one at once. Exit status: 0 every run finished or was pruned, 1 some did not.
    """
    from labkit.workbench.running.stops import Stops

    if (notebook is None) == (name is None):
        raise click.UsageError("name a NOTEBOOK, or a sweep with --continue")
    given = (parameters, files, zipped, minimize, maximize, sampler, kernel, timeout_s, grace_s)
    if name is not None and any(given):
        raise click.UsageError("--continue goes on with the points and settings that the sweep has")
    if detach and (retry_failed or as_json):
        raise click.UsageError("--detach goes without --retry-failed and --json")
    if retry_failed and name is None:
        raise click.UsageError("--retry-failed says what --continue does")
    if minimize and maximize:
        raise click.UsageError("either --minimize or --maximize")
    if sampler is None and not (trials is None and search_seed is None and prune is None):
        raise click.UsageError("--trials, --search-seed and --prune say what --search does: --search tpe")
    if sampler is not None and trials is None:
        raise click.UsageError("--search needs --trials: how many points, as in --trials 50")
    if sampler is not None and not (minimize or maximize):
        raise click.UsageError("--search needs --minimize or --maximize with a metric")
    if sampler is not None and zipped:
        raise click.UsageError("--zip takes lists together, of which --search chooses")
    if cluster not in (None, "slurm") and not str(cluster).startswith("dask://"):
        raise click.UsageError(f"--on {cluster}: write slurm, or dask://HOST:PORT, the address of a Dask scheduler")
    if dry_run and cluster != "slurm":
        raise click.UsageError("--dry-run needs --on slurm")
    if cluster == "slurm" and detach:
        raise BadInput("--detach says nothing with --on slurm: jobs go on by themselves; leave it out")
    if cluster and (gpus or wait):
        raise click.UsageError("--gpus and --wait are for this machine; a cluster's workers have their own GPUs")
    with Stops() as stops:
        from labkit.workbench.notebooks import notebook as notebooks
        from labkit.workbench.slurm import slurmsweep, slurmtasks
        from labkit.workbench.sweeps import apart, points, search, space, sweeping

        command = ["labkit", *sys.argv[1:]]
        source = notebooks.read(Path(os.path.abspath(notebook))) if notebook else None
        wanted: list[points.Point] | search.Plan = []
        if source and sampler and trials:
            found_space = space.space(source, parameters, files)
            wanted = search.Plan(found_space, sampler, trials, search_seed or 0, prune is not False)
        elif source:
            wanted = points.points(source, parameters, files, zipped=zipped)
        lowest = True if minimize else False if maximize else None
        settings = sweeping.Settings(kernel, timeout_s, grace_s, minimize or maximize, lowest, report)
        if cluster == "slurm" and sampler:
            slurmsweep.refuse_search()
        if dry_run and source is not None:
            return click.echo(slurmsweep.preview_new(source, wanted, settings, runs, jobs), nl=False)
        room: dict[str, Any] = {"cluster": cluster, "jobs": jobs, "gpus": gpus, "wait": wait}
        opened = None
        if source is None:
            opened = sweeping.reopen(str(name), runs)
            source, settings, runs = opened.source, opened.settings, opened.sweep.runs
            if cluster == "slurm" and opened.plan is not None:
                slurmsweep.refuse_search()
        if cluster == "slurm":
            more = {"jobs": jobs, "retry_failed": retry_failed, "command": command}
            return _submit(opened or sweeping.begin(source, wanted, settings, runs, command), more, dry_run, as_json)
        if detach:
            apart.refuse_without_room(source, settings, runs, room)
            return _leave(opened or sweeping.begin(source, wanted, settings, runs, command), room)
        with sweeping.place(source, settings, runs, **room, waiting=_waiting(stops)) as places:
            opened = opened or sweeping.begin(source, wanted, settings, runs, command)
            if known := slurmtasks.under_way(opened.sweep):
                return _tell_so_far(opened, known, as_json)
            found, stopping = sweeping.work(
                opened, places, stops, quiet=as_json, retry_failed=retry_failed, command=command
            )
        ctx.exit(sweeping.tell(opened, found, stopping, as_json=as_json))


def _waiting(stops: Any) -> Callable[[str], None]:
    """Returns what is called while there is no room: it says once what is waited for, and heeds a stop."""
    said: list[str] = []

    def waiting(problem: str) -> None:
        stops.refuse()
        if not said:
            said.append(problem)
            click.echo(f"labkit: waiting: {problem}", err=True)

    return waiting


def _leave(opened: Any, room: dict[str, Any]) -> None:
    from labkit.workbench.sweeps import apart

    apart.leave(opened, room)
    name = opened.sweep.name
    click.echo(f"labkit: {name} goes on by itself: labkit watch {name}, labkit stop {name}", err=True)
    click.echo(opened.sweep.path)


def _submit(opened: Any, more: dict[str, Any], dry_run: bool, as_json: bool) -> None:
    """Hands what a sweep lacks to the cluster and says what has it; a dry run only prints the script."""
    from labkit.workbench import terminal
    from labkit.workbench.slurm import slurmsweep, slurmtasks

    sweep = opened.sweep
    if dry_run:
        return click.echo(slurmsweep.preview(opened, more["jobs"]), nl=False)
    handed = slurmsweep.hand_in(opened, **more)
    if as_json:
        facts = {"sweep": sweep.id, "path": str(sweep.path), "job": handed.number or None, "points": handed.points}
        return terminal.print_json(facts)
    if handed.tasks:
        click.echo(f"labkit: {slurmtasks.told(sweep, handed.tasks)}", err=True)
    if handed.number:
        has = f"job {handed.number} has {len(handed.points)} points"
        click.echo(f"labkit: {has} of {sweep.name}: labkit watch {sweep.name}, labkit stop {sweep.name}", err=True)
    elif not handed.tasks:
        click.echo(f"labkit: every point of {sweep.name} has its result", err=True)
    click.echo(sweep.path)


def _tell_so_far(opened: Any, known: Any, as_json: bool) -> None:
    """Writes and prints what has come so far of a sweep that a cluster works on."""
    from labkit.workbench import terminal
    from labkit.workbench.slurm import slurmsweep, slurmtasks
    from labkit.workbench.sweeps import sweepreport

    found = slurmsweep.summarise(opened)
    if as_json:
        return terminal.print_json(found.facts() | {"path": str(opened.sweep.path), "status": "running"})
    for line in [*sweepreport.lines(found), slurmtasks.told(opened.sweep, known)]:
        click.echo(terminal.printable(line), err=True)
    click.echo(opened.sweep.path)
