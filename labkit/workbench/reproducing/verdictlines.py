"""The verdict on a run made again, as a terminal shows it."""

from __future__ import annotations

from labkit.record.files import dumps
from labkit.workbench.reproducing.compare import DIVERGED, IDENTICAL, NOT_RUN, WITHIN, Comparison
from labkit.workbench.reproducing.verdictpage import MARKS, STATES

COLOURS = {IDENTICAL: "green", WITHIN: "green", DIVERGED: "red", NOT_RUN: "red"}
MARK_COLOURS = {"equal": "green", "differs": "red", "unknown": "yellow", "harmless": "cyan"}
SHOWN = 5  # differences of a link; the page and the JSON have more
NAME_COLUMNS = 16


def print_comparison(comparison: Comparison, *, as_json: bool = False) -> None:
    """Prints the verdict, its cause and the chain, to standard output; as JSON for a program.

    Args:
        comparison: The verdict.
        as_json: Print its facts instead.
    """
    import sys

    import click

    if as_json:
        sys.stdout.write(dumps(comparison.facts(), pretty=True).decode("utf-8", "replace") + "\n")
        return
    colour = COLOURS[comparison.verdict]
    click.echo(f"{click.style(comparison.verdict, fg=colour, bold=True)}: {_printable(comparison.cause)}")
    if comparison.tolerance:
        click.echo(f"tolerance: {_printable(comparison.tolerance)}")
    if comparison.now is None:
        return
    if comparison.step is not None:
        click.echo(f"first difference: {_printable(str(comparison.step))}")
    for line in chain_lines(comparison):
        click.echo(line)
    click.echo(_printable(comparison.expected))


def chain_lines(comparison: Comparison) -> list[str]:
    """Returns the links with their marks, and below each in what it differs."""
    import click

    lines = []
    for one in comparison.chain:
        mark = click.style(MARKS[one.state], fg=MARK_COLOURS[one.state])
        first = click.style(" (the first)", bold=True) if one.first else ""
        lines.append(f"{mark} {one.name:<{NAME_COLUMNS}} {STATES[one.state]}{first}")
        told = [*(difference.text for difference in one.differences), *one.notes]
        lines += [f"    {_printable(text)}" for text in told[:SHOWN]]
        if len(told) > SHOWN:
            lines.append(f"    and {len(told) - SHOWN} more")
    return lines


def _printable(text: str) -> str:
    from labkit.workbench.terminal import printable

    return printable(text)
