"""Sweeps as job arrays of a cluster: submitted, gone on with, listed, stopped; one result a point."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import slurm_stand_in
import sweeps
from clusters import Cluster, pretended  # noqa: F401 (a fixture)
from running import fixture, wait_for
from tiny import parameters, write

from labkit.record import checkpoints, sweepdir
from labkit.record.files import read_json
from labkit.record.find import every
from labkit.record.metrics import canonical
from labkit.record.rundir import RunDir
from labkit.record.status import status
from labkit.record.sweepdir import SweepDir
from labkit.workbench.slurm import slurmsweep, slurmtasks
from labkit.workbench.sweeps.sweep import runs_of


def submit(cluster: Cluster, *options: str) -> SweepDir:
    return SweepDir(Path(cluster.labkit("sweep", *options, "--on", "slurm").stdout.splitlines()[-1]))


def all_gone(cluster: Cluster) -> bool:
    return not list(cluster.folder.glob("*.state"))


def said(sweep: SweepDir) -> str:
    return "".join(path.read_text() for path in sorted(sweep.path.glob("slurm/*/*.log")))


def test_a_dry_run_shows_one_array_over_all_points_and_leaves_nothing(cluster: Cluster) -> None:
    notebook = str(sweeps.trivial(cluster.lab))
    text = cluster.labkit("sweep", notebook, "-p", "X=1..12", "--jobs", "4", "--on", "slurm", "--dry-run").stdout
    for option in ["array=1-12%4", "account=physics", "time=2:00:00", "signal=B:USR1@120", "requeue", "qos=long"]:
        assert f"\n#SBATCH --{option}\n" in text
    assert f"{cluster.lab}/runs/sweeps/" in text and "/slurm/1/%a.log" in text and "\nexport READY=yes\n" in text
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    assert not list((cluster.lab / "runs").iterdir()) and not list(cluster.folder.glob("*.json"))


@pytest.mark.slow
def test_what_cannot_be_is_refused_and_leaves_nothing(cluster: Cluster) -> None:
    notebook = str(sweeps.trivial(cluster.lab))
    for options, reason in (
        (["--gpus", "2"], "--gpus and --wait are for this machine"),
        (["--grace", "91"], "closing a run may take 30"),
        (["-p", "Y=1"], "Y"),
        (["--detach"], "jobs go on by themselves"),
        (["--search", "random", "--trials", "3", "--minimize", "loss"], "a search chooses each point from the results"),
    ):
        done = cluster.labkit("sweep", notebook, "-p", "X=1,2", "--on", "slurm", *options, status=2)
        assert reason in done.stderr
    assert "--dry-run needs" in cluster.labkit("sweep", notebook, "--dry-run", status=2).stderr
    assert not sweepdir.every(cluster.lab / "runs") and not list(cluster.folder.glob("*.json"))


def test_more_points_than_a_cluster_takes_are_refused_with_the_reason(cluster: Cluster) -> None:
    notebook = str(sweeps.trivial(cluster.lab))
    done = cluster.labkit("sweep", notebook, "-p", "X=1..1001", "--on", "slurm", status=1)
    assert "Invalid job array specification" in done.stderr and "MaxArraySize" in done.stderr


@pytest.mark.slow
def test_tasks_that_wait_are_listed_once_and_no_point_gets_a_second_one(cluster: Cluster) -> None:
    (cluster.folder / "hold").touch()
    options = [str(sweeps.trivial(cluster.lab)), "-p", "X=1..3"]
    sweep = submit(cluster, *options)
    assert f"{sweep.name}: 0 of 3 points have a result; job 1: 3 PENDING" in cluster.labkit("list").stdout
    again = cluster.labkit("sweep", *options, "--on", "slurm")
    assert "job 1: 3 PENDING" in again.stderr and again.stdout.strip() == str(sweep.path)
    here = cluster.labkit("sweep", "--continue", "last")
    assert "job 1: 3 PENDING" in here.stderr and not every(cluster.lab / "runs")
    assert len(list(cluster.folder.glob("*.json"))) == 1 and not sweep.is_over()
    assert slurmtasks.stop(sweep)
    wait_for(lambda: all_gone(cluster))
    assert not slurmtasks.stop(sweep) and slurmtasks.lines(cluster.lab / "runs") == []


def test_points_are_written_as_sbatch_takes_them() -> None:
    assert slurmsweep.spec([1, 2, 3, 7, 9, 10]) == "1-3,7,9-10"
    assert slurm_stand_in.tasks(slurmsweep.spec([1, 2, 3, 7, 9, 10]) + "%2") == [1, 2, 3, 7, 9, 10]


@pytest.mark.slow
def test_each_point_comes_to_one_result_and_the_last_task_writes_the_summary(cluster: Cluster) -> None:
    (cluster.lab / "pyproject.toml").write_text('[tool.labkit]\non_end = "echo $LABKIT_STATUS >> told"\n')
    sweep = submit(cluster, str(sweeps.trivial(cluster.lab)), "-p", "X=1..4", "--minimize", "loss", "--jobs", "2")
    watched = cluster.labkit("watch", sweep.name)
    assert "4 of 4 done" in watched.stderr
    wait_for(lambda: all_gone(cluster), 120)
    found = sweeps.Swept(0, "", "", sweep)
    sweeps.check_once_each(found, 4)
    summary = read_json(sweep.summary)
    assert summary is not None and summary["finished"] == 4 and summary["best"]["values"] == {"X": 1}, said(sweep)
    assert sweep.report.exists() and (cluster.lab / "told").read_text() == "finished\n"
    assert all(RunDir(sweep.runs / result["run"]).report.exists() for result in found.results.values())
    rows = json.loads(cluster.labkit("list", "--json").stdout)
    assert sorted(row["job"]["number"] for row in rows) == ["1_1", "1_2", "1_3", "1_4"]
    over = cluster.labkit("sweep", "--continue", sweep.id, "--on", "slurm")
    assert "every point" in over.stderr and len(list(cluster.folder.glob("*.json"))) == 1


@pytest.mark.slow
def test_continuing_submits_only_the_points_without_a_result(cluster: Cluster) -> None:
    code = "import labkit\nrun = labkit.start()\nrun.log(0, loss=X)\nif X == 2: raise ValueError('two')"
    notebook = write(cluster.lab / "notebooks" / "fails.ipynb", parameters("X: int = 0"), code)
    sweep = submit(cluster, str(notebook), "-p", "X=1..3", "--no-report")
    wait_for(lambda: all_gone(cluster), 120)
    assert [result["status"] for result in sweepdir.results(sweep).values()] == ["finished", "failed", "finished"]
    assert sweep.is_over() and not list(sweep.runs.glob("fails/*/report.html"))
    write(notebook, parameters("X: int = 0"), "print('another one')")  # its copy is what the sweep goes on with
    again = cluster.labkit("sweep", "--continue", "last", "--retry-failed", "--on", "slurm")
    assert "goes on with the copy" in again.stderr
    assert "--array=2\n" in (sweep.path / "slurm" / "2" / "job.sbatch").read_text()
    wait_for(lambda: all_gone(cluster), 120)
    assert sweepdir.results(sweep)[2]["reason"].endswith("ValueError: two") and sweep.is_over(), said(sweep)
    assert {point: len(runs) for point, runs in runs_of(sweep).items()} == {1: 1, 2: 2, 3: 1}


@pytest.mark.slow
def test_a_task_that_is_warned_goes_on_with_its_run_and_the_others_are_left_alone(cluster: Cluster) -> None:
    notebook = fixture(cluster.lab, "learns")
    sweep = submit(cluster, str(notebook), "-p", "PAUSE_S=0.0,0.1", "-p", "EVERY_S=1000")
    run = wait_for(lambda: runs_of(sweep).get(2, [None])[0], 60)
    wait_for(lambda: run.metrics.exists() and run.metrics.read_bytes().count(b"\n") > 8)
    assert cluster.row(run)["job"] == {"number": "1_2", "state": "RUNNING"}
    write(notebook, "print('changed meanwhile')")
    (cluster.folder / "1_2.late").touch()
    wait_for(lambda: all_gone(cluster), 120)
    first = json.loads((run.attempts / "1" / "exit.json").read_bytes())
    assert (first["status"], first["stop"]) == ("interrupted", "SIGUSR1")
    assert RunDir(run.path).attempt.name == "2", said(sweep)
    whole = RunDir(sweep.runs / sweepdir.results(sweep)[1]["run"])
    assert whole.attempt.name == "1" and canonical(run.metrics) == canonical(whole.metrics)
    assert [len(runs) for runs in runs_of(sweep).values()] == [1, 1] and sweep.is_over()


@pytest.mark.slow
def test_a_task_whose_node_dies_is_started_again_and_goes_on_with_its_run(cluster: Cluster) -> None:
    sweep = submit(cluster, str(fixture(cluster.lab, "learns")), "-p", "PAUSE_S=0.1", "-p", "EVERY_S=0.2")
    run = wait_for(lambda: runs_of(sweep).get(1, [None])[0], 60)
    wait_for(lambda: len(checkpoints.every(run)) > 1)
    (cluster.folder / "1_1.requeue").touch()
    slurm_stand_in.end(slurm_stand_in.below(int((cluster.folder / "1_1.pid").read_text())), signal.SIGKILL)
    wait_for(lambda: all_gone(cluster), 180)
    assert sweepdir.results(sweep)[1]["run"] == run.name and sweep.is_over(), said(sweep)
    assert RunDir(run.path).attempt.name == "2"


@pytest.mark.slow
def test_stopping_a_sweep_cancels_what_waits_and_stops_what_runs_at_its_next_step(cluster: Cluster) -> None:
    sweep = submit(
        cluster, str(fixture(cluster.lab, "learns")), "-p", "EPOCHS=50,51", "-p", "PAUSE_S=0.1", "--jobs", "1"
    )
    run = wait_for(lambda: every(sweep.runs), 60)[0]
    wait_for(lambda: run.metrics.exists() and run.metrics.read_bytes().count(b"\n") > 8)
    assert "0 of 2 done" in cluster.labkit("stop", sweep.name).stdout
    assert all_gone(cluster) and "nothing to stop" in cluster.labkit("stop", sweep.name, status=2).stderr
    assert status(run).state == "interrupted" and json.loads(run.exit.read_bytes())["stop"] == "SIGTERM"
    assert not sweepdir.results(sweep) and len(every(sweep.runs)) == 1 and "has no result" in said(sweep)
    (cluster.folder / "hold").touch()
    submit(cluster, "--continue", sweep.id)
    assert "--array=1-2\n" in (sweep.path / "slurm" / "2" / "job.sbatch").read_text()


@pytest.mark.slow
def test_of_tasks_that_end_at_once_one_writes_the_summary(cluster: Cluster) -> None:
    """They all find the sweep complete: the last results were accepted before the first of them looked."""
    (cluster.lab / "pyproject.toml").write_text('[tool.labkit]\non_end = "echo $LABKIT_STATUS >> told"\n')
    (cluster.folder / "hold").touch()
    sweep = submit(cluster, str(sweeps.trivial(cluster.lab)), "-p", "X=1,2")
    for point in (1, 2):
        result = {"run": f"trivial/{point}", "status": "finished", "metrics": {}, "reason": "", "duration_s": 1.0}
        assert sweepdir.accept(sweep, point, result)
    code = "import sys; from labkit.workbench.slurm import slurmsweep; from labkit.workbench.sweeps import sweeping; "
    code += "slurmsweep.conclude(sweeping.reopen(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(sweep.path)]
    waiting = [subprocess.Popen(command, cwd=cluster.lab, env=cluster.environment) for _ in range(4)]
    assert [process.wait(60) for process in waiting] == [0] * 4
    assert sweep.is_over() and (cluster.lab / "told").read_text() == "finished\n" and os.listdir(sweep.sessions)
