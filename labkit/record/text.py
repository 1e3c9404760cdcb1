"""Printed text as a terminal would show it."""

from __future__ import annotations


def painted(text: str) -> str:
    """Returns text without what a terminal would have painted over: in each line, all before the last carriage return.

    A carriage return at a line's end stays, for what follows it may be still to come.
    """
    if "\r" not in text:
        return text
    lines = text.split("\n")
    for number, line in enumerate(lines):
        kept = line.rstrip("\r")
        lines[number] = kept[kept.rfind("\r") + 1 :] + line[len(kept) :][:1]
    return "\n".join(lines)
