"""A search: proposes the points of a sweep by what came of earlier ones, and says which runs are not worth their time.

Optuna thinks; what is known stands in the sweep's directory. Its study lives in memory, and is told everything anew
when the sweep goes on: points that were proposed, their results, and from the runs' metrics the values on the way.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.errors import BadInput, WorkFailed
from labkit.record import metrics
from labkit.record.rundir import RunDir
from labkit.record.sweepdir import SweepDir
from labkit.record.tail import Tail
from labkit.workbench.notebooks import params
from labkit.workbench.notebooks.notebook import Notebook
from labkit.workbench.notebooks.params import Source
from labkit.workbench.sweeps import ranking
from labkit.workbench.sweeps.points import Point
from labkit.workbench.sweeps.ranking import Goal
from labkit.workbench.sweeps.space import Choices, Range, Space
from labkit.workbench.wording import number as shown

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

SAMPLERS = ("tpe", "random")
UNDISTURBED = 5  # runs that finish before any is stopped
FIRST_VALUE = 3  # of a run at which it may be stopped
WORST = 1e300  # stands for NaN and infinities, with which no median can be computed
OTHERS = 20  # proposals asked for in the place of one that was made before


@dataclass(frozen=True)
class Plan:
    """What was asked for; kept in the sweep's record.

    Attributes:
        space: What is chosen of.
        sampler: One of SAMPLERS.
        trials: How many points are proposed.
        seed: Of the sampler: the same results lead to the same proposals.
        prune: Stop runs that are worse than the median of earlier ones.
    """

    space: Space
    sampler: str
    trials: int
    seed: int = 0
    prune: bool = True

    def facts(self) -> dict[str, Any]:
        """Returns what a record keeps."""
        return dict(vars(self)) | {"space": self.space.facts()}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Plan:
        """Returns the plan that `facts` stand for."""
        return cls(**dict(facts) | {"space": Space.of(facts["space"])})


def check(plan: Plan) -> None:
    """Refuses a plan that cannot be worked on.

    Raises:
        BadInput: Optuna is not installed, or there are fewer points than trials.
    """
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise BadInput("--search needs Optuna, which is not installed: pip install 'labkit[search]'") from None
    if plan.trials > plan.space.size:
        raise BadInput(
            f"--trials {plan.trials} is more than the {plan.space.size} points that there are; "
            "a sweep without --search runs them all"
        )


class Search:
    """Proposes points, and is told their results.

    Args:
        plan: What was asked for.
        goal: What is best.
        source: The notebook.
        sweep: The sweep's directory.
    """

    def __init__(self, plan: Plan, goal: Goal, source: Notebook, sweep: SweepDir) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.plan, self.goal = plan, goal
        self.trials = plan.trials
        self._source, self._runs = source, sweep.runs
        self._distributions = {name: _distribution(one) for name, one in plan.space.free.items()}
        pruner = optuna.pruners.MedianPruner(UNDISTURBED, FIRST_VALUE) if plan.prune else optuna.pruners.NopPruner()
        self._idle = optuna.samplers.RandomSampler(0)  # while nothing is to be chosen
        self._study = optuna.create_study(
            direction="minimize" if goal.lowest else "maximize", sampler=self._idle, pruner=pruner
        )
        self._asked: dict[int, _Trial] = {}  # by point, until it has a result
        self._known: set[Any] = set()
        self._measured = self._unmeasured = 0  # finished runs with and without the metric

    @property
    def names(self) -> list[str]:
        """The parameters that are searched."""
        return list(self.plan.space.free)

    # points

    def propose(self, number: int) -> Point:
        """Returns a new point.

        Args:
            number: Its number in the sweep.

        Raises:
            ParameterProblem: What was chosen cannot be together.
        """
        from optuna.trial import TrialState

        for other in range(OTHERS):
            self._study.sampler = self._sampler(number, other)
            trial = self._study.ask(self._distributions)
            self._study.tell(trial, state=TrialState.FAIL)  # what is run is added below, as where the sweep goes on
            point = Point(number, self._admitted(self._values(trial.params)))
            if point.key not in self._known:
                break
        self._add(point)
        return point

    def _add(self, point: Point) -> None:
        """Makes a point known that has no result yet."""
        self._known.add(point.key)
        self._study.sampler = self._idle
        self._study.enqueue_trial(self._chosen(point.values))
        self._asked[point.number] = _Trial(self._study.ask(self._distributions), self.goal)

    def _sampler(self, number: int, other: int) -> optuna.samplers.BaseSampler:
        """Returns a sampler for one proposal, with a seed of its own: so a killed sweep goes on as it would have."""
        import optuna

        digest = hashlib.sha256(f"{self.plan.seed} {number} {other}".encode()).digest()
        seed = int.from_bytes(digest[:4])
        if self.plan.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed)

    def _admitted(self, values: Mapping[str, Any]) -> dict[str, Any]:
        source = self._source
        asked = [Source("the search", tuple(values.items()))]
        return params.admit(source.parameters(), asked, source.path.name, source.computed(), source.written())

    def _values(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the parameters of a run for what Optuna chose."""
        return {
            **self.plan.space.fixed,
            **{name: one.value(chosen[name]) for name, one in self.plan.space.free.items()},
        }

    def _chosen(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what Optuna would have chosen to these parameters of a run."""
        return {name: one.chosen(values[name]) for name, one in self.plan.space.free.items()}

    # results

    def recall(self, points: Iterable[Point], results: Mapping[int, Mapping[str, Any]]) -> None:
        """Takes up what earlier sessions proposed and came to.

        Raises:
            WorkFailed: The metric is in none of the results.
        """
        for point in points:
            self._add(point)
            if point.number in results:
                self.tell(point, results[point.number])

    def tell(self, point: Point, result: Mapping[str, Any]) -> None:
        """Takes note of a result.

        Raises:
            WorkFailed: The metric is in none of the results so far.
        """
        from optuna.trial import TrialState

        trial = self._asked.pop(point.number)
        trial.let_go()
        value = ranking.values_of(result).get(self.goal.metric)
        if ranking.is_pruned(result):
            trial.take_all(self._runs / str(result["run"]), result["pruned"]["after"])
            self._study.tell(trial.asked, state=TrialState.PRUNED)
        elif ranking.is_finished(result) and value is not None:
            trial.take_all(self._runs / str(result["run"]))
            self._study.tell(trial.asked, ordered(value, self.goal))
        else:
            self._study.tell(trial.asked, state=TrialState.FAIL)
        self._refuse_unknown_metric(result)

    def _refuse_unknown_metric(self, result: Mapping[str, Any]) -> None:
        if not ranking.is_finished(result):
            return
        has_it = self.goal.metric in result["metrics"]
        self._measured += has_it
        self._unmeasured += not has_it
        if self._unmeasured and not self._measured:
            logged = ", ".join(result["metrics"]) or "nothing"
            raise WorkFailed(
                f"{result['run']} finished and has not logged {self.goal.metric}, by which its sweep searches; "
                f"it logged {logged}. Begin another sweep with --minimize or --maximize and one of those"
            )

    def prunes(self, point: Point, run: RunDir) -> dict[str, Any] | None:
        """Returns why a run is not worth its time any more, from what it has logged; None where it may be.

        Its n-th value of the metric is compared with the n-th of the runs that finished, whatever their steps.
        """
        return self._asked[point.number].follow(run) if self.plan.prune else None


def told(verdict: Mapping[str, Any]) -> str:
    """Returns why a run was stopped, in a sentence."""
    return (
        f"pruned: {verdict['metric']} {shown(verdict['value'])} after {verdict['after']} values, and its best of them "
        "is worse than the median of the runs that finished"
    )


def is_compared(place: int) -> bool:
    """Tells whether the value of this place, from 1, is compared: of many those with two significant digits.

    >>> [place for place in range(95, 125) if is_compared(place)]
    [95, 96, 97, 98, 99, 100, 110, 120]
    """
    return place % 10 ** max(0, len(str(place)) - 2) == 0


def ordered(value: float, goal: Goal) -> float:
    """Returns a value that has a place among others: what is no finite number is the worst."""
    if not math.isfinite(value):
        return WORST if goal.lowest else -WORST
    return max(-WORST, min(WORST, value))


def _distribution(one: Range | Choices) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(one, Choices):
        return CategoricalDistribution(tuple(range(len(one.values))))
    if isinstance(one.low, float):
        return FloatDistribution(one.low, one.high, log=one.log)
    return IntDistribution(one.low, int(one.high), log=one.log, step=one.step)


class _Trial:
    """A trial of Optuna's until it has a result, and the values that its run logs meanwhile."""

    def __init__(self, asked: optuna.Trial, goal: Goal) -> None:
        self.asked = asked
        self._goal = goal
        self._verdict: dict[str, Any] | None = None
        self._run: RunDir | None = None
        self._tail: Tail | None = None
        self._place = 0  # of the newest value of the run, from 1
        self._reported = 0  # of the newest value that Optuna knows

    def follow(self, run: RunDir) -> dict[str, Any] | None:
        """Reports what a run has logged since; returns why it is to be stopped, None where it is not."""
        if self._tail is None or run != self._run:
            self._run, self._tail, self._place = run, Tail(run.metrics), 0
        if self._tail.is_replaced():  # it went back to a checkpoint
            self._tail.rewind()
            self._place = 0
        if self._verdict is None:
            for records in self._tail.read():
                for value in self._new(records):
                    if self.asked.should_prune():
                        self._verdict = {"metric": self._goal.metric, "value": value, "after": self._place}
                        return self._verdict
        return self._verdict

    def let_go(self) -> None:
        """Closes the run's file."""
        if self._tail is not None:
            self._tail.rewind()

    def take_all(self, run: Path, up_to: float = math.inf) -> None:
        """Reports the rest of what a run has logged that is over."""
        self._place = 0
        for _ in self._new(metrics.records(RunDir(run).metrics), up_to):
            pass

    def _new(self, records: Iterable[Mapping[str, Any] | None], up_to: float = math.inf) -> Iterator[float]:
        """Reports and yields the values that are compared and that Optuna does not know yet."""
        for record in records:
            if record is None or self._goal.metric not in record:
                continue
            if self._place >= up_to:
                return
            self._place += 1
            if self._place > self._reported and is_compared(self._place):
                self._reported = self._place
                value = float(record[self._goal.metric])
                self.asked.report(ordered(value, self._goal), self._place)
                yield value
