"""Runs as jobs of a cluster: submitted, warned and gone on with, stopped, listed."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
import slurm_stand_in
from clusters import Cluster, pretended  # noqa: F401 (a fixture)
from running import fixture, wait_for

from labkit.record import checkpoints
from labkit.record.find import every
from labkit.record.metrics import canonical
from labkit.record.rundir import RunDir
from labkit.record.status import Status, status
from labkit.workbench.running import job
from labkit.workbench.slurm import slurmqueue


def test_a_dry_run_shows_the_script_and_leaves_nothing(cluster: Cluster) -> None:
    text = cluster.labkit("run", "notebooks/n.ipynb", "--on", "slurm", "--dry-run").stdout
    plain = ["account=physics", "partition=gpu", "time=2:00:00", "gpus=1", "mem=8G", "signal=B:USR1@120"]
    for option in [*plain, "requeue", "qos=long"]:
        assert f"\n#SBATCH --{option}\n" in text
    assert text.index("#SBATCH --requeue") < text.index("\nset -u") and "\nexport READY=yes\n" in text
    assert str(cluster.lab / "runs") in text
    assert not every(cluster.lab / "runs") and not list(cluster.folder.glob("*.json"))
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


def test_what_does_not_go_together_is_refused(cluster: Cluster) -> None:
    assert "--dry-run needs" in cluster.labkit("run", "notebooks/n.ipynb", "--dry-run", status=2).stderr
    wrong = cluster.labkit("run", "notebooks/n.ipynb", "--on", "slurm", "-p", "STEP=3", status=2)
    assert "STEPS" in wrong.stderr and not every(cluster.lab / "runs")


def test_what_the_cluster_refuses_is_said_and_recorded(cluster: Cluster) -> None:
    (cluster.lab / "pyproject.toml").write_text('[tool.labkit.slurm]\npartition = "nowhere"\n')
    done = cluster.labkit("run", "notebooks/n.ipynb", "--on", "slurm", status=1)
    assert "Invalid partition name" in done.stderr
    (run,) = every(cluster.lab / "runs")
    assert status(run).state == "failed" and "Invalid partition name" in status(run).reason


@pytest.mark.slow
def test_a_node_without_the_lab_says_so(cluster: Cluster) -> None:
    (cluster.folder / "hold").touch()
    run = cluster.submit("n")
    (cluster.lab / "notebooks" / "n.ipynb").rename(cluster.lab / "away.ipynb")
    (cluster.folder / "hold").unlink()
    wait_for(lambda: cluster.is_gone("1"))
    assert "labkit: the notebook " in cluster.said(run) and "is not there on" in cluster.said(run)
    row = cluster.row(run)
    assert row["status"] == "killed" and "job 1 is gone" in row["reason"]


@pytest.mark.slow
def test_jobs_that_wait_are_queued_and_asked_for_once(cluster: Cluster) -> None:
    (cluster.folder / "hold").touch()
    runs = [cluster.submit("n") for _ in range(2)]
    (cluster.folder / "asked").unlink(missing_ok=True)
    rows = json.loads(cluster.labkit("list", "--json").stdout)
    assert [row["status"] for row in rows] == ["queued", "queued"]
    assert [row["job"] for row in rows] == [{"number": number, "state": "PENDING"} for number in "12"]
    assert (cluster.folder / "asked").read_text().count("\n") == 1
    assert "1 PENDING" in cluster.labkit("list").stdout
    assert "job 1 is PENDING" in cluster.labkit("show", runs[0].id).stdout
    refused = cluster.labkit("resume", runs[0].id, status=2)
    assert "job 1 is PENDING" in refused.stderr and runs[0].attempt.name == "1"
    assert "cancelled before it began" in cluster.labkit("stop", runs[0].id).stdout
    wait_for(lambda: cluster.is_gone("1"))
    assert cluster.row(runs[0])["status"] == "interrupted"


def test_a_list_without_jobs_asks_nobody_and_has_no_column_for_them(cluster: Cluster) -> None:
    job.prepare(cluster.lab / "notebooks" / "n.ipynb", {})
    assert "  job  " not in cluster.labkit("list").stdout
    assert not (cluster.folder / "asked").exists()


@pytest.mark.parametrize(
    ("found", "state", "wanted"),
    [
        ("unknown", None, "unknown"),
        ("unknown", "RUNNING", "running"),
        ("queued", "RUNNING", "running"),
        ("unknown", "PENDING", "queued"),
        ("killed", "PENDING", "queued"),
        ("running", "COMPLETING", "running"),
        ("finished", "COMPLETING", "finished"),
        ("failed", "PENDING", "failed"),
    ],
)
def test_the_queue_adds_what_the_files_cannot_say(tmp_path: Path, found: str, state: str | None, wanted: str) -> None:
    assert slurmqueue.merged(RunDir(tmp_path), Status(found), "7", state).state == wanted


def test_where_there_is_no_slurm_the_files_alone_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurmqueue.queue(["7"]) is None and slurmqueue.queue([]) == {}


def test_a_queue_that_does_not_answer_holds_nobody_up(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurmqueue, "QUEUE_S", 0.2)
    (cluster.folder.parent / "bin" / "squeue").write_text("#!/bin/sh\nexec sleep 5\n")
    assert slurmqueue.queue(["7"]) is None


@pytest.mark.slow
def test_a_running_job_is_stopped_at_its_next_step(cluster: Cluster) -> None:
    run = cluster.submit("n", "-p", "STEPS=10000")
    wait_for(lambda: run.metrics.exists() and run.metrics.read_bytes().count(b"\n") > 3)
    assert cluster.row(run)["status"] == "running"
    assert "interrupted" in cluster.labkit("stop", run.id).stdout
    wait_for(lambda: cluster.is_gone("1"))
    assert (run.attempt.name, json.loads(run.exit.read_bytes())["stop"]) == ("1", "SIGTERM")


@pytest.mark.slow
def test_a_job_that_is_warned_goes_on_and_ends_as_one_never_stopped(cluster: Cluster) -> None:
    fixture(cluster.lab, "learns")
    whole = cluster.submit("learns")
    wait_for(lambda: cluster.is_gone("1"), 120)
    assert status(whole).state == "finished", cluster.said(whole)
    assert whole.report.exists()
    run = cluster.submit("learns", "-p", "PAUSE_S=0.1", "-p", "EVERY_S=1000")
    wait_for(lambda: run.metrics.exists() and run.metrics.read_bytes().count(b"\n") > 8)
    (cluster.folder / "2.late").touch()
    wait_for(lambda: cluster.is_gone("2"), 120)
    first = json.loads((run.attempts / "1" / "exit.json").read_bytes())
    assert (first["status"], first["stop"]) == ("interrupted", "SIGUSR1")
    assert run.attempt.name == "2" and cluster.row(run)["status"] == "finished", cluster.said(run)
    assert slurmqueue.number_of(run) == "2"
    assert canonical(run.metrics) == canonical(whole.metrics)


@pytest.mark.slow
def test_a_job_whose_node_dies_is_started_again_and_goes_on_with_its_run(cluster: Cluster) -> None:
    fixture(cluster.lab, "learns")
    run = cluster.submit("learns", "-p", "PAUSE_S=0.1", "-p", "EVERY_S=0.2")
    wait_for(lambda: len(checkpoints.every(run)) > 1)
    (cluster.folder / "1.requeue").touch()
    slurm_stand_in.end(slurm_stand_in.below(int((cluster.folder / "1.pid").read_text())), signal.SIGKILL)
    wait_for(lambda: cluster.is_gone("1"), 120)
    assert not (run.attempts / "1" / "exit.json").exists()
    assert run.attempt.name == "2" and cluster.row(run)["status"] == "finished", cluster.said(run)
    assert json.loads(run.restored.read_bytes())["checkpoint"]


@pytest.mark.slow
def test_a_job_that_saved_nothing_is_not_started_for_ever(cluster: Cluster) -> None:
    run = cluster.submit("n", "-p", "STEPS=10000")
    wait_for(lambda: run.metrics.exists() and run.metrics.read_bytes().count(b"\n") > 3)
    (cluster.folder / "1.late").touch()
    wait_for(lambda: cluster.is_gone("1"))
    assert cluster.row(run)["status"] == "interrupted" and run.attempt.name == "1"
