"""Sweeps that go on elsewhere: left to themselves, followed, stopped, started from a cell."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel
from running import LABKIT, make_lab, wait_for
from sweeps import trivial
from tiny import parameters, plain_environment, write
from warmth import install

from labkit.errors import RunProblem
from labkit.kernel.sweep import sweep
from labkit.launch.provisioner import RunProvisioner
from labkit.record import sweepdir
from labkit.record.files import read_json
from labkit.record.find import every
from labkit.record.status import status
from labkit.record.sweepdir import SweepDir
from labkit.workbench.sweeps import sweeping
from labkit.workbench.sweeps.sweep import runs_of

pytestmark = pytest.mark.slow

ENDLESS = """
import time
for step in run.progress(range(10_000), 'step'):
    run.log(step, loss=X)
    time.sleep(0.05)
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    lab = make_lab(tmp_path / "lab")
    declared = parameters("X: int = 0  # a number")
    write(lab / "notebooks" / "endless.ipynb", declared, "import labkit\nrun = labkit.start()", ENDLESS)
    trivial(lab)
    monkeypatch.chdir(lab / "notebooks")
    for name in [name for name in os.environ if name.startswith("LABKIT_")]:
        monkeypatch.delenv(name)
    return lab


def labkit(lab: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LABKIT, *arguments], cwd=lab, env=plain_environment(), capture_output=True, text=True)


def left(lab: Path, *arguments: str) -> SweepDir:
    """A sweep that was left to itself."""
    done = labkit(lab, "sweep", *arguments, "--detach", "--no-report")
    assert done.returncode == 0 and "goes on by itself" in done.stderr, done.stderr
    return SweepDir(Path(done.stdout.strip()))


def runs_something(made: SweepDir) -> bool:
    return any(run.metrics.stat().st_size for runs in runs_of(made).values() for run in runs)


def test_a_sweep_left_to_itself_is_followed_to_its_end(lab: Path) -> None:
    made = left(lab, "notebooks/trivial.ipynb", "-p", "X=3,1,2", "--minimize", "loss")
    done = labkit(lab, "watch", "sweeps/last")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(made.path) and made.is_over() and len(sweepdir.results(made)) == 3
    assert "3 of 3 done" in done.stderr and "lowest loss: 1 with X=1\n" in done.stderr


def test_who_follows_a_sweep_over_seeds_is_told_the_best_that_its_report_has(lab: Path) -> None:
    made = left(lab, "notebooks/trivial.ipynb", "-p", "X=3,1", "-p", "RANDOM_SEED=1,2", "--minimize", "loss")
    done = labkit(lab, "watch", "sweeps/last")
    summary = read_json(made.summary) or {}
    assert summary["sentence"] == "lowest loss: 1.0150 ± 0.0071 with X=1" and summary["sentence"] in done.stderr
    assert "of a single run" not in done.stderr and "1.0150 ± 0.0071" in made.report.read_text()


def test_a_sweep_is_stopped_from_another_shell_and_goes_on_later(lab: Path) -> None:
    made = left(lab, "notebooks/endless.ipynb", "-p", "X=1..3", "--jobs", "1")
    wait_for(lambda: runs_something(made), 90)
    assert f"{made.name}: 0 of 3 done" in labkit(lab, "list").stdout
    again = labkit(lab, "sweep", "--continue", "last", "--detach")
    assert again.returncode == 2 and "is being worked on" in again.stderr
    done = labkit(lab, "stop", made.id[-6:])
    assert done.returncode == 0 and "was stopped: 0 of 3 done" in done.stdout, done.stderr
    states = [status(run).state for runs in runs_of(made).values() for run in runs]
    assert states == ["interrupted"] and not sweepdir.results(made)
    followed = labkit(lab, "watch", made.name)
    assert followed.returncode == 1 and f"labkit sweep --continue {made.id}" in followed.stderr
    assert labkit(lab, "stop", made.name).returncode == 2


def test_a_sweep_without_room_is_refused_where_it_is_left(lab: Path) -> None:
    done = labkit(lab, "sweep", "notebooks/trivial.ipynb", "-p", "X=1,2", "--detach", "--gpus", "64")
    assert done.returncode == 2 and "GPU" in done.stderr
    assert not every(lab / "runs") and not sweepdir.every(lab / "runs")
    waits = labkit(lab, "sweep", "notebooks/trivial.ipynb", "-p", "X=1,2", "--gpus", "64", "--wait")
    assert waits.returncode == 2 and "will never be free" in waits.stderr


def test_the_same_command_with_other_settings_goes_on_with_those(lab: Path) -> None:
    options = ("notebooks/endless.ipynb", "-p", "X=1,2", "--jobs", "1")
    made = left(lab, *options, "--minimize", "loss", "--timeout", "500")
    wait_for(lambda: runs_something(made), 90)
    assert labkit(lab, "stop", made.name).returncode == 0
    done = labkit(lab, "sweep", *options, "--maximize", "gain", "--timeout", "4", "--no-report")
    assert "goes on with other settings: timeout_s 4.0, not 500.0, metric gain, not loss" in done.stderr
    assert done.stdout.strip() == str(made.path) and made.is_over()
    assert {one["status"] for one in sweepdir.results(made).values()} == {"timeout"}
    assert made.read_manifest()["settings"]["metric"] == "gain"


def test_a_run_of_a_sweep_that_is_stopped_by_hand_is_not_tried_again(lab: Path) -> None:
    made = left(lab, "notebooks/endless.ipynb", "-p", "X=1,2", "--jobs", "1", "--timeout", "600")
    wait_for(lambda: runs_something(made), 90)
    stopped = labkit(lab, "stop", "last")
    assert stopped.returncode == 0 and f"a point of {made.name}, which goes on without it" in stopped.stderr
    for name in (made.name, made.id[-6:]):
        assert f"{made.name} is a sweep, no run" in labkit(lab, "show", name).stderr
    wait_for(lambda: sweepdir.results(made), 30)
    (result,) = sweepdir.results(made).values()
    assert (result["status"], result["reason"]) == ("interrupted", "stopped by hand")
    wait_for(lambda: len(runs_of(made)) == 2, 60)
    assert labkit(lab, "stop", made.name).returncode == 0
    assert {point: len(runs) for point, runs in runs_of(made).items()} == {1: 1, 2: 1}


def test_a_copied_lab_goes_on_with_its_own_notebook(lab: Path) -> None:
    made = left(lab, "notebooks/trivial.ipynb", "-p", "X=1,2")
    wait_for(made.is_over, 90)
    copy = lab.with_name("copy")
    shutil.copytree(lab, copy, symlinks=True)
    opened = sweeping.reopen(str(copy / "runs" / made.name))
    assert opened.source.path == copy / "notebooks" / "trivial.ipynb"


def test_a_sweep_that_a_cell_starts_is_followed_and_read(lab: Path) -> None:
    tried = sweep("trivial.ipynb", X=range(3), RANDOM_SEED=[1, 2], minimize="loss", jobs=2)
    shown = tried.view()
    assert tried.wait(120) == "finished"
    table = tried.results()
    assert sorted(table["X"]) == [0, 0, 1, 1, 2, 2] and set(table["status"]) == {"finished"}
    assert list(table["loss"].round(2)) == list((table["X"] + table["RANDOM_SEED"] / 100).round(2))
    wait_for(lambda: f"{tried.directory.name}: finished<br>6 of 6 done" in shown.value)
    assert "lowest loss: 0.0150 ± 0.0071 with X=0<br>" in shown.value
    assert "finished" in repr(tried) and str(tried.path) in repr(tried)


def test_a_search_that_a_cell_starts_is_followed_and_read(lab: Path) -> None:
    tried = sweep("trivial.ipynb", X="1..100", RANDOM_SEED=0, search="random", trials=3, minimize="loss", jobs=2)
    assert tried.wait(120) == "finished"
    table = tried.results()
    assert len(set(table["X"])) == 3 and list(table["loss"]) == list(table["X"])
    assert "3 of 3 done" in repr(tried)
    for wrong in ({"search": "tpe"}, {"search": "tpe", "minimize": "loss", "zipped": True}):
        with pytest.raises(RunProblem, match="a search needs minimize or maximize"):
            sweep("trivial.ipynb", X="1..100", **wrong)


def test_how_many_points_a_search_of_a_cell_has_must_be_said(lab: Path) -> None:
    for wrong in ({"search": "tpe", "minimize": "loss"}, {"trials": 5}):
        with pytest.raises(RunProblem, match="a search needs trials"):
            sweep("trivial.ipynb", X="1..100", **wrong)
    assert not list((lab / "runs").glob("sweeps/*"))


def test_a_sweep_that_a_cell_started_can_be_stopped(lab: Path) -> None:
    tried = sweep("endless.ipynb", X=[1, 2], jobs=1)
    wait_for(lambda: runs_something(tried.directory), 90)
    assert tried.status == "running"
    tried.stop()
    assert tried.wait(60) == "interrupted"


def test_what_cannot_be_swept_is_refused_where_it_is_asked_for(lab: Path) -> None:
    with pytest.raises(RunProblem, match=r"labkit.sweep: .*LEARNING_RATE"):
        sweep("trivial.ipynb", LEARNING_RATE=[1])
    with pytest.raises(RunProblem, match="either minimize or maximize"):
        sweep("trivial.ipynb", X=[1], minimize="loss", maximize="loss")
    assert not sweepdir.every(lab / "runs")


def test_a_run_that_a_cell_starts_has_the_environment_from_before_its_kernel(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(lab / "notebooks" / "tells.ipynb", "import os\nprint('HAS', [os.environ.get('CUDA_VISIBLE_DEVICES')])")
    monkeypatch.setenv("JUPYTER_PATH", install(tmp_path / "jupyter")["JUPYTER_PATH"])
    monkeypatch.setenv("LABKIT_WARM", "0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    manager, client = start_new_kernel(kernel_name="labkit-cpu", cwd=str(lab / "notebooks"))
    code = "assert os.environ['CUDA_VISIBLE_DEVICES'] == ''\nlabkit.submit('tells.ipynb').wait(120)"
    told = client.execute_interactive(f"import labkit, os\n{code}", timeout=120)
    client.stop_channels()
    manager.shutdown_kernel()
    assert told["content"]["status"] == "ok", told
    (made,) = every(lab / "runs")
    assert "HAS [None]" in made.log.read_text()


def test_runs_and_sweeps_that_a_cell_starts_outlive_its_kernel(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_PATH", install(tmp_path / "jupyter")["JUPYTER_PATH"])
    monkeypatch.setenv("LABKIT_WARM", "0")
    manager, client = start_new_kernel(kernel_name="labkit-cpu", cwd=str(lab / "notebooks"))
    assert isinstance(manager.provisioner, RunProvisioner)
    code = "import labkit\nlabkit.submit('endless.ipynb')\nlabkit.sweep('endless.ipynb', X=[1])"
    assert client.execute_interactive(code, timeout=120)["content"]["status"] == "ok"
    (made,) = sweepdir.every(lab / "runs")
    wait_for(lambda: runs_something(made) and {status(run).state for run in every(lab / "runs")} == {"running"}, 90)
    client.stop_channels()
    manager.shutdown_kernel()
    states = {status(run).state for run in every(lab / "runs")}
    assert states == {"running"} and sweepdir.holder(made) is not None
    assert labkit(lab, "stop", made.name).returncode == 0
    (alone,) = [run for run in every(lab / "runs") if status(run).state == "running"]
    assert labkit(lab, "stop", alone.name).returncode == 0
