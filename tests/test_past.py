"""An earlier run tells what it logged as it was, however long its log."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from labkit.kernel.past import TAIL_BYTES, PastRun
from labkit.record.metrics import MetricsWriter
from labkit.record.rundir import create


@pytest.fixture
def past(lab: Path) -> PastRun:
    return PastRun(create(lab / "runs", "n", {"notebook": "notebooks/n.ipynb", "parameters": {}}))


def test_the_last_value_of_a_step_counts_where_it_is_no_number_too(past: PastRun) -> None:
    writer = MetricsWriter(past.directory.metrics)
    writer.log(2, {"loss": 0.25})
    writer.log(1, {"loss": 0.5, "accuracy": 0.75})
    writer.log(1, {"loss": math.nan})
    writer.close()
    metrics = past.metrics()
    assert metrics.index.tolist() == [1, 2] and metrics.index.name == "step"
    assert math.isnan(metrics.loss[1]) and metrics.loss[2] == 0.25
    assert metrics.accuracy[1] == 0.75 and math.isnan(metrics.accuracy[2])


def test_a_run_that_logged_nothing_has_an_empty_table_and_an_empty_log(past: PastRun) -> None:
    assert past.metrics().empty
    assert past.log() == past.log(5) == ""


def test_the_last_lines_of_a_very_long_log_are_its_last(past: PastRun) -> None:
    with past.directory.log.open("wb") as file:
        file.seek(TAIL_BYTES)  # a hole: no bytes on the disk
        file.write(b"cut\nbefore\nTHE END\n")
    assert past.log(2) == "before\nTHE END"
    assert past.log(0) == ""
    assert past.log().endswith("THE END\n") and len(past.log()) <= TAIL_BYTES


def test_a_log_that_leads_out_of_the_run_is_not_read(past: PastRun, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("secret")
    past.directory.log.unlink(missing_ok=True)
    past.directory.log.symlink_to(tmp_path / "elsewhere")
    assert past.log() == ""
