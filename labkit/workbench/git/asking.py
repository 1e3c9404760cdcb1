"""How conflicts are shown, what is asked about each, and what is said of the outcome."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.record.text import counted
from labkit.workbench.git import merge
from labkit.workbench.git.conflicts import MIDDLE, OURS, THEIRS, Answer, Conflict, Take
from labkit.workbench.git.gitrepo import git, top, under_way
from labkit.workbench.terminal import printable

LINES_SHOWN = 40
COLOURS = {"ours": "cyan", "theirs": "magenta"}
NAMES = {"o": "ours", "t": "theirs", "b": "both", "e": "edit", "s": "skip", "q": "quit"}


def lead(folder: Path, names: tuple[Path, ...], take: Take | None = None, *, anew: bool = False) -> int:
    """Leads through conflicted notebooks, and returns the exit status: 0 all is settled, 1 something is left.

    Args:
        folder: A folder of the working tree.
        names: The notebooks; none for all that are conflicted.
        take: The answer to everything; None to ask.
        anew: Start from git's versions even where a file seems to have been settled by hand.

    Raises:
        GitProblem: There is no working tree, or git refused.
        NotebookProblem: A notebook cannot be merged; the message says what to do.
    """
    root = top(folder)
    found = merge.conflicted(root, names)
    if not found:
        click.echo("nothing to settle: git has no conflict about " + (", ".join(map(str, names)) or "a notebook"))
        return 0
    ours, theirs, goes_on = under_way(root)
    ask = Asking(ours, theirs, take)
    is_left = False
    for notebook in found:
        outcome = merge.settle(notebook, ask, anew=anew or take is not None)
        is_left = is_left or bool(outcome.left)
        state = (
            f"{len(outcome.left)} left"
            if outcome.left
            else f"settled, {counted(outcome.settled, 'conflict')}, and added"
        )
        for text in (state, *outcome.left, *outcome.notes):
            click.echo(printable(f"{notebook.path}: {text}"))
    if not is_left:
        others = git(root, "diff", "--name-only", "--diff-filter=U").decode(errors="replace").splitlines()
        click.echo(f"still in conflict: {', '.join(map(printable, others))}" if others else _then(goes_on))
    return int(is_left)


class Asking:
    """Asks about one conflict after another, until there is nobody to answer.

    Args:
        ours: What our side is, for people.
        theirs: What the other side is.
        take: The answer to everything, which then is not asked.
    """

    def __init__(self, ours: str, theirs: str, take: Take | None = None) -> None:
        self.sides = {"ours": ours, "theirs": theirs}
        self.take = take
        self.is_over = False

    def __call__(self, path: str, conflict: Conflict, number: int, count: int) -> Answer | None:
        """Returns what is decided about a conflict; None leaves it open."""
        if self.take:
            return Answer(self.take)
        if self.is_over:
            return None
        self._show(path, conflict, number, count)
        while True:
            name = self._name(conflict)
            if name == "edit":
                text = _edited(conflict)
                if text is not None:
                    return Answer("text", text)
            else:
                self.is_over = name == "quit"
                return Answer(name) if name in ("ours", "theirs", "both") else None  # type: ignore[arg-type]

    def _show(self, path: str, conflict: Conflict, number: int, count: int) -> None:
        cell = f", cell {conflict.cell}" if conflict.cell else ""
        click.secho(printable(f"{path}{cell} ({number} of {count}): {conflict.about}"), bold=True)
        for side, text in (("ours", conflict.ours), ("theirs", conflict.theirs)):
            click.secho(printable(f"{side} ({self.sides[side]})"), fg=COLOURS[side])
            lines = text.split("\n") if text else ["(nothing)"]
            for line in lines[:LINES_SHOWN]:
                click.secho(f"    {printable(line.expandtabs(4))[:500]}".rstrip(), fg=COLOURS[side])
            if len(lines) > LINES_SHOWN:
                click.echo(f"    … {len(lines) - LINES_SHOWN:,} more lines")

    def _name(self, conflict: Conflict) -> str:
        choices = [*conflict.choices, *(["edit"] if conflict.suffix else []), "skip", "quit"]
        question = ", ".join(f"[{name[0]}]{name[1:]}" for name in choices)
        while True:
            try:
                said = click.prompt(question, prompt_suffix="? ").strip().lower()
            except click.Abort:  # no terminal, or its end
                click.echo()
                return "quit"
            name = NAMES.get(said, said)
            if name in choices:
                return name
            click.echo("both is no answer here: one parameter has one value" if name == "both" else f"{said!r}?")


def _edited(conflict: Conflict) -> str | None:
    """Returns what the user makes of both sides in an editor; None where nothing was decided there."""
    both = "\n".join([OURS, conflict.ours, MIDDLE, conflict.theirs, THEIRS]) + "\n"
    try:
        text = click.edit(both, extension=conflict.suffix, require_save=False)
    except click.ClickException as error:
        click.echo(f"the editor failed: {error.format_message()}; $EDITOR names another one")
        return None
    if text is None or any(line.startswith((OURS[:8], THEIRS[:8])) for line in text.split("\n")):
        click.echo("the marks are still there; keep what the cell shall be, without them")
        return None
    return text.removesuffix("\n")


def _then(command: str) -> str:
    return f"{command} goes on" if command else "nothing is in conflict any more"
