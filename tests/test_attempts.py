"""What the record says of a run that was resumed."""

from __future__ import annotations

import os
from pathlib import Path

from records import made

from labkit.record import attempts
from labkit.record.files import write_json
from labkit.record.rundir import RunDir
from labkit.workbench import terminal


def resumed(tmp_path: Path) -> RunDir:
    """A run of two attempts; the second went on although a module had changed."""
    run = made(tmp_path / "runs", end="killed")
    (run.attempts / "2").mkdir()
    write_json(run.resumption, {"differences": ["module helper changed"], "forced": True})
    write_json(run.restored, {"checkpoint": "000003.pt", "damaged": {}, "differences": ["data was 1, is 2"]})
    write_json(run.exit, {"status": "finished", "reason": "", "duration_s": 40.0})
    return run


def test_a_resumed_run_says_how_long_it_took_in_all_and_what_it_went_on_from(tmp_path: Path):
    found = attempts.of_run(resumed(tmp_path))
    assert (found.number, found.duration_s, found.checkpoint) == (2, 41.5, "000003.pt")
    assert found.differences == ("module helper changed", "data was 1, is 2")
    assert str(found).startswith("2, 42 seconds in all; the newest began from checkpoint 000003.pt; went on although")


def test_an_attempt_that_was_killed_took_until_its_last_sign_of_life(tmp_path: Path):
    run = resumed(tmp_path)
    first = RunDir(run.path, 1)
    first.exit.unlink()
    write_json(first.process, {"started_s": 1_700_000_000.0})
    first.heartbeat.touch()
    os.utime(first.heartbeat, (1_700_000_032.0, 1_700_000_032.0))
    assert attempts.of_run(run).duration_s == 72.0


def test_a_run_of_one_attempt_says_nothing_of_attempts(tmp_path: Path):
    assert str(attempts.of_run(made(tmp_path / "runs"))) == ""


def test_damaged_records_of_attempts_are_passed_over(tmp_path: Path):
    run = resumed(tmp_path)
    for path in (run.resumption, run.restored):
        write_json(path, {"differences": 5, "checkpoint": ["x"]})
    write_json(run.exit, {"status": "finished", "duration_s": "long"})
    assert attempts.of_run(run) == attempts.Attempts(2, 1.5, "", ())


def test_show_says_it_too(tmp_path: Path, capsys):
    terminal.print_facts(terminal.facts(resumed(tmp_path)))
    assert "attempts    2, 42 seconds in all" in capsys.readouterr().out


def test_the_folder_of_the_earlier_attempt_passes_over_claims_that_died(tmp_path: Path):
    run = resumed(tmp_path)
    (run.attempts / "3").mkdir()
    assert RunDir(run.path).pinned().number == 3
    assert RunDir(run.path).earlier().name == "1", "neither attempt has a process here"
    write_json(run.attempts / "2" / "process.json", {})
    assert RunDir(run.path).earlier().name == "2"
