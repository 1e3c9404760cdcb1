"""What git is told when JupyterLab has saved a notebook, so that new outputs alone are no change.

Git takes a file of another size for changed before it asks the filter: after a run, `git status` would name a notebook
of which `git diff` shows nothing, until somebody adds it. An entry whose size git does not know is compared by content.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labkit.errors import GitProblem
from labkit.workbench.git.gitrepo import answer, git

EMPTY = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"  # what git notes for a file that is only meant to be added


def forget_size(path: Path) -> bool:
    """Makes git compare a notebook by its content when it is next asked; what is staged stays. Returns whether it will.

    Nothing is done where the clone has no filter, or git does not hold the file in a plain way.
    """
    folder = path.parent
    if not answer(folder, "config", "--get", "filter.labkit.clean") or _entry(path) is None:
        return False
    index = Path(os.path.abspath(folder / answer(folder, "rev-parse", "--git-path", "index")))
    try:
        with _rewritten(index) as made:
            entry = _entry(path)  # once more: nobody can stage anything now
            if entry is not None:
                git(folder, "update-index", "--cacheinfo", entry, index=made)
    except (GitProblem, OSError):  # another git holds the index; the next save comes
        return False
    return entry is not None


def _entry(path: Path) -> str | None:
    """Returns what git holds of a file, as `mode,blob,path`; None where it does not hold it in a plain way."""
    listed = answer(path.parent, "--literal-pathspecs", "ls-files", "-s", "-v", "-z", "--full-name", "--", path.name)
    tag, _, entry = listed.rstrip("\0").partition(" ")
    facts, _, name = entry.partition("\t")
    mode, blob, stage = facts.split() if facts.count(" ") == 2 else ("", "", "")
    return f"{mode},{blob},{name}" if (tag, stage) == ("H", "0") and blob != EMPTY else None


@contextmanager
def _rewritten(index: Path) -> Iterator[Path]:
    """Yields a copy of git's index that takes its place afterwards; it is git's own lock, so no other git writes it.

    The copy is as old as the index: by that git knows which files may have changed since without a trace.

    Raises:
        OSError: Another git holds the lock.
    """
    lock = index.with_name(f"{index.name}.lock")
    os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    try:
        shutil.copy2(index, lock)
        yield lock
        os.replace(lock, index)
    except BaseException:
        lock.unlink(missing_ok=True)
        raise


def after_save(model: dict[str, Any], os_path: str, **_: Any) -> None:
    """Called by the Jupyter server whenever it has saved something."""
    if model.get("type") == "notebook":
        forget_size(Path(os_path))
