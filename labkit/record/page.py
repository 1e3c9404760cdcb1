"""What a report says of itself in its first bytes, so that it can be asked without rendering or parsing anything."""

from __future__ import annotations

import json
import os
import re
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from labkit.record.files import read_regular

WITHIN_BYTES = 16_384
LONGEST_STAMP = 1000  # characters as escaped; with what stands before it the stamp stays within the first bytes


def page_stamp(path: Path) -> str | None:
    """Returns what a page of labkit's was made from; None where the file is missing or no such page."""
    return _meta(path, "labkit-page")


def make_stamp(made_from: str, notebook: Path, folder: Path) -> str:
    """Returns the stamp of a page in `folder`: what it is made from, and the way from there to its notebook.

    A way that is too long is cut, and then leads nowhere.
    """
    way = os.path.relpath(notebook, os.path.realpath(folder))
    return f"{made_from} {quote(os.fsencode(way))}"[:LONGEST_STAMP]


def page_notebook(path: Path) -> Path | None:
    """Returns the notebook that a page says it is of, which may be gone; None where it says nothing of it."""
    way = (page_stamp(path) or "").partition(" ")[2]
    whole = os.path.join(os.path.realpath(path.parent), os.fsdecode(unquote_to_bytes(way)))
    return Path(os.path.normpath(whole)) if way else None


def page_summary(path: Path) -> dict[str, Any] | None:
    """Returns what a page says about its run: empty where that is damaged, None where it is no page of labkit's."""
    text = _meta(path, "labkit-summary")
    if text is None:
        return None
    try:
        summary = json.loads(text)
    except ValueError:
        return {}
    return summary if isinstance(summary, dict) else {}


def page_capsule(path: Path) -> str | None:
    """Returns what a page says of the record that it carries: size and SHA-256, or why there is none.

    None where the file is no page of labkit's, or of one that knew no records in pages.
    """
    return _meta(path, "labkit-capsule")


def _meta(path: Path, name: str) -> str | None:
    start = read_regular(path, WITHIN_BYTES)
    pattern = f'<meta name="{name}" content="([^"]*)">'
    found = re.search(pattern, start.decode("utf-8", "replace")) if start else None
    return unescape(found[1]) if found else None
