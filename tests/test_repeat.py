"""How far results spread over seeds is measured, kept in the runs, stated in reports, and used as a tolerance."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import LABKIT, make_lab
from tiny import parameters, plain_environment, write

from labkit.record import spread
from labkit.record.find import every
from labkit.record.rundir import create
from labkit.workbench.pages.report import render
from labkit.workbench.wording import mean_and_spread

NUMBERS = st.floats(-1e6, 1e6)


@given(st.lists(NUMBERS, min_size=2, max_size=6))
def test_mean_and_deviation_are_those_of_the_first_run_of_each_seed(values: list[float]) -> None:
    found = spread.measure({seed: [{"loss": value}, {"loss": 1e9}] for seed, value in enumerate(values)})
    facts = found.metrics["loss"]
    mean = math.fsum(values) / len(values)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    assert facts["mean"] == pytest.approx(mean, abs=1e-6) and facts["std"] == pytest.approx(std, abs=1e-6)
    assert (facts["min"], facts["max"], facts["count"]) == (min(values), max(values), len(values))


@given(st.lists(st.floats(), min_size=1, max_size=6))
def test_any_numbers_have_a_mean_and_a_deviation_that_may_be_no_number(values: list[float]) -> None:
    facts = spread.taken_together(values)
    assert facts["count"] == len(values) and (facts["std"] is None) == (len(values) == 1)
    if all(map(math.isfinite, values)):
        assert min(values) <= facts["mean"] <= max(values)
        assert facts["std"] is None or not facts["std"] < 0
    else:
        assert not math.isfinite(facts["mean"]) and not (facts["std"] is not None and math.isfinite(facts["std"]))


@pytest.mark.parametrize(
    ("values", "mean", "std"),
    [([math.inf, -math.inf], math.nan, math.nan), ([1e308, 1e308], 1e308, 0.0), ([1.7e308, -1.7e308], 0.0, math.nan),
     ([math.inf], math.inf, None), ([math.nan, 1.0], math.nan, math.nan)],
)  # fmt: skip
def test_extreme_results_are_taken_together(values: list[float], mean: float, std: float | None) -> None:
    found = spread.measure({seed: [{"loss": value}] for seed, value in enumerate(values)}).metrics["loss"]
    assert found["mean"] == pytest.approx(mean, nan_ok=True) and found["std"] == pytest.approx(std, nan_ok=True)


def test_the_same_seed_again_says_whether_a_run_repeats_itself() -> None:
    found = spread.measure({1: [{"a": 0.5, "b": 1.0}, {"a": 0.5, "b": 1.25}], 2: [{"a": 0.7, "b": 2.0}]})
    assert found.repeated == {"a": 0.0, "b": 0.25}


def test_a_metric_that_a_seed_lacks_has_no_spread() -> None:
    assert set(spread.measure({1: [{"a": 1.0, "b": 1.0}], 2: [{"a": 2.0}]}).metrics) == {"a"}


@given(st.recursive(st.none() | st.booleans() | NUMBERS | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["seeds", "metrics", "repeated", "runs", "mean", "std"]), inner)))  # fmt: skip
def test_a_damaged_spread_breaks_no_reader(facts: object) -> None:
    found = spread.of_facts(facts)
    assert found is None or isinstance(found.deviations, dict)


def test_what_was_written_reads_back(tmp_path: Path) -> None:
    run = create(tmp_path, "n", {})
    found = spread.measure({1: [{"a": 0.1}], 2: [{"a": 0.3}]}, ["x", "y"])
    spread.write(run, found)
    assert spread.read(run) == found


@pytest.mark.parametrize(
    ("mean", "std", "text"),
    [(0.90556, 0.01273, "0.906 ± 0.013"), (1234.5, 12.3, "1234 ± 12"), (0.5, 0.0, "0.5 ± 0"), (12.0, None, "12"),
     (1.5e-7, 2e-8, "1.5e-07 ± 2e-08")],
)  # fmt: skip
def test_a_spread_has_two_digits_and_the_mean_as_many_places(mean: float, std: float | None, text: str) -> None:
    assert mean_and_spread(mean, std) == text


@pytest.mark.slow
def test_a_notebook_is_run_with_each_seed_and_the_report_states_mean_and_spread(tmp_path: Path) -> None:
    lab = make_lab(tmp_path / "lab")
    write(
        lab / "notebooks" / "draws.ipynb",
        parameters("RANDOM_SEED: int = 5  # of the draw\nSCALE: float = 1.0  # of it"),
        "import random\n\nimport labkit\n\nrun = labkit.start()",
        "run.log(1, test_loss=SCALE * random.Random(RANDOM_SEED).random())",
    )
    command = [*LABKIT, "repeat", "notebooks/draws.ipynb", "--seeds", "3", "-p", "SCALE=2", "--json"]
    done = subprocess.run(command, cwd=lab, env=plain_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["seeds"] == [5, 6, 7] and len(found["runs"]) == 4
    assert found["repeated"] == {"test_loss": 0.0}
    made = every(lab / "runs")
    assert all(spread.read(run) is not None for run in made)
    assert "over 3 seeds" in render(made[0])


@pytest.mark.slow
def test_a_notebook_without_a_seed_is_refused(tmp_path: Path) -> None:
    lab = make_lab(tmp_path / "lab")
    notebook = write(lab / "notebooks" / "plain.ipynb", parameters("LR: float = 1.0"), "x = 1")
    done = subprocess.run([*LABKIT, "repeat", str(notebook), "--seeds", "3"], capture_output=True, text=True)
    assert done.returncode == 2 and "RANDOM_SEED" in done.stderr
    assert not every(lab / "runs")
