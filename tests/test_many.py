"""Many runs at once, more than there are cores: each is whole, and none is taken for another."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import LABKIT, fixture, make_lab
from tiny import plain_environment
from warmth import served, sockets

from labkit.record.find import every
from labkit.record.metrics import read
from labkit.record.status import status

pytestmark = pytest.mark.slow

STEPS = 20


@pytest.fixture(params=["cold", "warm"])
def environment(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The environment of runs with cold or warm kernels."""
    with sockets() as place:
        yield served(place) if request.param == "warm" else plain_environment(XDG_RUNTIME_DIR=str(place))


def run_at_once(lab: Path, count: int, environment: dict[str, str]) -> int:
    """Run one notebook so many times at once, each with its own parameter; returns how many runs came out whole."""
    notebook = fixture(lab, "trains")
    before = {run.id for run in every(lab / "runs")}
    processes = [
        subprocess.Popen(
            [*LABKIT, "run", str(notebook), "--no-report", "-p", f"STEPS={STEPS + number}", "-p", "PAUSE_S=0.01"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(count)
    ]
    said = [process.communicate(timeout=600)[0] for process in processes]
    made = {str(run.path): run for run in every(lab / "runs") if run.id not in before}
    assert len(made) == count
    whole = 0
    for number, (process, text) in enumerate(zip(processes, said, strict=True)):
        run = made.pop(text.splitlines()[-1])
        rows = read(run.metrics).rows
        good = process.returncode == 0 and status(run).state == "finished" and rows == STEPS + number
        whole += good and run.read_manifest()["parameters"]["STEPS"] == STEPS + number
        json.loads(run.notebook.read_bytes())
        if not good:
            print(text, status(run), rows)
    assert not made
    return whole


def test_six_runs_at_once_are_all_whole(lab: Path, environment: dict[str, str]) -> None:
    (lab / "runs").mkdir()
    assert run_at_once(lab, 6, environment) == 6


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_twenty_rounds_of_24_runs_at_once_are_all_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], environment: dict[str, str]
) -> None:
    lab = make_lab(tmp_path / "Ada's lab")
    whole = sum(run_at_once(lab, 24, environment) for _ in range(20))
    with capsys.disabled():
        warm = sum(json.loads(run.process.read_bytes())["warm"] for run in every(lab / "runs"))
        print(f"{whole} of 480 runs whole, {warm} of them with warm kernels")
    assert whole == 480
