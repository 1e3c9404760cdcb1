"""The notebook from inside: which cell runs, which variables there are, which file it is."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from labkit.kernel.saved import normal
from labkit.record.files import read_json

CELL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")  # in the notebook's file; VS Code tells an address of its own


def shell() -> Any:
    """Returns IPython's shell; None in a script."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def current_cell() -> str:
    """Returns the id of the cell that is executed now; empty outside of a notebook, and where no id is told."""
    parent = getattr(shell(), "parent_header", None) or {}
    told = str((parent.get("metadata") or {}).get("cellId") or "")
    return told if CELL_ID.fullmatch(told) else ""


def history() -> list[str]:
    """Returns what was executed so far, as it was typed; the cell that is executed now is the last.

    What a front end runs for itself is not among it.
    """
    manager = getattr(shell(), "history_manager", None)
    return list(manager.input_hist_raw[1:]) if manager is not None else []


def values() -> dict[str, Any]:
    """Returns the variables of the notebook, or of the script that this process runs."""
    found = shell()
    return found.user_ns if found is not None else vars(sys.modules["__main__"])


def notebook_path() -> Path:
    """Returns the notebook that this kernel belongs to, the script, or a stand-in in the working directory.

    A Jupyter server says it in the kernel's environment, VS Code in a variable of the notebook.
    """
    for name in (os.environ.get("JPY_SESSION_NAME"), values().get("__vsc_ipynb_file__")):
        if isinstance(name, str) and name.endswith(".ipynb"):
            path = Path(os.path.abspath(name))
            return path if path.exists() else _with_this_cell(path.parent) or path
    script = getattr(sys.modules["__main__"], "__file__", None)
    if script and shell() is None:
        return Path(os.path.abspath(script))
    return (_with_this_cell(Path.cwd()) if shell() is not None else None) or Path.cwd() / "notebook.ipynb"


def _with_this_cell(folder: Path) -> Path | None:
    """Returns the notebook in a folder that has the cell which is executed now; None where several have it.

    So one is found that was renamed after its kernel started, or whose kernel was told nothing (plain papermill).
    """
    found: list[Path] = []
    for path in folder.glob("*.ipynb"):
        content = read_json(path) or {}
        cells = content.get("cells")
        if any(_is_this(cell) for cell in (cells if isinstance(cells, list) else [])):
            found.append(path)
    return found[0] if len(found) == 1 else None


def _is_this(cell: Any) -> bool:
    if not isinstance(cell, dict) or cell.get("cell_type") != "code":
        return False
    if current_cell():
        return cell.get("id") == current_cell()
    source = cell.get("source")
    source = "".join(map(str, source)) if isinstance(source, list) else source
    return isinstance(source, str) and normal(source) == normal((history() or [""])[-1])
