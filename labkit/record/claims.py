"""How far a run gives the same numbers when it is run again, and why not further: one of four labels, with reasons."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labkit.errors import FolderProblem
from labkit.record.files import read_json
from labkit.record.rundir import ATTEMPT, RunDir

LABELS = ("approximate", "seeded", "deterministic", "bitwise")  # the lowest first
PROMISE = "the same data, threads and kind of hardware give the same bits again"


@dataclass(frozen=True)
class Reason:
    """Why a run claims no more: the most that it can, what is in the way, and what to do about it."""

    most: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}"


@dataclass(frozen=True)
class Claim:
    """The label that the reasons leave; `bitwise` where there is none."""

    reasons: tuple[Reason, ...] = ()

    @classmethod
    def of(cls, reasons: Iterable[Reason]) -> Claim:
        """Returns a claim with each reason once, the gravest first."""
        return cls(tuple(sorted(dict.fromkeys(reasons), key=lambda reason: LABELS.index(reason.most))))

    @property
    def label(self) -> str:
        """The lowest of what the reasons leave."""
        return min((reason.most for reason in self.reasons), key=LABELS.index, default=LABELS[-1])

    def facts(self) -> dict[str, Any]:
        """Returns the claim as the record has it."""
        return {"label": self.label, "reasons": [asdict(reason) for reason in self.reasons]}

    def __str__(self) -> str:
        return f"{self.label}: {' · '.join(map(str, self.reasons)) or PROMISE}"


def read(facts: object) -> Claim | None:
    """Returns the claim that a record has; None where it has none, or one that contradicts itself."""
    listed = facts.get("reasons") if isinstance(facts, dict) else None
    if not isinstance(facts, dict) or not isinstance(listed, list):
        return None
    try:
        claim = Claim.of(Reason(**reason) for reason in listed)
        texts = [text for reason in claim.reasons for text in (reason.problem, reason.remedy)]
        is_sound = claim.label == facts.get("label") and all(isinstance(text, str) for text in texts)
    except (TypeError, ValueError):  # no reason, or an unknown label
        return None
    return claim if is_sound else None


def of_run(run: RunDir) -> Claim | None:
    """Returns what a run that is over claims: the lowest of its attempts; None where its end was not seen.

    An attempt that was killed counts as far as it got: a later one goes on from its checkpoint.
    """
    newest = read_json(run.claim)
    if newest is None or newest.get("final") is not True or read(newest) is None:
        return None
    try:
        labels = run.read_manifest()["labels"]
    except FolderProblem:
        labels = []
    return Claim.of(_reasons(run, "explored" in labels))


def kept(run: RunDir, manifest: dict[str, Any]) -> Claim | None:
    """Returns the claim in a manifest; of a run that has none there, the one that its attempts make."""
    return read(manifest.get("claim")) or of_run(run)


def _reasons(run: RunDir, is_explored: bool) -> Iterator[Reason]:
    if is_explored:
        problem = "work by hand that differed from a clean run of the notebook"
        yield Reason("approximate", problem, "run it cleanly: run.promote()")
    later: Any = None
    for attempt in _newest_first(run):
        found = read_json(attempt / run.claim.name) or {}
        claim, hardware = read(found), found.get("hardware")
        yield from claim.reasons if claim is not None else ()
        if later is not None and hardware is not None and hardware != later:
            yield Reason("deterministic", f"attempt {attempt.name} ran on other hardware", "resume on the same kind")
        later = hardware if hardware is not None else later
        restored = read_json(attempt / run.restored.name) or {}
        if restored.get("checkpoint", "") is None:
            return  # it began anew: nothing of an earlier attempt is in the result
        if (read_json(attempt / run.resumption.name) or {}).get("forced") is True:
            problem = f"attempt {attempt.name} went on although something was not what it had been"
            yield Reason("deterministic", problem, "begin a new run")


def _newest_first(run: RunDir) -> list[Path]:
    """Returns the folders of a run's attempts."""
    if run.attempts.is_symlink():
        return []
    try:
        found = [entry for entry in os.scandir(run.attempts) if ATTEMPT.fullmatch(entry.name)]
    except OSError:
        return []
    real = [Path(entry.path) for entry in found if not entry.is_symlink()]
    return sorted(real, key=lambda attempt: int(attempt.name), reverse=True)
