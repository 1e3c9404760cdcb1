"""Checks notebook files, and mends what can be mended without touching a source."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import FolderProblem, NotebookProblem
from labkit.record import lab
from labkit.record.files import write_atomic
from labkit.record.provenance import git
from labkit.record.text import counted
from labkit.workbench.notebooks import hygiene, lint, notebook, tidy
from labkit.workbench.notebooks.finding import Finding

FOLDERS = ("notebooks", "templates")
WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH  # looked at as well, since root may write anything


@dataclass(frozen=True)
class Checked:
    """What a check came to.

    Attributes:
        path: The notebook.
        findings: What is wrong with it, after mending where that was asked.
        changes: What was mended.
    """

    path: Path
    findings: tuple[Finding, ...]
    changes: tuple[str, ...] = ()

    @property
    def problems(self) -> int:
        """How many findings are more than a note."""
        return sum(not finding.note for finding in self.findings)


def check(named: Sequence[Path], *, fix: bool = False) -> Iterator[Checked]:
    """Checks notebooks, each as it is asked for.

    Args:
        named: Notebooks and folders; none for `notebooks/` and `templates/` of this lab.
        fix: Mend ids, the order of keys, and what a run has left where git would store it.

    Raises:
        NotebookProblem: What was named is not there, or there is nothing to check.
        FolderProblem: A mended notebook cannot be written; it is as it was.
    """
    for path in _expanded(named):
        yield check_file(path, fix=fix)


def check_file(path: Path, *, fix: bool = False) -> Checked:
    """Checks one notebook, and mends it where that is asked."""
    try:
        content, problems = lint.parse(notebook.bytes_of(path))
    except NotebookProblem as error:
        problem, _, advice = str(error).partition("; ")
        return Checked(path, (Finding(problem, advice or "see to that first"),))
    if content is None:
        return Checked(path, tuple(problems))
    in_git = InGit.of(path)
    changes: list[str] = []
    if fix:
        content, changes = tidy.tidied(content, strip=in_git.as_it_is, earlier=_cells(in_git.committed()))
        if changes:
            data = tidy.dumps(content)
            write(path, data)
            content = lint.parse(data)[0] or content
    found = [*problems, *lint.findings(content, in_git=in_git.as_it_is), *_stored(in_git)]
    return Checked(path, tuple(lint.in_order(found)), tuple(changes))


def write(path: Path, data: bytes) -> None:
    """Replaces a notebook's file in one step; a link stays one, and the file's mode is kept.

    Raises:
        FolderProblem: It cannot be written, or is not meant to be; it is as it was.
    """
    target = path.resolve()
    try:
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
        if mode is not None and not (mode & WRITABLE and os.access(target, os.W_OK)):
            raise FolderProblem(f"{path} is read-only; chmod u+w {shlex.quote(str(path))} lets it be written")
        write_atomic(target, data)
        if mode is not None:
            target.chmod(mode)
    except OSError as error:
        raise FolderProblem(f"{path} cannot be written: {error.strerror or error}") from error


def told(found: Sequence[Checked]) -> list[str]:
    """Returns what a person reads of a check: a line a finding, and how many there were."""
    lines = []
    for one in found:
        name = os.path.relpath(one.path)
        lines += [f"{name}: changed {change}" for change in one.changes]
        lines += [f"{name}: {finding}" for finding in one.findings]
    problems = sum(one.problems for one in found)
    said = counted(problems, "problem") if problems else "nothing wrong"
    return [*lines, f"{counted(len(found), 'notebook')}: {said}"]


def facts(found: Sequence[Checked]) -> dict[str, Any]:
    """Returns a check for a program to read."""
    listed = [
        {"path": str(one.path), "changes": list(one.changes), "findings": [finding.facts() for finding in one.findings]}
        for one in found
    ]
    return {"problems": sum(one.problems for one in found), "notebooks": listed}


@dataclass(frozen=True)
class InGit:
    """How git keeps a file.

    Attributes:
        path: The file.
        tracked: Git keeps it.
        filtered: A filter is installed here that git passes it through; what it would take out may stay in the file.
    """

    path: Path
    tracked: bool
    filtered: bool

    @classmethod
    def of(cls, path: Path) -> InGit:
        """Returns how git keeps a file; where there is no git, it does not."""
        path = path.resolve()  # a link's target is what a repair would write
        folder, name = path.parent, path.name
        try:
            tracked = bool(git(folder, "--literal-pathspecs", "ls-files", "-z", "--", name))
            _, _, attribute, _ = git(folder, "check-attr", "-z", "filter", "--", name).decode().split("\0")
        except (OSError, ValueError):
            return cls(path, False, False)
        try:
            filtered = bool(git(folder, "config", "--get", f"filter.{attribute}.clean").strip())
        except OSError:
            filtered = False
        return cls(path, tracked, filtered)

    @property
    def as_it_is(self) -> bool:
        """Git stores what lies there."""
        return self.tracked and not self.filtered

    def staged(self) -> bytes:
        """Returns what git has stored of the file; nothing where it has nothing yet."""
        return self._stored("")

    def committed(self) -> bytes:
        """Returns what the last commit holds of the file; nothing where it does not."""
        return self._stored("HEAD")

    def _stored(self, where: str) -> bytes:
        try:
            return git(self.path.parent, "cat-file", "blob", f"{where}:./{self.path.name}") if self.tracked else b""
        except OSError:
            return b""


def _stored(in_git: InGit) -> Iterator[Finding]:
    """Yields a finding where git keeps what its filter would have taken out."""
    if not in_git.filtered:
        return
    content, _ = lint.parse(in_git.staged())
    if content is not None and any(hygiene.stored(content)):
        advice = f"`git add --renormalize {os.path.relpath(in_git.path)}`, and commit"
        yield Finding("git has stored outputs or metadata of a run, from before its filter", advice)


def _cells(data: bytes) -> list[dict[str, object]]:
    content, _ = lint.parse(data)
    return content["cells"] if content is not None else []


def _expanded(named: Sequence[Path]) -> list[Path]:
    root = lab.root(Path.cwd())
    folders = [root / name for name in FOLDERS if (root / name).is_dir()]
    found = [path for one in named or folders for path in _notebooks(one)]
    if not named and not folders:
        found = sorted(root.glob("*.ipynb"))
    if not found:
        raise NotebookProblem(f"there is no notebook in {', '.join(map(str, named or folders or [root]))}; name one")
    return list(dict.fromkeys(found))


def _notebooks(path: Path) -> Iterable[Path]:
    """Returns the notebooks below a folder, but those of runs and in hidden folders; for a file itself."""
    if not path.is_dir():
        if not path.is_file():
            notebook.bytes_of(path)  # it says what is missing, and what was meant
        return [path]
    runs = lab.runs_folder(path)
    return sorted(
        found
        for found in path.rglob("*.ipynb")
        if not any(part.startswith(".") for part in found.relative_to(path).parts)
        and runs not in Path(os.path.abspath(found)).parents
    )
