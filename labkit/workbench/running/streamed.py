"""What a cell printed, as its notebook keeps it: each stream in one piece where nothing came between."""

from __future__ import annotations

import re
from typing import Any

from labkit.record.text import painted

BAR = re.compile(r"[^\n]*(\d%\|[^\n]*\||\dit) ?[^\n]*\[\d+:\d\d[^\n]*\]")  # a state of a bar as tqdm draws it


def joined(outputs: list[Any]) -> list[Any]:
    """Returns a cell's outputs with neighbouring pieces of one stream as one, in the order in which they came.

    A progress bar that something else was printed under, and that goes on below that, stands there only.
    """
    found = _neighbours_as_one(outputs)
    for output in found:
        if output.output_type == "stream":
            output["text"] = painted(output.text)
    goes_on = False
    for output in reversed(found):
        if output.output_type == "stream" and output.name == "stderr":
            before, _, line = output.text.rpartition("\n")
            if goes_on and BAR.fullmatch(line):
                output["text"] = before + "\n" if before else ""
            goes_on = goes_on or BAR.search(output.text) is not None
    return _neighbours_as_one([output for output in found if output.output_type != "stream" or output.text])


def _neighbours_as_one(outputs: list[Any]) -> list[Any]:
    found: list[Any] = []
    for output in outputs:
        last = found[-1] if found else None
        if last is not None and output.output_type == "stream" == last.output_type and output.name == last.name:
            last["text"] += output.text
        else:
            found.append(output)
    return found
