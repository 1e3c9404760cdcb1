"""What the kernel of a run has written, refused and lost, also where it was killed before it could say so."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any

from labkit.record import metrics
from labkit.record.files import open_record, read_json
from labkit.record.rundir import RunDir

QUEUED = struct.Struct("<q")  # lines that the metrics will have when what is on its way has arrived; 0 when nothing is


def read(run: RunDir, *, is_over: bool) -> dict[str, Any]:
    """Returns the counts of the newest attempt by kind, such as `{"metrics": {"written": 12, "lost": 0}}`.

    A kernel that was killed has left none; metrics that were on their way from a GPU are lost then.
    """
    found = read_json(run.kernel)
    if isinstance(found, dict) and "metrics" in found:
        return found
    expected = _expected(run) if is_over else 0
    if not expected:
        return found if isinstance(found, dict) else {}
    path = run.begun if run.begun.exists() else run.metrics
    lines = sum(line is not None for line in metrics.records(path))
    return (found or {}) | {"metrics": {"written": lines, "lost": max(0, expected - lines)}}


def _expected(run: RunDir) -> int:
    file = open_record(run.queued)
    if file is None:
        return 0
    with file, suppress(OSError):
        data = file.read(QUEUED.size)
        return QUEUED.unpack(data)[0] if len(data) == QUEUED.size else 0
    return 0
