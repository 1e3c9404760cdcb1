"""The fingerprints of a run: of its data in memory, and of its weights at the start, at each checkpoint, at the end."""

from __future__ import annotations

from typing import Any

import orjson

from labkit.record.files import open_record
from labkit.record.rundir import RunDir

LONGEST_LINE = 2**14


def read(run: RunDir) -> list[dict[str, Any]]:
    """Returns the lines of fingerprints.jsonl that can be read, each with the text of a `fingerprint`."""
    found: list[dict[str, Any]] = []
    file = open_record(run.fingerprints)
    if file is None:
        return found
    with file:
        while line := file.readline(LONGEST_LINE):
            try:
                facts = orjson.loads(line)
            except ValueError:
                continue
            if isinstance(facts, dict) and isinstance(facts.get("fingerprint"), str):
                found.append(facts)
    return found
