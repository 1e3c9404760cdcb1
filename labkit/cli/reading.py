"""Runs that are there: list, show and read them, feed them to a tracker, remove what nobody needs."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli.options import find_run, json_option, runs_option
from labkit.record import STATES


@click.command(name="list")
@click.argument("notebook", required=False)
@click.option("--status", "state", type=click.Choice(STATES), help="Only runs with this status.")
@click.option("-n", "count", type=click.IntRange(min=1), help="At most so many, the newest; 20, or with --all all.")
@click.option("--all", "everything", is_flag=True, help="All of them, scratch runs too.")
@runs_option
@json_option
def list_runs(
    notebook: str | None, state: str | None, count: int, everything: bool, runs: Path | None, as_json: bool
) -> None:
    """List runs, the newest last.

    \b
    labkit list
    labkit list digits-cnn --status finished -n 5
    """
    from labkit.record import lab
    from labkit.workbench import runlist, terminal
    from labkit.workbench.slurm import slurmtasks

    folder = lab.runs_folder(Path.cwd(), runs)
    name = None if notebook is None else Path(notebook.removesuffix(".ipynb")).name
    most = count or (None if everything else 20)
    found = runlist.rows(folder, name, state, most, scratch=everything)
    if as_json:
        return terminal.print_json(found)
    runlist.print_rows(found, folder)
    for line in slurmtasks.lines(folder):
        click.echo(terminal.printable(line))


@click.command()
@click.argument("name", metavar="RUN", default="last")
@runs_option
@json_option
def show(name: str, runs: Path | None, as_json: bool) -> None:
    """Show what is known of RUN.

    RUN is a directory, an id or its last characters, `last`, `digits-cnn@last`, or `digits-cnn@best:test_accuracy`
    (`best:-val_loss` for the lowest).

    \b
    labkit show last
    labkit show digits-cnn@best:test_accuracy --json
    """
    from labkit.workbench import terminal

    found = terminal.facts(find_run(name, runs))
    terminal.print_json(found) if as_json else terminal.print_facts(found)


@click.command()
@click.argument("name", metavar="RUN", default="last")
@click.option("--grep", help="Only lines that hold this text.")
@click.option(
    "--level",
    type=click.Choice(["debug", "info", "warning", "error", "critical"], case_sensitive=False),
    help="Only logged lines of this level or above.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on while the run does.")
@click.option("--attempt", type=click.IntRange(min=1), help="What this attempt of a resumed run printed, from 1.")
@runs_option
def log(name: str, grep: str | None, level: str | None, follow: bool, attempt: int | None, runs: Path | None) -> None:
    """Print everything that RUN printed.

    Of a resumed run, it is what the newest attempt printed, or the one that --attempt names.

    \b
    labkit log last --level warning
    labkit log last --attempt 1
    labkit log 3f9a1c --grep loss -f
    """
    from labkit.workbench import logview

    for line in logview.lines(find_run(name, runs), grep=grep, level=level, follow=follow, attempt=attempt):
        click.echo(line, nl=False)


@click.command()
@click.argument("name", metavar="RUN", default="last")
@click.option("--to", "tracker", type=click.Choice(["tensorboard", "wandb"]), required=True, help="The tracker.")
@runs_option
def export(name: str, tracker: str, runs: Path | None) -> None:
    """Feed the metrics of RUN, which is over, to a tracker.

    Nothing comes twice, however often it is called. The files are in the run's directory, under trackers/; W&B is
    offline unless $WANDB_API_KEY or $WANDB_MODE says otherwise.

    \b
    labkit export last --to tensorboard
    labkit export digits-cnn@last --to wandb
    """
    from labkit.workbench.running import trackers

    click.echo(trackers.export(find_run(name, runs), tracker))


@click.command()
@click.option("--scratch", is_flag=True, help="Runs by hand that are over.")
@click.option("--yes", is_flag=True, help="Remove them; without it they are only shown.")
@runs_option
@click.pass_context
def prune(ctx: click.Context, scratch: bool, yes: bool, runs: Path | None) -> None:
    """Show runs that nobody needs any more, or remove them.

    Nothing is removed without --yes.

    \b
    labkit prune --scratch
    labkit prune --scratch --yes
    """
    from labkit.record import lab
    from labkit.workbench import prune as pruning
    from labkit.workbench import terminal

    if not scratch:
        raise click.UsageError("say what to prune: --scratch")
    found = pruning.scratch_runs(lab.runs_folder(Path.cwd(), runs))
    ctx.exit(terminal.print_pruned(found, pruning.remove(found) if yes else None))
