# ruff: noqa: E501  (rows of data stay rows)
from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import time
from html import unescape
from pathlib import Path

import nbformat
import pages
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup
from pages import code, make_run, notebook, prose, shown, stream
from test_sanitise import MARKUP, Tags
from tiny import plain_environment

from labkit.record import capsule
from labkit.record.page import LONGEST_STAMP, page_stamp, page_summary
from labkit.workbench.pages import document, sanitise
from labkit.workbench.pages.console import console
from labkit.workbench.pages.curves import BUCKETS, curve, thinned
from labkit.workbench.pages.facts import Facts
from labkit.workbench.pages.looks import LONGEST_WORD, breakable
from labkit.workbench.pages.report import ReportExporter, render, write_report

OWN_TAGS = frozenset(
    "html head meta title style body header nav main section footer button script wbr template".split()
)
OWN_ATTRIBUTES = frozenset(
    "lang charset name content http-equiv class id role type data-do hidden tabindex scope open".split()
)


def body(page: str) -> str:
    return page[page.index("<body>") : page.index("<script>")]


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(Markup(body(page)).striptags()))


def assert_page_is_inert(page: str) -> None:
    tags = Tags(page).found
    names = [tag for tag, _ in tags]
    assert names.count("script") == names.count("style") == 1
    assert set(names) <= OWN_TAGS | sanitise.TEXT_TAGS | sanitise.MATH_TAGS
    for tag, attributes in tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name in OWN_ATTRIBUTES | sanitise.ATTRIBUTES.get(tag, set()) | {"aria-label", "rel"}, (tag, name)
            if name == "src":
                assert (value or "").startswith("data:image/")
            if name == "href":
                assert re.match(r"https?://|mailto:|#(nb-|body$|cell-\d+$)", value or ""), value
    ids = [attributes.get("id") for _, attributes in tags if attributes.get("id")]
    assert ids.count("body") == 1


def test_a_page_in_which_every_text_attacks_is_inert(tmp_path: Path) -> None:
    page = render(pages.hostile_run(tmp_path), stale=[pages.EVERY_ATTACK], stamp=pages.ATTACKS[0] + '"')
    assert_page_is_inert(page)
    assert "example.invalid" in page, "the attacks are shown as text"


@pytest.mark.slow
@given(st.lists(MARKUP, min_size=9, max_size=9))
@settings(max_examples=20)
def test_arbitrary_text_in_every_field_brings_no_tag_beyond_the_lists(texts: list[str]) -> None:
    a, b, c, d, e, f, g, h, i = texts
    content = notebook(
        prose(a), code(b, stream(c), shown(text_html=d, text_plain=e), shown(text_latex=f), shown(image_svg_xml=g)),
        code("x", {"output_type": "error", "ename": h, "evalue": i, "traceback": [a, b]}, shown(text_markdown=c)),
    )  # fmt: skip
    page, _ = ReportExporter().from_notebook_node(nbformat.from_dict(content), {"metadata": {"name": h}})
    assert_page_is_inert(page)


def test_the_first_screen_says_what_a_hurried_reader_needs(tmp_path: Path) -> None:
    run = make_run(
        tmp_path,
        notebook(
            prose("# Digits\n\n## Goal\n\n> Can it read $8 \\times 8$ digits?\n\nMore."),
            prose("## Conclusion\n\nYes, at 0.985."),
        ),
        manifest={"author": "Ada", "parameters": {"EPOCHS": 3, "BATCH": 64}, "given": {"EPOCHS": 3}},
        metrics='{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25, "test_accuracy": 0.98523}\n',
    )
    page = render(run)
    first = text_of(page[: page.index('<main id="body"')] + "<script>")
    for words in ("Digits", "Can it read", "finished", "test_accuracy 0.9852", "Yes, at 0.985.", "Ada", "12.5 s"):
        assert words in first
    for words in ("21 November 2026, 10:15 UTC", "model, 2 cores", "2.13.0+cpu", "b53c605aa11b", run.name):
        assert words in first
    assert '<tr class="given"><th scope="row">EPOCHS</th><td>3</td></tr>' in page
    assert '<tr><th scope="row">BATCH</th><td>64</td></tr>' in page
    assert 'class="band' not in page, "there is nothing to warn of"


@pytest.mark.parametrize(
    ("pieces", "stale", "said"),
    [
        ({"ended": {"status": "failed", "reason": "ValueError in cell 5"}}, (), "This run failed. ValueError in cell 5"),
        ({"ended": {"status": "interrupted"}}, (), "This run was interrupted."),
        ({"ended": {"status": "timeout"}}, (), "time limit"),
        ({"ended": {"status": "killed", "reason": "by signal 9"}}, (), "This run was killed. By signal 9"),
        ({"manifest": {"parameters": {"DEBUG": True}}}, (), "Debug run"),
        ({"manifest": {"labels": ["stand-in"]}}, (), "Stand-in data"),
        ({"manifest": {"labels": ["explored"]}}, (), "Explored by hand"),
        ({"git": {"dirty": True}}, (), "not committed"),
        ({"counted": {"metrics": {"written": 5, "refused": 0, "lost": 7}}}, (), "7 metric records were lost"),
        ({"counted": {"metrics": {"lost": 1}, "log": {"refused": 1}}}, (), "1 metric record was lost; 1 printed byte was not accepted."),
        ({"metrics": '{"step": 1, "loss": 1.0}\n{"step": 2, "lo\n'}, (), "1 line of metrics could not be read"),
        ({}, ("the notebook changed", "module labdata changed"), "the notebook changed; module labdata changed"),
    ],
)  # fmt: skip
def test_a_band_says_what_to_know_before_any_number(
    tmp_path: Path, pieces: dict, stale: tuple[str, ...], said: str
) -> None:
    page = render(make_run(tmp_path, **pieces), stale=stale)
    bands = re.findall(r'<p class="band (?:bad|warn|info)" role="status">(.*?)</p>', page, re.DOTALL)
    assert any(said in unescape(band) for band in bands), bands


def test_the_status_line_the_margin_and_the_traceback_name_a_cell_alike(tmp_path: Path) -> None:
    page = render(pages.failed_run(tmp_path))
    assert 'This run failed. <a href="#cell-3">Cell 3 (train)</a> raised ValueError' in page
    assert '<section class="cell failed" id="cell-3">' in page
    assert '<span class="place">cell 3 (train), 1 line</span>' in page
    assert "cell 3 (train), line 1" in text_of(page)
    assert "cell 2 (define), line 9, in train()" in text_of(page)
    assert re.findall(r"In ?\[\d+\]", text_of(page)) == ["In[7]"], "no cell of the page has that count"


def test_a_count_that_two_cells_have_names_neither(tmp_path: Path) -> None:
    error = {"output_type": "error", "ename": "E", "evalue": "", "traceback": ["Cell In[1], line 1"]}
    assert "Cell In[1], line 1" in text_of(render(make_run(tmp_path, notebook(code("1"), code("2", error)))))


def test_the_status_line_of_an_interrupted_run_leads_to_the_cell_that_was_stopped(tmp_path: Path) -> None:
    page = render(pages.failed_run(tmp_path, "interrupted"))
    assert 'This run was interrupted. Stopped by SIGINT, in <a href="#cell-3">cell 3 (train)</a>.' in page


def test_a_status_line_leads_nowhere_when_the_cell_is_not_on_the_page(tmp_path: Path) -> None:
    run = pages.failed_run(tmp_path)
    run.notebook.unlink()
    assert "Cell 3 (train) raised" in render(run)
    assert 'href="#cell' not in render(run)


def test_only_the_cell_that_failed_shows_its_code_at_once_and_those_after_it_say_that_they_did_not_run(
    tmp_path: Path,
) -> None:
    page = render(pages.failed_run(tmp_path))
    assert re.findall(r'<details class="code"( open|)>', page) == ["", " open", ""]
    assert '<span class="place">cell 4 (last), 1 line, not run</span>' in page
    assert page.count("not run</span>") == 1


def test_a_conclusion_that_a_run_did_not_reach_is_marked(tmp_path: Path) -> None:
    content = notebook(prose("# D\n\n## Conclusion\n\nIt works."))
    assert "this run did not finish" not in text_of(render(make_run(tmp_path / "a", content)))
    ended = {"status": "killed", "reason": "by signal 9"}
    assert "Conclusion (as the notebook has it; this run did not finish)" in text_of(
        render(make_run(tmp_path / "b", content, ended=ended))
    )


@pytest.mark.parametrize(("lines", "said"), [(1, "1 line"), (2, "2 lines"), (1500, "1,500 lines")])
def test_lines_of_code_are_counted_in_words(tmp_path: Path, lines: int, said: str) -> None:
    page = render(make_run(tmp_path, notebook(code("x\n" * lines))))
    assert f'<span class="place">cell 1, {said}</span>' in page


@pytest.mark.parametrize(("cores", "said"), [(1, "model, 1 core"), (8, "model, 8 cores")])
def test_one_core_is_no_cores(tmp_path: Path, cores: int, said: str) -> None:
    assert f"<dd>{said}</dd>" in render(make_run(tmp_path, environment={"cores": cores}))


def test_metrics_beyond_the_table_are_counted(tmp_path: Path) -> None:
    for count, said in ((201, "1 more metric is in metrics.jsonl."), (203, "3 more metrics are in metrics.jsonl.")):
        line = json.dumps({"step": 1, **{f"m{number}": 1.0 for number in range(count)}})
        assert said in text_of(render(make_run(tmp_path / str(count), metrics=line + "\n")))


def test_a_run_without_metrics_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.metrics.unlink()
    assert "No metrics were logged." in text_of(render(run))
    page, _ = ReportExporter().from_notebook_node(nbformat.from_dict(notebook(code("1"))))
    assert "No metrics" not in page, "there was no run"


def test_no_column_stands_empty_where_no_metric_has_a_course(tmp_path: Path) -> None:
    assert "Course" not in text_of(render(make_run(tmp_path / "one")))
    three = "".join(f'{{"step": {step}, "loss": {step}}}\n' for step in range(3))
    assert "Course" in text_of(render(make_run(tmp_path / "three", metrics=three)))


def test_every_time_on_a_page_names_its_zone(tmp_path: Path) -> None:
    times = {"time": "2026-11-21T10:20:00.123Z"}
    run = make_run(tmp_path, manifest={"created": "2026-11-21T12:15:00+02:00"}, environment=times)
    assert re.findall(r"\d\d:\d\d\b.{4}", text_of(render(run))) == ["10:15 UTC", "10:20 UTC"]


def test_the_environment_is_told_in_words(tmp_path: Path) -> None:
    known = {"cuda_usable": False, "memory_gib": 23.5, "determinism": {"hash_seed": "0", "deterministic": True}}
    page = render(make_run(tmp_path, environment=known))
    for name, value in (("CUDA usable", "no"), ("memory, GiB", "23.5"), ("determinism: PYTHONHASHSEED", "0")):
        assert f'<th scope="row">{name}</th><td>{value}</td>' in page


@given(st.text(st.sampled_from("abc_./-<&\n "), max_size=200))
def test_a_long_name_can_break_and_stays_as_it_is(name: str) -> None:
    made = breakable(name)
    assert unescape(made.replace("<wbr>", "")) == name
    assert "<" not in made.replace("<wbr>", "")
    assert all(len(unescape(part)) <= LONGEST_WORD + 3 for part in made.split("<wbr>"))


@pytest.mark.parametrize(
    "gone", ["run.json", "attempts/1/exit.json", "environment.json", "metrics.jsonl", "notebook.ipynb"]
)
@pytest.mark.parametrize("how", ["missing", "torn", "a list", "a folder", "a link out", "a pipe"])
def test_a_damaged_record_is_rendered_with_what_is_there(tmp_path: Path, gone: str, how: str) -> None:
    run = make_run(tmp_path)
    path = run.path / gone
    secret = tmp_path / "secret.json"
    secret.write_text('{"title": "s3cret", "torch": "s3cret", "cells": [{"cell_type": "raw", "source": "s3cret"}]}')
    path.unlink()
    if how == "torn":
        path.write_text('{"title": "x", "cells": [')
    elif how == "a list":
        path.write_text("[1, 2]")
    elif how == "a folder":
        path.mkdir()
    elif how == "a link out":
        path.symlink_to(secret)
    elif how == "a pipe":
        os.mkfifo(path)
    page = render(run)
    assert_page_is_inert(page)
    assert "s3cret" not in page
    if gone != "metrics.jsonl":
        assert "Missing from this page" in page or "not known" in page


def test_a_notebook_that_leads_out_of_the_run_is_refused_and_said(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    elsewhere = tmp_path / "elsewhere.ipynb"
    elsewhere.write_text(json.dumps(notebook(prose("s3cret"))))
    run.notebook.unlink()
    run.notebook.symlink_to(elsewhere)
    page = render(run)
    assert "notebook.ipynb leads out of the run and was not read" in page
    assert "s3cret" not in page


def test_figures_and_log_stand_in_for_a_lost_notebook(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.notebook.unlink()
    (run.figures / "curves.png").write_bytes(base64.b64decode(pages.png()))
    (run.figures / "out.png").symlink_to("/etc/hostname")
    run.log.write_text("epoch 1\nsome <b>text</b>\n")
    page = render(run)
    assert f"data:image/png;base64,{pages.png()}" in page
    assert "some &lt;b&gt;text" in page


@pytest.mark.parametrize(
    "cell",
    [None, 1, [], {}, {"cell_type": "code"}, {"cell_type": "code", "outputs": 5}, {"cell_type": "code", "outputs": [None, 1, {}]},
     {"cell_type": "markdown", "source": {"a": 1}}, {"cell_type": "code", "source": ["a\n", "b"], "outputs": [{"output_type": "stream"}]},
     {"cell_type": "code", "outputs": [{"output_type": "display_data", "data": {"text/plain": {"a": 1}, "image/png": 7}}]},
     {"cell_type": "markdown", "source": "![x](attachment:y)", "attachments": {"y": 4}}],
)  # fmt: skip
def test_a_damaged_cell_does_not_keep_the_others_from_the_page(tmp_path: Path, cell: object) -> None:
    content = notebook(prose("before"), prose("after"))
    content["cells"].insert(1, cell)
    page = render(make_run(tmp_path, content))
    assert "before" in page
    assert "after" in page


def test_rendering_twice_gives_equal_bytes(tmp_path: Path) -> None:
    run = pages.hostile_run(tmp_path)
    assert render(run, stamp="x") == render(run, stamp="x")
    script = "import sys; from pathlib import Path; from labkit.record.rundir import RunDir\n"
    script += "from labkit.workbench.pages.report import render\nsys.stdout.write(render(RunDir(Path(sys.argv[1])), stamp='x'))"
    command = [sys.executable, "-W", "ignore", "-c", script, str(run.path)]
    environment = plain_environment(PYTHONHASHSEED="7", PYTHONUTF8="1", TZ="Asia/Tokyo")
    other = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60)
    assert other.stdout.decode() == render(run, stamp="x")


def test_the_page_is_written_in_one_step_with_its_stamp_at_its_start(tmp_path: Path) -> None:
    target = tmp_path / "digits.html"
    assert write_report(make_run(tmp_path), target, stamp='made of "this" & <that>') == target
    assert page_stamp(target) == 'made of "this" & <that>'
    assert list(tmp_path.glob(".*")) == []
    assert page_stamp(tmp_path / "missing.html") is None
    (tmp_path / "other.html").write_text("<html>")
    assert page_stamp(tmp_path / "other.html") is None


def test_the_longest_stamp_is_read_back_and_a_longer_one_refused(tmp_path: Path) -> None:
    run, target = make_run(tmp_path), tmp_path / "digits.html"
    write_report(run, target, stamp="x" * LONGEST_STAMP)
    assert page_stamp(target) == "x" * LONGEST_STAMP
    with pytest.raises(ValueError, match="stamp"):
        render(run, stamp="x" * (LONGEST_STAMP + 1))


def test_a_report_is_small(tmp_path: Path) -> None:
    page = render(make_run(tmp_path, notebook(prose("# Digits"), code("x", shown(image_png=pages.png())))))
    assert len(page.encode()) < 30_000
    assert "data:image/png" in page


def test_a_flood_of_output_shows_its_beginning_and_end(tmp_path: Path) -> None:
    flood = "first\n" + "x" * 3_000_000 + "\nlast"
    page = render(make_run(tmp_path, notebook(code("x", stream(flood), shown(text_plain=flood)))))
    assert len(page) < 500_000
    assert page.count("characters are not shown here") == 2
    assert "first" in page
    assert "last" in page


@pytest.mark.slow
def test_a_million_metric_records_are_rendered_in_seconds(tmp_path: Path) -> None:
    lines = "".join(f'{{"step": {step}, "loss": {1 / (step + 1)}, "t": 1.0}}\n' for step in range(1_000_000))
    run = make_run(tmp_path, metrics=lines)
    started = time.monotonic()
    page = render(run)
    assert time.monotonic() - started < 10 * 3  # three times what it may take alone on a machine
    assert len(page.partition(capsule.BEGIN)[0]) < 40_000
    assert "1000000" in page


@pytest.mark.parametrize(
    ("output", "seen", "note"),
    [
        (shown(widget={"model_id": "x"}, text_plain="50%|#####"), "50%|#####", "Widget: this page runs no scripts; the text it began with is shown."),
        (shown(text_html="<div id=p></div><script>draw()</script>", image_png=pages.png()), "data:image/png", "its picture is shown"),
        (shown(text_html="<script>draw()</script>", text_plain="Figure()"), "Figure()", "its text is shown"),
        (shown(text_html="<iframe src='https://example.org'></iframe>"), "", "nothing else was saved"),
        (shown(application_javascript="draw()", text_plain="<Javascript>"), "&lt;Javascript&gt;", "Script: this page"),
        ({"output_type": "display_data", "data": {"application/vnd.plotly.v1+json": {}, "text/plain": "F"}}, "F", "Plotly figure"),
        ({"output_type": "display_data", "data": {"application/x-own": 1}}, "", "Not shown here: application/x-own."),
    ],
)  # fmt: skip
def test_what_needs_scripts_shows_its_static_form_with_a_note(
    tmp_path: Path, output: dict, seen: str, note: str
) -> None:
    page = render(make_run(tmp_path, notebook(code("x", output))))
    assert seen in page
    assert note in unescape(page)


def test_formulas_that_stay_source_are_counted_on_the_page(tmp_path: Path) -> None:
    cells = [
        prose(r"# Digits"),
        prose(r"$x^2$ and $\KL(p)$ and $\foo$ and \\(y\\)"),
        code("x", shown(text_latex=r"$z$")),
    ]
    page = render(make_run(tmp_path, notebook(*cells)))
    assert "2 of 5 formulas are shown as source" in text_of(page)
    assert page.count("<math>") == 3


def test_prices_are_not_formulas(tmp_path: Path) -> None:
    assert "costs $5 and $10" in render(make_run(tmp_path, notebook(prose("# D"), prose("It costs $5 and $10."))))


def test_the_contents_lead_to_the_headings_even_when_two_are_equal(tmp_path: Path) -> None:
    cells = [prose("# Digits"), prose("## Data"), prose("## Data"), prose("#### Deep"), prose("[up](#Data)")]
    page = render(make_run(tmp_path, notebook(*cells)))
    links = re.findall(r'<li class="level2"><a href="#([^"]*)">Data</a>', page)
    assert links == ["nb-Data", "nb-Data-2"]
    assert all(f'id="{link}"' in page for link in links)
    assert '<a href="#nb-Data"' in page


def test_the_title_stands_once_at_the_top(tmp_path: Path) -> None:
    page = render(make_run(tmp_path, notebook(prose("# Digits\n\nText."))))
    assert page.count("<h1") == 1


def test_an_attached_picture_is_in_the_page_and_a_file_is_never_read(tmp_path: Path) -> None:
    cells = [
        prose("![grey](attachment:a.png) ![file](/etc/hostname) <img src='/etc/hostname'>", attachments={"a.png": {"image/png": pages.png()}})
    ]  # fmt: skip
    page = render(make_run(tmp_path, notebook(*cells)))
    assert f'<img src="data:image/png;base64,{pages.png()}" alt="grey">' in page
    assert page.count("image not in this page") == 2


def test_printed_text_keeps_its_colours_and_the_last_state_of_a_progress_bar() -> None:
    assert console("\x1b[1;31mred\x1b[0m <b>") == '<span class="ansi-bold ansi-red-fg">red</span> &lt;b&gt;'
    assert console("10%\r50%\r100%\nnext") == "100%\nnext"
    assert console("long line\rshort\n") == "shortline\n"
    assert console("a\x1b]8;;https://example.org\x1b\\b\x1b[2Kc\x07") == "abc"
    assert console("\x1b[38;2;1;2;3mx\x1b[38;5;200my\x1b[48;5;9mz") == 'xy<span class="ansi-red-bg">z</span>'


def test_any_notebook_is_exported_without_a_run() -> None:
    page, resources = ReportExporter().from_notebook_node(nbformat.from_dict(notebook(prose("## A"), code("1"))))
    assert resources["output_extension"] == ".html"
    assert "<title>A</title>" in page
    assert_page_is_inert(page)


def test_a_notebook_of_nothing_is_a_page() -> None:
    assert document.document(None, Facts()).title == "Notebook"
    assert document.parse(b"{")[1]
    assert document.parse(b'{"worksheets": []}')[1]
    assert document.parse(b"[" * 100_000)[1]


@pytest.mark.slow
def test_nbconvert_finds_the_exporter_by_name(tmp_path: Path) -> None:
    source = tmp_path / "any notebook's.ipynb"
    content = notebook(prose("# Any"), code("1", stream("out")))
    source.write_text(json.dumps(content))
    command = [sys.executable, "-m", "nbconvert", "--to", "labkit", str(source)]
    subprocess.run(command, env=plain_environment(), check=True, capture_output=True, timeout=120)
    page = source.with_suffix(".html").read_text()
    assert "<title>Any</title>" in page
    assert_page_is_inert(page)


def test_a_course_keeps_its_peaks_and_skips_what_is_no_number() -> None:
    values = [0.0] * 10_000
    values[5_005], values[77] = 9.0, float("nan")
    points = thinned(values)
    assert (5_005, 9.0) in points
    assert len(points) <= 2 * BUCKETS
    assert curve([1.0, float("inf"), 2.0], "loss") is None
    assert curve([1.0, 1.0, 1.0], "loss") is not None
    assert curve([1e308, -1e308, 0.0], "loss") is None


def test_the_first_screen_says_what_was_expected_and_what_came_of_it(tmp_path: Path) -> None:
    run = make_run(tmp_path, notebook(prose("# A")))
    held = {"text": "good <b>", "condition": "acc > 0.7", "verdict": "held", "value": 0.75, "late": True}
    facts = [
        held,
        {"text": "x", "condition": "", "verdict": "undecided", "reason": "a debug run"},
        {"text": 3},
        "damaged",
    ]
    run.update_manifest(verdicts=facts, labels=["explored"], explored="cells 2, 4, 3")
    page = render(run)
    assert "good &lt;b&gt; <code>acc &gt; 0.7</code></th><td>it was 0.75; stated after the first metric</td>" in page
    assert '<tr class="undecided"><td class="verdict">undecided</td>' in page and "<td>a debug run</td>" in page
    assert "a clean run may give another result. (cells 2, 4, 3)" in page
    summary = page_summary(write_report(run, tmp_path / "page.html"))
    assert summary is not None and summary["verdicts"] == "1 held, 1 undecided"
