"""HTML made regular before it is parsed: closed, well nested, shallow.

A standard parser needs time that grows with the square of the nesting, and hostile text nests as it likes (100,000
unclosed tags: over a minute). Here every tag is either written again in one strict form or turned into text, so that
the parser reads what was counted.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from html import escape, unescape

MAX_DEPTH = 100
VOID = frozenset({"br", "hr", "img", "col"})

_TOKEN = re.compile(
    r"<!--.*?(?:-->|\Z)|<!?\?[^>]*+(?:>|\Z)|<![a-zA-Z\[][^>]*+(?:>|\Z)"
    r"|<(?P<close>/?)(?P<name>[a-zA-Z][a-zA-Z0-9:-]*+)"
    r"(?P<attributes>(?:\s++[^\s\"'<>/=]++(?:\s*+=\s*+(?:\"[^\"]*+\"|'[^']*+'|[^\s\"'=<>`]++))?+)*+)\s*+/?>",
    re.DOTALL,
)
_ATTRIBUTE = re.compile(r"([^\s\"'<>/=]+)(?:\s*=\s*(\"[^\"]*\"|'[^']*'|[^\s\"'=<>`]+))?")
_INLINE = frozenset(
    "a abbr b cite code del dfn em i ins kbd mark q s samp small span strong sub sup time u var".split()
)
# Opening one of these closes the like of it that is still open, up to the container it belongs to.
_CLOSES: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "p": (frozenset({"p"}), frozenset()),
    "li": (frozenset({"li"}), frozenset({"ul", "ol"})),
    **dict.fromkeys(("dt", "dd"), (frozenset({"dt", "dd"}), frozenset({"dl"}))),
    **dict.fromkeys(("td", "th"), (frozenset({"td", "th"}), frozenset({"table", "tr"}))),
    "tr": (frozenset({"tr"}), frozenset({"table", "thead", "tbody", "tfoot"})),
    **dict.fromkeys(("thead", "tbody", "tfoot"), (frozenset({"thead", "tbody", "tfoot"}), frozenset({"table"}))),
}


def regular(
    text: str,
    tags: Container[str],
    attributes: Mapping[str, Container[str]],
    dropped_whole: Container[str],
) -> str:
    """Returns `text` with every tag that is in `tags` closed and well nested, and no other tag.

    Args:
        text: HTML as someone wrote it.
        tags: Names that may stay.
        attributes: For each tag, the attributes that may stay, values unchecked; `class` stays everywhere.
        dropped_whole: Tags that go with all that is inside.
    """
    out: list[str] = []
    stack: list[str] = []
    position = 0
    while found := _TOKEN.search(text, position):
        out.append(_bare(text[position : found.start()]))
        position = found.end()
        name = (found["name"] or "").lower()
        if name in dropped_whole and not found["close"]:
            end = re.compile(rf"</{re.escape(name)}\s*>", re.IGNORECASE).search(text, position)
            if end is None:
                position = len(text)  # as a browser reads it: everything up to the end is inside
                break
            position = end.end()
        elif name not in tags:
            continue
        elif found["close"]:
            _close(name, stack, out)
        else:
            _open(name, found["attributes"], stack, out, attributes)
    out.append(_bare(text[position:]))
    out.extend(f"</{name}>" for name in reversed(stack))
    return "".join(out)


def _bare(text: str) -> str:
    """Text between tags: what looks like a tag but is none stays text."""
    return text.replace("<", "&lt;").replace("\0", "\ufffd")


def _open(name: str, written: str, stack: list[str], out: list[str], allowed: Mapping[str, Container[str]]) -> None:
    if name in _CLOSES:
        _close_like(*_CLOSES[name], stack, out)
    if len(stack) >= MAX_DEPTH:
        return
    kept: dict[str, str] = {}
    for key, value in _ATTRIBUTE.findall(written):
        if key.lower() == "class" or key.lower() in allowed.get(name, ()):
            kept.setdefault(key.lower(), unescape(value[1:-1] if value[:1] in {'"', "'"} else value))
    out.append(f"<{name}" + "".join(f' {key}="{escape(value)}"' for key, value in kept.items()) + ">")
    if name not in VOID:
        stack.append(name)


def _close(name: str, stack: list[str], out: list[str]) -> None:
    if name in stack:
        _pop_through(len(stack) - 1 - stack[::-1].index(name), stack, out)


def _close_like(likes: frozenset[str], borders: frozenset[str], stack: list[str], out: list[str]) -> None:
    for place in range(len(stack) - 1, -1, -1):
        if stack[place] in likes:
            return _pop_through(place, stack, out)
        if stack[place] in borders or (not borders and stack[place] not in _INLINE):
            return None
    return None


def _pop_through(place: int, stack: list[str], out: list[str]) -> None:
    while len(stack) > place:
        out.append(f"</{stack.pop()}>")
