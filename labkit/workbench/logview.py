"""Reads a run's log back: whole, filtered, or as it grows."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

from labkit.record import attempts
from labkit.record.files import open_record
from labkit.record.rundir import RunDir
from labkit.record.status import status

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
LOGGED = re.compile(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{{3}} ({'|'.join(LEVELS)}) \[")
# Escape sequences and control characters other than colours, tabs and line ends: a log must not take over the terminal.
CONTROLS = re.compile(
    r"\x1b(?!\[[0-9;]*m)(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|.)?"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f\x80-\x9f]"
)
IPYTHON_TRACEBACK = re.compile(r"\w+ +Traceback \(most recent call last\)")  # of a cell that raised: nothing follows it
POLL_S = 0.3
LONGEST = 2**20  # bytes that are handled as one line: a log may be gigabytes without a line's end


def lines(
    run: RunDir, *, grep: str | None = None, level: str | None = None, follow: bool = False, attempt: int | None = None
) -> Iterator[str]:
    """Yields the lines of a run's log.

    Args:
        run: The run.
        grep: Only lines that hold this text.
        level: Only logged lines of this level or above, with what belongs to them; printed text has none, a traceback
            is an error.
        follow: Wait for more until the run is over.
        attempt: Of this attempt; None for the newest.

    Raises:
        RunNotFound: There was no such attempt.
    """
    path = run.log if attempt is None else attempts.log_of(run, attempt)
    minimum = LEVELS.index(level.upper()) if level else None
    belongs = False  # to a logged line that was let through
    raised = False  # what follows belongs to the traceback of a cell
    for line in _grown(run) if follow and path == run.log else _written(path):
        if minimum is not None:
            found = LOGGED.match(line)
            if found:
                belongs, raised = LEVELS.index(found[1]) >= minimum, False
            elif raised or IPYTHON_TRACEBACK.match(line):
                belongs = raised = LEVELS.index("ERROR") >= minimum
            elif not line.startswith((" ", "\t", "Traceback")):
                belongs = False
            if not belongs:
                continue
        if grep is None or grep in line:
            yield CONTROLS.sub("", line)


def _written(path: Path) -> Iterator[str]:
    file = open_record(path)
    if file is None:
        return
    with file:
        while line := file.readline(LONGEST):
            yield line.decode("utf-8", "replace")


def _grown(run: RunDir) -> Iterator[str]:
    """Yields lines as they come; the rest of an unfinished line when the run is over."""
    file = open_record(run.log)
    if file is None:
        return
    waiting = b""
    with file:
        while True:
            over = status(run).is_over  # asked before reading: what comes after the end is nothing
            while data := file.readline(LONGEST):
                waiting += data
                if data.endswith(b"\n") or len(waiting) >= LONGEST:
                    yield waiting.decode("utf-8", "replace")
                    waiting = b""
            if over:
                break
            time.sleep(POLL_S)
    if waiting:
        yield waiting.decode("utf-8", "replace")
