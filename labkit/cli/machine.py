"""This machine and clone: environment, git, kernels."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli.options import json_option


@click.command()
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check this environment and say what is off.

    Shown are versions, hardware, settings of determinism, and differences from the lock.

    \b
    labkit doctor
    labkit doctor --json
    """
    from labkit.workbench import doctor as examining
    from labkit.workbench import terminal

    found = examining.examine(Path.cwd())
    if as_json:
        terminal.print_json(found)
    else:
        for line in examining.lines(found):
            click.secho(terminal.printable(line), fg="red" if line.startswith("✗") else None)
    ctx.exit(examining.status(found))


@click.command()
@click.option("--remove", is_flag=True, help="Take git's settings out again.")
def setup(remove: bool) -> None:
    """Teach git about notebooks, and print the line for the PATH.

    Git in this clone then stores notebooks without outputs (the files keep theirs), and diffs and merges them cell by
    cell.

    \b
    eval "$(labkit setup)"
    labkit setup --remove
    """
    from labkit.errors import GitProblem
    from labkit.workbench.git import gitsetup

    try:
        said = (gitsetup.remove if remove else gitsetup.install)(Path.cwd())
    except GitProblem as error:
        said = [f"git's settings are as they were: {error}"]
    for text in said:
        click.echo(f"labkit: {text}", err=True)
    if not remove:
        click.echo(gitsetup.path_line())


@click.group()
def kernels() -> None:
    """Jupyter kernels of this environment that start warm.

    There is one for each GPU, and one for the CPU.

    \b
    labkit kernels install
    """


@kernels.command(name="install")
def install_kernels() -> None:
    """Install them, for JupyterLab, papermill and nbconvert alike."""
    from labkit.workbench.running import kernels as known

    for kernel in known.install():
        click.echo(f"{kernel.name}: {kernel.shown}")


@kernels.command(name="list")
def list_kernels() -> None:
    """List those that Jupyter finds, and the servers that keep them warm."""
    from labkit.launch import warm
    from labkit.workbench import terminal
    from labkit.workbench.running import kernels as known

    for name, shown, python in known.installed():
        click.echo(terminal.printable(f"{name}: {shown}, {python}"))
    count = len(warm.servers())
    click.echo(f"{count or 'no'} server{'' if count == 1 else 's'} of warm kernels")


@kernels.command(name="remove")
def remove_kernels() -> None:
    """Remove them, and end the servers that keep kernels warm, those of your other environments too."""
    from labkit.record.text import counted
    from labkit.workbench.running import kernels as known

    names, servers = known.remove()
    ended = counted(servers, "server") if servers else "no server"
    click.echo(f"removed: {', '.join(names) or 'none'}; {ended} of warm kernels ended")
