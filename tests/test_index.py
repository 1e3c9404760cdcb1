from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pages
from test_report import assert_page_is_inert, text_of

from labkit.workbench.pages.index import Row, render, rows, write_index
from labkit.workbench.pages.report import write_report


def test_the_list_says_of_each_report_what_it_says_of_itself(tmp_path: Path) -> None:
    run = pages.make_run(tmp_path, metrics='{"step": 1, "loss": 0.5, "test_accuracy": 0.985}\n')
    folder = tmp_path / "reports"
    folder.mkdir()
    write_report(run, folder / "it's a #1.html", stale=["the notebook changed"])
    (folder / "not a report.html").write_text("<html>")
    (folder / "link.html").symlink_to(folder / "it's a #1.html")
    assert write_index(folder)
    page = (folder / "index.html").read_text()
    assert_page_is_inert(page.replace('href="./', 'href="#nb-'))
    for words in (
        "Digits",
        "finished",
        "test_accuracy 0.985",
        "21 November 2026",
        "12.5 s",
        "stale: the notebook changed",
    ):
        assert words in text_of(page)
    assert 'href="./it%27s%20a%20%231.html"' in page
    assert page.count("<tr>") == 2


def test_the_list_marks_what_is_no_result(tmp_path: Path) -> None:
    run = pages.make_run(tmp_path, manifest={"labels": ["debug"]})
    write_report(run, tmp_path / "a.html")
    write_report(pages.failed_run(tmp_path / "failed"), tmp_path / "b.html")
    write_report(pages.make_run(tmp_path / "good"), tmp_path / "c.html")
    assert [row.state for row in rows(tmp_path)] == ["finished, debug", "failed", "finished"]
    assert render(rows(tmp_path)).count('unfinished">') == 2


def test_a_list_that_is_up_to_date_is_left_alone(tmp_path: Path) -> None:
    assert write_index(tmp_path)
    assert not write_index(tmp_path)
    assert "There are no reports yet" in (tmp_path / "index.html").read_text()


def test_a_hostile_report_does_nothing_to_the_list(tmp_path: Path) -> None:
    write_report(pages.hostile_run(tmp_path), tmp_path / "a.html", stale=[pages.EVERY_ATTACK])
    (tmp_path / "b.html").write_text(
        '<meta name="labkit-summary" content="{&quot;title&quot;: [1], &quot;x&quot;: 2}">'
    )
    (tmp_path / "c.html").write_text('<meta name="labkit-summary" content="no json">')
    assert [row.page for row in rows(tmp_path)] == ["a.html", "b.html", "c.html"]
    assert_page_is_inert(render(rows(tmp_path)).replace('href="./', 'href="#nb-'))
    assert_page_is_inert(render([Row(*[pages.EVERY_ATTACK] * 7)]).replace('href="./', 'href="#nb-'))


def test_listing_reports_loads_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from labkit.workbench.pages.index import write_index\n"
        "import labkit.record.page; write_index(Path(sys.argv[1]))\n"
        "print(sorted({'nbconvert', 'nbformat', 'torch', 'mistune', 'nh3', 'latex2mathml'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
