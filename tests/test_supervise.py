"""Runs whose asker goes away, whose disk is full, whose git is broken: the supervisor and the record hold."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from running import Started, alive, fixture, labkit, make_lab, run, started, wait_for
from tiny import plain_environment

from labkit.record.find import every
from labkit.record.metrics import read
from labkit.record.process import descendants
from labkit.record.rundir import RunDir
from labkit.record.status import status

pytestmark = pytest.mark.slow

ASKER = """\
import os, pathlib, signal, sys
from labkit.workbench.running import execute, job
prepared = job.prepare(pathlib.Path(sys.argv[1]), {}, runs=pathlib.Path("runs"), grace_s=5)
print(execute.detach(prepared), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def detached(notebook: Path) -> tuple[int, RunDir]:
    """A detached run, and its supervisor's process id; whoever asked for it is dead already."""
    asked = subprocess.run(
        [sys.executable, "-c", ASKER, str(notebook)], env=plain_environment(), capture_output=True, text=True
    )
    assert asked.returncode == -signal.SIGKILL, asked.stderr
    return int(asked.stdout), every(Path("runs"))[-1]


def over(run: RunDir, supervisor: int) -> None:
    """Wait until a detached run has ended and its supervisor is gone."""
    try:
        wait_for(lambda: run.exit.exists() and not alive(supervisor), 30, "the end of the supervisor")
    finally:
        for pid in alive(supervisor, *descendants(supervisor)):
            os.kill(pid, signal.SIGKILL)


def process_ids(run: RunDir) -> dict[str, int]:
    wait_for(run.process.exists)
    return {key: value["pid"] for key, value in json.loads(run.process.read_bytes()).items() if isinstance(value, dict)}


@pytest.fixture(scope="module")
def full_disk(lasting_small_disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Started, RunDir]]:
    """A run that has filled its disk: half a minute long it tries to write the last of its records."""
    disk = lasting_small_disk
    notebook = fixture(make_lab(tmp_path_factory.mktemp("full") / "Ada's lab"), "fills-disk")
    with started(notebook, "-p", "FREED=false", "--runs", str(disk / "runs")) as under_way:
        yield under_way, wait_for(lambda: next(iter(every(disk / "runs")), None))


@pytest.fixture(autouse=True)
def meanwhile(request: pytest.FixtureRequest) -> None:
    """Lets the run on a full disk go on beside the other tests, where its own test comes after them."""
    if any("full_disk" in getattr(item, "fixturenames", ()) for item in request.session.items):
        with suppress(pytest.skip.Exception):
            request.getfixturevalue("full_disk")


def test_a_detached_run_outlives_whoever_asked_for_it(lab: Path) -> None:
    supervisor, run = detached(fixture(lab, "prints-from-below"))
    over(run, supervisor)
    assert status(run).state == "finished"
    assert run.log.read_text() == "python\ndescriptor\nsubprocess\nto stderr\n"
    assert json.loads(run.exit.read_bytes())["left"] == []


def test_a_detached_run_stops_on_sigterm_to_its_supervisor(lab: Path) -> None:
    supervisor, run = detached(fixture(lab, "trains"))
    wait_for(lambda: run.metrics.read_bytes().count(b"\n") > 3)
    assert status(run).state == "running"
    os.kill(supervisor, signal.SIGTERM)
    over(run, supervisor)
    assert (status(run).state, "SIGTERM" in status(run).reason) == ("interrupted", True)


def test_a_supervisor_ends_the_rest_of_a_detached_run_whose_runner_was_killed(lab: Path) -> None:
    supervisor, run = detached(fixture(lab, "trains"))
    wait_for(lambda: run.metrics.read_bytes().count(b"\n") > 3)
    pids = process_ids(run)
    os.kill(pids["runner"], signal.SIGKILL)
    over(run, supervisor)
    assert status(run).state == "killed" and f"its runner {pids['runner']} went away" in status(run).reason
    assert not alive(*pids.values())


# a full disk


def test_a_disk_that_is_full_for_a_while_loses_no_metric(lab: Path, small_disk: Path) -> None:
    with started(fixture(lab, "fills-disk"), "--runs", str(small_disk / "runs")) as under_way:
        under_way.process.wait(60)
    made = every(small_disk / "runs")[-1]
    assert status(made).state == "finished", status(made)
    kept = read(made.metrics)
    assert kept.columns["loss"].steps.tolist() == list(range(401)) and kept.torn <= 1
    counts = json.loads(made.kernel.read_bytes())
    assert counts["metrics"]["lost"] == 0 and counts["log"]["lost"] > 90_000
    shown = labkit("show", str(made.path))
    assert f"log lost: {counts['log']['lost']}" in shown.stdout
    json.loads(made.notebook.read_bytes())


# git


def no_git(lab: Path) -> dict[str, str]:
    return {"PATH": str(lab)}


def locked_index(lab: Path) -> dict[str, str]:
    (lab / ".git" / "index.lock").touch()
    return {}


def detached_head(lab: Path) -> dict[str, str]:
    git(lab, "checkout", "-q", "--detach")
    return {}


def huge_dirty_tree(lab: Path) -> dict[str, str]:
    for number in range(3000):
        (lab / f"untracked-{number}").touch()
    (lab / "tracked").write_text("changed\n" * 2**20)
    return {}


def git_that_hangs(lab: Path) -> dict[str, str]:
    (lab / "bin").mkdir()
    (lab / "bin" / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    (lab / "bin" / "git").chmod(0o755)
    return {"PATH": f"{lab / 'bin'}:{os.environ['PATH']}"}


GIT = {
    no_git: {"commit": None, "problem": "git is not installed"},
    locked_index: {"branch": "main", "dirty": True, "problem": ""},
    detached_head: {"branch": None, "dirty": True, "problem": ""},
    huge_dirty_tree: {"branch": "main", "dirty": True, "problem": "more than the 4194304 that are kept"},
    git_that_hangs: {"commit": None, "problem": "took more than 2 s"},
}


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@lab.example")
    subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("spoil", GIT)
def test_git_in_any_state_holds_no_run_up_and_is_recorded_or_said_to_be_unknown(
    lab: Path, spoil: Callable[[Path], dict[str, str]]
) -> None:
    git(lab, "init", "-q", "-b", "main")
    (lab / "tracked").write_text("as it was\n")
    git(lab, "add", "tracked")
    git(lab, "commit", "-q", "-m", "first")
    (lab / "tracked").write_text("changed\n")
    notebook = fixture(lab, "minimal")
    ended = run(notebook, **spoil(lab))
    assert ended.exit_status == 0, ended.err
    recorded = json.loads((ended.run.source / "git.json").read_bytes())
    wanted = dict(GIT[spoil])
    problem = wanted.pop("problem")
    assert {key: recorded[key] for key in wanted} == wanted
    assert problem in recorded["problem"] and bool(problem) == bool(recorded["problem"])
    asked_s = ended.run.manifest.parent.joinpath("source/notebook.ipynb").stat().st_mtime
    assert json.loads(ended.run.process.read_bytes())["started_s"] - asked_s < 2
    assert (ended.run.source / "changes.patch").exists() == (recorded["dirty"] is True and not problem)


# the run that has gone on all the while


def test_a_run_that_ends_on_a_full_disk_keeps_what_it_had_and_is_not_shown_as_whole(
    full_disk: tuple[Started, RunDir],
) -> None:
    under_way, made = full_disk
    kernel = process_ids(made)["kernel"]
    wait_for(lambda: not alive(kernel), what="the kernel's end")
    (made.path.parent.parent.parent / "ballast").unlink()
    assert under_way.process.wait(60) == 0
    assert status(made).state == "finished"
    assert len(read(made.metrics).columns["loss"].steps) >= 100
    lost = (json.loads(made.kernel.read_bytes()) if made.kernel.exists() else {}).get("metrics", {}).get("lost")
    shown = labkit("show", str(made.path)).stdout
    assert f"metrics lost: {lost}" in shown if lost else "could not be recorded" in shown, shown
