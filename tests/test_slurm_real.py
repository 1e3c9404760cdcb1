"""Runs and sweeps as jobs of a real Slurm, where its packages are installed: a cluster of one node, for these tests."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import slurm_instance
import sweeps
from clusters import Cluster
from running import alive, fixture, make_lab, wait_for
from tiny import plain_environment

from labkit.record import checkpoints, sweepdir
from labkit.record.files import read_json
from labkit.record.metrics import canonical
from labkit.record.rundir import RunDir
from labkit.record.status import status
from labkit.record.sweepdir import SweepDir
from labkit.workbench.slurm import slurmtasks
from labkit.workbench.slurm.slurmqueue import number_of
from labkit.workbench.sweeps.sweep import runs_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(slurm_instance.missing()), reason=slurm_instance.missing() or "Slurm is there"),
]

TIME = '[tool.labkit.slurm]\ntime = "10"\nwarn_s = 60\n'  # minutes: Slurm knows no shorter limits
LASTS = ("-p", "EPOCHS=6", "-p", "PAUSE_S=0.2", "-p", "EVERY_S=1000")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster of one node; skipped, with what its daemons said, where it does not start."""
    with pytest.MonkeyPatch.context() as patch:
        running = slurm_instance.started(tmp_path_factory.mktemp("slurm"))
        try:
            environment = running.__enter__()
        except RuntimeError as error:
            pytest.skip(str(error))
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment
        running.__exit__(None, None, None)


@pytest.fixture
def cluster(slurm: dict[str, str], tmp_path: Path) -> Cluster:
    lab = make_lab(tmp_path / "a lab, 100 % its own")
    (lab / "pyproject.toml").write_text(TIME)
    fixture(lab, "learns")
    return Cluster(lab, tmp_path, plain_environment())


def is_gone(number: str) -> bool:
    states = slurm_instance.ask({}, "squeue", "--noheader", "--array", "--format=%i").split()
    return not any(state == number or state.startswith(f"{number}_") for state in states)


def learns(run: RunDir, steps: int = 8) -> RunDir:
    """Wait until a run has logged so many steps."""
    wait_for(lambda: run.metrics.exists() and run.metrics.read_bytes().count(b"\n") >= steps, 120, "steps")
    return run


def processes_of(sweep: SweepDir) -> list[int]:
    """What the tasks of a sweep have started: batch shells and runners, with all that names the sweep."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if sweep.id.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def whole(cluster: Cluster) -> RunDir:
    """The run that nobody stops, by which others are measured."""
    done = cluster.labkit("run", "notebooks/learns.ipynb", "-p", "EPOCHS=5", "-p", "EVERY_S=1000", "--no-report")
    run = RunDir(Path(done.stdout.strip()))
    assert status(run).state == "finished"
    return run


def test_a_job_runs_to_its_end_and_is_listed(cluster: Cluster) -> None:
    run = cluster.submit("learns")
    number = number_of(run)
    assert cluster.row(run)["status"] in ("queued", "running")
    wait_for(lambda: is_gone(number), 120)
    assert cluster.row(run)["status"] == "finished", cluster.said(run)
    assert run.report.exists()


def test_what_the_cluster_refuses_is_said(cluster: Cluster) -> None:
    (cluster.lab / "pyproject.toml").write_text('[tool.labkit.slurm]\npartition = "nowhere"\n')
    assert "invalid partition" in cluster.labkit("run", "notebooks/learns.ipynb", "--on", "slurm", status=1).stderr
    refused = cluster.labkit("sweep", "notebooks/learns.ipynb", "-p", "EPOCHS=1,2", "--on", "slurm", status=1)
    assert "invalid partition" in refused.stderr
    (cluster.lab / "pyproject.toml").write_text("")
    sweeps.trivial(cluster.lab)
    many = cluster.labkit("sweep", "notebooks/trivial.ipynb", "-p", "X=1..1001", "--on", "slurm", status=1)
    assert "Invalid job array specification" in many.stderr and "MaxArraySize" in many.stderr


@pytest.mark.faults  # it waits for the clock of Slurm, which looks at limits twice a minute
def test_a_job_whose_time_is_nearly_over_goes_on_and_ends_as_one_never_stopped(cluster: Cluster) -> None:
    """Slurm looks at time limits twice a minute."""
    run = learns(cluster.submit("learns", "-p", "EPOCHS=5", "-p", "PAUSE_S=1.0", "-p", "EVERY_S=1000"))
    number = number_of(run)
    slurm_instance.ask({}, "scontrol", "update", f"JobId={number}", "TimeLimit=1")
    wait_for((run.attempts / "1" / "exit.json").exists, what="the end of the first attempt")
    slurm_instance.ask({}, "scontrol", "update", f"JobId={number}", "TimeLimit=10")
    first = json.loads((run.attempts / "1" / "exit.json").read_bytes())
    assert (first["status"], first["stop"]) == ("interrupted", "SIGUSR1"), cluster.said(run)
    expected = whole(cluster)
    wait_for(lambda: is_gone(number), 240)
    assert cluster.row(run)["status"] == "finished" and run.attempt.name == "2", cluster.said(run)
    assert canonical(run.metrics) == canonical(expected.metrics)


@pytest.mark.faults
def test_a_job_that_is_queued_again_by_the_cluster_goes_on_with_its_run(cluster: Cluster) -> None:
    """As where it is preempted, or its node is taken down."""
    run = learns(cluster.submit("learns", *LASTS))
    number = number_of(run)
    slurm_instance.ask({}, "scontrol", "requeue", number)
    wait_for(lambda: cluster.row(run)["status"] == "queued", what="the run as one that waits")
    wait_for(lambda: is_gone(number), 240)
    assert cluster.row(run)["status"] == "finished" and run.attempt.name == "2", cluster.said(run)
    assert json.loads(run.restored.read_bytes())["checkpoint"]


@pytest.mark.faults
def test_a_job_that_is_cancelled_leaves_nothing_and_another_job_goes_on_with_its_run(cluster: Cluster) -> None:
    run = learns(cluster.submit("learns", *LASTS))
    number = number_of(run)
    pids = [facts["pid"] for name, facts in json.loads(run.process.read_bytes()).items() if isinstance(facts, dict)]
    slurm_instance.ask({}, "scancel", number)
    wait_for(lambda: is_gone(number) and not alive(*pids), what="the end of the job")
    assert status(run).state in ("interrupted", "killed") and checkpoints.every(run)
    again = cluster.labkit("resume", run.id, "--on", "slurm")
    assert again.stdout.strip() == str(run.path)
    later = number_of(run)
    assert later != number
    wait_for(lambda: is_gone(later), 240)
    assert cluster.row(run)["status"] == "finished" and run.attempt.name == "2"


def test_a_sweep_has_one_result_a_point_also_where_a_task_is_queued_again(cluster: Cluster) -> None:
    options = ["notebooks/learns.ipynb", "-p", "PAUSE_S=0.0,0.5,0.1", "-p", "EPOCHS=4", "-p", "EVERY_S=1000"]
    sweep = SweepDir(Path(cluster.labkit("sweep", *options, "--jobs", "2", "--on", "slurm").stdout.strip()))
    (number,) = slurmtasks.numbers_of(sweep)
    run = learns(wait_for(lambda: runs_of(sweep).get(2, [None])[0], 120), 5)
    assert f"job {number}: " in cluster.labkit("list").stdout
    assert cluster.row(run)["job"] == {"number": f"{number}_2", "state": "RUNNING"}
    slurm_instance.ask({}, "scontrol", "requeue", f"{number}_2")
    wait_for(lambda: is_gone(number), 300)
    assert [result["status"] for result in sweepdir.results(sweep).values()] == ["finished"] * 3
    assert [len(runs) for runs in runs_of(sweep).values()] == [1, 1, 1] and run.attempts.joinpath("2").exists()
    summary = read_json(sweep.summary)
    assert summary is not None and summary["finished"] == 3 and sweep.report.exists()
    metrics = {canonical(RunDir(sweep.runs / result["run"]).metrics) for result in sweepdir.results(sweep).values()}
    assert len(metrics) == 1


def test_stopping_a_sweep_leaves_no_task_and_continuing_submits_what_has_no_result(cluster: Cluster) -> None:
    options = ["notebooks/learns.ipynb", "-p", "EPOCHS=20,21,22", "-p", "PAUSE_S=0.1", "-p", "EVERY_S=1000"]
    sweep = SweepDir(Path(cluster.labkit("sweep", *options, "--jobs", "1", "--on", "slurm").stdout.strip()))
    run = learns(wait_for(lambda: runs_of(sweep).get(1, [None])[0], 120))
    cluster.labkit("stop", sweep.name)
    assert slurm_instance.ask({}, "squeue", "--noheader") == "" and status(run).state == "interrupted"
    assert len(runs_of(sweep)) == 1 and not sweepdir.results(sweep)
    text = cluster.labkit("sweep", "--continue", sweep.id, "--on", "slurm", "--dry-run").stdout
    assert "\n#SBATCH --array=1-3\n" in text


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_a_sweep_of_30_points_has_one_result_a_point_whatever_is_queued_again_or_killed(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tasks are queued again by the cluster, and their processes killed, at random; what is left is submitted again."""
    options = [str(sweeps.trivial(cluster.lab)), "-p", "X=1..30", "--no-report", "--jobs", "4", "--on", "slurm"]
    sweep = SweepDir(Path(cluster.labkit("sweep", *options).stdout.strip()))
    requeued = killed = 0
    while not sweep.is_over():
        running = [number for number, state in slurmtasks.tasks(sweep).values() if state == "RUNNING"]
        chance = random.random()
        if running and chance < 0.35:
            slurm_instance.ask({}, "scontrol", "requeue", random.choice(running))
            requeued += 1
        elif chance > 0.65 and (pids := processes_of(sweep)):
            os.kill(random.choice(pids), signal.SIGKILL)
            killed += 1
        elif not slurmtasks.tasks(sweep) and not sweep.is_over():
            cluster.labkit("sweep", "--continue", sweep.id, "--jobs", "4", "--on", "slurm")
        time.sleep(random.uniform(0.3, 3.0))
    wait_for(lambda: not slurmtasks.tasks(sweep), 120)
    runs = sum(map(len, runs_of(sweep).values()))
    with capsys.disabled():
        print(f"30 results of {runs} runs; {requeued} tasks were queued again, {killed} killed")
    sweeps.check_once_each(sweeps.Swept(0, "", "", sweep), 30)
