"""How the notebooks of this branch differ from another one: their sources, shown by nbdime."""

from __future__ import annotations

import difflib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from labkit.errors import GitProblem, WorkFailed
from labkit.workbench.git.cellmerge import readable
from labkit.workbench.git.gitrepo import answer, git, top
from labkit.workbench.notebooks.clean import dumps
from labkit.workbench.terminal import printable

EMPTY: dict[str, Any] = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}

# Importing labkit.workbench first saves nbdime three seconds of its start.
BROWSER = "import sys, labkit.workbench; from nbdime.webapp.nbdifftool import main; sys.exit(main())"


@dataclass(frozen=True)
class Changed:
    """A notebook that differs: its path, and what it was and is, None where it cannot be read as a notebook."""

    path: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def start(folder: Path, base: str) -> str:
    """Returns the commit at which the present branch left another one: what others did there since is no difference.

    Raises:
        GitProblem: There is no repository, or no such branch; the message names near ones.
    """
    root = top(folder)
    for name in () if base.startswith("-") else (base, f"origin/{base}"):
        if commit := answer(root, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"):
            return answer(root, "merge-base", commit, "HEAD") or commit
    known = answer(root, "for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/remotes").split("\n")
    near = difflib.get_close_matches(base, known, 3, 0.5) or [name for name in known if name][:5]
    there = f"; there are {', '.join(near)}" if near else "; there is no commit yet"
    raise GitProblem(f"there is no branch or commit {base!r}{there}")


def changed(folder: Path, commit: str) -> list[Changed]:
    """Returns the notebooks of the working tree that differ from a commit, new ones too."""
    root = top(folder)
    tracked = git(root, "diff", "--name-only", "--no-renames", "--no-ext-diff", "-z", commit, "--", "*.ipynb")
    new = git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", "*.ipynb")
    paths = [os.fsdecode(path) for path in [*tracked.split(b"\0")[:-1], *new.split(b"\0")[:-1]]]
    found = (Changed(path, _before(root, commit, path), _after(root / path)) for path in paths)
    return [each for each in found if each.before is None or each.before != each.after]


def _before(root: Path, commit: str, path: str) -> dict[str, Any] | None:
    if not answer(root, "ls-tree", "--name-only", commit, "--", path):
        return EMPTY
    return notebook_in(git(root, "show", f"{commit}:{path}"))


def _after(path: Path) -> dict[str, Any] | None:
    return notebook_in(path.read_bytes()) if path.is_file() else EMPTY


def notebook_in(data: bytes) -> dict[str, Any] | None:
    """Returns the notebook in a file's content, cleaned; None where there is none."""
    try:
        return readable(json.loads(data))
    except (ValueError, RecursionError):
        return None


def as_text(notebook: Changed, *, everything: bool, colour: bool) -> str:
    """Returns how a notebook differs; empty where it does not in what is shown.

    Args:
        notebook: The notebook.
        everything: Ids, tags, attachments and other metadata too, not only sources.
        colour: With a terminal's colours.
    """
    if notebook.before is None or notebook.after is None:
        side = "was" if notebook.before is None else "is"
        return f"{notebook.path} {side} no notebook; git diff --no-ext-diff shows its lines\n"
    import nbformat
    from nbdime.diffing.notebooks import diff_notebooks, set_notebook_diff_targets
    from nbdime.prettyprint import PrettyPrintConfig, pretty_print_diff

    shown = {"sources": True, "outputs": False}
    hidden = dict.fromkeys(("attachments", "metadata", "identifier", "details"), everything)
    set_notebook_diff_targets(**shown, **hidden)
    before, after = (nbformat.from_dict(_harmless(side)) for side in (notebook.before, notebook.after))
    text = io.StringIO()
    try:
        pretty_print_diff(before, diff_notebooks(before, after), "", PrettyPrintConfig(out=text, use_color=colour))
    except Exception as error:  # whatever nbdime raises at what it does not expect; the other notebooks are shown
        return f"{_not_showable(notebook, error)}\n"
    return f"{printable(notebook.path)}\n{text.getvalue()}" if text.getvalue() else ""


def _not_showable(notebook: Changed, error: Exception) -> str:
    why = printable(" ".join(str(error).split()))
    return f"{printable(notebook.path)} cannot be shown by nbdime ({why:.200}); git diff --no-ext-diff shows its lines"


def nothing(notebooks: list[Changed], base: str) -> str:
    """Returns what to say where no difference was shown."""
    if not notebooks:
        return f"no notebook has changed since this branch left {base}"
    names = ", ".join(printable(notebook.path) for notebook in notebooks)
    return f"only metadata has changed since this branch left {base}, in {names}; --all shows it"


def _harmless(notebook: dict[str, Any]) -> dict[str, Any]:
    """Returns a notebook without characters in its sources that would steer a terminal."""
    lines = [cell["source"].expandtabs(4).split("\n") for cell in notebook["cells"]]
    sources = ["\n".join(map(printable, each)) for each in lines]
    return notebook | {
        "cells": [cell | {"source": each} for cell, each in zip(notebook["cells"], sources, strict=True)]
    }


def in_browser(notebooks: list[Changed]) -> None:
    """Shows notebooks side by side in the browser, one after another, on this machine's loopback.

    Raises:
        WorkFailed: nbdime's server ended with an error, or some could not be shown; all others were.
    """
    failed = []
    for notebook in notebooks:
        try:
            with _files(notebook) as (before, after):
                command = [sys.executable, "-P", "-c", BROWSER, "--ip", "127.0.0.1", "-O", str(before), str(after)]
                done = subprocess.run(command, check=False)
        except ValueError as error:  # a number that no browser could read
            failed.append(_not_showable(notebook, error))
            continue
        if done.returncode:
            raise WorkFailed(f"nbdime ended with status {done.returncode}; its own words are above")
    if failed:
        raise WorkFailed("\n".join(failed))


@contextmanager
def _files(notebook: Changed) -> Iterator[tuple[Path, Path]]:
    with TemporaryDirectory(prefix="labkit-diff-") as folder:
        name = Path(notebook.path).name
        paths = Path(folder, "before", name), Path(folder, "after", name)
        for path, side in zip(paths, (notebook.before, notebook.after), strict=True):
            path.parent.mkdir()
            path.write_bytes(dumps(side or EMPTY))
        yield paths
