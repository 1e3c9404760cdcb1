"""The verdict on a run made again is kept beside it, as a page too, and told wherever the run is shown."""

from __future__ import annotations

import json
import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from pages import ATTACKS, EVERY_ATTACK
from twins import CELLS, MODULE, change, drift, recorded, reprint, twin, write_module, write_notebook

from labkit.cli import main
from labkit.record.files import write_json
from labkit.record.rundir import RunDir
from labkit.workbench import terminal
from labkit.workbench.pages import index
from labkit.workbench.pages.facts import facts_of
from labkit.workbench.pages.report import write_report
from labkit.workbench.reproducing import reproductions, verdictlines, verdictpage
from labkit.workbench.reproducing.compare import VERDICTS, Comparison, compare, could_not_run
from labkit.workbench.reproducing.reproductions import latest, store
from labkit.workbench.reproducing.tolerance import Tolerance


@pytest.fixture
def then(tmp_path: Path) -> RunDir:
    return recorded(tmp_path / "runs")


def diverged(then: RunDir) -> Comparison:
    return compare(then, twin(then, lambda run: change(run.manifest, "parameters", "LR", to=0.2), drift))


def shown(page: str) -> str:
    """The text of a page without its style and script."""
    page = re.sub(r"(?s)<(style|script)>.*?</\1>", "", page)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_a_verdict_is_kept_beside_the_run(then: RunDir) -> None:
    found = store(diverged(then), then)
    assert found.path.parent == then.path / "reproductions"
    facts = json.loads(found.path.read_bytes())
    assert (facts["verdict"], facts["cause"]) == ("diverged", "LR = 0.2 here, 0.1 then")
    assert [one["link"] for one in facts["chain"]][:3] == ["source", "packages", "hardware"]
    assert "diverged" in shown(found.page.read_text())
    assert latest(then) == found


def test_the_newest_verdict_counts(then: RunDir) -> None:
    assert latest(then) is None
    other, same = diverged(then), compare(then, twin(then))
    verdicts = [store(other, then)] + [store(same, then) for _ in range(11)]
    assert len({one.path for one in verdicts}) == 12
    found = latest(then)
    assert found == verdicts[-1] and str(found).startswith("identical, ")


def test_a_damaged_verdict_is_passed_over(then: RunDir, tmp_path: Path) -> None:
    kept = store(diverged(then), then)
    folder = kept.path.parent
    (folder / "20991121T101500.123Z.json").write_text("{")
    (folder / "20991121T101500.124Z.json").write_text('{"verdict": "splendid", "created": "", "cause": ""}')
    (folder / "20991121T101500.125Z.json").mkdir()
    (folder / "20991121T101500.126Z.json").symlink_to(tmp_path)
    (folder / "note.json").write_text("{}")
    assert latest(then) == kept
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert latest(then) is None


def test_verdicts_have_one_list_of_names() -> None:
    assert reproductions.VERDICTS == VERDICTS == tuple(verdictpage.SENTENCES) == tuple(verdictlines.COLOURS)


def test_the_page_says_verdict_cause_and_chain(then: RunDir) -> None:
    found = compare(
        then,
        twin(then, lambda run: change(run.manifest, "parameters", "LR", to=0.2), lambda run: drift(run, final=0.94)),
        tolerance=Tolerance(relative=0.02, origin="--tolerance"),
        as_recorded=["threads 4", "PYTHONHASHSEED=0"],
    )
    page = verdictpage.render(found)
    text = shown(page)
    for part in (
        "within tolerance",
        "Likely cause LR = 0.2 here, 0.1 then",
        "First difference step 3 (line 4): loss 0.250000001 here, 0.25 then",
        "✗ settings the first that differs LR = 0.2 here, 0.1 then",
        "✓ hardware equal",
        "loss then now first difference: step 3",
        "Tolerance each within 2 % (from --tolerance)",
        "Set as then threads 4; PYTHONHASHSEED=0",
    ):
        assert part in text
    assert page.count("<polyline") == 2 and page.count('<line class="place"') == 1


def test_a_page_without_curves_is_a_page(then: RunDir) -> None:
    assert "data/x.csv is missing" in shown(verdictpage.render(could_not_run(then, "data/x.csv is missing", 2)))
    for metrics in ("", '{"step":1,"a":1}\n', '{"step":1,"a":"NaN"}\n{"step":2,"a":"Infinity"}\n'):
        then.metrics.write_text(metrics)
        assert "<polyline" not in verdictpage.render(compare(then, twin(then)))
    then.metrics.write_text('{"step":1,"a":1.7e308}\n{"step":2,"a":-1.7e308}\n{"step":2,"a":1}\n')
    verdictpage.render(compare(then, twin(then)))


class Tags(HTMLParser):
    """What a browser would make of a page: its tags, and the attributes that act."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.active: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.active += [
            name for name, _ in attrs if name in ("href", "src", "style", "srcdoc") or name.startswith("on")
        ]


def hostile(then: RunDir) -> Comparison:
    """A comparison of runs in which every text attacks."""
    bad = EVERY_ATTACK
    now = twin(then)
    write_notebook(now, CELLS | {"training": ATTACKS[0], bad: "x = 1"})
    write_module(now, "x = 1\n", ATTACKS[0].replace("/", ""))
    change(now.source / "modules.json", bad, to={"path": bad, "sha256": bad})
    change(now.source / "packages.json", "packages", bad, to={"version": bad})
    change(now.path / "machine.json", "hardware", "cpu", to=bad)
    change(now.path / "machine.json", "variables", bad, to=bad)
    change(now.path / "inputs.json", "files", bad, to={"blake3": bad, "bytes": bad})
    change(now.path / "inputs.json", "left_out", bad, to=bad)
    change(now.manifest, "parameters", bad, to=bad)
    change(now.manifest, "verdicts", to=[{"text": bad, "condition": bad, "verdict": "held"}])
    reprint(now, 0, name=bad)
    for run in (then, now):
        lines = [{"step": step, bad: step + len(run.path.name) + (run is now)} for step in range(3)]
        run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return compare(then, now, expected=bad, as_recorded=[bad], tolerance=Tolerance(absolute={bad: 9.0}, origin=bad))


def test_a_page_of_hostile_texts_is_inert(then: RunDir) -> None:
    allowed, found = Tags(verdictpage.render(diverged(then))), Tags(verdictpage.render(hostile(then)))
    assert set(found.tags) <= {*allowed.tags, "wbr", "code"} and found.tags.count("script") == 1
    assert not found.active


@pytest.mark.browser
def test_a_verdict_fits_any_window_and_asks_for_nothing(then: RunDir, browser: object) -> None:
    from test_report_browser import Visit

    for comparison in (diverged(then), hostile(then)):
        page = store(comparison, then).page
        for width, dark in ((1280, False), (390, True)):
            visit = Visit(browser, page, width=width, dark=dark)
            assert not visit.requests and not visit.problems
            assert visit.ask("document.documentElement.scrollWidth <= innerWidth")
            assert visit.ask("window.__xss === undefined")


def test_a_run_says_when_it_was_last_made_again(
    then: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert terminal.facts(then)["reproduced"] is None
    store(diverged(then), then)
    assert terminal.facts(then)["reproduced"]["verdict"] == "diverged"
    terminal.print_facts(terminal.facts(then))
    assert re.search(r"reproduced +diverged, 20.*: LR = 0.2 here, 0.1 then", capsys.readouterr().out)
    assert dict(facts_of(then).about)["Reproduced"].startswith("diverged, ")
    then.notebook.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}))
    page = write_report(then, tmp_path / "reports.html")
    assert "Reproduced diverged, " in shown(page.read_text())
    assert index.rows(tmp_path)[0].reproduced.startswith("diverged, ")
    assert "reproduced: diverged, " in shown(index.render(index.rows(tmp_path)))


def test_a_new_verdict_makes_the_page_anew(then: RunDir, tmp_path: Path) -> None:
    from labkit.workbench.notebooks.notebook import Notebook
    from labkit.workbench.pages.reports import Page, _stamp

    source = Notebook(tmp_path / "x.ipynb", {"cells": []})
    page = Page(source, tmp_path / "reports" / "x.html", then)
    before = _stamp(page)
    store(diverged(then), then)
    assert before != _stamp(page) == _stamp(page)


def test_a_terminal_shows_verdict_cause_and_chain(then: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    found = diverged(then)
    verdictlines.print_comparison(found)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "diverged: LR = 0.2 here, 0.1 then"
    assert lines[1].startswith("first difference: step 3 (line 4): loss ")
    assert "✗ settings         differs (the first)" in lines and "✓ hardware         equal" in lines
    verdictlines.print_comparison(found, as_json=True)
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found.facts()))
    verdictlines.print_comparison(could_not_run(then, "the \x1b[31mdata\nare missing", 2))
    assert (
        capsys.readouterr().out
        == "could not run: the \N{REPLACEMENT CHARACTER}[31mdata\N{REPLACEMENT CHARACTER}are missing\n"
    )


def test_a_terminal_counts_all_that_differs(then: RunDir) -> None:
    now = twin(then, *(partial(write_module, source="x = 1\n", name=f"m{number}") for number in range(30)))
    lines = verdictlines.chain_lines(compare(then, now))
    assert len([line for line in lines if "is imported here" in line]) == verdictlines.SHOWN
    assert "    and 25 more" in lines


def test_code_on_the_page_is_set_as_code(then: RunDir) -> None:
    now = twin(then, lambda run: write_module(run, MODULE.replace("16", "1 < 7")), drift)
    page = verdictpage.render(compare(then, now))
    assert "line 3: <code>return x / 1 &lt; 7</code> here, <code>return x / 16</code> then" in page


def test_a_verdict_that_cannot_be_written_is_an_error(then: RunDir) -> None:
    from labkit.errors import FolderProblem

    (then.path / "reproductions").write_text("")
    with pytest.raises(FolderProblem, match="cannot be written"):
        store(diverged(then), then)
    write_json(then.path / "run.json", {})


def test_the_command_says_which_runs_it_compares(then: RunDir) -> None:
    now = twin(then, drift)

    def asked(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["compare", *arguments])
        return done.exit_code, done.output

    status, output = asked(str(then.path), str(now.path))
    assert status == 0 and output.splitlines()[:2] == [f"then  {then.name}", f"here  {now.name}"]
    status, output = asked(str(then.path), str(then.path))
    assert status == 2 and "are the same run" in output
    status, output = asked(str(then.path), str(now.path), "--tolerance", "test_acuracy=0.1")
    assert status == 2 and "names 'test_acuracy'; the verdict goes by test_accuracy" in output
    status, output = asked(str(then.path), str(now.path), "--tolerance", "test_accuracy=0.1")
    assert status == 0 and "within tolerance" in output
