"""What `labkit setup` tells a clone's git about notebooks: the filter, and the drivers for diff and merge.

All of it lies in .git/config, where a clone of the repository has none of it, and each command names its interpreter by
path, since git knows no environment. When that interpreter has gone, git says so and falls back to what it would do
without: it stores the file as it is, shows and merges lines of text.
"""

from __future__ import annotations

import os
import shlex
import sys
import sysconfig
from pathlib import Path

from labkit.errors import FolderProblem, GitProblem
from labkit.record import lab
from labkit.workbench.git.gitrepo import answer, git, top
from labkit.workbench.git.mergedriver import CONFLICTED, MERGED
from labkit.workbench.notebooks import check, clean

ATTRIBUTES = "*.ipynb text eol=lf filter=labkit diff=jupyternotebook merge=labkit"
REMEDY = "labkit setup"
GONE = (
    "labkit: the environment that this clone was set up with has gone; remedy: make setup, or labkit setup in another"
)


def settings(python: str = sys.executable) -> dict[str, str]:
    """Returns git's settings, by name, for an interpreter."""
    here, program = shlex.quote(python), shlex.quote(clean.__file__)
    say = f"echo {shlex.quote(GONE)} >&2"
    filters = f'if test -x {here} && test -r {program}; then exec {here} -I -S {program} "$1"; fi; {say}; cat'
    merges = (
        f'test -x {here} && {here} -P -m labkit.workbench.git.mergedriver "$1" "$2" "$3" "$5";'
        f" case $? in {MERGED}) return 0;; {CONFLICTED}) return 1;; esac; test -x {here} || {say};"
        ' git merge-file --marker-size="$4" -L ours -L base -L theirs "$2" "$1" "$3"'
    )
    diffs = (
        'if test "$GIT_EXTERNAL_DIFF" = git-difftool--helper; then exec git-difftool--helper "$@"; fi;'
        ' if test $# -lt 7; then echo "$1: conflicted; labkit merge leads through"; return 0; fi;'
        f' if test -x {here}; then {here} -P -m labkit.workbench.git.diffdriver "$@" && return 0;'
        f' else {say}; fi; git --no-pager diff --no-index --no-ext-diff -- "$2" "$5"; return 0'
    )
    return {
        "filter.labkit.clean": _function(filters, "%f"),
        "merge.labkit.name": "notebooks cell by cell",
        "merge.labkit.driver": _function(merges, "%O %A %B %L %P"),
        "merge.labkit.recursive": "binary",  # the ancestor of several ancestors has no marks in it
        "diff.jupyternotebook.command": _function(diffs, "").rstrip(),
        **{
            f"{tool}.nbdime.cmd": f"if test -x {here}; then {here} -P -c"
            f" 'import sys, labkit.workbench; from nbdime.vcs.git.{tool} import main; sys.exit(main())' {files};"
            f" else {say}; false; fi"
            for tool, files in (
                ("difftool", 'diff -O -D "$LOCAL" "$REMOTE" "$BASE"'),
                ("mergetool", 'merge "$BASE" "$LOCAL" "$REMOTE" "$MERGED"'),
            )
        },
    }


def _function(body: str, arguments: str) -> str:
    """Returns a shell command that git starts with arguments; a percent sign of a path is none of git's."""
    text = body.replace("%", "%%") if arguments else body
    return f"labkit() {{ {text}; }}; labkit {arguments}"


def install(folder: Path, python: str = sys.executable) -> list[str]:
    """Sets up the clone that a folder lies in, and returns what was done; twice is as good as once.

    Args:
        folder: The lab.
        python: The interpreter that git will start.

    Raises:
        GitProblem: The folder lies in no repository, or git refused.
        FolderProblem: .gitattributes cannot be read or written; all is as it was.
    """
    root = top(folder)
    named = [] if _has_attributes(lab.root(folder)) else [_write_attributes(lab.root(folder))]
    done = []
    for name, value in settings(python).items():
        if answer(root, "config", "--local", "--get", name) != value:
            git(root, "config", "--local", "--replace-all", name, value)
            done.append(name)
    said = ["git stores notebooks without outputs here, and diffs and merges them cell by cell"] if done else []
    return said + named


def _has_attributes(folder: Path) -> bool:
    """Tells whether a notebook in a lab has the filter."""
    return answer(folder, "check-attr", "filter", "--", "notebooks/x.ipynb").endswith(": labkit")


def _write_attributes(folder: Path) -> str:
    path = folder / ".gitattributes"
    if path.is_symlink():
        raise FolderProblem(f"{path} is a link, which git does not follow; put a file in its place")
    try:
        before = path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""
    except OSError as error:
        raise FolderProblem(f"{path} cannot be read: {error.strerror or error}") from error
    text = f"{before.rstrip()}\n{ATTRIBUTES}\n".lstrip()
    check.write(path, text.encode("utf-8", "surrogateescape"))
    return f"{path} names the filter now; commit it"


def remove(folder: Path) -> list[str]:
    """Takes the settings out of a clone again, and returns what was done; .gitattributes means nothing without them.

    Raises:
        GitProblem: The folder lies in no repository, or git refused.
    """
    root = top(folder)
    found = [name for name in settings() if _is_ours(name, answer(root, "config", "--local", "--get", name))]
    for name in found:
        git(root, "config", "--local", "--unset-all", name)
    for section in ("filter.labkit", "merge.labkit"):
        answer(root, "config", "--local", "--remove-section", section)
    return ["git treats notebooks as any text again: outputs show up as changes"] if found else []


def _is_ours(name: str, value: str) -> bool:
    return bool(value) and (".labkit." in name or "labkit" in value)


def path_line() -> str:
    """Returns the line for a shell that puts labkit on the PATH."""
    return f'export PATH={shlex.quote(sysconfig.get_path("scripts"))}:"$PATH"'


def problem(folder: Path) -> str:
    """Returns what is wrong with a clone's filter, and the remedy; empty where all is well or there is no git."""
    try:
        root = top(folder)
    except GitProblem:
        return ""
    kept = answer(root, "config", "--get", "filter.labkit.clean")
    if not kept:
        return f"git would store outputs of notebooks; remedy: {REMEDY}"
    if not all(os.path.exists(path) for path in _paths(kept.replace("%%", "%"))):
        return f"git's filter for notebooks needs an environment that has gone; remedy: {REMEDY}"
    return (
        "" if _has_attributes(lab.root(folder)) else f".gitattributes names no filter for notebooks; remedy: {REMEDY}"
    )


def _paths(command: str) -> list[str]:
    """Returns the paths that a shell command names; of one that is none, nothing can be said."""
    try:
        return [word.rstrip(";") for word in shlex.split(command) if word.startswith("/")]
    except ValueError:
        return []
