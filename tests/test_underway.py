"""Runs that go on elsewhere: detached, followed, stopped, submitted from a cell."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from running import LABKIT, make_lab, wait_for
from tiny import parameters, plain_environment, write

from labkit.errors import RunProblem
from labkit.kernel.submit import submit
from labkit.record.find import every
from labkit.record.rundir import RunDir
from labkit.record.status import status

pytestmark = pytest.mark.slow

LOOP = """
import time
for step in run.progress(range(STEPS), 'step'):
    run.log(step, loss=1.0 / (step + 1))
    time.sleep(0.05)
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    lab = make_lab(tmp_path / "lab")
    declared = parameters("STEPS: int = 5  # to do")
    write(lab / "notebooks" / "n.ipynb", declared, "import labkit\nrun = labkit.start()", LOOP)
    return lab


def labkit(lab: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LABKIT, *arguments], cwd=lab, env=plain_environment(), capture_output=True, text=True)


def detached(lab: Path, steps: int) -> RunDir:
    done = labkit(lab, "run", "notebooks/n.ipynb", "--detach", "-p", f"STEPS={steps}")
    assert done.returncode == 0, done.stderr
    return RunDir(Path(done.stdout.strip()))


def test_a_detached_run_goes_on_when_its_command_has_ended_and_has_its_report(lab: Path) -> None:
    made = detached(lab, 5)
    wait_for(lambda: status(made).is_over)
    assert status(made).state == "finished"
    wait_for(made.report.exists)


def test_who_watches_a_run_sees_its_end(lab: Path) -> None:
    made = detached(lab, 20)
    done = labkit(lab, "watch", made.name[-6:])
    assert done.returncode == 0 and "finished" in done.stderr
    assert done.stdout.strip() == str(made.path)


def test_a_run_is_stopped_from_another_shell_at_its_next_step(lab: Path) -> None:
    made = detached(lab, 10_000)
    wait_for(lambda: made.metrics.exists() and made.metrics.read_bytes().count(b"\n") > 3)
    wait_for(lambda: re.search(r"running \d+/10000", labkit(lab, "list").stdout), what="its progress")
    done = labkit(lab, "stop", "last")
    assert done.returncode == 0 and "interrupted" in done.stdout, done.stderr
    assert json.loads(made.exit.read_bytes())["stop"] == "SIGTERM"
    again = labkit(lab, "stop", "last")
    assert again.returncode == 2 and "nothing to stop" in again.stderr


def test_a_run_that_a_cell_submits_outlives_it_and_is_followed(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lab / "notebooks")
    for name in [name for name in os.environ if name.startswith("LABKIT_")]:
        monkeypatch.delenv(name)
    trial = submit("n.ipynb", STEPS=8)
    assert trial.parameters["STEPS"] == 8
    shown = trial.view()
    assert trial.wait(60).state == "finished"
    assert len(trial.metrics()) == 8
    wait_for(lambda: "finished" in shown.value)


def test_a_submitted_run_can_be_stopped(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lab / "notebooks")
    trial = submit("n.ipynb", STEPS=10_000)
    wait_for(lambda: trial.directory.metrics.exists() and trial.directory.metrics.stat().st_size)
    trial.stop()
    assert trial.wait(60).state == "interrupted"


def test_a_run_is_stopped_also_right_after_it_was_submitted(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lab / "notebooks")
    trial = submit("n.ipynb", STEPS=10_000)
    trial.stop()
    assert trial.wait(60).state == "interrupted"


def test_what_cannot_be_run_is_refused_where_it_is_submitted(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lab / "notebooks")
    with pytest.raises(RunProblem, match="STEPS"):
        submit("n.ipynb", STEP=8)
    with pytest.raises(RunProblem, match="numbers, text"):
        submit("n.ipynb", STEPS=object())
    assert not every(lab / "runs")
