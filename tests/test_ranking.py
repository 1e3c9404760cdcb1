"""Which points of a sweep are best, where runs failed, values are missing or stand for nothing, and how it is told."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.record import sweepdir
from labkit.record.files import write_json
from labkit.record.metrics import MetricsWriter
from labkit.record.rundir import NO_RESULT, RunDir, create
from labkit.record.status import exit_record
from labkit.workbench.running import outcome
from labkit.workbench.sweeps import ranking, sweepreport
from labkit.workbench.sweeps.points import Point
from labkit.workbench.sweeps.ranking import Goal, Group
from labkit.workbench.sweeps.search import ordered
from labkit.workbench.sweeps.sweepreport import Summary

LOSS = Goal("loss", lowest=True)
ACCURACY = Goal("accuracy", lowest=False)


def over(rates: list[float], seeds: int, seed: str = "RANDOM_SEED") -> list[Point]:
    """Points of each learning rate with each seed."""
    pairs = [(rate, one) for rate in rates for one in range(1, seeds + 1)]
    return [Point(number, {"LR": rate, seed: one}) for number, (rate, one) in enumerate(pairs, 1)]


def finished(*values: dict[str, float] | None, **more: Any) -> dict[int, dict[str, Any]]:
    """The results of points 1, 2, …: finished with these metrics; None for one that failed."""
    failed = {"status": "failed", "reason": "cell 2 raised ValueError", "metrics": {}}
    return {
        number: {"run": f"a/{number}", **(failed if one is None else {"status": "finished", "metrics": one, **more})}
        for number, one in enumerate(values, 1)
    }


def losses(*values: float | None) -> dict[int, dict[str, Any]]:
    return finished(*(None if value is None else {"loss": value} for value in values))


def first(points: list[Point], results: dict[int, dict[str, Any]], aim: Goal = LOSS) -> Group:
    return ranking.groups(points, results, aim)[0]


def summary(
    folder: Path, points: list[Point], results: dict[int, dict[str, Any]], metric: str | None = "loss"
) -> Summary:
    sweep = sweepdir.create(folder / "runs", {"points": [point.facts() for point in points], "notebook": "a.ipynb"})
    for number, result in results.items():
        sweepdir.accept(sweep, number, result)
    return sweepreport.summarise(sweep, sweep.read_manifest(), points, sweepdir.results(sweep), metric, bool(metric))


def test_one_lucky_seed_of_five_is_not_before_five_of_five(tmp_path: Path):
    points, results = over([0.1, 0.2], 5), losses(0.05, None, None, None, None, 0.5, 0.5, 0.6, 0.4, 0.5)
    assert first(points, results).values == {"LR": 0.2}
    found = summary(tmp_path, points, results)
    assert found.sentence == "lowest loss: 0.500 ± 0.071 with LR=0.2" and not found.lacking


def test_where_no_group_is_complete_it_is_said_how_much_the_best_lacks(tmp_path: Path):
    found = summary(tmp_path, over([0.1, 0.2], 2), losses(0.05, None, 0.5, None))
    assert found.sentence == "lowest loss: 0.05 with LR=0.1; only 1 of its 2 runs finished with a value"
    assert found.sentence in sweepreport.lines(found)
    assert "The best has no complete results: only 1 of its 2 runs" in sweepreport.render(found)


def test_a_seed_without_the_metric_takes_it_from_nobody_else(tmp_path: Path):
    results = finished({"loss": 0.1}, {"loss": 0.1}, {"other": 1.0}, {"loss": 0.9}, {"loss": 0.9}, {"loss": None})
    results[6]["metrics"] = {"other": 1.0}
    group = first(over([0.1, 0.2], 3), results)
    assert group.values == {"LR": 0.1} and (group.metrics["loss"]["mean"], group.metrics["loss"]["count"]) == (0.1, 2)
    found = summary(tmp_path, over([0.1, 0.2], 3), results)
    assert "0.1 ± 0 (n=2)" in found.sentence and "only 2 of its 3 runs" in found.sentence


@given(st.lists(st.none() | st.floats(), min_size=4, max_size=12), st.booleans())
def test_whatever_the_results_the_best_is_complete_where_any_is_and_finite(values: list[float | None], lowest: bool):
    aim, seeds = Goal("loss", lowest), 2
    points = over([float(rate) for rate in range(len(values) // seeds)], seeds)
    found = ranking.groups(points, losses(*values[: len(points)]), aim)
    finite = [group for group in found if math.isfinite(group.mean("loss"))]
    assert found[: len(finite)] == finite or not finite
    complete = [group for group in finite if group.is_complete("loss")]
    assert complete == finite[: len(complete)]
    means = [group.mean("loss") for group in complete]
    assert means == sorted(means, reverse=not lowest)


@pytest.mark.parametrize(("aim", "wrong"), [(LOSS, -math.inf), (LOSS, math.nan), (ACCURACY, math.inf)])
def test_what_is_no_finite_number_is_never_the_best(aim: Goal, wrong: float):
    points = over([0.1, 0.2], 1)
    group = first(points, finished({aim.metric: wrong}, {aim.metric: 0.5}), aim)
    assert group.values == {"LR": 0.2}
    assert ordered(wrong, aim) == (1e300 if aim.lowest else -1e300)


@pytest.mark.parametrize("label", NO_RESULT)
def test_runs_whose_numbers_stand_for_nothing_are_left_out_and_that_is_said(tmp_path: Path, label: str):
    points, results = over([0.1, 0.2], 1), losses(0.001, 0.5)
    results[1]["labels"] = [label]
    found = summary(tmp_path, points, results)
    assert found.best is not None and found.best.values == {"LR": 0.2}
    said = f"1 finished run not ranked, as labelled {label}"
    assert said in sweepreport.lines(found) and f"{said}." in sweepreport.render(found)
    assert found.facts()["left_out"] == said and found.facts()["finished"] == 2


def test_a_run_that_its_notebook_has_labelled_says_so_in_its_result(tmp_path: Path):
    run = create(tmp_path, "some", {"labels": ["debug", "tried"]})
    write_json(run.stated, {"labels": ["stand-in"]})
    assert outcome.of_run(run).facts()["labels"] == ["debug", "stand-in"]
    assert "labels" not in outcome.of_run(create(tmp_path, "other", {})).facts()


@pytest.mark.parametrize("seed", ["RANDOM_SEED", "SEED", "seed"])
def test_points_are_taken_together_over_seeds_of_either_name(seed: str):
    found = ranking.groups(over([0.1, 0.2], 3, seed), losses(0.1, 9.0, 9.0, 1.0, 1.0, 1.0), LOSS)
    assert [group.values for group in found] == [{"LR": 0.2}, {"LR": 0.1}]
    assert found[0].metrics["loss"]["count"] == 3


def test_a_version_that_is_swept_is_a_parameter_like_others():
    points = [Point(1, {"VERSION": "a"}), Point(2, {"VERSION": "b"})]
    assert [group.values for group in ranking.groups(points, losses(2.0, 1.0), LOSS)] == [
        {"VERSION": "b"},
        {"VERSION": "a"},
    ]


def test_a_run_whose_summary_could_not_be_written_has_its_numbers(tmp_path: Path):
    run = create(tmp_path, "some", {})
    writer = MetricsWriter(run.metrics)
    writer.log(0, {"loss": 2.0})
    writer.log(1, {"loss": 1.0, "other": math.inf})
    writer.close()
    write_json(run.exit, exit_record("finished", "", None, written_by="supervisor"))
    assert outcome.of_run(run).facts()["metrics"] == {"loss": 1.0, "other": math.inf}
    outcome.complete(run, report=False)
    assert run.read_manifest()["summary"]["metrics"]["loss"]["last"] == 1.0
    run.manifest.write_text("{")
    assert outcome.last_values(run) == {"loss": 1.0, "other": math.inf}


def test_extreme_results_are_summed_up_and_the_sweep_is_over(tmp_path: Path):
    values = (math.inf, -math.inf, 1e308, 1e308, 1.7e308, -1.7e308, math.nan, 1.0)
    found = summary(tmp_path, over([0.1, 0.2, 0.3, 0.4], 2), losses(*values))
    sweepreport.write(found)
    facts = json.loads(found.sweep.summary.read_bytes())
    assert found.sweep.is_over() and facts["best"]["values"] == {"LR": 0.3}
    assert [group["metrics"]["loss"]["std"] for group in facts["groups"]] == ["NaN", 0.0, "NaN", "NaN"]
    assert "NaN" not in found.sentence and found.sweep.report.exists()


def test_a_metric_that_no_run_has_logged_is_told_with_what_may_be_meant(tmp_path: Path):
    results = finished({"loss": 1.0, "val_loss": 2.0}, None)
    found = summary(tmp_path, over([0.1, 0.2], 1), results, "val_los")
    said = "no finished run logged val_los; did you mean val_loss?"
    assert said in sweepreport.lines(found) and found.facts()["sentence"] == said
    assert "No finished run logged val_los; did you mean val_loss?." not in (page := sweepreport.render(found))
    assert "No finished run logged val_los; did you mean val_loss?" in page
    assert ranking.unknown("reward", ["a", "b"]) == "no finished run logged reward; they logged a, b"
    assert ranking.unknown("a", ["a"]) == ranking.unknown(None, []) == ""
    assert not summary(tmp_path, over([0.1], 1), finished(None), "val_los").sentence  # nothing is known yet


def test_what_decides_does_not_depend_on_the_order_in_which_runs_ended(tmp_path: Path):
    points = over([0.1, 0.2], 1)
    results = finished({"loss": 1.0, "val_loss": 1.0}, {"val_accuracy": 1.0, "val_loss": 1.0})
    sweep = sweepdir.create(tmp_path / "runs", {"points": [point.facts() for point in points], "notebook": "a.ipynb"})
    aims = {str(sweepreport.summarise(sweep, {}, points, dict(order)).aim) for order in (
        sorted(results.items()), sorted(results.items(), reverse=True))}  # fmt: skip
    assert aims == {"lowest val_loss"}


def test_what_differs_between_many_points_is_found_out_once_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    points = over([float(rate) for rate in range(300)], 2)
    found = summary(tmp_path, points, losses(*(None if point.number % 3 else 1.0 for point in points)))
    asked: list[int] = []
    varied = ranking.varied
    monkeypatch.setattr(ranking, "varied", lambda points: asked.append(len(points)) or varied(points))
    assert "RANDOM_SEED=2" in sweepreport.render(found) and sweepreport.lines(found) and found.facts()
    assert asked == [600]


def test_the_page_of_a_search_draws_what_was_pruned(tmp_path: Path):
    points = [Point(number, {"LR": number / 10}) for number in range(1, 5)]
    away = {"run": "a/4", "status": "pruned", "metrics": {"loss": 8.0}, "reason": "pruned"}
    results = losses(3.0, 2.0, 1.0) | {4: away | {"pruned": {"metric": "loss", "value": 2.5, "after": 3}}}
    found = summary(tmp_path, points, results)
    search = {"search": {"sampler": "tpe", "seed": 0, "prune": True, "space": {"free": {}, "fixed": {}}, "trials": 4}}
    page = sweepreport.render(replace(found, manifest={**found.manifest, **search}))
    assert "<dd>4, 3 finished, 1 pruned</dd>" in page
    assert page.count('class="hole"') == 1 and "&nbsp;pruned</span>" in page and "loss: best so far" in page


def test_those_that_are_as_good_as_the_best_are_told(tmp_path: Path):
    found = summary(tmp_path, [Point(number, {"LR": number}) for number in range(1, 6)], losses(2, 1, 1, 1, None))
    assert "lowest loss: 1 with LR=2, and 2 others" in sweepreport.lines(found)
    page = sweepreport.render(found)
    assert "LR=2, and 2 others" in page and page.count("<strong>1</strong>") == 3
    assert "<dd>5, 4 finished, 1 failed</dd>" in page
    alone = summary(tmp_path, [Point(1, {"LR": 1}), Point(2, {"LR": 2})], losses(1))
    assert "other" not in alone.sentence and "<dd>2, 1 finished, 1 without a result</dd>" in sweepreport.render(alone)


def test_how_many_runs_a_row_has_is_told_only_where_seeds_are_varied(tmp_path: Path):
    alone = sweepreport.render(summary(tmp_path, over([0.1, 0.2], 1), losses(1, 2)))
    assert "n=1" not in alone and 'href="../../a/1/report.html">a/1</a>' in alone
    seeds = sweepreport.render(summary(tmp_path, over([0.1, 0.2], 2), losses(1, 2, 3, None)))
    assert "n=2" in seeds and "1 of 2" in seeds


def test_the_report_of_a_run_is_linked_by_its_name_alone(tmp_path: Path):
    found = summary(tmp_path, over([0.1], 1), losses(1.0))
    assert sweepreport._link(found.sweep, "a/1")[0] == "../../a/1/report.html"
    assert RunDir(found.sweep.runs / "a/1").name == "a/1"
