"""What a job of a cluster does beside running its notebook: a preflight, strictness, a time limit that is too short."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from clusters import Cluster, pretended  # noqa: F401 (a fixture)
from running import wait_for
from tiny import parameters, write

from labkit.errors import BadInput
from labkit.record import checkpoints, machine, sweepdir
from labkit.record.find import every
from labkit.record.metrics import canonical
from labkit.record.rundir import RunDir
from labkit.record.status import status
from labkit.record.sweepdir import SweepDir
from labkit.workbench.running import slots
from labkit.workbench.slurm import slurm, slurmnode, slurmqueue, slurmscript
from labkit.workbench.sweeps.sweep import runs_of

DECLARED = "DEBUG: bool = False  # in seconds\nFAIL: bool = False  # in the preflight\nBEST: float = 0.5  # is held"
STARTED = "import labkit\nrun = labkit.start()\nrun.expect('it is high', f'accuracy >= {BEST}')"
TRIED = "assert not (FAIL and DEBUG), 'no luck'\nrun.log(0, accuracy=0.1 if DEBUG else 0.9)"
HANGS = """
import time
from pathlib import Path

import numpy

draws = numpy.random.default_rng(1)
state = run.restore(draws=draws, state={"step": 0})
while state["step"] < 8:
    run.log(state["step"], loss=draws.random())
    state["step"] += 1
    if state["step"] == 5 and HANGS and run.directory.attempt.name == "1":
        Path("hangs").touch()
        time.sleep(600)  # a step that takes longer than there is time
    run.checkpoint(draws=draws, state=state)
"""


@pytest.fixture
def tried(cluster: Cluster) -> Cluster:
    write(cluster.lab / "notebooks" / "tried.ipynb", parameters(DECLARED), STARTED, TRIED)
    return cluster


@pytest.fixture
def hangs(cluster: Cluster) -> Cluster:
    """A notebook that saved a checkpoint, and then is in the midst of a step when it is told to stop."""
    start = "import labkit\nrun = labkit.start()"
    write(cluster.lab / "notebooks" / "hangs.ipynb", parameters("HANGS: bool = True  # once"), start, HANGS)
    return cluster


def number(run: RunDir) -> str:
    return slurmqueue.number_of(run)


def exit_status(cluster: Cluster, number: str) -> int:
    wait_for(lambda: cluster.is_gone(number), 120)
    return int((cluster.folder / f"{number}.ended").read_text())


def hung(cluster: Cluster, run: RunDir) -> None:
    wait_for(lambda: (cluster.lab / "notebooks" / "hangs").exists(), 120, "a step that takes too long")
    assert len(checkpoints.every(run)) and status(run).state == "running"


def test_what_a_job_does_beside_its_run_stands_in_its_script(tried: Cluster) -> None:
    options = ["--preflight", "--strict", "--no-report", "--on", "slurm", "--dry-run"]
    text = tried.labkit("run", "notebooks/tried.ipynb", *options).stdout
    assert 'labkit.workbench.slurm.slurmnode "$run" --no-report --strict --preflight "$trial" &\n' in text
    assert f"\ntrial='{tried.lab}/runs/tried/" in text
    assert not every(tried.lab / "runs")


def test_what_a_job_cannot_have_is_refused_with_the_reason(tried: Cluster) -> None:
    for options, said in (
        (["--detach"], "a job goes on by itself"),
        (["--grace", "100"], "warned 120 s before its time limit, and closing a run may take 30 of them; ask for 90"),
        (["--preflight", "-p", "debug=true"], "with DEBUG=True there is none"),
    ):
        done = tried.labkit("run", "notebooks/tried.ipynb", "--on", "slurm", *options, status=2)
        assert said in done.stderr
    assert "declares no DEBUG" in tried.labkit("run", "notebooks/n.ipynb", "--on=slurm", "--preflight", status=2).stderr
    assert not every(tried.lab / "runs")


def test_a_lab_with_a_longer_grace_is_told_how_much_of_it_a_job_has(tried: Cluster) -> None:
    (tried.lab / "pyproject.toml").write_text("[tool.labkit]\ngrace_s = 300\n")
    done = tried.labkit("run", "notebooks/tried.ipynb", "--on", "slurm", "--dry-run")
    assert "grace_s = 300 is 90 here" in done.stderr
    assert slurm.grace_s({"slurm.warn_s": 600, "grace_s": 30.0}) == 570
    assert slurm.grace_s({"slurm.warn_s": 600, "grace_s": 30.0}, 20.0) == 20


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400), ("1:30", 90), ("2:00:00", 7200), ("1-12", 129600), ("1-00:10", 87000), ("1-00:00:05", 86405),
        ("UNLIMITED", None), ("", None),
    ],
)  # fmt: skip
def test_a_time_limit_is_read_as_sbatch_reads_it(text: str, seconds: float | None) -> None:
    assert slurmscript.limit_s(text) == seconds


@pytest.mark.slow
def test_a_time_limit_that_is_over_before_its_warning_is_refused(tried: Cluster) -> None:
    (tried.lab / "pyproject.toml").write_text('[tool.labkit.slurm]\ntime = "2:30"\n')
    for command in (["run"], ["sweep", "-p", "BEST=0.1,0.2"]):
        done = tried.labkit(*command, "notebooks/tried.ipynb", "--on", "slurm", "--dry-run", status=2)
        assert "leaves a run no time: it is warned 120 s before the end" in done.stderr


def test_a_run_that_was_not_made_for_a_job_is_not_begun_by_one(tmp_path: Path) -> None:
    (tmp_path / "attempts" / "1").mkdir(parents=True)
    with pytest.raises(BadInput, match="was not made for a batch job"):
        slurmnode.begin(RunDir(tmp_path))


@pytest.mark.parametrize(("given", "threads"), [("2", "2"), ("8", None), ("", None)])
def test_a_job_has_as_many_threads_as_cores_where_the_cluster_does_not_bind_it(
    monkeypatch: pytest.MonkeyPatch, given: str, threads: str | None
) -> None:
    for name in slots.THREADS:
        monkeypatch.setenv(name, "1")  # so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", given)
    slurmnode.share_cores()
    assert os.environ.get("OMP_NUM_THREADS") == threads


@pytest.mark.slow
def test_a_preflight_comes_first_and_only_when_it_finishes_the_full_run(tried: Cluster) -> None:
    good = tried.submit("tried", "--preflight", "--no-report")
    bad = tried.submit("tried", "--preflight", "-p", "FAIL=true")
    assert exit_status(tried, number(good)) == 0 and status(good).state == "finished", tried.said(good)
    trials = {run.name: run for run in every(tried.lab / "runs") if "preflight" in run.read_manifest()["labels"]}
    first = trials.pop(good.read_manifest()["preflight"])
    assert status(first).state == "finished" and first.read_manifest()["parameters"]["DEBUG"] is True
    assert not good.report.exists() and tried.row(first)["job"]["number"] == number(good)
    assert exit_status(tried, number(bad)) == 1
    assert status(bad).state == "failed" and not bad.process.exists()
    (second,) = trials
    assert f"its preflight {second} did not finish" in status(bad).reason and "no luck" in status(bad).reason


@pytest.mark.slow
def test_a_strict_job_fails_unless_every_expectation_held(tried: Cluster) -> None:
    runs = [tried.submit("tried", "--strict", "-p", f"BEST={best}") for best in (0.5, 0.95)]
    assert [exit_status(tried, number(run)) for run in runs] == [0, 1]
    assert [status(run).state for run in runs] == ["finished"] * 2 and runs[0].report.exists()


@pytest.mark.slow
def test_a_run_that_does_not_stop_within_its_grace_is_ended_and_its_job_goes_on_with_it(hangs: Cluster) -> None:
    whole = hangs.submit("hangs", "-p", "HANGS=false")
    run = hangs.submit("hangs", "--grace", "2")
    hung(hangs, run)
    (hangs.folder / f"{number(run)}.late").touch()
    assert exit_status(hangs, number(run)) == 0, hangs.said(run)
    first = json.loads((run.attempts / "1" / "exit.json").read_bytes())
    assert first["status"] in ("interrupted", "killed") and first["stop"] == "SIGUSR1"
    assert (run.attempt.name, status(run).state) == ("2", "finished")
    assert exit_status(hangs, number(whole)) == 0 and canonical(run.metrics) == canonical(whole.metrics)


@pytest.mark.slow
def test_a_job_that_is_killed_at_its_time_limit_goes_on_when_it_is_queued_again(hangs: Cluster) -> None:
    run = hangs.submit("hangs")
    hung(hangs, run)
    (hangs.folder / "1.late").write_text("1")
    wait_for(lambda: (hangs.folder / "1.state").read_text() == "COMPLETING", what="the end of its time")
    (hangs.folder / "1.requeue").touch()
    assert exit_status(hangs, "1") == 0, hangs.said(run)
    assert not (run.attempts / "1" / "exit.json").exists()
    assert (run.attempt.name, status(run).state) == ("2", "finished")


@pytest.mark.slow
def test_a_job_that_was_killed_at_its_time_limit_is_resumed_by_another_job(hangs: Cluster) -> None:
    run = hangs.submit("hangs")
    hung(hangs, run)
    assert "is running (job 1)" in hangs.labkit("resume", run.id, "--on", "slurm", status=2).stderr
    (hangs.folder / "1.late").write_text("1")
    wait_for(lambda: hangs.is_gone("1"))
    assert hangs.row(run)["status"] == "killed"
    assert hangs.labkit("resume", run.id, "--on", "slurm", "--no-report").stdout.strip() == str(run.path)
    assert number(run) == "2" and 'slurmnode "$run" --no-report &' in (run.attempts / "2" / "job.sbatch").read_text()
    assert exit_status(hangs, "2") == 0, (run.attempts / "2" / "slurm.log").read_text()
    assert (run.attempt.name, status(run).state) == ("2", "finished") and not run.report.exists()
    assert "has finished" in hangs.labkit("resume", run.id, "--on", "slurm", status=2).stderr


@pytest.mark.slow
def test_a_point_whose_task_was_killed_at_its_time_limit_goes_on_with_its_run(hangs: Cluster) -> None:
    sweep = SweepDir(Path(hangs.labkit("sweep", "notebooks/hangs.ipynb", "--on", "slurm").stdout.strip()))
    run = wait_for(lambda: runs_of(sweep).get(1, [None])[0], 60)
    hung(hangs, run)
    (hangs.folder / "1_1.late").write_text("1")
    wait_for(lambda: hangs.is_gone("1_1"))
    assert not sweepdir.results(sweep)
    hangs.labkit("sweep", "--continue", "last", "--on", "slurm")
    wait_for(lambda: hangs.is_gone("2_1"), 120)
    assert sweepdir.results(sweep)[1]["run"] == run.name and sweep.is_over()
    assert RunDir(run.path).attempt.name == "2" and status(run).state == "finished"
