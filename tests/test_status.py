"""A status is what the evidence shows."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from records import apart, dead_process, made, started

from labkit.record import ENDS, STATES
from labkit.record.files import write_json
from labkit.record.process import Process
from labkit.record.rundir import RunDir
from labkit.record.status import FRESH_S, Status, status

ME = Process.of(os.getpid())


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run that has been made and not started."""
    return made(tmp_path / "runs", end=None)


def beat(run: RunDir, age_s: float) -> None:
    run.heartbeat.touch()
    os.utime(run.heartbeat, (time.time() - age_s,) * 2)


@pytest.mark.parametrize("end", ENDS)
def test_the_exit_record_decides(run: RunDir, end: str):
    started(run, ME)  # even a live process does not overrule it
    write_json(run.exit, {"status": end, "reason": "so it was", "duration_s": 2})
    found = status(run)
    assert (found.state, found.reason, found.duration_s) == (end, "so it was", 2.0)
    assert found.is_over


@pytest.mark.parametrize("said", ["running", "queued", "", None, 1, ["finished"], {}, "FINISHED"], ids=repr)
def test_an_exit_record_that_tells_no_end_is_no_evidence(run: RunDir, said: object):
    write_json(run.exit, {"status": said})
    assert status(run).state == "unknown"


def test_a_live_process_of_this_host_is_running_and_says_for_how_long(run: RunDir):
    started(run, ME, started_s=time.time() - 5)
    found = status(run)
    assert (found.state, found.is_over) == ("running", False)
    assert 5 <= found.duration_s < 20


def test_a_process_that_is_gone_without_a_word_was_killed(run: RunDir):
    began = time.time() - 10
    started(run, dead_process(), started_s=began)
    beat(run, 4)
    found = status(run)
    assert found.state == "killed"
    assert "gone without an exit record" in found.reason
    assert found.duration_s == pytest.approx(6, abs=2)


def test_a_fresh_heartbeat_does_not_bring_a_dead_process_of_this_host_to_life(run: RunDir):
    started(run, dead_process())
    beat(run, 0)
    assert status(run).state == "killed"


STATUS_OF = """
import sys
from pathlib import Path
from labkit.record.rundir import RunDir
from labkit.record.status import status
print(status(RunDir(Path(sys.argv[1]))))
"""
RUN_BY_HAND = """
import os, sys
from pathlib import Path
from labkit.record.files import write_json
from labkit.record.process import Process
write_json(Path(sys.argv[1]), {"process": Process.of(os.getpid()).facts()})
input()
"""


def test_from_a_container_that_is_younger_only_a_fresh_heartbeat_shows_life(run: RunDir):
    started(run, ME)
    assert "unknown: its process" in apart("-c", STATUS_OF, str(run.path))
    beat(run, 2)
    assert "running: out of sight from here" in apart("-c", STATUS_OF, str(run.path))


def test_a_process_in_a_container_is_known_by_the_number_that_it_has_there(run: RunDir):
    apart("-c", "")  # skips where there is none
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", *root, "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", RUN_BY_HAND]
    container = subprocess.Popen([*command, str(run.process)], stdin=subprocess.PIPE)
    while not run.process.exists():
        time.sleep(0.01)
    beat(run, 0)
    assert status(run).state == "running"
    container.communicate(b"\n")
    assert status(run).state == "killed"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide processes from others")
def test_a_process_that_the_system_hides_is_not_said_to_be_killed(run: RunDir):
    started(run, ME)
    drop = "import os; os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3)\n"
    code = STATUS_OF.replace("\nprint", f"\n{drop}print")
    hide = 'mount -t proc -o hidepid=2 proc /proc || exit 9; "$@"'
    command = ["unshare", "--mount", "sh", "-c", hide, "sh", sys.executable, "-c", code, "."]
    done = subprocess.run(command, cwd=run.path, capture_output=True, text=True)
    if done.returncode == 9:
        pytest.skip("this system does not let processes be hidden")
    assert "unknown: its process" in done.stdout, done.stderr


def test_a_number_taken_over_by_another_process_is_not_the_run(run: RunDir):
    started(run, replace(ME, start=ME.start + 1))
    assert status(run).state == "killed"


def test_a_zombie_is_not_running(run: RunDir):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started(run, Process.of(child.pid))
    assert status(run).state == "running"
    child.stdin.close()
    while (state := Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0]) != "Z":
        assert state in "RSD"
    assert status(run).state == "killed"
    child.wait()


def test_a_restart_of_the_machine_killed_the_run(run: RunDir):
    started(run, replace(ME, boot="another-boot"))
    found = status(run)
    assert found.state == "killed"
    assert "restarted" in found.reason


def test_on_another_host_only_a_fresh_heartbeat_shows_life(run: RunDir):
    started(run, replace(ME, host="elsewhere"))
    assert status(run).state == "unknown"
    beat(run, 1)
    assert (status(run).state, status(run).reason) == ("running", "on elsewhere")
    beat(run, FRESH_S + 5)
    assert status(run).state == "unknown"


def test_a_heartbeat_from_the_far_future_shows_no_life(run: RunDir):
    started(run, replace(ME, host="elsewhere"))
    beat(run, -1e6)
    assert status(run).state == "unknown"


def test_a_heartbeat_that_is_a_link_shows_no_life_of_the_run(run: RunDir, tmp_path: Path):
    started(run, replace(ME, host="elsewhere"))
    (tmp_path / "fresh").touch()
    run.heartbeat.symlink_to(tmp_path / "fresh")
    os.utime(run.heartbeat, (0, 0), follow_symlinks=False)
    assert status(run).state == "unknown"


def test_a_run_whose_maker_lives_is_queued_and_else_unknown(run: RunDir):
    assert status(run).state == "unknown"
    run.update_manifest(creator=ME.facts())
    assert status(run).state == "queued"
    run.update_manifest(creator=dead_process().facts())
    assert status(run).state == "unknown"


def test_what_a_killed_run_left_behind_is_named(run: RunDir):
    with run.log.open("a") as log:
        left = subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=log)
    while not run.log.read_bytes():
        time.sleep(0.01)
    started(run, dead_process())
    found = status(run)
    left.stdin.close()
    left.wait()
    assert [who.split()[0] for who in found.left] == [str(left.pid)]
    assert f"still alive: {left.pid} " in found.reason
    assert status(run).left == ()


def test_the_newest_attempt_counts(run: RunDir):
    write_json(run.exit, {"status": "killed"})
    (run.attempts / "2").mkdir()
    started(run, ME)
    assert status(run).state == "running"


HOSTILE = [
    {"process": 5},
    {"process": {"pid": "x", "start": 1, "boot": "", "host": ""}},
    {"process": {"pid": 10**400, "start": 1, "boot": ME.boot, "host": ME.host}},
    {"process": {"pid": -1, "start": 0, "boot": ME.boot, "host": ME.host}},
    {"process": {"pid": 1e400, "start": 0, "boot": ME.boot, "host": ME.host}},
    {"process": ME.facts() | {"pid": 0}, "started_s": 10**400},
    {"process": ME.facts() | {"start": 1}, "started_s": float("nan")},
    {"process": None},
]


@pytest.mark.parametrize("facts", HOSTILE, ids=range(len(HOSTILE)))
def test_a_process_record_that_makes_no_sense_never_reads_as_running(run: RunDir, facts: dict):
    write_json(run.process, facts)
    beat(run, 0)
    assert status(run).state in ("killed", "unknown")


@pytest.mark.parametrize("duration", [10**400, "NaN", "x", None, [], 1e300], ids=repr)
def test_a_duration_that_makes_no_sense_is_not_known(run: RunDir, duration: object):
    write_json(run.exit, {"status": "finished", "duration_s": duration})
    assert status(run) == Status("finished", "", None, status(run).exit)
    write_json(run.exit, {"status": "?"})
    write_json(run.process, {"process": ME.facts(), "started_s": duration})
    assert status(run).duration_s is None


def test_every_state_is_one_of_the_known_ones():
    assert set(STATES) == {"queued", "running", *ENDS}
    assert {state for state in STATES if not Status(state).is_over} == {"queued", "running"}


def test_a_status_reads_as_a_sentence():
    ended = {"kernel_exit": {"code": 0, "signal": None}}
    assert str(Status("finished", "", 1234.56, ended)) == "finished, exit 0, 1,234.6 s"
    assert str(Status("failed", "cell 3 raised", 2.0)) == "failed: cell 3 raised, 2.0 s"
    assert repr(Status("unknown", exit={"kernel_exit": "odd"})) == "<unknown>"
    assert str(Status("killed", "gone", left=("12 sleep",))) == "killed: gone, still alive: 12 sleep"
