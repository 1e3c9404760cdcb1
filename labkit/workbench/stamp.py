"""What a page says it was made from, in its first bytes, so that it can be asked without rendering anything."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

from labkit.record.files import read_regular

WITHIN_BYTES = 2048
LONGEST = 1000  # characters as escaped; with what stands before it the stamp stays within the first bytes
_STAMP = re.compile(r'<meta name="labkit-page" content="([^"]*)">')


def page_stamp(path: Path) -> str | None:
    """Returns what was stamped on a page of labkit's; None where the file is missing or no such page."""
    start = read_regular(path, WITHIN_BYTES)
    found = _STAMP.search(start.decode("utf-8", "replace")) if start else None
    return unescape(found[1]) if found else None
