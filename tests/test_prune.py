"""Pruning shows what would go, removes runs by hand that are over, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

from click.testing import CliRunner

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
