"""What is shown of a sweep from elsewhere: of damaged records, of an earlier session, and in a narrow terminal."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from labkit.errors import FolderProblem
from labkit.kernel.sweep import SubmittedSweep
from labkit.record import sweepdir, sweepform, sweepstate
from labkit.record.files import read_json, write_json
from labkit.record.sweepdir import SweepDir
from labkit.record.sweepstate import where_it_stands
from labkit.workbench import runlist
from labkit.workbench.slurm import slurmtasks
from labkit.workbench.sweeps import apart, sweepreport, sweeptable
from labkit.workbench.sweeps.points import Point, proposed
from labkit.workbench.sweeps.sweep import Sweeper
from labkit.workbench.sweeps.sweeptable import Watch

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["abc", "", "NaN", "finished", "pruned"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["loss", "metric", "trials"]), inner),
    max_leaves=8,
)
RESULT: dict[str, Any] = {"status": "finished", "reason": "", "metrics": {"loss": 1.0}, "run": "a/b", "duration_s": 1.0}
SPACE = {"free": {"X": {"low": 0.0, "high": 1.0, "log": False, "step": 1}}, "fixed": {}}
SEARCH: dict[str, Any] = {"sampler": "tpe", "trials": 3, "seed": 0, "prune": True, "space": SPACE}
KEYS = st.sampled_from(["point", "status", "run", "metrics", "reason", "duration_s", "pruned", "labels", "retries"])


def points(count: int) -> list[Point]:
    return [Point(number, {"X": number // 2, "SEED": number % 2}) for number in range(1, count + 1)]


@pytest.fixture
def sweep(tmp_path: Path) -> SweepDir:
    return new(tmp_path)


def new(folder: Path, count: int = 4) -> SweepDir:
    listed = [point.facts() for point in points(count)]
    return sweepdir.create(folder / "runs", {"points": listed, "notebook": "a.ipynb", "settings": {}})


def watch(sweep: SweepDir, metric: str | None = None, count: int = 4) -> Watch:
    sweeper = Sweeper(sweep, points(count), lambda point, run: pytest.fail("nothing is run"))
    sweepdir.claim(sweep, [])
    sweeper.results = sweepdir.results(sweep)
    return Watch(sweeper, metric, True if metric else None)


def end(sweep: SweepDir) -> None:
    """Ends the session that `watch` began."""
    session = sweepdir.session(sweep)
    assert session is not None
    sweepdir.Session(session).end()


def look(sweep: SweepDir) -> None:
    """All that looks at a sweep does."""
    results = sweepdir.results(sweep)
    apart.tell(sweep, where_it_stands(sweep))
    runlist.print_rows([], sweep.runs)
    tried = SubmittedSweep(sweep)
    assert repr(tried) and tried._repr_html_() and len(tried.results()) == len(results)
    found = sweepreport.summarise(sweep, sweep.read_manifest(), points(4), results)
    assert sweepreport.render(found) and sweepreport.lines(found)


@given(st.dictionaries(KEYS, JSON, max_size=4))
def test_a_damaged_result_breaks_no_reader_and_is_none_or_whole(
    tmp_path_factory: pytest.TempPathFactory, changed: dict[str, Any]
):
    sweep = new(tmp_path_factory.mktemp("damaged"))
    write_json(sweep.accepted / "1.json", {"point": 1, **RESULT} | changed)
    look(sweep)
    for found in sweepdir.results(sweep).values():
        assert isinstance(found["status"], str) and all(isinstance(one, float) for one in found["metrics"].values())
    shown = watch(sweep)
    assert shown.facts()["head"] and shown.best_line() is not None


@given(st.dictionaries(st.sampled_from(["session", "points", "done", "failed", "head", "best", "rows"]), JSON))
def test_damaged_progress_breaks_no_reader(tmp_path_factory: pytest.TempPathFactory, changed: dict[str, Any]):
    sweep = new(tmp_path_factory.mktemp("damaged"))
    watch(sweep).write()
    write_json(sweep.progress, (read_json(sweep.progress) or {}) | changed)
    look(sweep)


@given(st.dictionaries(st.sampled_from(["points", "search", "settings", "format"]), JSON, min_size=1))
def test_a_damaged_manifest_is_told_as_such(tmp_path_factory: pytest.TempPathFactory, changed: dict[str, Any]):
    sweep = new(tmp_path_factory.mktemp("damaged"))
    write_json(sweep.manifest, (read_json(sweep.manifest) or {}) | changed)
    try:
        sweep.read_manifest()
    except FolderProblem as error:
        assert str(sweep.manifest) in str(error)
        with pytest.raises(FolderProblem):
            where_it_stands(sweep)
        assert str(sweep.manifest) in repr(SubmittedSweep(sweep))
    else:
        look(sweep)


@pytest.mark.parametrize(
    "wrong", [{"space": {}}, {"space": {"free": {"X": {"low": 0}}, "fixed": {}}}, {"trials": "3"}, {"more": 1}]
)
def test_a_damaged_search_is_told_as_such(sweep: SweepDir, wrong: dict[str, Any]):
    write_json(sweep.manifest, (read_json(sweep.manifest) or {}) | {"search": SEARCH})
    look(sweep)
    write_json(sweep.manifest, (read_json(sweep.manifest) or {}) | {"search": SEARCH | wrong})
    with pytest.raises(FolderProblem, match="search is not as labkit writes it"):
        sweep.read_manifest()


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": None},
        {"metrics": {"loss": "abc"}},
        {"metrics": [1.0]},
        {"run": "../../etc"},
        {"run": "../x"},
        {"run": "a/.."},
        {"run": "/a/b"},
        {"run": "a/b/c"},
        {"run": ".scratch/b"},
        {"point": 2},
        {"status": "pruned", "pruned": {"metric": "loss"}},
    ],
)
def test_a_result_that_is_not_as_labkit_writes_it_is_none_and_is_made_again(sweep: SweepDir, wrong: dict[str, Any]):
    write_json(sweep.accepted / "1.json", {"point": 1, **RESULT} | wrong)
    assert sweepdir.results(sweep) == {}
    assert sweepdir.results(sweep, mend=True) == {} and not (sweep.accepted / "1.json").exists()


def test_a_file_of_no_point_counts_for_nothing_and_stays(sweep: SweepDir):
    for number in (1, 2, 3, 99):
        write_json(sweep.accepted / f"{number}.json", {"point": number, **RESULT})
    assert list(sweepdir.results(sweep, mend=True)) == [1, 2, 3] and (sweep.accepted / "99.json").exists()
    assert where_it_stands(sweep)["head"] == "3 of 4 done"
    look(sweep)
    assert watch(sweep).head().startswith("3 of 4 done")


def test_results_of_points_that_a_search_has_proposed_count(tmp_path: Path):
    manifest = {"points": [], "notebook": "a.ipynb", "search": SEARCH}
    sweep = sweepdir.create(tmp_path / "runs", manifest)
    for number in (1, 2):
        sweepdir.accept(sweep, number, RESULT)
    sweepdir.propose(sweep, 1, points(1)[0].facts())
    assert list(sweepdir.results(sweep)) == [1] and where_it_stands(sweep)["head"] == "1 of 3 done"
    write_json(sweep.proposed / "1.json", {"point": 1})
    with pytest.raises(FolderProblem, match=r"1\.json is missing or damaged"):
        sweepdir.proposed(sweep)


def test_a_point_of_a_search_that_is_no_value_is_told(sweep: SweepDir):
    sweepdir.propose(sweep, 1, points(1)[0].facts() | {"values": {"X": "__import__('os')"}})
    with pytest.raises(FolderProblem, match=r"proposed/1\.json is damaged"):
        proposed(sweep)


def test_the_queue_of_a_sweep_whose_manifest_is_damaged_is_told(sweep: SweepDir):
    write_json(sweep.manifest, {"format": 1, "points": 3})
    assert "0 of ? points" in slurmtasks.told(sweep, {1: ("7_1", "RUNNING")})


def test_who_watches_a_sweep_that_nobody_holds_does_not_read_all_results_for_each_picture(
    sweep: SweepDir, monkeypatch: pytest.MonkeyPatch
):
    asked: list[SweepDir] = []
    monkeypatch.setattr(apart, "where_it_stands", lambda sweep: asked.append(sweep) or where_it_stands(sweep))
    facts = apart._looked_at(sweep)
    assert [facts()["head"] for _ in range(20)] == ["0 of 4 done"] * 20 and len(asked) == 1
    watch(sweep).write()
    held = apart._looked_at(sweep)
    assert all(held()["head"] for _ in range(3)) and len(asked) == 4


@given(st.text())
def test_the_name_of_a_run_leads_nowhere_else(text: str):
    if sweepform.is_run_name(text):
        assert os.path.normpath(f"/runs/{text}").count("/") == 3 and ".." not in text.split("/")


def test_while_runs_go_on_the_best_single_run_is_told_and_in_the_end_what_the_report_says(sweep: SweepDir):
    shown = watch(sweep)
    for number, loss in enumerate((0.5, 0.1, 0.9, 0.4), 1):
        sweepdir.accept(sweep, number, RESULT | {"metrics": {"loss": loss}})
        shown.sweeper.results[number] = sweepdir.results(sweep)[number]
        shown.take(points(4)[number - 1], shown.sweeper.results[number])
    shown.write(is_last=True)
    assert where_it_stands(sweep)["best"] == "lowest loss of a single run so far: 0.1 with X=1  SEED=0"
    found = sweepreport.summarise(sweep, sweep.read_manifest(), points(4), sweepdir.results(sweep))
    sweepreport.write(found)
    end(sweep)
    best = where_it_stands(sweep)["best"]
    assert best == found.sentence and best in sweepreport.lines(found) and best in repr(SubmittedSweep(sweep))
    assert "of a single run" not in best


def test_what_decides_while_runs_go_on_is_what_decides_in_the_end(sweep: SweepDir):
    shown = watch(sweep)
    for number, metrics in enumerate(({"loss": 1.0}, {"loss": 3.0, "val_loss": 2.0}), 1):
        shown.sweeper.results[number] = RESULT | {"metrics": metrics}
        shown.take(points(4)[number - 1], shown.sweeper.results[number])
    assert shown.best_line() == "lowest val_loss of a single run so far: 2 with X=1  SEED=0"


def test_runs_whose_numbers_stand_for_nothing_or_are_infinite_are_not_announced(sweep: SweepDir):
    shown = watch(sweep, "loss")
    for number, more in enumerate(({"labels": ["debug"]}, {"metrics": {"loss": float("-inf")}}), 1):
        shown.take(points(4)[number - 1], RESULT | more)
        assert shown.best_line() == ""


def test_a_metric_that_is_not_logged_is_told_once_after_the_first_run_that_finished(sweep: SweepDir):
    shown, said = watch(sweep, "los"), "no finished run logged los; did you mean loss?"
    failed = RESULT | {"status": "failed", "metrics": {}}
    lines = [shown.take(point, one) or shown.lines(point, one) for point, one in zip(points(4), (
        failed, RESULT, RESULT, RESULT), strict=True)]  # fmt: skip
    assert [f"labkit: {said}" in some for some in lines] == [False, True, False, False]
    assert said in rendered(shown.facts(), 80) and shown.facts()["best"] == said


def test_what_an_earlier_session_has_written_is_not_shown(sweep: SweepDir, capsys: pytest.CaptureFixture[str]):
    shown = watch(sweep)
    shown.sweeper.stopping = "SIGINT"
    shown.write()
    assert "stopping at the next step" in where_it_stands(sweep)["head"]
    end(sweep)
    assert where_it_stands(sweep)["head"] == "0 of 4 done"
    later = sweepdir.claim(sweep, [])
    assert sweepstate.as_written(sweep) is None and where_it_stands(sweep)["head"] == "0 of 4 done"
    runlist.print_rows([], sweep.runs)
    assert f"{sweep.name}: begins" in capsys.readouterr().out
    later.end()
    again = watch(sweep)
    with sweeptable.shown(again, quiet=True):
        assert where_it_stands(sweep)["head"].startswith("0 of 4 done · 0 running")


def rendered(facts: dict[str, Any], width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False).print(sweeptable._table(facts, width))
    return out.getvalue()


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (120, ["point", "status", "parameters", "progress", "took"]),
        (60, ["point", "status", "parameters", "progress", "took"]),
        (50, ["point", "status", "parameters", "progress"]),
        (30, ["point", "status", "parameters"]),
        (18, ["point", "status"]),
    ],
)
def test_a_narrow_terminal_shows_fewer_columns_and_those_legibly(width: int, columns: list[str]):
    row = {"point": 1234, "status": "running", "parameters": "LEARNING_RATE=0.01  LAYERS=4", "took": "12 min 30 s"}
    facts = {"head": "h", "best": "", "rows": [row | {"progress": "epoch 3/10 · loss 0.1234", "run": "a/b"}]}
    lines = rendered(facts, width).splitlines()
    assert all(len(line) <= width for line in lines) and len(lines) == 3
    assert lines[1].split() == columns and lines[2].split()[:2] == ["1234", "running"]
    assert ("12 min 30 s" in lines[2]) == ("took" in columns)
    assert width < 120 or row["parameters"] in lines[2]


def test_text_between_colons_stays_text(sweep: SweepDir, capsys: pytest.CaptureFixture[str]):
    shown = watch(sweep)
    with sweeptable.shown(shown, quiet=False):
        shown.sweeper.say(points(1)[0], RESULT | {"status": "failed", "reason": "KeyError: ':x:'", "metrics": {}})
    assert "KeyError: ':x:'" in capsys.readouterr().err


def test_results_are_not_read_while_somebody_tells_where_it_stands(sweep: SweepDir, monkeypatch: pytest.MonkeyPatch):
    watch(sweep).write()
    monkeypatch.setattr(sweepdir, "results", lambda sweep: pytest.fail("all accepted files were read"))
    assert json.dumps(where_it_stands(sweep))
