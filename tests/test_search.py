"""A search: what it proposes, what it stops, and that it goes on after any kill as if nothing had been."""

from __future__ import annotations

import json
import math
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest
import sweeps
from click.testing import CliRunner
from dask_cluster import Cluster
from running import labkit, make_lab, wait_for
from tiny import parameters, write

from labkit import cli
from labkit.errors import FolderProblem, WorkFailed
from labkit.record import metrics, sweepdir
from labkit.record.files import read_json
from labkit.record.find import every
from labkit.record.rundir import RunDir, create
from labkit.record.status import status
from labkit.record.sweepdir import SweepDir
from labkit.workbench.notebooks import notebook
from labkit.workbench.notebooks.notebook import Notebook
from labkit.workbench.running.job import Job
from labkit.workbench.running.outcome import Outcome
from labkit.workbench.sweeps import sweepreport
from labkit.workbench.sweeps.points import Point
from labkit.workbench.sweeps.ranking import Goal
from labkit.workbench.sweeps.search import Plan, Search, is_compared
from labkit.workbench.sweeps.space import Choices, Range, Space
from labkit.workbench.sweeps.sweep import Sweeper

CELL = 'RATE: float = 0.1\nWIDTH: int = 16\nKIND: str = "a"'
SPACE = Space({"KIND": Choices(("a", "b")), "RATE": Range(1e-4, 1.0, log=True), "WIDTH": Range(1, 64)}, {})
LOSS = Goal("loss", lowest=True)

TRAINS = """\
import labkit, torch
run = labkit.start()
torch.manual_seed(0)
x = torch.randn(64, 8)  # (batch, feature)
y = x @ torch.arange(8.0)  # (batch,)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
for epoch in range(10):
    loss = torch.nn.functional.mse_loss(model(x)[:, 0], y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    run.log(epoch, val_loss=loss.item())
"""

SLOW = """\
import time
import labkit
run = labkit.start()
for epoch in range(40):
    run.log(epoch, val_loss=X + 1 / (epoch + 1))
    time.sleep(0.0 if X <= 2 else PAUSE)
"""


def loss_of(values: dict[str, Any]) -> float:
    return (math.log10(values["RATE"]) + 2) ** 2 + abs(values["WIDTH"] - 30) / 30 + (values["KIND"] == "a")


@pytest.fixture
def source(tmp_path: Path) -> Notebook:
    return notebook.read(write(tmp_path / "some.ipynb", parameters(CELL)))


@pytest.fixture
def sweep(tmp_path: Path) -> SweepDir:
    return new_sweep(tmp_path)


def new_sweep(folder: Path) -> SweepDir:
    return sweepdir.create(folder / "runs", {"points": [], "notebook": "some.ipynb"})


class Computes(Executor):
    """Comes to a result at once, by a function of the point; each run logs three values on its way there."""

    def __init__(self, sweep: SweepDir, compute: Callable[[dict[str, Any]], float] = loss_of) -> None:
        self.sweep, self.compute = sweep, compute
        self.asked: list[Point] = []

    def begin(self, point: Point, earlier: RunDir | None) -> Job:
        proposed = read_json(self.sweep.proposed / f"{point.number}.json")
        assert proposed is not None and Point.of(proposed) == point  # it is known before it is run
        self.asked.append(point)
        run = create(self.sweep.runs, "some", {"sweep": self.sweep.id, "point": point.number})
        return Job(str(run.path), "some.ipynb", point.values, "python3")

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        job: Job = args[0]
        try:
            value = self.compute(job.values)
        except ValueError as error:
            future.set_result(Outcome(job.run, "failed", str(error)))
            return future
        log(RunDir(Path(job.run)), [value + 2, value + 1, value])
        future.set_result(Outcome(job.run, "finished", metrics={"loss": value}))
        return future


def log(run: RunDir, values: list[float], first_step: int = 0, every_steps: int = 1) -> None:
    writer = metrics.MetricsWriter(run.metrics)
    for place, value in enumerate(values):
        writer.log(first_step + place * every_steps, {"loss": value, "other": 1.0})
    writer.close()


def plan(trials: int, sampler: str = "tpe", **more: Any) -> Plan:
    return Plan(more.pop("space", SPACE), sampler, trials, **more)


def searched(sweep: SweepDir, source: Notebook, asked: Plan, compute: Any = loss_of, stop_at: int = 0) -> Sweeper:
    """Search in one process, one run at a time; go on where an earlier session was stopped."""
    executor = Computes(sweep, compute)
    points = [Point.of(one) for one in sweepdir.proposed(sweep)]
    sweeper = Sweeper(sweep, points, executor.begin, search=Search(asked, LOSS, source, sweep))
    sweeper.go_on()
    sweeper.say = lambda point, result: sweeper.send({"stop": "SIGINT"}) if point.number == stop_at else None
    sweeper.work(executor, 1)
    return sweeper


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_seed_proposes_the_same_points_and_another_one_others(tmp_path: Path, source: Notebook, sampler: str):
    found = [
        searched(new_sweep(tmp_path / str(number)), source, plan(25, sampler, seed=seed)).points
        for number, seed in enumerate((0, 0, 1))
    ]
    assert found[0] == found[1] and len(found[0]) == 25
    assert not {point.key for point in found[0]} & {point.key for point in found[2]}
    for point in found[0]:
        assert 1e-4 <= point.values["RATE"] <= 1.0 and point.values["WIDTH"] in range(1, 65)
        assert [type(value) for value in point.values.values()] == [float, int, str]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_that_was_stopped_goes_on_with_the_points_of_one_that_was_not(
    tmp_path: Path, source: Notebook, sampler: str
):
    whole = searched(new_sweep(tmp_path / "whole"), source, plan(24, sampler)).points
    sweep = new_sweep(tmp_path / "stopped")
    for number in (1, 7, 15):
        assert len(searched(sweep, source, plan(24, sampler), stop_at=number).results) == number
    assert searched(sweep, source, plan(24, sampler)).points == whole
    assert len(sweepdir.results(sweep)) == len(every(sweep.runs)) == 24


def test_what_was_proposed_and_not_run_is_run_when_it_goes_on(sweep: SweepDir, source: Notebook):
    before = searched(sweep, source, plan(6), stop_at=4).points
    sweepdir.propose(sweep, 5, Point(5, {"RATE": 0.5, "WIDTH": 3, "KIND": "b"}).facts())
    (sweep.accepted / "2.json").unlink()  # a power cut took it; its run is there
    for run in every(sweep.runs):
        if (read_json(run.manifest) or {})["point"] == 2:
            shutil.rmtree(run.path)
    found = searched(sweep, source, plan(6))
    assert found.points[:4] == before and found.points[4].values["WIDTH"] == 3
    assert sorted(found.results) == [1, 2, 3, 4, 5, 6]


def test_a_proposal_that_is_missing_is_no_reason_to_make_up_another(sweep: SweepDir, source: Notebook):
    searched(sweep, source, plan(3))
    (sweep.proposed / "2.json").unlink()
    with pytest.raises(FolderProblem, match=r"proposed/2\.json is missing"):
        sweepdir.proposed(sweep)


@pytest.mark.slow
def test_tpe_comes_nearer_than_chance(tmp_path: Path, source: Notebook):
    best = {
        sampler: min(
            loss_of(point.values) for point in searched(new_sweep(tmp_path / sampler), source, plan(60, sampler)).points
        )
        for sampler in ("tpe", "random")
    }
    assert best["tpe"] < best["random"] and best["tpe"] < 0.1


def test_no_point_of_a_small_space_is_proposed_twice_while_there_are_others(sweep: SweepDir, source: Notebook):
    small = Space({"KIND": Choices(("a", "b")), "WIDTH": Range(1, 4)}, {"RATE": 0.1})
    found = searched(sweep, source, plan(8, space=small)).points
    assert len({point.key for point in found}) == 8


def test_failed_runs_and_those_without_a_number_stop_no_search(sweep: SweepDir, source: Notebook):
    def compute(values: dict[str, Any]) -> float:
        if values["KIND"] == "a":
            raise ValueError("a")
        return math.nan if values["WIDTH"] % 2 else math.inf if values["WIDTH"] % 3 else loss_of(values)

    found = searched(sweep, source, plan(30), compute)
    assert len(found.results) == 30 and {one["status"] for one in found.results.values()} == {"failed", "finished"}
    summary = sweepreport.summarise(sweep, {"search": {"trials": 30}}, found.points, found.results, "loss", True)
    assert summary.best is not None and math.isfinite(summary.best.mean("loss"))


def test_a_metric_that_is_never_logged_ends_the_search_and_says_what_is(sweep: SweepDir, source: Notebook):
    executor = Computes(sweep)
    sweeper = Sweeper(sweep, [], executor.begin, search=Search(plan(9), Goal("val_los", True), source, sweep))
    with pytest.raises(WorkFailed, match=r"has not logged val_los, .* it logged loss\. Begin another"):
        sweeper.work(executor, 1)
    assert len(executor.asked) == 1


# pruning


@pytest.fixture
def search(sweep: SweepDir, source: Notebook) -> Iterator[tuple[Search, SweepDir]]:
    """A search that knows five finished runs, whose median falls from 10 to 1."""
    found = Search(plan(20), LOSS, source, sweep)
    for number in range(1, 6):
        run = create(sweep.runs, "some", {})
        log(run, [number + value for value in range(7, -3, -1)])
        point = found.propose(number)
        found.tell(point, {"status": "finished", "run": run.name, "metrics": {"loss": number - 2.0}})
    yield found, sweep


def test_a_run_that_is_worse_than_the_median_is_pruned_at_its_third_value(search: tuple[Search, SweepDir]):
    found, sweep = search
    point, run = found.propose(6), create(sweep.runs, "some", {})
    assert found.prunes(point, run) is None
    log(run, [99.0, 98.0])
    assert found.prunes(point, run) is None
    log(run, [97.0, 96.0], first_step=2)
    expected = {"metric": "loss", "value": 97.0, "after": 3}
    assert found.prunes(point, run) == expected == found.prunes(point, run)
    found.tell(point, {"status": "pruned", "run": run.name, "metrics": {"loss": 96.0}, "pruned": expected})


def test_one_that_is_as_good_as_the_median_or_was_once_is_let_be(search: tuple[Search, SweepDir]):
    found, sweep = search
    point, run = found.propose(6), create(sweep.runs, "some", {})
    log(run, [10.0, 9.0, 8.0, 1.0, 50.0, 50.0, 50.0])
    assert found.prunes(point, run) is None
    found.tell(point, {"status": "finished", "run": run.name, "metrics": {"loss": 50.0}})


def test_values_are_compared_by_their_place_whatever_the_steps(search: tuple[Search, SweepDir]):
    found, sweep = search
    point, run = found.propose(6), create(sweep.runs, "some", {})
    log(run, [99.0, 98.0, 97.0], first_step=500, every_steps=500)
    assert found.prunes(point, run) is not None
    found.tell(point, {"status": "failed", "run": run.name})


def test_a_diverging_run_is_pruned_and_the_first_five_are_not(search: tuple[Search, SweepDir], source: Notebook):
    found, sweep = search
    point, run = found.propose(6), create(sweep.runs, "some", {})
    log(run, [math.nan] * 4)
    assert found.prunes(point, run) is not None
    found.tell(point, {"status": "failed", "run": run.name})
    for asked in (Search(plan(20), LOSS, source, sweep), Search(plan(20, prune=False), LOSS, source, sweep)):
        point = asked.propose(1)
        assert asked.prunes(point, run) is None
        asked.tell(point, {"status": "failed", "run": run.name})


def test_a_run_that_went_back_to_a_checkpoint_is_read_anew(search: tuple[Search, SweepDir]):
    found, sweep = search
    point, run = found.propose(6), create(sweep.runs, "some", {})
    log(run, [10.0, 1.0])
    assert found.prunes(point, run) is None
    shorter = run.path / "shorter"
    shorter.write_bytes(run.metrics.read_bytes().splitlines(keepends=True)[0])
    shorter.replace(run.metrics)
    log(run, [1.0, 99.0, 99.0], first_step=1)
    assert found.prunes(point, run) is None  # its best is still that of its second value
    assert metrics.read(run.metrics).rows == 4
    found.tell(point, {"status": "failed", "run": run.name})


def test_of_very_many_values_few_are_compared():
    compared = [place for place in range(1, 100_001) if is_compared(place)]
    assert compared[:100] == [*range(1, 100), 100] and len(compared) < 400


# as a user has it


@pytest.fixture
def swept_lab(tmp_path: Path) -> Path:
    return make_lab(tmp_path / "Ada's lab")


def test_without_optuna_a_search_says_how_to_install_it(swept_lab: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    found = sweeps.trivial(swept_lab)
    options = ["--runs", str(swept_lab / "runs"), *"--search tpe --trials 3 --minimize loss -p X=1..9".split()]
    done = CliRunner().invoke(cli.main, ["sweep", str(found), *options])
    assert done.exit_code == 2 and "pip install 'labkit[search]'" in done.output
    assert not (swept_lab / "runs" / "sweeps").exists()


@pytest.mark.slow
def test_a_training_is_searched_from_a_file_and_the_page_says_how_it_went(swept_lab: Path):
    source = write(swept_lab / "notebooks" / "fit.ipynb", parameters("RATE: float = 0.1\nRANDOM_SEED: int = 0"), TRAINS)
    file = swept_lab / "sweep.yaml"
    file.write_text("--search: tpe\n--trials: 9\n--minimize: val_loss\n--jobs: 2\nRATE: log:1e-4..1e-1\n")
    found = sweeps.run(str(source), "-f", str(file), "--trials", "8", "--no-prune", cwd=swept_lab)
    assert found.exit_status == 0, found.err
    assert sorted(found.results) == list(range(1, 9))
    rates = {}
    for number, result in found.results.items():
        manifest = RunDir(found.sweep.runs / result["run"]).read_manifest()
        assert manifest["given"] == (read_json(found.sweep.proposed / f"{number}.json") or {})["given"]
        rates[result["metrics"]["val_loss"]] = manifest["given"]["RATE"]
    summary = read_json(found.sweep.summary)
    assert summary is not None and summary["points"] == summary["finished"] == 8
    assert summary["best"]["values"] == {"RATE": rates[min(rates)]}
    assert f"lowest val_loss: {min(rates):.4g} with RATE={rates[min(rates)]}" in found.err
    page = found.sweep.report.read_text()
    assert "best so far" in page and "tpe, seed 0, without pruning: RATE=log:0.0001..0.1" in page


def slow(lab: Path) -> Path:
    """A notebook that is slow where X is more than 2, and the better the lower X is."""
    return write(lab / "notebooks" / "slow.ipynb", parameters("X: float = 0.0\nPAUSE: float = 0.5"), SLOW)


def worst_last(lab: Path) -> list[str]:
    """A search over that notebook whose first six points are fast and good, and whose seventh is slow and bad."""
    path, space = slow(lab), Space({"X": Range(0.0, 4.0)}, {})
    for seed in range(10_000):
        found = Search(plan(7, "random", seed=seed, space=space), LOSS, notebook.read(path), SweepDir(lab))
        *first, last = (found.propose(number).values["X"] for number in range(1, 8))
        if max(first) < 2 < last:
            break
    options = f"--search random --trials 7 --search-seed {seed} --minimize val_loss -p X=0..4 --no-report"
    return [str(path), *options.split()]


@pytest.mark.slow
def test_a_run_that_is_not_worth_its_time_is_pruned_and_is_no_failure(swept_lab: Path):
    found = sweeps.run(*worst_last(swept_lab), "--jobs", "1", cwd=swept_lab)
    assert found.exit_status == 0, found.err
    pruned = {number: result for number, result in found.results.items() if result["status"] == "pruned"}
    assert 7 in pruned and {result["status"] for result in found.results.values()} == {"pruned", "finished"}
    listed = {row["id"]: row for row in json.loads(labkit("list", "--json", "--runs", str(found.sweep.runs)).stdout)}
    for result in pruned.values():
        run = RunDir(found.sweep.runs / result["run"])
        steps = metrics.read(run.metrics).rows
        assert 3 <= result["pruned"]["after"] <= steps < 40
        assert result["metrics"]["val_loss"] > 1 and listed[run.id]["reason"].startswith("pruned: val_loss ")
        assert status(run).state == "interrupted"
        assert listed[run.id]["labels"] == ["pruned"]
    summary = read_json(found.sweep.summary)
    assert summary is not None and [one["point"] for one in summary["pruned"]] == list(pruned)
    assert summary["failed"] == [] and summary["finished"] + len(pruned) == 7
    page = found.sweep.report.read_text()
    assert "Pruned: stopped early" in page and f"{len(pruned)} pruned" in found.err and "  pruned  X=" in found.err
    again = sweeps.run("--continue", "last", "--retry-failed", cwd=swept_lab)
    assert again.results == found.results  # what was pruned is not tried again


@pytest.mark.slow
def test_on_a_dask_cluster_runs_are_pruned_too(swept_lab: Path, tmp_path: Path):
    asked = worst_last(swept_lab)
    with Cluster(tmp_path / "cluster") as cluster:
        cluster.worker("--no-nanny", "--nthreads", "1")
        found = sweeps.run(*asked, "--on", cluster.where, cwd=swept_lab)
    assert found.exit_status == 0, found.err
    assert found.results[7]["status"] == "pruned" and found.results[7]["pruned"]["after"] >= 3
    assert metrics.read(RunDir(found.sweep.runs / found.results[7]["run"]).metrics).rows < 40


@pytest.mark.slow
def test_what_was_to_be_pruned_when_its_sweep_was_killed_is_pruned(swept_lab: Path):
    options = "--search random --trials 2 --minimize val_loss -p X=3..4 --jobs 1"
    asked = [str(slow(swept_lab)), *options.split()]
    with sweeps.started(*asked, cwd=swept_lab) as process:
        sweep = sweeps.newest(swept_lab)
        [run] = wait_for(lambda: [run for run in sweeps.running(sweep) if run.metrics.stat().st_size], what="a run")
        process.send_signal(signal.SIGSTOP)
        verdict = {"metric": "val_loss", "value": 4.0, "after": 1}
        (run.attempt / "stop.json").write_text(json.dumps({"reason": "pruned: for a test", "pruned": verdict}))
        process.kill()
        process.wait()
    found = sweeps.run(*asked, cwd=swept_lab)
    assert found.exit_status == 0 and found.sweep == sweep
    assert found.results[1]["status"] == "pruned" and found.results[1]["pruned"] == verdict
    assert found.results[1]["run"] == run.name and len(every(sweep.runs)) == 2


@pytest.mark.slow
def test_a_killed_search_has_one_result_a_trial_and_the_points_of_one_that_lived(swept_lab: Path, tmp_path: Path):
    source = sweeps.trivial(swept_lab)
    asked = "--search tpe --trials 14 --minimize loss -p X=1..1000 --jobs 1 --no-report".split()
    random.seed(0)
    found = sweeps.kill_and_continue(source, swept_lab, asked, kills=3, longest_s=4.0)
    assert found.exit_status == 0, found.err
    sweeps.check_once_each(found, 14)
    other = sweeps.run(str(source), *asked, "--runs", str(tmp_path / "other"), cwd=swept_lab)
    assert [one["metrics"] for one in other.results.values()] == [one["metrics"] for one in found.results.values()]


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_a_search_with_pruning_killed_15_times_has_one_result_a_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    lab = make_lab(tmp_path / "lab")
    asked = "--search random --trials 60 --minimize val_loss -p X=1..3 -p PAUSE=0.05 --jobs 2".split()
    found = sweeps.kill_and_continue(slow(lab), lab, asked, kills=15, longest_s=10.0)
    states = [result["status"] for result in found.results.values()]
    with capsys.disabled():
        begun = len(every(lab / "runs"))
        print(f"{states.count('finished')} finished, {states.count('pruned')} pruned, of {begun} runs that were begun")
    assert found.exit_status == 0, found.err
    assert sorted(found.results) == list(range(1, 61)) and set(states) == {"finished", "pruned"}
    assert len({result["run"] for result in found.results.values()}) == 60
    for number, result in found.results.items():
        manifest = RunDir(found.sweep.runs / result["run"]).read_manifest()
        proposed = read_json(found.sweep.proposed / f"{number}.json") or {}
        assert (manifest["point"], manifest["given"]) == (number, proposed["given"])


@pytest.mark.slow
def test_ctrl_c_leaves_a_search_that_goes_on(swept_lab: Path):
    options = "--search tpe --trials 4 --maximize val_loss -p X=0..4 -p PAUSE=0.1 --jobs 2"
    asked = [str(slow(swept_lab)), *options.split()]
    with sweeps.started(*asked, cwd=swept_lab) as process:
        sweep = sweeps.newest(swept_lab)
        wait_for(lambda: sweeps.running(sweep), what="a run")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and f"labkit sweep --continue {sweep.id}" in err
    assert len(sweepdir.proposed(sweep)) < 4 and not sweep.is_over()
    refused = labkit("sweep", "--continue", str(sweep.path), "--on", "slurm", "--dry-run")
    assert refused.returncode == 2 and "a search chooses each point" in refused.stderr
    continued = subprocess.run(
        sweeps.command("--continue", sweep.id), cwd=swept_lab, capture_output=True, text=True, timeout=200
    )
    assert continued.returncode == 0, continued.stderr
    assert sorted(sweepdir.results(sweep)) == [1, 2, 3, 4] and sweep.is_over()
