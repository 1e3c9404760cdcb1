"""Notebooks: new ones, their structure, what changed in them."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from labkit.cli.options import json_option


@click.command()
@click.argument("name", required=False)
@click.option("-t", "--template", default="experiment", show_default=True, help="The template to begin with.")
@click.option("--list", "listed", is_flag=True, help="List the templates, and write nothing.")
def new(name: str | None, template: str, listed: bool) -> None:
    """Write a new notebook, notebooks/NAME.ipynb, from a template.

    NAME is what is tried, in words: the title and the file name are made of it. Nothing is overwritten.

    \b
    labkit new "Does dropout help?"
    labkit new --list
    """
    from labkit.record import lab
    from labkit.workbench.notebooks import template as making

    root = lab.root(Path.cwd())
    if listed:
        for known, where in making.templates(root).items():
            click.echo(f"{known:<24} {os.path.relpath(where)}")
        return
    if not name:
        raise click.UsageError('say what is tried: labkit new "Does dropout help?"')
    path = os.path.relpath(making.new(name, template, root))
    click.echo(path)
    click.echo(f"next: write its goal in JupyterLab; labkit run {shlex.quote(path)} -p DEBUG=true", err=True)


@click.command()
@click.argument("names", metavar="[NOTEBOOK|FOLDER]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--fix", is_flag=True, help="Mend ids, the order of keys, and what a run has left; never a source.")
@json_option
@click.pass_context
def check(ctx: click.Context, names: tuple[Path, ...], fix: bool, as_json: bool) -> None:
    """Check the structure of notebooks, and what git would store.

    Without arguments: all of notebooks/ and templates/. Outputs count only where git would store them.

    \b
    labkit check
    labkit check notebooks/digits-cnn.ipynb --fix
    """
    from labkit.workbench import terminal
    from labkit.workbench.notebooks import check as checking

    found = list(checking.check(names, fix=fix))
    if as_json:
        terminal.print_json(checking.facts(found))
    else:
        click.echo("\n".join(map(terminal.printable, checking.told(found))))
    ctx.exit(int(any(one.problems for one in found)))


@click.command()
@click.argument("notebook", type=click.Path(path_type=Path))
@click.option("--dry-run", "dry", is_flag=True, help="Say what would be done, and write nothing.")
@click.option("--force", is_flag=True, help="Also where git could not bring back what is there now.")
def adopt(notebook: Path, dry: bool, force: bool) -> None:
    """Put labkit's structure into NOTEBOOK.

    That is headings of the sections, the tag of the parameters, the start of the run, and ids. Its code cells stay as
    they are, in their order.

    \b
    labkit adopt notebooks/old.ipynb --dry-run
    """
    from labkit.workbench.notebooks import adopt as adopting
    from labkit.workbench.terminal import printable

    made = adopting.adopt(notebook, force=force, dry=dry)
    for line in made.done or ["nothing to do: it has labkit's structure"]:
        click.echo(printable(line))
    for line in made.undecided:
        click.echo(printable(f"left to you: {line}"))
    name = shlex.quote(str(notebook))
    click.echo(f"nothing was written; next: labkit adopt {name}" if dry else f"next: labkit check {name}", err=True)


@click.command()
@click.argument("base", default="main")
@click.option("--web", is_flag=True, help="Side by side in the browser, on this machine's loopback.")
@click.option("--all", "everything", is_flag=True, help="Tags, ids, attachments and other metadata too.")
def diff(base: str, web: bool, everything: bool) -> None:
    """Show what changed in notebooks since this branch left BASE.

    Uncommitted changes count too.

    \b
    labkit diff
    labkit diff dev --all
    """
    from labkit.workbench.git import gitdiff

    found = gitdiff.changed(Path.cwd(), gitdiff.start(Path.cwd(), base))
    if web and found:
        gitdiff.in_browser(found)
        return
    shown = [gitdiff.as_text(one, everything=everything, colour=sys.stdout.isatty()) for one in found]
    click.echo("".join(shown).rstrip("\n") or gitdiff.nothing(found, base))


@click.command()
@click.argument("notebooks", metavar="[NOTEBOOK]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--ours", "take", flag_value="ours", help="Take our side wherever both changed something.")
@click.option("--theirs", "take", flag_value="theirs", help="Take the other side there.")
@click.option("--both", "take", flag_value="both", help="Take both, one after the other, where that is possible.")
@click.option("--anew", is_flag=True, help="Start from git's versions again, whatever the file holds by now.")
@click.pass_context
def merge(ctx: click.Context, notebooks: tuple[Path, ...], take: Any, anew: bool) -> None:
    """Lead through notebooks that git could not merge.

    It asks what nobody else can decide. Exit status: 0 all is settled and added, 1 something is left, 2 bad input.

    \b
    labkit merge
    labkit merge notebooks/digits-cnn.ipynb --theirs
    """
    from labkit.workbench.git import asking

    ctx.exit(asking.lead(Path.cwd(), notebooks, take, anew=anew))


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Make a new lab in DIR.

    It has an environment, a Makefile, templates, one notebook, a test and CI. DIR is new or empty. The lock names what
    is installed here, labkit from where it came from; its wheel comes along.

    \b
    labkit init my-lab && cd my-lab && make report
    """
    from labkit.workbench.notebooks import newlab

    made = newlab.init(folder)
    click.echo(made.path)
    click.echo(f"its first notebook is {os.path.relpath(made.notebook, made.path)}; {made.git}", err=True)
    click.echo(f"next: cd {shlex.quote(os.path.relpath(made.path))} && make setup report", err=True)
