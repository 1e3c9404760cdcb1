"""Sweeps on the workers of a Dask cluster: real schedulers and workers, killed like anything else."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import sweeps
from dask_cluster import Cluster, can_unshare
from running import alive, fixture, labkit, make_lab, wait_for

from labkit.errors import BadInput
from labkit.record import sweepdir
from labkit.record.files import read_json
from labkit.record.find import every
from labkit.record.process import descendants, stat_fields
from labkit.record.rundir import RunDir
from labkit.record.status import status
from labkit.record.sweepdir import SweepDir
from labkit.workbench.dask import daskcluster, dasknode
from labkit.workbench.dask.daskworkers import DaskWorkers
from labkit.workbench.notebooks import notebook
from labkit.workbench.running.job import Job
from labkit.workbench.sweeps.sweep import runs_of

ELSEWHERE = "a-node"
needs_unshare = pytest.mark.skipif(not can_unshare(), reason="no mounts and host names of one's own here (unshare)")


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    return make_lab(tmp_path / "Ada's lab")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of two workers, for tests that leave it as it was."""
    with Cluster(tmp_path_factory.mktemp("dask") / "cluster") as cluster:
        yield cluster.two()


def worker_of(run: RunDir) -> str:
    return (read_json(run.attempt / daskcluster.NOTE) or {})["worker"]


def facts_of(run: RunDir) -> dict[str, Any]:
    return read_json(run.process) or {}


def pids_of(run: RunDir) -> list[int]:
    return [facts_of(run)[who]["pid"] for who in ("runner", "process", "kernel")]


def parent(pid: int) -> int:
    return int(stat_fields(pid)[1][0])


def logging(sweep: SweepDir, count: int) -> list[RunDir]:
    """So many running ones of a sweep, once each of them has logged something."""

    def found() -> list[RunDir]:
        runs = [run for run in sweeps.running(sweep) if run.metrics.stat().st_size > 0]
        return runs if len(runs) == count else []

    return wait_for(found, what=f"{count} runs that log")


@pytest.mark.slow
def test_each_worker_executes_one_run_at_a_time_with_its_own_number_of_threads(shared: Cluster, lab: Path):
    found = sweeps.run(str(sweeps.trivial(lab)), "-p", "X=1..5", "--on", shared.where, cwd=lab)
    assert found.exit_status == 0, found.err
    sweeps.check_once_each(found, 5)
    for worker, threads in zip(shared.workers, "12", strict=True):
        runs = [run for run in every(lab / "runs") if worker_of(run) == worker.address]
        assert runs
        for run in runs:
            variables = (read_json(run.machine) or {})["variables"]
            assert (variables["OMP_NUM_THREADS"], variables["MKL_NUM_THREADS"]) == (threads, threads)
            assert variables["PYTHONHASHSEED"] == "0" and run.report.exists()
        times = sorted((facts_of(run)["started_s"], status(run).duration_s) for run in runs)
        ends = [began + (took or 0.0) for began, took in times]
        assert all(end <= began for end, (began, _) in zip(ends, times[1:], strict=False))
    assert not list((lab / "runs").glob(".dask-*"))


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_costs_its_run_alone_which_is_tried_again(tmp_path: Path, lab: Path):
    notebook = fixture(lab, "trains")
    with Cluster(tmp_path / "cluster") as cluster:
        victim = cluster.two().workers[1]
        options = [str(notebook), "-p", "STEPS=300,301", "--on", cluster.where]
        with sweeps.started(*options, cwd=lab) as process:
            sweep = sweeps.newest(lab)
            lost = next(run for run in logging(sweep, 2) if worker_of(run) == victim.address)
            pid = parent(parent(pids_of(lost)[0]))  # runner, what forked it, the worker
            assert parent(pid) in (victim.process.pid, *descendants(victim.process.pid))
            below = [*descendants(pid), *pids_of(lost)]
            os.kill(pid, signal.SIGKILL)
            _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        wait_for(lambda: not alive(*below), what="the end of what the killed worker had started")
        assert status(lost).state == "killed"
        results = sweepdir.results(sweep)
        made = {point: len(runs) for point, runs in runs_of(sweep).items()}
        point = lost.read_manifest()["point"]
        assert {number: (one["status"], one["retries"]) for number, one in results.items()} == {
            number: ("finished", int(number == point)) for number in (1, 2)
        }
        assert made == {number: 1 + (number == point) for number in (1, 2)}


@pytest.mark.slow
@needs_unshare
def test_runs_of_another_machine_stop_at_their_step_for_the_sweep_and_for_labkit_stop(tmp_path: Path, lab: Path):
    notebook = fixture(lab, "trains")
    with Cluster(tmp_path / "cluster") as cluster:
        cluster.worker("--no-nanny", "--nthreads", "1", prefix=f"hostname {ELSEWHERE};")
        with sweeps.started(str(notebook), "-p", "PAUSE_S=0.01,0.02", "--on", cluster.where, cwd=lab) as process:
            sweep = sweeps.newest(lab)
            [first] = logging(sweep, 1)
            assert facts_of(first)["process"]["host"] == ELSEWHERE
            stopped = labkit("stop", first.id, "--runs", str(lab / "runs"))
            assert stopped.returncode == 0 and "interrupted" in stopped.stdout, stopped.stderr
            second = wait_for(lambda: [run for run in logging(sweep, 1) if run != first], what="another run")[0]
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert status(second).state == "interrupted" and (status(second).exit or {})["stop"] == "SIGINT"
        assert not sweep.is_over() and sweepdir.results(sweep) == {}


@pytest.mark.slow
def test_the_runs_of_a_killed_sweep_end_and_it_is_continued_on_the_cluster(shared: Cluster, lab: Path):
    notebook = fixture(lab, "trains")
    with sweeps.started(str(notebook), "-p", "STEPS=200,201", "--on", shared.where, cwd=lab) as process:
        sweep = sweeps.newest(lab)
        pids = [pid for run in logging(sweep, 2) for pid in pids_of(run)]
        process.kill()
        process.wait()
    wait_for(lambda: not alive(*pids), 20, "the end of the runs")
    assert {status(run).state for run in every(lab / "runs")} == {"killed"}
    again = sweeps.run("--continue", "last", "--on", shared.where, cwd=lab)
    assert again.exit_status == 0 and again.sweep == sweep, again.err
    assert [result["status"] for result in again.results.values()] == ["finished"] * 2


@pytest.mark.slow
def test_when_the_scheduler_dies_the_sweep_ends_and_is_continued_elsewhere(tmp_path: Path, lab: Path):
    notebook = fixture(lab, "trains")
    with Cluster(tmp_path / "cluster") as cluster:
        cluster.worker("--no-nanny")
        with sweeps.started(str(notebook), "-p", "STEPS=200,201", "--on", cluster.where, cwd=lab) as process:
            sweep = sweeps.newest(lab)
            pids = pids_of(logging(sweep, 1)[0])
            cluster.scheduler.kill()
            _, err = process.communicate(timeout=60)
        said = f"the Dask scheduler at {cluster.where} is gone; go on with: labkit sweep --continue {sweep.id}\n"
        assert process.returncode == 1 and err == f"labkit: {said}"
        assert not alive(*pids) and sweepdir.results(sweep) == {}
    again = sweeps.run("--continue", sweep.id, cwd=lab)  # here, for a change
    assert again.exit_status == 0 and sorted(again.results) == [1, 2], again.err


@pytest.mark.slow
@needs_unshare
def test_workers_that_join_are_looked_at_and_those_with_another_folder_are_left_out(tmp_path: Path, lab: Path):
    notebook = fixture(lab, "trains")
    runs = lab / "runs"
    hide = f"hostname {ELSEWHERE}; mount -t tmpfs none {shlex.quote(str(runs))};"
    with Cluster(tmp_path / "cluster") as cluster:
        cluster.worker("--no-nanny")
        options = [str(notebook), "-p", "STEPS=500,501,502", "--on", cluster.where]
        with sweeps.started(*options, cwd=lab) as process:
            sweep = sweeps.newest(lab)
            logging(sweep, 1)
            late = [
                cluster.worker("--no-nanny", awaited=False),
                cluster.worker("--no-nanny", awaited=False, prefix=hide),
            ]
            good, bad = map(cluster.await_worker, late)
            _, err = process.communicate(timeout=120)
        said = (
            f"worker {bad.address} on {ELSEWHERE}: {runs} is another folder there; mount the sweep's folder at the same"
        )
        assert process.returncode == 0 and "joined does not suit and is left out" in err and said in err
        used = {worker_of(run) for run in every(runs)}
        assert good.address in used and bad.address not in used and len(every(runs)) == 3
        refused = labkit("sweep", *options, "--runs", str(runs))
        assert refused.returncode == 2 and "nothing was started" in refused.stderr and said in refused.stderr
        assert good.address not in refused.stderr and len(sweepdir.every(runs)) == 1


@pytest.mark.faults
@needs_unshare
def test_a_run_whose_machine_died_goes_on_elsewhere_from_its_checkpoint(tmp_path: Path, lab: Path):
    notebook = fixture(lab, "learns")
    with Cluster(tmp_path / "cluster") as cluster:
        worker = cluster.worker("--no-nanny", prefix=f"hostname {ELSEWHERE};")
        with sweeps.started(str(notebook), "-p", "PAUSE_S=0.05,0.04", "--on", cluster.where, cwd=lab) as process:
            sweep = sweeps.newest(lab)
            saved = lambda: [run for run in sweeps.running(sweep) if list(run.checkpoints.glob("*.json"))]  # noqa: E731
            [run] = wait_for(saved, 120, "a checkpoint")
            whole = [worker.process.pid, *pids_of(run)]
            for number in (signal.SIGSTOP, signal.SIGKILL):  # nobody is left to say how it ended
                for pid in whole:
                    os.kill(pid, number)
            cluster.worker("--no-nanny")
            wait_for(lambda: sweepdir.results(sweep), what="the other point's result, meanwhile")
            assert status(run).state == "running" and not run.exit.exists()
            _, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        assert len(every(lab / "runs")) == 2 and status(run).state == "finished" and run.attempt.name == "2"


@pytest.mark.slow
def test_other_versions_and_another_notebook_are_refused_worker_by_worker(
    shared: Cluster, lab: Path, monkeypatch: pytest.MonkeyPatch
):
    path = sweeps.trivial(lab)
    source = notebook.read(path)
    fixture(lab, "trains", "trivial")  # the file has changed since it was read
    monkeypatch.setattr(dasknode, "versions", lambda: {"labkit": "9", "Python": "3.9", "torch": "1.0"})
    with pytest.raises(BadInput) as refused:
        DaskWorkers(shared.where, source, lab / "runs")
    for worker in shared.workers:
        for wrong in ("has labkit ", "has Python 3.", "has torch 2.", "trivial.ipynb has other cells there"):
            assert any(worker.address in line and wrong in line for line in str(refused.value).splitlines()), wrong
    assert os.listdir(lab / "runs") == []


@pytest.mark.slow
def test_a_worker_refuses_a_run_that_was_given_to_another_one(shared: Cluster, lab: Path):
    from distributed import Client

    with Client(shared.address, set_as_default=False) as client:
        work = Job(str(lab / "runs" / "some" / "1"), "", {}, "python3")
        asked = client.submit(dasknode.attend, "Worker-that-died", print, work)
        assert "started anew" in str(asked.exception(timeout=30))


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer_is_told(lab: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(daskcluster, "CONNECT_S", 0.5)
    with pytest.raises(BadInput, match=r"no Dask scheduler answers at dask://127\.0\.0\.1:9"):
        DaskWorkers("dask://127.0.0.1:9", notebook.read(sweeps.trivial(lab)), lab / "runs")


def test_where_the_package_is_missing_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    def none(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", none)
    with pytest.raises(BadInput, match=r"pip install 'labkit\[dask\]'"):
        daskcluster.refuse_missing()


@pytest.mark.slow
def test_threads_that_a_user_has_set_on_a_worker_stay():
    by_nanny = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "6640"}
    found = dasknode.environment(4, by_nanny | {"MKL_NUM_THREADS": "8"})
    assert found["OMP_NUM_THREADS"] == "4" and found["PYTHONHASHSEED"] == "0" and "MKL_NUM_THREADS" not in found
    assert "PYTHONHASHSEED" not in dasknode.environment(4, {"PYTHONHASHSEED": "7"})
