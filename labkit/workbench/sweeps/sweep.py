"""Brings every point of a sweep to one accepted result, whatever dies on the way.

It sees an executor and nothing else: a run is a plain function of a job that can be pickled, and comes back as a small
outcome. What is known of a sweep stands in its directory and in its runs; killed at any moment, it goes on from there.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from labkit.errors import BadInput, FolderProblem, LabkitError, WorkFailed
from labkit.record import checkpoints, sweepdir
from labkit.record.files import read_json
from labkit.record.find import every
from labkit.record.rundir import RunDir
from labkit.record.status import status
from labkit.record.sweepdir import SweepDir
from labkit.workbench.running import outcome
from labkit.workbench.running.job import Job
from labkit.workbench.running.outcome import Outcome
from labkit.workbench.sweeps.points import Point
from labkit.workbench.sweeps.search import Search, told

TICK_S = 0.2
RETRIES = 2  # of a point whose run ended for something that is not the notebook's doing
ORPHANS_S = 60.0  # for the supervisors of a killed sweep's runs to end them; it takes them two seconds
STILLBORN = RETRIES + 1  # runs in a row whose kernel did not start: those of other points would not, either
CLOCKS = timedelta(days=1)  # by which the clocks of hosts may differ, or one be set back
LATE_S = 2.0  # for a supervisor that was just told to start a kernel when its worker died

Begin = Callable[[Point, RunDir | None], Job]  # makes the run of a point, or claims the one to go on with
CarryOut = Callable[[Job], Outcome]


@dataclass
class UnderWay:
    """A run of a point that has been submitted."""

    point: Point
    run: RunDir
    began: float = field(default_factory=time.monotonic)
    asked_to_stop: bool = False


@dataclass
class Sweeper:
    """The state of a sweep that is worked on; `work` brings it to its end.

    Attributes:
        sweep: Its directory.
        points: All of its points; of a search those that it has proposed so far.
        begin: Makes the run of a point.
        carry_out: What the executor calls with the job of a run.
        search: Proposes further points; None where all are listed.
        stop: Asks a run to stop at its next step; tells whether it did.
        results: Accepted results by point.
        earlier: By point, the run that may be gone on with.
        stopping: The name of the signal that asked for a stop; empty where none did.
        at_once: It was asked for twice.
        trouble: Why no further run can be made; None where it can.
        report: A run that its worker could not finish gets its report, too.
        stillborn: How many runs in a row never started.
    """

    sweep: SweepDir
    points: list[Point]
    begin: Begin
    carry_out: CarryOut = outcome.carry_out
    search: Search | None = None
    stop: Callable[..., bool] = outcome.stop
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    earlier: dict[int, RunDir] = field(default_factory=dict)
    running: dict[Future[Outcome], UnderWay] = field(default_factory=dict)
    retries: dict[int, int] = field(default_factory=dict)
    stopping: str = ""
    at_once: bool = False
    trouble: LabkitError | None = None
    report: bool = True
    stillborn: int = 0
    say: Callable[[Point, Mapping[str, Any]], object] = lambda point, result: None
    tick: Callable[[], object] = lambda: None  # called all the while

    @property
    def total(self) -> int:
        """How many points there are in the end."""
        return len(self.points) if self.search is None else self.search.trials

    def send(self, message: dict[str, Any]) -> None:
        """Takes what `Stops` passes on: a first signal, and the second Ctrl-C."""
        self.stopping = str(message.get("stop") or self.stopping)
        self.at_once = self.at_once or "signal" in message

    def work(self, executor: Executor, slots: int | Callable[[], int]) -> None:
        """Executes what has no result yet, so many runs at a time; a function says how many where that changes.

        Raises:
            LabkitError: No further run could be made; those that ran have ended.
        """
        pending = deque(point for point in self.points if point.number not in self.results)
        while ((pending or len(self.points) < self.total) and self._goes_on()) or self.running:
            room = slots if isinstance(slots, int) else slots()
            while len(self.running) < room and self._goes_on() and (point := self._next(pending)) is not None:
                self._submit(executor, point)
            if not self.running:
                time.sleep(TICK_S)  # until there is a worker
            done, _ = wait(self.running, TICK_S, FIRST_COMPLETED)
            for future in done:
                pending.extend(self._take(future))
            self.tick()
            if self.search is not None:
                self._prune(self.search)
            if self.stopping:
                self._stop_running()
            if self.at_once:
                return
        if self.trouble is not None:
            raise self.trouble

    def _goes_on(self) -> bool:
        return not self.stopping and self.trouble is None

    def _next(self, pending: deque[Point]) -> Point | None:
        """Returns the point to run next; what a search proposes stands in the sweep's directory first."""
        if pending or self.search is None or len(self.points) >= self.total:
            return pending.popleft() if pending else None
        try:
            point = self.search.propose(len(self.points) + 1)
            sweepdir.propose(self.sweep, point.number, point.facts())
        except LabkitError as error:
            self.trouble = error
            return None
        self.points.append(point)
        return point

    def _submit(self, executor: Executor, point: Point) -> None:
        try:
            job = self.begin(point, self.earlier.pop(point.number, None))
        except LabkitError as error:
            self.trouble = error  # a full disk, a notebook that is gone: the next run could not be made either
            return
        self.running[executor.submit(self.carry_out, job)] = UnderWay(point, job.directory)

    def _take(self, future: Future[Outcome]) -> list[Point]:
        """Keeps what came of a run; returns its point where it is to be tried again."""
        under_way = self.running.pop(future)
        try:
            found = future.result()
        except CancelledError:
            outcome.call_off(under_way.run, "interrupted", "the sweep was stopped before it was started")
            found = outcome.of_run(under_way.run)
        except Exception as error:  # the worker died, and took the call with it
            if isinstance(error, BrokenExecutor):
                self.trouble = WorkFailed(f"{error}; {self._how_to_go_on()}")
            found = self._of_lost(under_way.run, error)
        self._look_whether_it_began(found)
        try:
            return [] if self._settle(under_way.point, found) else [under_way.point]
        except OSError as error:
            self.trouble = self._not_written(error)
            return []

    def _look_whether_it_began(self, found: Outcome) -> None:
        """Ends a sweep whose runs do not start any more, before each of its points has that for its result."""
        self.stillborn = self.stillborn + 1 if found.is_mishap and not found.began else 0
        if self.stillborn >= STILLBORN and self._goes_on():
            said = f"{STILLBORN} runs in a row did not start: {found.reason}"
            self.trouble = WorkFailed(f"{said}; mend that, then {self._how_to_go_on()}")

    def _how_to_go_on(self) -> str:
        return f"go on with: labkit sweep --continue {self.sweep.id}"

    def _not_written(self, error: OSError) -> FolderProblem:
        return FolderProblem(f"{self.sweep.accepted} cannot be written: {error.strerror or error}")

    def _settle(self, point: Point, found: Outcome) -> bool:
        """Accepts an outcome; returns False where the point is to have another run."""
        if found.is_mishap:
            self.earlier[point.number] = found.directory
            if self.stopping or self.trouble is not None:
                return True  # without a result: the sweep goes on another time
            if self.retries.setdefault(point.number, 0) < RETRIES:
                self.retries[point.number] += 1
                return False
        result = found.facts() | {"retries": self.retries.get(point.number, 0)}
        while not sweepdir.accept(self.sweep, point.number, result):
            found_there = sweepdir.result_of(self.sweep, point.number, mend=True)  # one that is damaged makes room
            if found_there is not None:
                result = found_there
                break
        self.results[point.number] = result
        if self.search is not None:
            try:
                self.search.tell(point, result)
            except LabkitError as error:
                self.trouble = error
        self.say(point, result)
        return True

    def _of_lost(self, run: RunDir, error: Exception) -> Outcome:
        """Returns what came of a run whose worker cannot tell any more, once its supervisor has ended it."""
        if _appears(run.process, LATE_S) and not wait_until_over(run, meanwhile=self.tick):
            self.trouble = WorkFailed(f"{run.name} still runs, though {error}; end it, then {self._how_to_go_on()}")
            return outcome.of_run(run)
        if not run.process.exists() and not run.exit.exists():
            outcome.call_off(run, "killed", f"it was never started: {error}")
        outcome.complete(run, self.report)
        return outcome.of_run(run)

    def _stop_running(self) -> None:
        number = signal.Signals[self.stopping] if self.stopping in signal.Signals.__members__ else signal.SIGTERM
        for future, under_way in self.running.items():
            if not under_way.asked_to_stop:
                under_way.asked_to_stop = future.cancel() or self.stop(under_way.run, number)

    def _prune(self, search: Search) -> None:
        """Stops runs that are not worth their time; why stands in their record first, so that it is not lost."""
        for under_way in self.running.values():
            if not under_way.asked_to_stop and (found := search.prunes(under_way.point, under_way.run)) is not None:
                why = {"reason": told(found), "pruned": found}
                under_way.asked_to_stop = self.stop(under_way.run, signal.SIGTERM, why)

    def go_on(self) -> None:
        """Takes up what an earlier session left: finished runs are accepted, others may be gone on with.

        Raises:
            BadInput: A run of it still runs.
            FolderProblem: A damaged result cannot be moved out of the way.
            WorkFailed: Its search cannot go on.
        """
        try:
            self.results = sweepdir.results(self.sweep, mend=True)
        except OSError as error:
            raise self._not_written(error) from error
        if self.search is not None:
            self.search.recall(self.points, self.results)
        aside = sweepdir.aside(self.sweep)
        left = runs_of(self.sweep)
        for point in self.points:
            if self.stopping:
                return
            for run in left.get(point.number, []) if point.number not in self.results else []:
                if not wait_until_over(run, meanwhile=self.tick):
                    raise BadInput(f"{run.name}, of point {point.number}, still runs; end it, then continue the sweep")
                if point.number not in self.results:
                    self._take_up(point, run, is_aside=run.name in aside)
                if self.trouble is not None:
                    raise self.trouble

    def _take_up(self, point: Point, run: RunDir, is_aside: bool) -> None:
        """Accepts what a run of an earlier session came to, or keeps it to go on with."""
        if not run.process.exists() and not run.exit.exists():
            outcome.call_off(run, "killed", "the sweep was killed before it was started")
        found = outcome.of_run(run)
        if found.is_mishap or (is_aside and found.state == "timeout"):
            known = self.earlier.get(point.number)
            if known is None or checkpoints.every(run) or not checkpoints.every(known):
                self.earlier[point.number] = run
        elif found.state == "finished" or not is_aside:
            outcome.complete(run, self.report)
            try:
                self._settle(point, outcome.of_run(run))
            except OSError as error:
                self.trouble = self._not_written(error)


def runs_of(sweep: SweepDir) -> dict[int, list[RunDir]]:
    """Returns the runs that were made for a sweep by point, oldest first."""
    found: dict[int, list[RunDir]] = {}
    begun = datetime.strptime(sweep.id[:15], "%Y%m%dT%H%M%S") - CLOCKS
    for run in every(sweep.runs):
        if run.id >= f"{begun:%Y%m%dT%H%M%S}":  # names sort by time
            manifest = read_json(run.manifest) or {}
            if manifest.get("sweep") == sweep.id and type(manifest.get("point")) is int:
                found.setdefault(manifest["point"], []).append(run)
    return found


def wait_until_over(run: RunDir, within_s: float = ORPHANS_S, meanwhile: Callable[[], object] = lambda: None) -> bool:
    """Waits until a run is over whose sweep or worker was killed, and which is being ended; tells whether it is."""
    end = time.monotonic() + within_s
    while not status(run).is_over:
        if time.monotonic() > end:
            return False
        meanwhile()
        time.sleep(0.05)
    return True


def _appears(path: Path, within_s: float) -> bool:
    end = time.monotonic() + within_s
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
