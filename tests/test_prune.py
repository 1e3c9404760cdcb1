"""Pruning shows what would go, removes runs by hand that are over, and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from records import apart, dead_process

from labkit.cli import main
from labkit.record.files import write_json
from labkit.record.process import Process
from labkit.record.rundir import SCRATCH, RunDir, create
from labkit.workbench.prune import scratch_runs


def scratch(runs: Path, *, over: bool = True) -> RunDir:
    run = create(runs / SCRATCH, "tries", {"kind": "scratch"})
    run.log.write_bytes(b"x" * 1000)
    write_json(run.process, {"process": Process.of(os.getpid()).facts()})
    if over:
        write_json(run.exit, {"status": "finished"})
    return run


def test_without_yes_nothing_goes_and_the_sizes_are_shown(tmp_path: Path) -> None:
    run = scratch(tmp_path)
    said = CliRunner().invoke(main, ["prune", "--scratch", "--runs", str(tmp_path)])
    assert said.exit_code == 0 and run.name in said.output
    assert "1 run by hand, 0.0 MiB; --yes removes it" in said.output
    assert run.path.exists()


def test_with_yes_only_runs_by_hand_that_are_over_go(tmp_path: Path) -> None:
    gone, running, result = scratch(tmp_path), scratch(tmp_path, over=False), create(tmp_path, "result", {})
    said = CliRunner().invoke(main, ["prune", "--scratch", "--yes", "--runs", str(tmp_path)])
    assert said.exit_code == 0 and "1 run by hand, 0.0 MiB removed" in said.output
    assert [run.path.exists() for run in (gone, running, result)] == [False, True, True]
    assert not list(gone.path.parent.glob(".*"))


def test_a_link_among_the_runs_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    run = scratch(tmp_path / "runs")
    (run.path / "figures").rmdir()
    (run.path / "figures").symlink_to(outside)
    CliRunner().invoke(main, ["prune", "--scratch", "--yes", "--runs", str(tmp_path / "runs")])
    assert (outside / "kept").exists() and not run.path.exists()


def test_without_saying_what_to_prune_nothing_is_pruned(tmp_path: Path) -> None:
    run = scratch(tmp_path)
    said = CliRunner().invoke(main, ["prune", "--yes", "--runs", str(tmp_path)])
    assert said.exit_code == 2 and "--scratch" in said.output
    assert [one.run for one in scratch_runs(tmp_path)] == [run]


def test_a_run_of_labkit_run_and_one_that_may_live_elsewhere_stay(tmp_path: Path) -> None:
    batch = create(tmp_path / SCRATCH, "batch", {"kind": "run"})
    write_json(batch.exit, {"status": "finished"})
    elsewhere = scratch(tmp_path, over=False)
    write_json(elsewhere.process, {"process": Process.of(os.getpid()).facts() | {"host": "another"}})
    assert scratch_runs(tmp_path) == []


def test_a_live_run_stays_where_its_process_cannot_be_seen(tmp_path: Path) -> None:
    run = scratch(tmp_path, over=False)
    run.heartbeat.touch()
    said = apart("-m", "labkit.cli", "prune", "--scratch", "--yes", "--runs", str(tmp_path))
    assert "0 runs by hand, 0.0 MiB removed" in said and run.path.exists()


def test_a_run_that_was_killed_goes_when_its_heartbeat_is_cold(tmp_path: Path) -> None:
    run = scratch(tmp_path, over=False)
    write_json(run.process, {"process": dead_process().facts()})
    run.heartbeat.touch()
    assert scratch_runs(tmp_path) == []
    os.utime(run.heartbeat, (time.time() - 90,) * 2)
    assert [one.run for one in scratch_runs(tmp_path)] == [run]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a run of another user")
def test_a_run_of_another_user_stays(tmp_path: Path) -> None:
    run = scratch(tmp_path)
    os.chown(run.path, 65534, 65534)
    assert scratch_runs(tmp_path) == []


def test_what_could_not_be_removed_whole_is_removed_the_next_time(tmp_path: Path) -> None:
    run = scratch(tmp_path)
    (left := run.path.with_name(f".{run.id}.removed")).mkdir()
    (left / "output.log").write_bytes(b"x" * 2**20)
    run.path.rename(left / "figures")
    others = [run.path.with_name(".notes.removed"), tmp_path / ".x.removed"]
    for other in others:
        other.mkdir()
    (run.path.parent / f".{run.id[:-6]}abcdef.removed").symlink_to(others[0])
    said = CliRunner().invoke(main, ["prune", "--scratch", "--runs", str(tmp_path)])
    assert f"1.0 MiB  tries/{left.name}" in said.output and "1 run by hand" in said.output
    said = CliRunner().invoke(main, ["prune", "--scratch", "--yes", "--runs", str(tmp_path)])
    assert said.exit_code == 0 and not left.exists() and all(other.exists() for other in others)
