"""Whether a record is of a run of this lab, so that what it holds may be executed without asking.

A name is no proof, and neither are equal cells: parameters, data, packages and wheels decide over what is executed too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blake3 import blake3

from labkit.record import find
from labkit.record.capsule import Capsule
from labkit.record.carried import DATA, inputs
from labkit.record.files import open_record, read_json
from labkit.record.rundir import RunDir

MANIFEST = "run.json"
CHANGING = ("labels", "summary", "verdicts", "claim", "promoted_from")  # of a manifest, after a report was made


def own_run(packed: Capsule, runs: Path) -> RunDir | None:
    """Returns the run of this lab that a record is of; None where it is of elsewhere.

    All that the record carries must be what that run has, to the byte; data must be what it says it read.

    Args:
        packed: The record.
        runs: The lab's folder of runs.
    """
    wanted = packed.json(MANIFEST).get("id")
    found = next((run for run in find.every(runs) if wanted and run.id == wanted), None)
    if found is None:
        return None
    data = {DATA + path: fingerprint for _, path, fingerprint in inputs(found)}
    return found if all(_is_of(found, name, content, data) for name, content in packed.files.items()) else None


def _is_of(run: RunDir, name: str, content: bytes, data: dict[str, str]) -> bool:
    if name.startswith(DATA):
        return data.get(name) == blake3(content).hexdigest()
    if name == MANIFEST:
        return _lasting(Capsule({MANIFEST: content}).json(MANIFEST)) == _lasting(read_json(run.manifest))
    return _content(run.path / name, len(content)) == content


def _lasting(manifest: dict[str, Any] | None) -> dict[str, Any]:
    return {key: repr(value) for key, value in (manifest or {}).items() if key not in CHANGING}


def _content(path: Path, size: int) -> bytes | None:
    file = open_record(path)
    if file is None:
        return None
    with file:
        return file.read(size + 1)
