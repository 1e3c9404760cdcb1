"""Processes of a run killed at random moments while it logs: nothing that was logged is lost, nothing lives on."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from running import Started, alive, fixture, make_lab, started, wait_for

from labkit.record.metrics import read
from labkit.record.process import descendants
from labkit.record.rundir import RunDir
from labkit.record.status import status

pytestmark = pytest.mark.slow

WITHIN_S = 15.0  # a few seconds where the machine has nothing else to do
VICTIMS = {
    "kernel": ("kernel",),
    "runner": ("runner",),
    "supervisor": ("supervisor",),
    "both": ("runner", "supervisor"),
}


@dataclass(frozen=True)
class Killed:
    """What a kill left: the run, the steps whose logging had returned, and who had been there."""

    run: RunDir
    acknowledged: list[int]
    kernel: int
    below: list[int]
    after_s: float


def kill_one(lab: Path, number: int, victims: tuple[str, ...], delay_s: float) -> Killed:
    """Run a notebook that logs 50 steps a second, and kill some of its processes after a while."""
    steps = lab / f"steps-{number}.txt"
    notebook = fixture(lab, "acknowledges", f"{number}")
    with started(notebook, "-p", f"FILE={steps}", "-p", "CHILDREN=true") as under_way:
        pids = under_way.pids()
        if number % 2:
            under_way.logs()  # else it may be killed while it starts
        time.sleep(delay_s)
        below = descendants(pids["supervisor"])
        began = time.monotonic()
        for victim in victims:
            os.kill(pids[victim], signal.SIGKILL)
        wait_until_over(under_way, pids)
        after_s = time.monotonic() - began
        run = under_way.run
    below += [int(pid) for pair in re.findall(r"^below: (\d+) (\d+)$", run.log.read_text(), re.M) for pid in pair]
    logged = [int(line) for line in steps.read_text().splitlines()] if steps.exists() else []
    return Killed(run, logged, pids["kernel"], sorted(set(below)), after_s)


def wait_until_over(under_way: Started, pids: dict[str, int]) -> None:
    """Wait until runner, supervisor and kernel are gone."""
    wait_for(lambda: under_way.process.poll() is not None and not alive(*pids.values()), 30, "the end of all three")


def check(killed: Killed, who: str) -> int:
    """Hold what a kill left against the promises; returns how many logged steps are lost."""
    assert killed.after_s < WITHIN_S
    kept = read(killed.run.metrics)
    steps = set(kept.columns["loss"].steps) if kept.columns else set()
    assert kept.torn <= 1
    found = status(killed.run)
    if who == "both":
        wait_for(lambda: not alive(killed.kernel), WITHIN_S)
        named = {int(text.split()[0]) for text in found.left}
        left = alive(*killed.below)
        try:
            assert named <= set(left) and (named or not left), (found, left)
        finally:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
    else:
        assert not alive(*killed.below)
    wanted = {
        "kernel": ("failed", "signal 9"),
        "runner": ("killed", "its runner"),
        "supervisor": ("killed", "its supervisor"),
    }
    state, reason = wanted.get(who, ("killed", "killed from outside"))
    assert found.state == state and reason in found.reason, found
    for path in (killed.run.notebook, killed.run.source / "notebook.ipynb", killed.run.manifest):
        json.loads(path.read_bytes())
    return len(set(killed.acknowledged) - steps)


def kill_many(folder: Path, who: str, count: int) -> None:
    """Kill so many runs at random moments, two at a time, and check what is left of each."""
    seed = random.SystemRandom().randrange(2**32)
    draw = random.Random(seed)
    delays_s = [draw.uniform(0, 2.5) for _ in range(count)]
    lab = make_lab(folder / "Ada's lab")
    with ThreadPoolExecutor(2) as pool:
        killed = list(pool.map(lambda n: kill_one(lab, n, VICTIMS[who], delays_s[n]), range(count)))
    lost = 0
    for number, one in enumerate(killed):
        try:
            lost += check(one, who)
        except AssertionError as error:
            raise AssertionError(
                f"seed {seed}, kill {number} of {who} after {delays_s[number]:.3f} s: {error}"
            ) from error
    logged = sum(len(one.acknowledged) for one in killed)
    slowest_s = max(one.after_s for one in killed)
    print(f"{who}: {lost} of {logged} logged steps lost in {count} kills; at most {slowest_s:.1f} s; seed {seed}")
    assert not lost, f"seed {seed}"


@pytest.mark.parametrize("who", VICTIMS)
def test_a_process_killed_at_random_loses_no_logged_step_and_leaves_nothing_alive(tmp_path: Path, who: str) -> None:
    kill_many(tmp_path, who, 3)


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("who", "count"), [("kernel", 500), ("runner", 60), ("supervisor", 60), ("both", 60)])
def test_many_processes_killed_at_random_lose_no_logged_step(
    tmp_path: Path, who: str, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        kill_many(tmp_path, who, count)
