"""Runs made again and judged."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from labkit.cli.options import files_option, find_run, json_option, parameters_option, runs_option
from labkit.errors import BadInput

tolerance_option = click.option(
    "--tolerance",
    "tolerances",
    multiple=True,
    metavar="[METRIC=]NUMBER",
    help="How far final values may lie apart: a part of each, as 0.01, or one metric's difference.",
)


env_option = click.option(
    "--env",
    "environment",
    type=click.Choice(["current", "rebuild"]),
    default="current",
    show_default=True,
    help="Where to execute: here as it is, or in an environment built from the recorded packages.",
)


data_option = click.option(
    "--data", type=click.Path(path_type=Path, exists=True, file_okay=False), help="A folder to look for data files in."
)


@click.command()
@click.argument("name", metavar="REPORT|RUN", default="last")
@env_option
@data_option
@tolerance_option
@click.option("--as-now", is_flag=True, help="Run the notebook as it is in this lab now: why does it differ today?")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the second run, in this new or empty folder.")
@click.option("--yes", is_flag=True, help="Execute what a report of elsewhere carries without asking.")
@runs_option
@json_option
@click.pass_context
def reproduce(
    ctx: click.Context,
    name: str,
    environment: str,
    data: Path | None,
    tolerances: tuple[str, ...],
    as_now: bool,
    keep: Path | None,
    yes: bool,
    runs: Path | None,
    as_json: bool,
) -> None:
    """Make a run again and judge whether it came to the same.

    All that it takes is in the REPORT, or in the RUN's record; by default the last run. The verdict is identical,
    within tolerance, diverged, or could not run; below it stands what was compared, and what the likely cause is.
    Neither git nor the repository is needed.

    \b
    labkit reproduce digits-cnn.html
    labkit reproduce digits-cnn@last --env rebuild
    labkit reproduce digits-cnn@last --as-now
    labkit reproduce digits-cnn.html --data ~/data --tolerance test_accuracy=0.005
    """
    from labkit.record import lab
    from labkit.workbench.reproducing import again

    folder = lab.runs_folder(Path.cwd(), runs)
    wanted = again.Wanted(as_now, environment == "rebuild", data, again.tolerance(tolerances), folder, keep)

    def ask(question: str) -> bool:
        return sys.stdin.isatty() and click.confirm(question, err=True)

    ctx.exit(again.reproduce(name, wanted, yes=yes, as_json=as_json, ask=ask))


@click.command()
@click.argument(
    "reports", metavar="[REPORT]...", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@env_option
@data_option
@tolerance_option
@click.option("--yes", is_flag=True, help="Execute what reports of elsewhere carry, too.")
@runs_option
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    reports: tuple[Path, ...],
    environment: str,
    data: Path | None,
    tolerances: tuple[str, ...],
    yes: bool,
    runs: Path | None,
    as_json: bool,
) -> None:
    """Make the runs of all reports of this lab again.

    Exit status, for a nightly job: 0 each came to the same, 1 one diverged or failed, 2 one could not be made. A report
    whose run is not in this lab is of elsewhere, and is executed with --yes only.

    \b
    labkit verify
    labkit verify reports/digits-cnn.html --json
    """
    from labkit.record import lab
    from labkit.workbench.reproducing import again

    folder = lab.runs_folder(Path.cwd(), runs)
    wanted = again.Wanted(False, environment == "rebuild", data, again.tolerance(tolerances), folder)
    ctx.exit(again.verify(list(reports), wanted, yes=yes, as_json=as_json))


@click.command()
@click.argument("notebook", type=click.Path(path_type=Path))
@click.option("--seeds", type=click.IntRange(min=2), required=True, help="How many, from RANDOM_SEED on.")
@click.option(
    "--repeats", type=click.IntRange(min=0), default=1, show_default=True, help="More runs of the first seed."
)
@parameters_option
@files_option
@runs_option
@json_option
def repeat(
    notebook: Path,
    seeds: int,
    repeats: int,
    parameters: tuple[str, ...],
    files: tuple[Path, ...],
    runs: Path | None,
    as_json: bool,
) -> None:
    """Run NOTEBOOK with several seeds: how far do its results spread?

    The report then states them as mean ± spread, and `labkit reproduce` takes the spread for its tolerance where the
    hardware is another and equal bits cannot be expected.

    \b
    labkit repeat notebooks/digits-cnn.ipynb --seeds 5
    """
    from labkit.workbench import terminal
    from labkit.workbench.notebooks import params
    from labkit.workbench.pages import reports
    from labkit.workbench.reproducing import again
    from labkit.workbench.reproducing import repeat as repeating

    asked = params.from_command_line(parameters, files)
    wanted = repeating.Wanted(notebook, seeds, repeats, asked, runs, ["labkit", *sys.argv[1:]])
    found, made = repeating.repeat(wanted, again.executor(quiet=True), lambda line: click.echo(line, err=True))
    for run in made:
        reports.write_of_run(run)
    if as_json:
        terminal.print_json(found.facts())
    else:
        for line in repeating.lines(found):
            click.echo(terminal.printable(line))


@click.command()
@click.argument("then", metavar="RUN")
@click.argument("now", metavar="[RUN]", default="last")
@tolerance_option
@runs_option
@json_option
def compare(then: str, now: str, tolerances: tuple[str, ...], runs: Path | None, as_json: bool) -> None:
    """Say why two runs did not come to the same.

    What is so in the first is so "then", in the second, by default the last run, "here". Exit status: 0 whatever is
    found.

    \b
    labkit compare 3f9a1c last
    labkit compare digits-cnn@best:test_accuracy digits-cnn@last --json
    """
    from labkit.record import metrics
    from labkit.workbench import terminal
    from labkit.workbench.reproducing import again, verdictlines
    from labkit.workbench.reproducing import compare as comparing

    tolerance = again.tolerance(tolerances)
    old, new = find_run(then, runs), find_run(now, runs)
    if old.path == new.path:
        raise BadInput(f"{then} and {now} are the same run, {old.name}; name another one to compare it with")
    again.require_results(tolerance, metrics.read(old.metrics).summary())
    found = comparing.compare(old, new, tolerance=tolerance)
    if not as_json:
        click.echo(f"then  {terminal.printable(old.name)}\nhere  {terminal.printable(new.name)}")
    verdictlines.print_comparison(found, as_json=as_json)
