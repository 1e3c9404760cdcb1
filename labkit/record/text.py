"""Text for people: printed text as a terminal would show it, numbers with what they count."""

from __future__ import annotations


def painted(text: str, *, continues: bool = False) -> str:
    """Returns text without what a terminal would have painted over: in each line, all before the last carriage return.

    A carriage return at a line's end stays, for what follows it may be still to come.

    Args:
        text: What was printed.
        continues: The first line began in an earlier text; a carriage return in it paints over that, and stays.
    """
    if "\r" not in text:
        return text
    lines = text.split("\n")
    for number, line in enumerate(lines):
        kept = line.rstrip("\r")
        before = "\r" if continues and number == 0 and "\r" in kept else ""
        lines[number] = before + kept[kept.rfind("\r") + 1 :] + line[len(kept) :][:1]
    return "\n".join(lines)


def counted(count: int, what: str) -> str:
    """Returns a number with what it counts, as many as there are.

    >>> counted(1, "line"), counted(2000, "line"), counted(0, "byte")
    ('1 line', '2,000 lines', '0 bytes')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"
