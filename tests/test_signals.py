"""Signals to a run: each process of it may get one, in each phase, and the status says what happened."""

from __future__ import annotations

import fcntl
import os
import random
import re
import signal
import subprocess
import termios
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from running import LABKIT, Ended, Started, alive, fixture, make_lab, started, wait_for
from tiny import plain_environment

from labkit.record.find import every
from labkit.record.metrics import read
from labkit.record.rundir import RunDir
from labkit.record.status import status

pytestmark = pytest.mark.slow

EXIT = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143, signal.SIGUSR1: 143}


def stopped(ended: Ended, number: signal.Signals) -> None:
    """The run was interrupted by this signal, in good order."""
    assert (ended.status.state, ended.exit_status) == ("interrupted", EXIT[number]), (ended.err, ended.exit)
    assert number.name in ended.status.reason
    assert ended.exit["kernel_exit"] == {"code": 0, "signal": None}
    assert ended.exit["left"] == []
    ended.notebook()


LATE_S = (0.0, 0.1, 0.2, 0.4, 0.8)
Stops = dict[tuple[Callable[..., Ended], float], Ended]


def in_training(lab: Path, number: signal.Signals) -> Ended:
    with started(fixture(lab, "trains", f"trains {number}"), "--grace", "20") as under_way:
        under_way.logs(5)
        under_way.process.send_signal(number)
        return under_way.ended()


def without_a_run(lab: Path, number: signal.Signals) -> Ended:
    with started(fixture(lab, "sleeps-plainly", f"sleeps {number}")) as under_way:
        under_way.prints("sleeping")
        under_way.process.send_signal(number)
        return under_way.ended()


def in_the_kernels_start(lab: Path, late_s: float) -> Ended:
    with started(fixture(lab, "sleeps", f"sleeps {late_s}"), "--grace", "4") as under_way:
        under_way.pids()
        time.sleep(late_s)
        under_way.process.terminate()
        return under_way.ended()


@pytest.fixture(scope="module")
def stops(tmp_path_factory: pytest.TempPathFactory) -> Stops:
    """A run for each kind of stop and each signal or moment, three at a time: much of each is waiting."""
    lab = make_lab(tmp_path_factory.mktemp("stops") / "Ada's lab")
    cases = [(in_training, number) for number in EXIT]
    cases += [(without_a_run, number) for number in (signal.SIGTERM, signal.SIGINT)]
    cases += [(in_the_kernels_start, late_s) for late_s in LATE_S]
    with ThreadPoolExecutor(3) as pool:
        ended = {case: pool.submit(case[0], lab, case[1]) for case in cases}
    return {case: future.result() for case, future in ended.items()}


@pytest.mark.parametrize("number", EXIT)
def test_a_signal_in_training_stops_it_at_a_step_boundary(stops: Stops, number: signal.Signals) -> None:
    ended = stops[in_training, number]
    stopped(ended, number)
    assert f"StopRequested: {'SIGTERM'}: stopped at a step boundary" in ended.log
    counts = ended.counts["metrics"]
    assert counts == {"written": read(ended.run.metrics).rows, "refused": 0, "lost": 0}
    assert ended.exit["duration_s"] < 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_a_notebook_without_a_run_interrupts_its_cell_at_once(stops: Stops, number: signal.Signals) -> None:
    ended = stops[without_a_run, number]
    stopped(ended, number)
    assert "KeyboardInterrupt" in ended.log


@pytest.mark.parametrize("late_s", LATE_S)
def test_a_stop_while_the_kernel_still_starts_is_acted_on(stops: Stops, late_s: float) -> None:
    ended = stops[in_the_kernels_start, late_s]
    assert (ended.status.state, ended.exit_status) == ("interrupted", 143), (ended.err, ended.exit)


def test_a_sleeping_cell_of_a_run_is_interrupted_late_in_the_grace(lab: Path) -> None:
    with started(fixture(lab, "sleeps"), "--grace", "3") as under_way:
        under_way.logs(1)
        under_way.process.terminate()
        ended = under_way.ended()
    stopped(ended, signal.SIGTERM)
    assert read(ended.run.metrics).rows == 1


def test_a_long_call_into_c_ends_before_the_run_is_interrupted(lab: Path) -> None:
    with started(fixture(lab, "calls-c"), "-p", "SECONDS=3") as under_way:
        under_way.prints("calling")
        under_way.process.terminate()
        ended = under_way.ended(25)
    stopped(ended, signal.SIGTERM)
    assert read(ended.run.metrics).rows == 2
    assert "\nnever" not in ended.log


def test_a_call_into_c_longer_than_the_grace_is_killed_and_the_status_says_so(lab: Path) -> None:
    with started(fixture(lab, "calls-c"), "-p", "SECONDS=60", "--grace", "1.5") as under_way:
        under_way.prints("calling")
        under_way.process.terminate()
        ended = under_way.ended()
    assert (ended.status.state, ended.exit_status) == ("killed", 1)
    assert "no step boundary came within 1.5 s of SIGTERM" in ended.status.reason
    assert read(ended.run.metrics).rows == 1
    ended.notebook()


def test_a_second_ctrl_c_stops_at_once(lab: Path) -> None:
    with started(fixture(lab, "sleeps")) as under_way:
        under_way.logs(1)
        under_way.process.send_signal(signal.SIGINT)
        wait_for(lambda: signal_reached(under_way), 5, "the first signal's way to the kernel")
        under_way.process.send_signal(signal.SIGINT)
        ended = under_way.ended(8)
    assert (ended.status.state, ended.exit_status) == ("interrupted", 130)
    assert "SIGINT" in ended.status.reason


def signal_reached(under_way: Started) -> bool:
    """Whether the runner has taken the signal: none is pending in it any more."""
    text = Path(f"/proc/{under_way.process.pid}/status").read_text()
    return all(int(mask, 16) == 0 for mask in re.findall(r"(?:SigPnd|ShdPnd):\s*(\w+)", text))


@pytest.mark.parametrize("who", ["supervisor", "kernel"])
def test_sigterm_to_the_supervisor_or_the_kernel_stops_the_run_too(lab: Path, who: str) -> None:
    with started(fixture(lab, "trains")) as under_way:
        under_way.logs(5)
        os.kill(under_way.pids()[who], signal.SIGTERM)
        ended = under_way.ended()
    stopped(ended, signal.SIGTERM)


def test_a_run_in_the_background_of_a_shell_outlives_the_terminal_and_can_still_be_stopped(lab: Path) -> None:
    ignoring = ("sh", "-c", "trap '' HUP INT; exec \"$@\"", "sh")
    with started(fixture(lab, "trains"), prefix=ignoring) as under_way:
        under_way.logs(3)
        before = under_way.logs(3).metrics.stat().st_size
        under_way.process.send_signal(signal.SIGHUP)
        under_way.process.send_signal(signal.SIGINT)
        wait_for(lambda: under_way.run.metrics.stat().st_size > before + 1000)
        assert under_way.process.poll() is None
        under_way.process.terminate()
        ended = under_way.ended()
    stopped(ended, signal.SIGTERM)


def test_a_run_whose_terminal_is_closed_is_interrupted_and_gets_its_report(lab: Path) -> None:
    terminal, theirs = os.openpty()
    process = subprocess.Popen(
        [*LABKIT, "run", str(fixture(lab, "trains"))],
        env=plain_environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    found: list[RunDir] = []
    while not found or not found[0].metrics.stat().st_size:
        os.read(terminal, 2**16)  # the live line
        found = every(lab / "runs")
    os.close(terminal)
    assert process.wait(30) == EXIT[signal.SIGHUP]
    ended = status(found[0])
    assert (ended.state, ended.reason) == ("interrupted", "stopped by SIGHUP")
    assert b"interrupted" in found[0].report.read_bytes()


def test_an_endless_loop_that_catches_every_interrupt_is_killed_when_the_grace_is_over(lab: Path) -> None:
    with started(fixture(lab, "ignores-everything"), "--grace", "1.5") as under_way:
        under_way.prints("deaf")
        pids = under_way.pids()
        under_way.process.terminate()
        ended = under_way.ended()
    assert (ended.status.state, ended.exit_status) == ("killed", 1)
    wait_for(lambda: not alive(*pids.values()), 5)


# before there is a kernel, or a run, or anything that could take the signal

EARLY_S = (0.2, 0.4, 0.6, 0.8)
MARK = "A_STOP_OF_THIS_TEST"  # in the environment of all that a command starts


def stop_early(lab: Path, name: str, number: signal.Signals, late_s: float) -> str:
    """Stop a command so soon after its start; returns what is wrong with how it ended, empty where nothing is."""
    runs, mark = lab / "runs" / name, f"{lab} {name}"
    process = subprocess.Popen(
        [*LABKIT, "run", str(fixture(lab, "sleeps", name)), "--no-report", "--grace", "4", "--runs", str(runs)],
        env=plain_environment(**{MARK: mark}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(late_s)
    process.send_signal(number)
    try:
        _, err = process.communicate(timeout=30)
        wait_for(lambda: not started_with(mark), 10)
    except (subprocess.TimeoutExpired, AssertionError) as error:
        for pid in started_with(mark):
            os.kill(pid, signal.SIGKILL)
        process.communicate()
        return str(error)
    found = [status(run) for run in every(runs)]
    before_all = number == signal.SIGINT and not found and "KeyboardInterrupt" in err  # Python was still starting
    good = (process.returncode in (-number, EXIT[number]) or before_all) and all(
        run.state == "interrupted" for run in found
    )
    return "" if good else f"exit status {process.returncode}, {found}: {err}"


def started_with(mark: str) -> list[int]:
    """The processes that have this mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={mark}\0".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            pass  # gone by now, or somebody else's
    return alive(*found)


def stop_many_early(folder: Path, number: signal.Signals, count: int) -> None:
    """Stop so many commands about each of the moments, two at a time."""
    seed = random.SystemRandom().randrange(2**32)
    draw = random.Random(seed)
    lab = make_lab(folder / "Ada's lab")
    moments = {
        f"{early_s} {n}": early_s + (draw.uniform(0, 0.2) if n else 0) for early_s in EARLY_S for n in range(count)
    }
    with ThreadPoolExecutor(2) as pool:
        wrong = pool.map(lambda name: stop_early(lab, name, number, moments[name]), moments)
    bad = {f"{late_s:.3f} s": text for late_s, text in zip(moments.values(), wrong, strict=True) if text}
    assert not bad, f"seed {seed}: {bad}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_right_after_the_start_hangs_nothing_and_leaves_nothing_running(
    tmp_path: Path, number: signal.Signals
) -> None:
    stop_many_early(tmp_path, number, 1)


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_many_stops_right_after_the_start_hang_nothing_and_leave_nothing_running(
    tmp_path: Path, number: signal.Signals
) -> None:
    stop_many_early(tmp_path, number, 20)
