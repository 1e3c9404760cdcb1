"""Whether a run made again is the run that was recorded, and where and why it is not. Nothing is executed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labkit.errors import FolderProblem
from labkit.record import claims, metrics
from labkit.record.claims import Claim
from labkit.record.files import now as present_time
from labkit.record.rundir import RunDir
from labkit.record.status import status
from labkit.record.summary import kept_verdicts
from labkit.workbench.reproducing import cause, changeddata, changedplace, changedsource, changedsteps
from labkit.workbench.reproducing.chain import LINKS, Difference, Link, lacking, link, marked
from labkit.workbench.reproducing.changedsteps import Step, Walk
from labkit.workbench.reproducing.tolerance import Tolerance
from labkit.workbench.wording import short

IDENTICAL, WITHIN, DIVERGED, NOT_RUN = "identical", "within tolerance", "diverged", "could not run"
VERDICTS = (IDENTICAL, WITHIN, DIVERGED, NOT_RUN)
FORMAT = 1
RESULTS = ("initial weights", "steps", "final weights", "metrics", "expectations")
AS_READ = "equal as far as both can be read"


@dataclass(frozen=True)
class Comparison:
    """What came of making a run again.

    Attributes:
        verdict: One of VERDICTS.
        then: The recorded run.
        now: The run made again; None where there is none.
        chain: All links in order; where there is nothing to compare, each is unknown.
        step: The first step that differs; None where none does.
        cause: Why the verdict is not `identical`, or what differed although it is.
        expected: Whether equal bits were to be expected, and why not.
        tolerance: What was allowed, in words; empty where nothing was.
        limits: What was allowed, for a program.
        as_recorded: What was set to what it was then, as `threads 2`.
        created: When it was compared.
        exit_status: What a command ends with: 0 where the result is the same, else 1 or 2.
    """

    verdict: str
    then: RunDir
    now: RunDir | None
    chain: tuple[Link, ...]
    step: Step | None
    cause: str
    expected: str
    tolerance: str
    limits: Tolerance | None
    as_recorded: tuple[str, ...]
    created: str
    exit_status: int

    @property
    def first(self) -> Link | None:
        """The first link that differs."""
        return next((one for one in self.chain if one.first), None)

    def facts(self) -> dict[str, Any]:
        """Returns the verdict as its file has it."""
        return {
            "format": FORMAT,
            "verdict": self.verdict,
            "cause": self.cause,
            "expected": self.expected,
            "tolerance": (self.limits.facts() if self.limits else None),
            "within": self.tolerance,
            "first_difference": self._first_difference(),
            "chain": [one.facts() for one in self.chain],
            "set_as_recorded": list(self.as_recorded),
            "then": self.then.name,
            "now": self.now.name if self.now is not None else None,
            "created": self.created,
            "exit_status": self.exit_status,
        }

    def _first_difference(self) -> dict[str, Any] | None:
        if self.first is None or self.verdict == IDENTICAL:
            return None
        found: dict[str, Any] = {"link": self.first.name, "text": self.first.told[0]}
        step = self.step
        return found | {
            "metric": step.metric if step is not None else None,
            "step": step.step if step is not None else None,
            "line": step.line if step is not None else None,
            "then": step.then if step is not None else None,
            "now": step.now if step is not None else None,
            "relative": step.relative if step is not None else None,
        }


def compare(
    then: RunDir,
    now: RunDir,
    *,
    tolerance: Tolerance | None = None,
    expected: str = "",
    as_recorded: Sequence[str] = (),
) -> Comparison:
    """Compares a run made again with the run that was recorded; both are only read, and damaged parts are unknown.

    Args:
        then: The recorded run.
        now: The run made again, which is over.
        tolerance: How far final values may lie apart where they are not equal; None to ask for equal bits.
        expected: Whether equal bits are to be expected, and why not; by default what the record says of it.
        as_recorded: What was set to what it was then, for the reader.
    """
    walk = changedsteps.walk(then.metrics, now.metrics)
    chain = marked(_chain(then, now, walk))
    claim = _claim(then)
    verdict, within = _verdict(chain, walk, tolerance, _ended_alike(then, now))
    if verdict == IDENTICAL:
        why = cause.of_equality(chain, bool(walk.lines[0]))
    elif walk.missing[0]:
        verdict, why = NOT_RUN, "the metrics of the recorded run are missing, so there is nothing to compare with"
    elif within == AS_READ:
        why = f"{AS_READ}: {'; '.join(next(one for one in chain if one.name == 'steps').notes)}"
    else:
        why = cause.of_difference(chain, claim)
    return Comparison(
        verdict=verdict,
        then=then,
        now=now,
        chain=chain,
        step=walk.first,
        cause=why,
        expected=expected or expectation(claim, cause.differing(chain)),
        tolerance=within,
        limits=tolerance,
        as_recorded=tuple(as_recorded),
        created=present_time(),
        exit_status={DIVERGED: 1, NOT_RUN: 2}.get(verdict, 0),
    )


def could_not_run(
    then: RunDir, why: str, exit_status: int, *, expected: str = "", as_recorded: Sequence[str] = ()
) -> Comparison:
    """Returns the verdict on a run that could not be made again.

    Args:
        then: The recorded run.
        why: What was in the way, as a sentence.
        exit_status: 1 where the notebook failed, 2 where source, data or environment could not be had.
        expected: Whether equal bits were to be expected.
        as_recorded: What was set to what it was then.
    """
    chain = tuple(link(name, notes=["not compared: there is no other run"]) for name in LINKS)
    facts = (why, expected or expectation(_claim(then), []), "", None, tuple(as_recorded), present_time(), exit_status)
    return Comparison(NOT_RUN, then, None, chain, None, *facts)


def expectation(claim: Claim | None, differing: Sequence[str]) -> str:
    """Returns whether equal bits are to be expected of a run that makes this claim, and why not.

    Args:
        claim: What the recorded run claims.
        differing: What is not as it was, by name: `hardware`.
    """
    if claim is None:
        return "equal bits are not to be expected: the run claims nothing"
    if claim.reasons:
        return f"equal bits are not to be expected: the run is only {claim.label} ({claim.reasons[0].problem})"
    if differing:
        verb = "differs" if len(differing) == 1 and not differing[0].endswith("s") else "differ"
        return f"equal bits are not to be expected: {' and '.join(differing)} {verb}"
    return "equal bits are to be expected"


def _claim(run: RunDir) -> Claim | None:
    try:
        return claims.kept(run, run.read_manifest())
    except FolderProblem:
        return claims.of_run(run)


def _chain(then: RunDir, now: RunDir, walk: Walk) -> list[Link]:
    old, new = changedsource.read(then), changedsource.read(now)
    prints = changeddata.prints(then), changeddata.prints(now)
    return [
        changedsource.compared(old, new),
        changedplace.packages(then, now, old.imports() | new.imports()),
        changedplace.hardware(then, now),
        changedplace.settings(then, now),
        changeddata.data(then, now, *prints),
        changeddata.initial_weights(then, now, *prints),
        changedsteps.steps(walk, changeddata.checkpoints(*prints) + changeddata.values(*prints)),
        changeddata.final_weights(*prints),
        changedsteps.last_values(walk),
        _expectations(then, now),
    ]


def _expectations(then: RunDir, now: RunDir) -> Link:
    """Returns the link of how both ended, and of the verdicts on what the notebook expected and concluded."""
    differences = []
    ends = [_end(run) for run in (then, now)]
    notes = [lacking("how the run ended", *ends)] if None in ends else []
    if not notes and ends[0] != ends[1]:
        differences.append(Difference(f"the run {ends[1]} here, and {ends[0]} then", "end", "result"))
    verdicts = [_verdicts(run) for run in (then, now)]
    before, after = verdicts
    if before is None or after is None:
        notes.append(lacking("the verdicts", before, after))
    else:
        for key in before | after:
            texts = [one.get(key, "not stated") for one in (before, after)]
            if texts[0] != texts[1]:
                text = f"“{short(key[0])}” {texts[1]} here, {texts[0]} then"
                differences.append(Difference(text, "expectations", "result"))
    return link("expectations", differences, notes)


def _end(run: RunDir) -> str | None:
    state = status(run).state
    words = {"finished": "finished", "unknown": None, "timeout": "reached its time limit", "failed": "failed"}
    return words.get(state, f"was {state}")


def _ended_alike(then: RunDir, now: RunDir) -> bool:
    return _end(then) == _end(now)


def _verdicts(run: RunDir) -> dict[tuple[str, str], str] | None:
    try:
        manifest = run.read_manifest()
    except FolderProblem:
        return None
    return {(one.text, one.condition): one.verdict for one in kept_verdicts(run, manifest)}


def _verdict(chain: Sequence[Link], walk: Walk, tolerance: Tolerance | None, alike: bool) -> tuple[str, str]:
    """Returns the verdict, and the tolerance that decided, in words."""
    differs = any(one.state == "differs" for one in chain if one.name in RESULTS)
    if not differs and not any(walk.torn) and not any(walk.missing):
        return IDENTICAL, ""
    if not differs and any(walk.lines):
        return WITHIN, AS_READ
    then, now = ({name: value for name, value in last.items() if name != "step"} for last in walk.last)
    main = metrics.main(then)
    if tolerance is None or not main or not alike:
        return DIVERGED, ""
    is_within = all(name in now and tolerance.allows(name, then[name], now[name]) for name in main)
    return (WITHIN, str(tolerance)) if is_within else (DIVERGED, str(tolerance))
