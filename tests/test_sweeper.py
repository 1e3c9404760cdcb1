"""A sweep without kernels: what is accepted, what is tried again, who may work on it, and which points are best."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from concurrent.futures import Executor, Future
from concurrent.futures import ThreadPoolExecutor as Threads
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from running import make_lab
from tiny import plain_environment

from labkit.errors import BadInput, FolderProblem, RunNotFound, WorkFailed
from labkit.record import sweepdir
from labkit.record.find import every, whereabouts
from labkit.record.process import Process
from labkit.record.rundir import RunDir, create
from labkit.record.status import status
from labkit.record.sweepdir import SweepDir
from labkit.workbench.running import outcome
from labkit.workbench.running.job import Job
from labkit.workbench.running.outcome import Outcome
from labkit.workbench.running.workers import WorkerGone, Workers
from labkit.workbench.sweeps import ranking, sweepreport
from labkit.workbench.sweeps.points import Point
from labkit.workbench.sweeps.ranking import Goal
from labkit.workbench.sweeps.sweep import Begin, Sweeper, runs_of

FINISHED = {"status": "finished", "reason": "", "metrics": {"loss": 1.0}, "run": "a/b"}


@pytest.fixture
def sweep(tmp_path: Path) -> SweepDir:
    points = [point.facts() for point in some(300)]
    return sweepdir.create(tmp_path / "runs", {"points": points, "notebook": "notebooks/some.ipynb"})


def some(count: int) -> list[Point]:
    return [Point(number, {"X": number}) for number in range(1, count + 1)]


class Answers(Executor):
    """Answers at once: the next of these for a point, an exception being raised; at the end it finished."""

    def __init__(self, **answers: list[Any]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        name = Path(args[0].run).name
        self.asked.append(name)
        left = self.answers.get(f"p{name}", [])
        answer = left.pop(0) if left else Outcome(args[0].run, "finished", metrics={"loss": float(name)})
        future.set_exception(answer) if isinstance(answer, Exception) else future.set_result(answer)
        return future


def begin(point: Point, earlier: RunDir | None) -> Job:
    return Job(f"/nowhere/runs/some/{point.number}", "some.ipynb", {}, "python3")


def mishap(number: int) -> Outcome:
    return Outcome(f"/nowhere/runs/some/{number}", "killed", "killed from outside", is_mishap=True)


def test_every_point_is_accepted_once(sweep: SweepDir):
    executor = Answers()
    sweeper = Sweeper(sweep, some(300), begin)
    sweeper.work(executor, 7)
    found = sweepdir.results(sweep)
    assert list(found) == list(range(1, 301)) and len(executor.asked) == 300
    assert found == sweeper.results or all(found[one]["run"] == sweeper.results[one]["run"] for one in found)
    again = Sweeper(sweep, some(300), begin)
    again.go_on()
    again.work(executor, 7)
    assert len(executor.asked) == 300


def test_what_was_killed_is_tried_twice_more_and_what_failed_is_not(sweep: SweepDir):
    failed = Outcome("/nowhere/runs/some/3", "failed", "cell 2 raised ValueError")
    executor = Answers(p1=[mishap(1)], p2=[mishap(2)] * 5, p3=[failed])
    Sweeper(sweep, some(3), begin).work(executor, 2)
    assert {name: executor.asked.count(name) for name in "123"} == {"1": 2, "2": 3, "3": 1}
    found = sweepdir.results(sweep)
    assert [(one["status"], one["retries"]) for one in found.values()] == [
        ("finished", 1),
        ("killed", 2),
        ("failed", 0),
    ]


@pytest.mark.parametrize("there", ["", "{", '{"point": 2}', "[]"])
def test_a_damaged_result_that_appears_meanwhile_makes_room_for_the_true_one(sweep: SweepDir, there: str):
    def damages(point: Point, earlier: RunDir | None) -> Job:
        if point.number == 2:
            (sweep.accepted / "2.json").write_text(there)
        return begin(point, earlier)

    sweeper = Sweeper(sweep, some(3), damages)
    sweeper.work(Answers(), 1)
    assert {number: one["metrics"] for number, one in sweepdir.results(sweep).items()} == {
        1: {"loss": 1.0},
        2: {"loss": 2.0},
        3: {"loss": 3.0},
    }


def test_a_folder_in_the_place_of_a_result_makes_room_and_no_other_result_does(sweep: SweepDir):
    def damages(point: Point, earlier: RunDir | None) -> Job:
        if point.number == 2:
            (sweep.accepted / "2.json" / "inside").mkdir(parents=True)
            (sweep.accepted / "1.json").write_text("what a disk with an error returns")
        return begin(point, earlier)

    Sweeper(sweep, some(2), damages).work(Answers(), 1)
    assert sweepdir.results(sweep)[2]["metrics"] == {"loss": 2.0}
    assert (sweep.accepted / "1.json").read_text() == "what a disk with an error returns"


def creates(sweep: SweepDir, **more: Any) -> Begin:
    """Makes real directories of runs that this process means to start."""
    facts = {"sweep": sweep.id, "creator": Process.of(os.getpid()).facts(), **more}
    return lambda point, earlier: Job(str(create(sweep.runs, "some", facts | {"point": point.number}).path), "", {}, "")


@pytest.mark.timeout(40)
def test_workers_that_die_before_they_start_anything_end_the_sweep(sweep: SweepDir, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("labkit.workbench.sweeps.sweep.LATE_S", 0.1)
    executor = Answers()
    executor.answers = Dying()
    with pytest.raises(WorkFailed, match=r"3 runs in a row did not start.*--continue"):
        Sweeper(sweep, some(100), creates(sweep)).work(executor, 2)
    assert len(every(sweep.runs)) <= 4 and sweepdir.results(sweep) == {}
    assert {status(run).state for run in every(sweep.runs)} == {"killed"}


def test_runs_whose_kernel_does_not_start_end_the_sweep_and_no_point_has_that_for_its_result(sweep: SweepDir):
    executor = Answers()
    executor.answers = NotStarting()
    with pytest.raises(WorkFailed, match="3 runs in a row did not start: no kernel could be started"):
        Sweeper(sweep, some(100), begin).work(executor, 2)
    assert len(executor.asked) <= 4 and sweepdir.results(sweep) == {}


class NotStarting(dict):
    """Answers for any point that no kernel could be started."""

    def get(self, key: Any, default: Any = None) -> list[Any]:
        reason = "no kernel could be started: No space left on device"
        return [Outcome("/nowhere/runs/some/1", "failed", reason, is_mishap=True, began=False)]


def test_a_run_that_goes_on_though_its_worker_died_never_has_another_beside_it(
    sweep: SweepDir, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("labkit.workbench.sweeps.sweep.wait_until_over", lambda run, meanwhile: False)
    makes = creates(sweep)

    def running(point: Point, earlier: RunDir | None) -> Job:
        job = makes(point, earlier)
        job.directory.process.parent.mkdir(parents=True, exist_ok=True)
        job.directory.process.write_text(json.dumps({"process": Process.of(os.getpid()).facts()}))
        return job

    executor = Answers()
    executor.answers = Dying()
    with pytest.raises(WorkFailed, match="still runs, though its worker died"):
        Sweeper(sweep, some(3), running).work(executor, 1)
    assert len(every(sweep.runs)) == 1 and sweepdir.results(sweep) == {}


def test_a_clock_that_was_set_back_hides_no_run(sweep: SweepDir):
    creates(sweep)(some(1)[0], None)
    (made,) = every(sweep.runs)
    day, rest = made.path.name.split("T")
    earlier = f"{datetime.strptime(day, '%Y%m%d') - timedelta(hours=1):%Y%m%d}T23{rest[2:]}"
    made.path.rename(made.path.with_name(earlier))
    assert [run.id for run in runs_of(sweep)[1]] == [earlier]


def test_a_full_disk_is_said_also_where_a_sweep_is_taken_up(sweep: SweepDir, monkeypatch: pytest.MonkeyPatch):
    made = creates(sweep)(some(1)[0], None).directory
    made.process.parent.mkdir(parents=True, exist_ok=True)
    made.process.write_text("{}")
    made.exit.write_text(json.dumps({"status": "finished"}))

    def full(*_: Any) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sweepdir, "accept", full)
    with pytest.raises(FolderProblem, match="No space left on device"):
        Sweeper(sweep, some(1), begin, report=False).go_on()


def test_a_run_that_was_stopped_by_hand_is_a_result(sweep: SweepDir):
    made = creates(sweep)(some(1)[0], None).directory
    made.process.parent.mkdir(parents=True, exist_ok=True)
    made.exit.write_text(json.dumps({"status": "interrupted", "reason": "stopped by SIGTERM"}))
    assert outcome.of_run(made).is_mishap
    made.stop.write_text(json.dumps({"reason": "stopped by hand", "by_hand": True}))
    found = outcome.of_run(made)
    assert (found.state, found.reason, found.is_mishap) == ("interrupted", "stopped by hand", False)


def test_last_is_the_newest_sweep_of_the_lab_that_one_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = tmp_path / "shared"
    labs = [make_lab(tmp_path / name) for name in ("a", "b")]
    made = [sweepdir.create(runs, {"points": [], **whereabouts(lab, runs)}) for lab in labs]
    monkeypatch.setenv("LABKIT_RUNS", str(runs))
    for lab, sweep in zip(labs, made, strict=True):
        monkeypatch.chdir(lab)
        assert sweepdir.find("last", runs) == sweep


class Dying(dict):
    """Answers for any point that its worker has died."""

    def get(self, key: Any, default: Any = None) -> list[Any]:
        return [WorkerGone("its worker died")]


def test_when_no_run_can_be_made_those_that_run_end_first(sweep: SweepDir):
    def full(point: Point, earlier: RunDir | None) -> Job:
        if point.number == 3:
            raise FolderProblem("the disk is full")
        return begin(point, earlier)

    with pytest.raises(FolderProblem, match="the disk is full"):
        Sweeper(sweep, some(5), full).work(Answers(), 4)
    assert list(sweepdir.results(sweep)) == [1, 2]


def test_a_stop_leaves_the_rest_without_results(sweep: SweepDir):
    sweeper = Sweeper(sweep, some(5), begin)
    sweeper.say = lambda point, result: sweeper.send({"stop": "SIGINT"})
    sweeper.work(Answers(), 1)
    assert list(sweepdir.results(sweep)) == [1] and sweeper.stopping == "SIGINT" and not sweeper.at_once
    sweeper.send({"signal": 9})
    assert sweeper.at_once


def test_of_many_that_accept_a_result_at_once_one_does(sweep: SweepDir):
    with Threads(8) as pool:
        took = list(pool.map(lambda number: sweepdir.accept(sweep, 1, FINISHED | {"run": f"a/{number}"}), range(40)))
    assert sum(took) == 1
    assert sweepdir.results(sweep)[1]["run"] == f"a/{took.index(True)}"
    assert os.listdir(sweep.accepted) == ["1.json"]


def test_a_damaged_result_is_none_and_is_made_again(sweep: SweepDir):
    (sweep.accepted / "1.json").write_text("")
    (sweep.accepted / "2.json").write_text(json.dumps({"point": 3, "run": "a/b"}))
    assert sweepdir.results(sweep) == {} and len(os.listdir(sweep.accepted)) == 2
    assert sweepdir.results(sweep, mend=True) == {} and not list(sweep.accepted.glob("*.json"))
    assert sweepdir.accept(sweep, 1, FINISHED)


def test_a_sweep_has_one_holder_until_that_one_is_gone(sweep: SweepDir):
    session = sweepdir.claim(sweep, [])
    with pytest.raises(BadInput, match=f"being worked on by process {os.getpid()} on"):
        sweepdir.claim(sweep, [])
    session.end()
    sweepdir.claim(sweep, []).end()
    code = (
        "import sys; from pathlib import Path; from labkit.record import sweepdir\n"
        "sweepdir.claim(sweepdir.SweepDir(Path(sys.argv[1])), []); print('has it')"
    )
    arguments = [sys.executable, "-c", code, str(sweep.path)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=plain_environment())
    assert done.stdout == "has it\n", done.stderr
    assert sweepdir.claim(sweep, []).path.name == "4"


def test_of_many_that_claim_a_sweep_at_once_one_gets_it(sweep: SweepDir):
    def claims(_: int) -> bool:
        try:
            sweepdir.claim(sweep, [])
        except BadInput:
            return False
        return True

    with Threads(8) as pool:
        assert sum(pool.map(claims, range(24))) == 1


def test_sweeps_are_found_by_name_and_are_no_runs(sweep: SweepDir):
    runs = sweep.runs
    other = sweepdir.create(runs, {"points": []})
    made = create(runs, "some", {})
    assert every(runs) == [made]
    for text in (str(sweep.path), sweep.id, sweep.name, sweep.id[-6:]):
        assert sweepdir.find(text, runs) == sweep
    assert sweepdir.find("last", runs) == other
    with pytest.raises(RunNotFound, match="names no sweep"):
        sweepdir.find("ffffffff", runs)


def test_points_are_taken_together_over_seeds_and_the_best_is_first():
    points = [
        Point(number, {"LR": rate, "RANDOM_SEED": seed})
        for number, (rate, seed) in enumerate([(rate, seed) for rate in (0.1, 0.2, 0.3) for seed in (1, 2)], 1)
    ]
    losses = [2.0, 4.0, 1.0, 2.0, math.nan, 1.0]
    results = {
        number: {"status": "finished", "run": f"a/{number}", "metrics": {"val_loss": loss}}
        for number, loss in enumerate(losses, 1)
    }
    results[2] = {"status": "failed", "run": "a/2", "metrics": {}}
    found = ranking.groups(points, results, Goal("val_loss", lowest=True))
    assert [group.values["LR"] for group in found] == [0.2, 0.1, 0.3]
    assert found[0].metrics["val_loss"]["mean"] == 1.5 and found[0].points == (3, 4)
    assert (found[1].finished, found[1].runs) == (1, ("a/1",))
    assert math.isnan(found[2].mean("val_loss"))
    assert ranking.varied(points) == ["LR", "RANDOM_SEED"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["loss", "val_loss", "val_accuracy"], Goal("val_loss", True)),
        (["loss", "test_accuracy"], Goal("test_accuracy", False)),
        (["epoch", "reward"], None),
        (["lossless"], None),
        ([], None),
    ],
)
def test_what_decides_is_a_main_metric_whose_name_says_which_way(names: list[str], expected: Goal | None):
    assert ranking.goal(names) == expected
    assert ranking.goal(names, "reward", lowest=False) == Goal("reward", False)


def test_the_summary_and_the_page_say_what_came_of_it(sweep: SweepDir):
    points = some(3)
    for number, loss in ((1, 2.0), (3, math.inf)):
        run = create(sweep.runs, "some", {})
        run.metrics.write_text("".join(f'{{"step": {step}, "loss": {loss / (step + 1)}}}\n' for step in range(4)))
        sweepdir.accept(sweep, number, FINISHED | {"run": run.name, "metrics": {"loss": loss}})
    why = {"status": "failed", "reason": "cell 2 raised <b>ValueError</b>", "run": "some/x", "metrics": {}}
    sweepdir.accept(sweep, 2, why)
    found = sweepreport.summarise(sweep, sweep.read_manifest(), points, sweepdir.results(sweep))
    sweepreport.write(found)
    facts = json.loads(sweep.summary.read_bytes())
    assert facts["best"]["values"] == {"X": 1} and facts["best_is"] == "lowest" and facts["finished"] == 2
    assert facts["failed"] == [
        {"point": 2, "values": {"X": 2}, "run": "some/x"} | {k: why[k] for k in ("status", "reason")}
    ]
    page = sweep.report.read_text()
    assert "&lt;b&gt;ValueError" in page and "<b>" not in page and "<polyline" in page
    assert any("lowest loss: 2 with X=1" in line for line in sweepreport.lines(found))


# worker processes


@pytest.mark.slow
def test_workers_stay_and_one_that_dies_takes_its_own_call_only():
    with Workers([{"OMP_NUM_THREADS": "3"}]) as workers:
        first = workers.submit(os.getpid).result(60)
        assert first != os.getpid() and workers.submit(os.getpid).result(60) == first
        assert workers.submit(os.getenv, "OMP_NUM_THREADS").result(60) == "3"
        with pytest.raises(RuntimeError, match="FileNotFoundError"):
            workers.submit(os.stat, "/there is none").result(60)
        died, after = workers.submit(os.kill, first, 9), workers.submit(os.getpid)
        with pytest.raises(WorkerGone):
            died.result(60)
        assert after.result(60) != first
    with pytest.raises(RuntimeError, match="shut down"):
        workers.submit(os.getpid)
