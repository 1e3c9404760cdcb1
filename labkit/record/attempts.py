"""What the attempts at a run were: how often it was resumed, how long it ran in all, and what it went on from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import RunNotFound
from labkit.record.files import read_json
from labkit.record.rundir import RunDir
from labkit.record.text import counted


@dataclass(frozen=True)
class Attempts:
    """The attempts at a run.

    Attributes:
        number: How many there were.
        duration_s: How long those ran that are over; a killed one up to its last sign of life.
        checkpoint: What the newest one went on from; empty where it began anew, or has not come so far.
        differences: What was not as it was, and was accepted, in any of them.
    """

    number: int = 1
    duration_s: float = 0.0
    checkpoint: str = ""
    differences: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.number == 1:
            return ""
        began = f"from checkpoint {self.checkpoint}" if self.checkpoint else "anew"
        in_all = f", {counted(round(self.duration_s), 'second')} in all" if self.duration_s else ""
        changed = f"; went on although {'; '.join(self.differences)}" if self.differences else ""
        return f"{self.number}{in_all}; the newest began {began}{changed}"


def of_run(run: RunDir) -> Attempts:
    """Returns what the record says of the attempts at a run."""
    name = run.attempt.name
    newest = int(name) if name.isdecimal() else 1
    checkpoint, duration_s, differences = "", 0.0, dict[str, None]()
    for number in range(1, newest + 1):
        one = RunDir(run.path, number)
        order, restored = (read_json(path) or {} for path in (one.resumption, one.restored))
        duration_s += _took_s(one)
        checkpoint = _text(restored.get("checkpoint"))
        for record in (order, restored):
            listed = record.get("differences")
            differences |= dict.fromkeys(map(_text, listed)) if isinstance(listed, list) else {}
    return Attempts(newest, duration_s, checkpoint, tuple(filter(None, differences)))


def _took_s(attempt: RunDir) -> float:
    ended = read_json(attempt.exit)
    if ended is not None:
        took = ended.get("duration_s")
    else:
        began = (read_json(attempt.process) or {}).get("started_s")
        try:
            took = attempt.heartbeat.stat().st_mtime - began if isinstance(began, (int, float)) else None
        except OSError:
            took = None
    return took if isinstance(took, (int, float)) and 0 <= took < 1e9 else 0.0


def log_of(run: RunDir, number: int) -> Path:
    """Returns what one attempt printed: the newest's stands at the top of the run, an earlier one's in its folder.

    Raises:
        RunNotFound: There was no such attempt.
    """
    name = run.attempt.name
    newest = int(name) if name.isdecimal() else 1
    if not 1 <= number <= newest:
        those = "attempt 1" if newest == 1 else f"attempts 1 to {newest}"
        raise RunNotFound(f"{run.name} has no attempt {number}, only {those}")
    return run.log if number == newest else run.attempts / str(number) / run.log.name


def _text(value: Any) -> str:
    return value[:300] if isinstance(value, str) else ""
