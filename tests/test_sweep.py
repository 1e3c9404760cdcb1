"""Sweeps: each point comes to one result, whatever dies on the way."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import sweeps
from running import LABKIT, alive, fixture, labkit, make_lab, wait_for
from tiny import parameters, write

from labkit.record import machine, sweepdir
from labkit.record.files import read_json
from labkit.record.find import every
from labkit.record.process import descendants
from labkit.record.rundir import RunDir
from labkit.record.status import status
from labkit.workbench.sweeps.sweep import runs_of

pytestmark = pytest.mark.slow

FAILS_AT_TWO = "import labkit\nrun = labkit.start()\nrun.log(0, loss=X)\nif X == 2: raise ValueError('two')"


@pytest.fixture
def swept_lab(tmp_path: Path) -> Path:
    return make_lab(tmp_path / "Ada's lab")


def test_each_point_has_a_run_a_report_and_a_place_in_the_summary(swept_lab: Path):
    notebook = sweeps.trivial(swept_lab)
    found = sweeps.run(str(notebook), "-p", "X=3,1", "-p", "random_seed=1..2", cwd=swept_lab)
    assert found.exit_status == 0, found.err
    assert [result["metrics"]["loss"] for result in found.results.values()] == [3.01, 3.02, 1.01, 1.02]
    summary = read_json(found.sweep.summary)
    assert summary is not None and summary["finished"] == 4 and summary["best"]["values"] == {"X": 1}
    assert summary["best"]["metrics"]["loss"]["mean"] == pytest.approx(1.015)
    page = found.sweep.report.read_text()
    for result in found.results.values():
        run = RunDir(found.sweep.runs / result["run"])
        assert run.report.exists() and result["run"][-6:] in page
    listed = json.loads(labkit("list", "--json", "--runs", str(swept_lab / "runs")).stdout)
    assert {row["sweep"] for row in listed} == {found.sweep.id}
    assert not {"sweeps"} & {row["notebook"] for row in listed}


def test_a_failed_run_stops_nothing_and_is_listed_with_its_reason(swept_lab: Path):
    notebook = write(swept_lab / "notebooks" / "fails.ipynb", parameters("X: int = 0"), FAILS_AT_TWO)
    found = sweeps.run(str(notebook), "-p", "X=1..3", cwd=swept_lab)
    assert found.exit_status == 1
    assert [result["status"] for result in found.results.values()] == ["finished", "failed", "finished"]
    assert "ValueError: two" in found.results[2]["reason"] and "ValueError: two" in found.err
    assert len(every(swept_lab / "runs")) == 3  # it is the notebook's own doing, and is not tried again
    again = sweeps.run("--continue", "last", "--retry-failed", cwd=swept_lab)
    assert again.exit_status == 1 and len(every(swept_lab / "runs")) == 4
    assert sorted(again.results) == [1, 2, 3]


def test_a_killed_kernel_supervisor_or_worker_costs_its_run_alone_which_is_tried_again(swept_lab: Path):
    notebook = fixture(swept_lab, "trains")
    with sweeps.started(str(notebook), "-p", "STEPS=300,301,302", "--jobs", "3", cwd=swept_lab) as process:
        sweep = sweeps.newest(swept_lab)
        wait_for(lambda: len(sweeps.running(sweep)) == 3, what="three runs")
        victims = [read_json(run.process) for run in sorted(sweeps.running(sweep), key=lambda run: run.id)]
        for facts, who in zip(victims, ("kernel", "process", "runner"), strict=True):
            os.kill(facts[who]["pid"], signal.SIGKILL)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    results = sweepdir.results(sweep)
    assert [result["status"] for result in results.values()] == ["finished"] * 3
    assert [result["retries"] for result in results.values()] == [1, 1, 1]
    assert [len(runs) for runs in runs_of(sweep).values()] == [2, 2, 2]


def test_a_kernel_that_is_always_killed_is_tried_three_times(swept_lab: Path):
    notebook = fixture(swept_lab, "kills-kernel")
    found = sweeps.run(str(notebook), cwd=swept_lab)
    assert found.exit_status == 1
    assert found.results[1]["retries"] == 2 and len(every(swept_lab / "runs")) == 3


def test_ctrl_c_stops_runs_at_their_step_and_the_same_command_goes_on(swept_lab: Path):
    notebook = fixture(swept_lab, "trains")
    options = [str(notebook), "-p", "STEPS=150,151,152", "--jobs", "2"]
    with sweeps.started(*options, cwd=swept_lab) as process:
        sweep = sweeps.newest(swept_lab)
        wait_for(lambda: sum(run.metrics.stat().st_size > 0 for run in sweeps.running(sweep)) == 2, what="two runs")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert {status(run).state for run in every(swept_lab / "runs")} == {"interrupted"}
    assert not sweep.is_over() and f"labkit sweep --continue {sweep.id}" in err
    found = sweeps.run(*options, cwd=swept_lab)
    assert found.sweep == sweep and found.exit_status == 0 and len(found.results) == 3
    assert sweeps.run(*options, cwd=swept_lab).sweep != sweep  # one that is over is not gone on with


def test_sigterm_ends_a_sweep_with_143_and_nothing_lives_on(swept_lab: Path):
    notebook = fixture(swept_lab, "trains")
    with sweeps.started(str(notebook), cwd=swept_lab) as process:
        sweep = sweeps.newest(swept_lab)
        wait_for(lambda: sweeps.running(sweep), what="a run")
        below = descendants(process.pid)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 143
    wait_for(lambda: not alive(*below), what="the end of the workers")


def test_a_second_ctrl_c_ends_everything_at_once(swept_lab: Path):
    notebook = fixture(swept_lab, "ignores-everything")
    with sweeps.started(str(notebook), cwd=swept_lab) as process:
        sweep = sweeps.newest(swept_lab)
        run = wait_for(lambda: sweeps.running(sweep), what="a run")[0]
        below = descendants(process.pid)
        wait_for(lambda: run.log.exists() and "deaf" in run.log.read_text(), what="a cell that heeds nothing")
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 130
    wait_for(lambda: not alive(*below) and status(run).is_over, what="the end of everything", within_s=20)


def test_of_two_sweepers_of_one_sweep_one_is_told(swept_lab: Path):
    notebook = fixture(swept_lab, "trains")
    options = [str(notebook), "-p", "STEPS=200,201"]
    with sweeps.started(*options, cwd=swept_lab) as process:
        sweep = sweeps.newest(swept_lab)
        wait_for(lambda: sweeps.running(sweep), what="a run")
        with sweeps.started(*options, cwd=swept_lab) as second:
            _, err = second.communicate(timeout=60)
        assert second.returncode == 2 and f"is being worked on by process {process.pid}" in err
        process.communicate(timeout=120)
    assert process.returncode == 0 and len(sweepdir.results(sweep)) == 2


def test_the_same_command_twice_at_once_is_one_sweep(swept_lab: Path):
    options = [str(fixture(swept_lab, "trains")), "-p", "STEPS=200,201"]
    with sweeps.started(*options, cwd=swept_lab) as one, sweeps.started(*options, cwd=swept_lab) as two:
        said = [process.communicate(timeout=120)[1] for process in (one, two)]
    assert sorted((one.returncode, two.returncode)) == [0, 2], said
    assert len(sweepdir.every(swept_lab / "runs")) == 1 and len(every(swept_lab / "runs")) == 2


def test_a_sweep_is_not_continued_with_another_notebook(swept_lab: Path):
    notebook = fixture(swept_lab, "trains")
    with sweeps.started(str(notebook), "-p", "STEPS=1000,1001", cwd=swept_lab) as process:
        sweep = sweeps.newest(swept_lab)
        wait_for(lambda: sweeps.running(sweep), what="a run")
        process.kill()
        process.wait()
    write(notebook, parameters("STEPS: int = 2"), "print('another')")
    done = labkit("sweep", "--continue", sweep.id, "--runs", str(swept_lab / "runs"))
    assert done.returncode == 2 and "has changed since" in done.stderr


def test_what_is_killed_with_its_sweep_goes_on_from_its_checkpoint(swept_lab: Path):
    notebook = fixture(swept_lab, "learns")
    options = [str(notebook), "--jobs", "1"]
    with sweeps.started(*options, cwd=swept_lab) as process:
        sweep = sweeps.newest(swept_lab)
        wait_for(
            lambda: [run for run in sweeps.running(sweep) if list(run.checkpoints.glob("*.json"))], 120, "a checkpoint"
        )
        process.kill()
        process.wait()
    found = sweeps.run(*options, cwd=swept_lab)
    assert found.exit_status == 0, found.err
    [run] = every(swept_lab / "runs")
    assert run.attempt.name == "2" and found.results[1]["run"] == run.name
    recorded = (read_json(run.machine) or {}).get("variables") or {}
    assert {recorded[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")} == {str(machine.cores())}


def test_a_sweep_killed_twice_has_one_result_a_point(swept_lab: Path):
    notebook = sweeps.trivial(swept_lab)
    found = sweeps.kill_and_continue(notebook, swept_lab, ["-p", "X=1..16"], kills=2, longest_s=5.0)
    assert found.exit_status == 0, found.err
    sweeps.check_once_each(found, 16)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_a_sweep_of_100_points_killed_20_times_has_one_result_a_point(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    lab = make_lab(tmp_path / "lab")
    notebook = sweeps.trivial(lab)
    found = sweeps.kill_and_continue(notebook, lab, ["-p", "X=1..100"], kills=20, longest_s=8.0)
    runs = len(every(lab / "runs"))
    with capsys.disabled():
        print(f"{len(found.results)} of 100 points have a result, one each, of {runs} runs that were begun")
    assert found.exit_status == 0, found.err
    sweeps.check_once_each(found, 100)


def test_the_command_refuses_what_cannot_be(swept_lab: Path):
    notebook = sweeps.trivial(swept_lab)
    for options, said in (
        (["-p", "XX=1,2"], "did you mean X?"),
        (["-p", "X=1,a"], "X = 'a'"),
        (["--minimize", "a", "--maximize", "b"], "either --minimize or --maximize"),
        (["--gpus", "x"], "--gpus 'x'"),
    ):
        done = labkit("sweep", str(notebook), *options, "--runs", str(swept_lab / "runs"))
        assert done.returncode == 2 and said in done.stderr, done.stderr
    assert not (swept_lab / "runs" / "sweeps").exists() and LABKIT
