"""What was expected before training is judged after it: held, not held, or undecided, and never by running anything."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import quick

from labkit.kernel.run import Run
from labkit.record.expectations import COMPARISONS, VERDICTS, concluded, in_short, judge, parse, read_facts
from labkit.record.files import write_json
from labkit.record.metrics import Metrics, MetricsWriter, read
from labkit.record.rundir import create
from labkit.record.stated import truth
from labkit.record.summary import all_held, summarise, verdicts


def logged(tmp_path: Path, *records: dict[str, float]) -> Metrics:
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    for step, record in enumerate(records):
        writer.log(step, record)
    writer.close()
    return read(tmp_path / "metrics.jsonl")


@pytest.mark.parametrize(
    ("condition", "value", "verdict"),
    [
        ("accuracy > 0.7", 0.71, "held"),
        ("accuracy > 0.7", 0.7, "not held"),
        ("accuracy>=.7", 0.7, "held"),
        (" accuracy <= 1e-3 ", 1e-3, "held"),
        ("accuracy < -1", 0.0, "not held"),
        ("accuracy == 1", 1.0, "held"),
        ("accuracy != 1", 1.0, "not held"),
        ("accuracy < 1", math.nan, "not held"),
        ("accuracy != 1", math.nan, "not held"),
        ("accuracy > 5", math.inf, "held"),
    ],
)
def test_the_last_value_decides(tmp_path: Path, condition: str, value: float, verdict: str) -> None:
    found = logged(tmp_path, {"accuracy": 0.0}, {"accuracy": value})
    assert judge(parse("x", condition), found, "finished", []).verdict == verdict


@pytest.mark.parametrize(
    "condition",
    ["", "accuracy", "accuracy > high", "accuracy > 0.7 and loss < 1", "0.7 < accuracy", "__import__('os') > 1 2",
     "a => 1", "accuracy > 70 %", "accuracy > nan", None, 3],
)  # fmt: skip
def test_what_is_no_condition_is_refused_with_the_form_of_one(condition: object) -> None:
    with pytest.raises(ValueError, match="METRIC COMPARISON NUMBER"):
        parse("x", condition)


@pytest.mark.parametrize("epoch", [0, -1, 1.5, "3", True])
def test_an_epoch_is_a_whole_number_from_one_up(epoch: object) -> None:
    with pytest.raises(ValueError, match="by_epoch"):
        parse("x", "accuracy > 0.7", epoch)


@given(
    st.from_regex(r"[a-z_][a-z_/.0-9]{0,20}", fullmatch=True),
    st.sampled_from(sorted(COMPARISONS)),
    st.floats(allow_nan=False, allow_infinity=False),
    st.none() | st.integers(1, 1000),
    st.booleans(),
)
@quick
def test_an_expectation_reads_back_from_its_record(name: str, sign: str, number: float, epoch: int, late: bool) -> None:
    expected = parse("says so", f"{name} {sign} {number!r}", epoch, late=late)
    assert (expected.metric, expected.comparison, expected.number) == (name, sign, number)
    assert read_facts([expected.facts()]) == [expected]


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
@quick
def test_a_damaged_record_holds_no_expectation_and_stops_nobody(record: object) -> None:
    assert read_facts(record) == []
    assert read_facts([record]) == []


def test_by_an_epoch_means_at_least_once_up_to_it(tmp_path: Path) -> None:
    found = logged(
        tmp_path, {"epoch": 1, "a": 0.5}, {"epoch": 2, "a": 0.8}, {"epoch": 3, "a": 0.6}, {"epoch": 4, "a": 0.9}
    )
    judged = {epoch: judge(parse("x", "a > 0.7", epoch), found, "finished", []) for epoch in (1, 2, 3, 9)}
    assert [judged[epoch].verdict for epoch in (1, 2, 3, 9)] == ["not held", "held", "held", "held"]
    assert judged[3].reason == "in epoch 2" and judged[1].value == 0.5


def test_training_that_ended_before_the_epoch_decides_nothing(tmp_path: Path) -> None:
    found = logged(tmp_path, {"epoch": 1, "a": 0.5}, {"epoch": 2, "a": 0.6})
    one = judge(parse("x", "a > 0.7", 20), found, "finished", [])
    assert (one.verdict, one.reason) == ("undecided", "training ended with epoch 2")


def test_without_a_logged_epoch_the_steps_are_the_epochs(tmp_path: Path) -> None:
    found = logged(tmp_path, {"a": 0.1}, {"a": 0.9})  # steps 0 and 1 are the first and the second epoch
    verdicts = [judge(parse("x", "a > 0.7", epoch), found, "finished", []).verdict for epoch in (1, 2, 3)]
    assert verdicts == ["not held", "held", "held"]


def test_a_step_lies_in_the_epoch_that_is_logged_with_it_or_next_after_it(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    for step in range(1000):
        writer.log(step, {"loss": 0.1 if step >= 300 else 0.9})
        if step % 100 == 99:
            writer.log(step, {"epoch": step // 100})  # counted from zero
    writer.close()
    found = read(tmp_path / "metrics.jsonl")
    judged = [judge(parse("x", "loss < 0.3", epoch), found, "finished", []) for epoch in (3, 4)]
    assert [one.verdict for one in judged] == ["not held", "held"] and judged[1].reason == "in epoch 4"


def test_all_epochs_counted_from_zero_count(tmp_path: Path) -> None:
    found = logged(tmp_path, *({"a": 0.1} for _ in range(5)))
    assert judge(parse("x", "a > 0.7", 5), found, "finished", []).verdict == "not held"


def test_a_number_too_large_to_be_one_is_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        parse("x", "a > 1e999")


def test_what_a_failed_run_concluded_is_undecided() -> None:
    (one,) = concluded([{"text": "x", "held": True, "evidence": {}}], "failed", [])
    assert (one.verdict, one.reason) == ("undecided", "the run has not finished (failed)")


@pytest.mark.parametrize(
    ("condition", "held"),
    [(True, True), (0, False), (None, None), (math.nan, None), (np.array([1, 2]) > 0, None), (np.bool_(True), True)],
)
def test_what_is_neither_true_nor_false_is_not_said(condition: object, held: bool | None) -> None:
    assert truth(condition) is held


def test_a_run_whose_statements_were_lost_passes_for_nothing(tmp_path: Path) -> None:
    run = create(tmp_path, "n", {})
    assert all_held(run)
    write_json(run.kernel, {"statements": {"lost": 1}})
    assert not all_held(run)


@pytest.mark.parametrize(
    ("state", "labels", "reason"),
    [
        ("interrupted", [], "the run has not finished (interrupted)"),
        ("running", [], "the run has not finished (running)"),
        ("finished", ["debug"], "a debug run"),
        ("finished", ["stand-in"], "stand-in data"),
        ("finished", ["explored"], "explored by hand"),
    ],
)
def test_a_run_whose_numbers_stand_for_nothing_decides_nothing(
    tmp_path: Path, state: str, labels: list[str], reason: str
) -> None:
    one = judge(parse("x", "a > 0.7"), logged(tmp_path, {"a": 0.9}), state, labels)
    assert (one.verdict, one.reason, one.value) == ("undecided", reason, 0.9)


def test_a_metric_that_was_never_logged_decides_nothing(tmp_path: Path) -> None:
    one = judge(parse("x", "b > 0.7"), logged(tmp_path, {"a": 0.9}), "finished", [])
    assert (one.verdict, one.reason) == ("undecided", "b was not logged")


def test_records_that_were_lost_decide_nothing(tmp_path: Path) -> None:
    found = logged(tmp_path, {"a": 0.9})
    found.torn = 2
    assert judge(parse("x", "a > 0.7"), found, "finished", []).reason == "2 records could not be read"


def test_verdicts_are_kept_in_the_manifest_with_what_the_notebook_concluded(tmp_path: Path) -> None:
    run = create(tmp_path, "n", {"labels": ["mine"]})
    MetricsWriter(run.metrics).log(1, {"a": 0.9})
    conclusion = {"text": "it is so", "held": False, "evidence": {"smallest": 1e-9}}
    facts = {
        "expectations": [parse("good", "a > 0.7", late=True).facts()],
        "conclusions": [conclusion],
        "labels": ["own"],
    }
    write_json(run.stated, facts)
    write_json(run.exit, {"status": "finished"})
    summarise(run)
    manifest = run.read_manifest()
    assert manifest["labels"] == ["mine", "own"]
    kept = [(one["text"], one["verdict"], one["late"], one["evidence"]) for one in manifest["verdicts"]]
    assert kept == [("good", "held", True, {}), ("it is so", "not held", False, {"smallest": 1e-9})]
    assert in_short(verdicts(run)) == "1 held, 1 not held"
    assert all(one["verdict"] in VERDICTS for one in manifest["verdicts"])


def test_the_table_of_verdicts_shows_evidence_in_few_digits(tmp_path: Path) -> None:
    run = create(tmp_path, "n", {})
    evidence = {"smallest": 0.013840548694133759, "layers": 12, "vanishing": "none"}
    write_json(run.stated, {"conclusions": [{"text": "it is so", "held": True, "evidence": evidence}]})
    (row,) = Run.verdicts(Run(run, {}, "x.ipynb")).to_dict("records")
    assert row["reason"] == "smallest 0.01384, layers 12, vanishing none"
