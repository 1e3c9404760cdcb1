"""What git is told when JupyterLab has saved a notebook, so that new outputs alone are no change.

Git takes a file of another size for changed before it asks the filter: after a run, `git status` would name a notebook
of which `git diff` shows nothing, until somebody adds it. An entry whose size git does not know is compared by content.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from labkit.errors import GitProblem
from labkit.workbench.gitrepo import answer, git

EMPTY = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"  # what git notes for a file that is only meant to be added


def forget_size(path: Path) -> bool:
    """Makes git compare a notebook by its content when it is next asked; what is staged stays. Returns whether it will.

    Nothing is done where the clone has no filter, or git does not hold the file in a plain way.
    """
    if not answer(path.parent, "config", "--get", "filter.labkit.clean"):
        return False
    tag, _, listed = answer(path.parent, "ls-files", "-s", "-v", "-z", "--full-name", "--", path.name).partition(" ")
    facts, _, name = listed.rstrip("\0").partition("\t")
    mode, blob, stage = facts.split() if facts.count(" ") == 2 else ("", "", "")
    if (tag, stage) != ("H", "0") or blob == EMPTY:
        return False
    try:
        git(path.parent, "update-index", "--cacheinfo", f"{mode},{blob},{name}")
    except GitProblem:  # another git holds the index; the next save comes
        return False
    return True


def after_save(model: dict[str, Any], os_path: str, **_: Any) -> None:
    """Called by the Jupyter server whenever it has saved something."""
    if model.get("type") == "notebook":
        forget_size(Path(os_path))
