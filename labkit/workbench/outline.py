"""What the Markdown of a notebook says of its parts: the title, and the text of a section."""

from __future__ import annotations

import re
from collections.abc import Iterable

HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(\S.*)$", re.MULTILINE)
UNDERLINED = re.compile(r"\A\s*([^\n#>*-][^\n]*)\n=+[ \t]*$", re.MULTILINE)
SECTION_LENGTH = 4000  # characters of a section that are looked at


def title(sources: Iterable[str]) -> str:
    """Returns the first heading in the Markdown cells of a notebook; empty where there is none."""
    for source in sources:
        found = HEADING.search(source)
        underlined = UNDERLINED.search(source)
        if underlined and not (found and found.start() < underlined.start()):
            return underlined[1].strip()
        if found:
            return _plain(found[2])
    return ""


def _plain(heading: str) -> str:
    """Returns a heading's text without marks and the hashes that may close it."""
    text = heading.rstrip()
    unclosed = text.rstrip("#")
    if unclosed != text and unclosed[-1:] in ("", " ", "\t"):  # `C#` keeps its own
        text = unclosed.rstrip()
    return re.sub(r"[*_`]", "", text).strip()


def without_title(source: str, title: str) -> str:
    """Returns the Markdown of a cell without the title that it begins with."""
    for pattern, group in ((UNDERLINED, 1), (HEADING, 2)):
        found = pattern.search(source)
        is_first = found is not None and not source[: found.start()].strip()
        if found and is_first and _plain(found[group]) == title and (group == 1 or found[1] == "#"):
            return source[found.end() :]
    return source


def section(sources: Iterable[str], name: str) -> str:
    """Returns the Markdown below the heading that names a section, up to the next heading in the same cell."""
    for source in sources:
        for found in HEADING.finditer(source):
            if re.fullmatch(rf"[\d.\s]*{name}\b.{{0,40}}", _plain(found[2]), re.IGNORECASE):
                rest = source[found.end() :]
                following = HEADING.search(rest)
                return (rest[: following.start()] if following else rest).strip()[:SECTION_LENGTH]
    return ""
