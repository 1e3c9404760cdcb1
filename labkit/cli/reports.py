"""Pages of runs, and what they carry."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from labkit.cli.options import files_option, find_run, parameters_option, runs_option


@click.command()
@click.argument("names", metavar="[RUN|NOTEBOOK]...", nargs=-1)
@parameters_option
@files_option
@click.option(
    "--rerun",
    type=click.Choice(["never", "stale", "always"]),
    default="never",
    show_default=True,
    help="Which notebooks to run again.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The folder for the pages; default: reports/ in this lab."
)
@click.option("--public", is_flag=True, help="For strangers: without the record, host, user and folders.")
@runs_option
@click.pass_context
def report(
    ctx: click.Context,
    names: tuple[str, ...],
    parameters: tuple[str, ...],
    files: tuple[Path, ...],
    rerun: str,
    output: Path | None,
    public: bool,
    runs: Path | None,
) -> None:
    """Write HTML reports of runs or notebooks.

    Without arguments: of every notebook in notebooks/. For a RUN its report.html is written anew. For a NOTEBOOK the
    newest finished run is rendered to reports/, and the notebook is executed only if it has none.

    A report carries the run's record, compressed, which `labkit unpack` writes out; with --public it does not.

    \b
    labkit report
    labkit report last 3f9a1c
    labkit report last --public
    labkit report notebooks/digits-cnn.ipynb -p EPOCHS=3 --rerun stale
    """
    from labkit.workbench.notebooks import params
    from labkit.workbench.pages import reports

    notebooks = [Path(name) for name in names if name.endswith(".ipynb")]
    directories = [find_run(name, runs) for name in names if not name.endswith(".ipynb")]
    for directory in directories:
        click.echo(reports.write_of_run(directory, public))
    if notebooks or not names:
        asked = params.from_command_line(parameters, files)
        wanted = reports.Wanted(notebooks, asked, rerun, output, runs, ["labkit", *sys.argv[1:]], public)
        ctx.exit(reports.make(wanted, click.echo))


@click.command()
@click.argument("name", metavar="REPORT|RUN", default="last")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Where to: a new or empty folder.")
@runs_option
def unpack(name: str, output: Path, runs: Path | None) -> None:
    """Write out the record that a REPORT carries, or that of a RUN.

    Notebook, modules, parameters, packages, metrics, the data of figures, small data files. The folder becomes a lab
    of its own, with the record in record/. Nothing there is replaced, and nothing is executed.

    \b
    labkit unpack digits-cnn.html -o digits-again
    """
    from labkit.record import lab
    from labkit.workbench import terminal
    from labkit.workbench.reproducing import unpack as unpacking

    packed = unpacking.opened(name, lab.runs_folder(Path.cwd(), runs))
    for line in unpacking.told(unpacking.lay_out(packed, output)):
        click.echo(terminal.printable(line))
