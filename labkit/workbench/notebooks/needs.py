"""Files that a notebook cannot run without, as its metadata says: `{"labkit": {"needs": [PATH], "advice": TEXT}}`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from labkit.workbench.notebooks.notebook import Notebook

LONGEST = 300  # characters of the paths, and of the advice


def lacking(source: Notebook, root: Path) -> str:
    """Returns which of a notebook's files are not in the lab, with the notebook's own advice; empty where none is.

    Args:
        source: The notebook.
        root: The lab, which the paths are relative to.
    """
    said = source.content["metadata"].get("labkit")
    said = said if isinstance(said, dict) else {}
    gone = [path for path in _texts(said.get("needs")) if not os.path.exists(root / path)]
    if not gone:
        return ""
    advice = " ".join(" ".join(_texts([said.get("advice")])).split())[:LONGEST]
    verb = "is" if len(gone) == 1 else "are"
    return f"{', '.join(gone):.{LONGEST}} {verb} not there" + (f": {advice}" if advice else "")


def _texts(values: Any) -> list[str]:
    return [value for value in values if isinstance(value, str) and value] if isinstance(values, list) else []
