"""Metrics that are still on a GPU when logged: in order, not waited for, counted when they never arrive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from labkit.kernel.logged import Logged
from labkit.kernel.queued import Queued
from labkit.record import counts, metrics
from labkit.record.rundir import RunDir, create


class Later:
    """A copy that arrives when it is told to."""

    def __init__(self, error: str = "") -> None:
        self._there, self._error = threading.Event(), error

    def arrive(self) -> None:
        self._there.set()

    def query(self) -> bool:
        if self._error:
            raise RuntimeError(self._error)
        return self._there.is_set()

    def synchronize(self) -> None:
        self._there.wait(20)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return create(tmp_path, "queued", {})


def queue(run: RunDir) -> tuple[Logged, Queued]:
    """Returns the metrics of a run, and their queue."""
    logged = Logged(run)
    logged._queued = Queued(logged._append, lambda: logged.lines, logged._lose, run.queued)
    return logged, logged._queued


def steps(run: RunDir) -> list[int]:
    return [line["step"] for line in metrics.records(run.metrics) if line is not None]


def test_a_line_is_written_when_its_values_have_arrived_and_not_before(run: RunDir) -> None:
    _, queued = queue(run)
    first, second = Later(), Later()
    queued.add(1, {"loss": 0.5}, [first])
    second.arrive()
    queued.add(2, {"loss": 0.25}, [second])
    assert steps(run) == [], "the second overtook the first"
    first.arrive()
    queued.add(3, {"loss": 0.125}, [Later()])
    assert steps(run) == [1, 2]


def test_what_has_arrived_is_written_within_two_seconds_though_nothing_else_is_logged(run: RunDir) -> None:
    _, queued = queue(run)
    copy = Later()
    queued.add(1, {"loss": 0.5}, [copy])
    copy.arrive()
    waited = threading.Event()
    for _ in range(40):
        if steps(run):
            break
        waited.wait(0.05)
    assert steps(run) == [1]


def test_a_line_whose_values_are_here_waits_for_those_before_it(run: RunDir) -> None:
    logged, queued = queue(run)
    copy = Later()
    queued.add(1, {"loss": 0.5}, [copy])
    threading.Timer(0.1, copy.arrive).start()
    assert logged.log(2, {"loss": 0.25})
    assert steps(run) == [1, 2]


def test_a_line_keeps_the_time_at_which_it_was_logged(run: RunDir) -> None:
    logged, queued = queue(run)
    copy = Later()
    queued.add(1, {"loss": 0.5}, [copy])
    threading.Timer(0.3, copy.arrive).start()
    logged.log(2, {"loss": 0.25})
    first, second = metrics.records(run.metrics)
    assert first is not None and second is not None
    assert second["t"] - first["t"] > 0.2


def test_lines_that_never_arrive_are_counted(run: RunDir) -> None:
    logged, queued = queue(run)
    queued.add(1, {"loss": 0.5}, [Later("device-side assert")])
    queued.add(2, {"loss": 0.5}, [Later("device-side assert")])
    logged.close()
    assert logged.counts == {"written": 0, "refused": 0, "lost": 2}


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_queued import Later, queue
from labkit.record.rundir import RunDir
logged, queued = queue(RunDir(Path({run!r})))
logged.log(0, {{"loss": 1.0}})
for step in range(1, 4):
    queued.add(step, {{"loss": 0.5}}, [Later()])
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_killed_run_tells_how_many_lines_never_arrived(run: RunDir) -> None:
    code = KILLED.format(tests=str(Path(__file__).parent), run=str(run.path))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGKILL)
    assert counts.read(run, is_over=True)["metrics"] == {"written": 1, "lost": 3}
    assert counts.read(run, is_over=False) == {}, "what is on its way is not lost"


def test_a_run_whose_lines_all_arrived_lost_none(run: RunDir) -> None:
    logged, queued = queue(run)
    copy = Later()
    queued.add(1, {"loss": 0.5}, [copy])
    copy.arrive()
    logged.settle()
    assert counts.read(run, is_over=True) == {}


@pytest.mark.gpu
def test_values_on_a_gpu_are_logged_without_waiting_for_it_and_with_the_same_bits(run: RunDir) -> None:
    import torch

    logged = Logged(run)
    expected = []
    for step in range(100):
        value = torch.rand((), device="cuda") * step
        busy = torch.rand(4096, 4096, device="cuda")
        for _ in range(20):
            busy = busy @ busy
        assert logged.log(step, {"loss": value, "right": (value > 1).sum(), "rate": 0.1})
        expected.append(value)
    assert metrics.read(run.metrics).rows < 100, "it was waited for"
    logged.close()
    found = metrics.read(run.metrics).columns["loss"].values
    assert list(found) == [value.item() for value in expected]
    assert logged.counts == {"written": 100, "refused": 0, "lost": 0}
