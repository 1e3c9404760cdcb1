"""The command line: each command reads its arguments, calls one function, and prints what came of it."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from labkit import __version__
from labkit.cli.machine import doctor, kernels, setup
from labkit.cli.notebooks import adopt, check, diff, init, merge, new
from labkit.cli.reading import export, list_runs, log, prune, show
from labkit.cli.reports import report, unpack
from labkit.cli.reproducing import compare, repeat, reproduce, verify
from labkit.cli.running import INTERRUPTED, resume, run, stop, watch
from labkit.cli.sweeping import sweep
from labkit.errors import LabkitError

SECTIONS = {
    "Runs": (run, sweep, resume, watch, stop),
    "Records": (list_runs, show, log, report, export, prune),
    "Reproduction": (reproduce, verify, compare, repeat, unpack),
    "Notebooks": (new, check, adopt, diff, merge),
    "Labs and machines": (init, setup, doctor, kernels),
}


class _Commands(click.Group):
    """The commands, with labkit's own errors turned into a message and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if "extra argument" not in error.message or "=" not in error.message:
                raise
            raise click.UsageError(f"{error.message}; put -p before each NAME=VALUE", error.ctx) from None
        except LabkitError as error:
            from labkit.workbench.terminal import printable

            message = "\n".join(map(printable, str(error).split("\n")))  # it may name what strangers named
            click.echo(f"labkit: {message}", err=True)
            ctx.exit(error.exit_status)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has seen enough
            ctx.exit(0)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED["SIGINT"])

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                room = formatter.width - 6 - width
                formatter.write_dl([(f"{one.name:<{width}}", one.get_short_help_str(room)) for one in commands])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="labkit")
def main() -> None:
    """Run notebooks as experiments, and find every result again.

    \b
    labkit run notebooks/digits-cnn.ipynb -p EPOCHS=3
    labkit list
    labkit show last
    """


for _commands in SECTIONS.values():
    for _command in _commands:
        main.add_command(_command)
