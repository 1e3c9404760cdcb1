"""A public report names neither host, user nor folders, and carries no record."""

# ruff: noqa: E501  (rows of data stay rows)
from __future__ import annotations

import json
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pages
import pytest
from markupsafe import Markup
from pages import code, make_run, notebook, prose, shown, stream
from running import labkit
from test_capsule import full_run
from test_report import assert_page_is_inert, text_of

from labkit.record import capsule
from labkit.record.page import page_notebook, page_summary
from labkit.record.rundir import RunDir
from labkit.workbench.pages import public, reports
from labkit.workbench.pages.public import Hiding
from labkit.workbench.pages.report import render

HOST, USER = "canary-host7.cluster.example", "canaryuser"
HOME = f"/home/{USER}"
LAB = f"{HOME}/canaryprojects/Canary's lab"
CANARIES = ("canary-host7", USER, HOME, "canaryprojects", "Canary's", "CANARYPATCH")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine and the user that a page is made by."""
    monkeypatch.setattr(public, "host", lambda: HOST)
    monkeypatch.setattr(public, "user", lambda: USER)
    monkeypatch.setenv("HOME", HOME)


def leaky(folder: Path) -> RunDir:
    """A run that names its place wherever it can."""
    paths = [
        LAB,
        f"{LAB}/data/x.csv",
        f"file://{quote(LAB)}/x",
        f"{HOME}/.cache/torch",
        "~/canaryprojects/Canary's lab/nets.py",
    ]
    text = "\n".join(
        [*paths, f"on {HOST} and canary-host7 as {USER}", json.dumps(paths), repr(paths), str(folder / "runs")]
    )
    traceback = [
        f"\x1b[36mFile \x1b[39m\x1b[32m{LAB}/nets.py:3\x1b[39m, in f", f"/ho\x1b[1mme/{USER}/cana\x1b[0mryprojects/x: {USER}",
    ]  # fmt: skip
    error = {"output_type": "error", "ename": "ValueError", "evalue": text, "traceback": traceback}
    picture = pages.png()
    cells = [
        prose(
            f"# Digits of {USER}\n\n## Goal\n\n> Is {LAB} read?\n\n[data](file://{LAB}/x.csv) `{LAB}` ![a](<{LAB}/x.png>)"
        ),
        code(f"open('{HOME}/x.csv')  # {text[:60]}\npath = {LAB!r}", stream(text), stream(text, "stderr")),
        code("x", shown(text_html=f"<b title='{HOST}'>{text}</b>", text_plain=text), shown(text_plain=text)),
        code("x", shown(image_png=picture, text_plain=text), shown(text_latex=text), shown(text_markdown=text)),
        code("x", error),
        prose(f"## Conclusion\n\nIt ran on {HOST}."),
    ]
    manifest: dict[str, Any] = {
        "lab": LAB, "user": USER, "host": HOST, "author": USER, "title": f"Digits of {USER}", "notebook": "notebooks/d.ipynb",
        "command": ["labkit", "run", f"{LAB}/notebooks/d.ipynb"], "parameters": {"DATA": f"{LAB}/data"}, "given": {"DATA": f"{LAB}/data"},
        "labels": ["explored"], "explored": f"cell 3 in {LAB}",
    }  # fmt: skip
    ended = {
        "status": "failed",
        "reason": f"cell 5 raised ValueError: {text}",
        "error": {"cell": 5, "ename": "E", "evalue": text},
    }
    run = make_run(
        folder, notebook(*cells), manifest=manifest, ended=ended, git={"dirty": True},
        environment={"host": HOST, "user": USER, "platform": f"Linux {HOST}", "lock": {"file": f"{LAB}/requirements.lock"}},
    )  # fmt: skip
    (run.source / "changes.patch").write_text("CANARYPATCH")
    return run


def held(page: str) -> list[str]:
    """The canaries on a page, in its source and as it is read."""
    texts = (page, unescape(page), unescape(Markup(page).striptags()))
    return [canary for canary in CANARIES if any(canary.casefold() in text.casefold() for text in texts)]


def test_the_canaries_are_on_the_page_that_is_not_public(tmp_path: Path) -> None:
    assert set(held(render(leaky(tmp_path)))) >= {"canary-host7", USER, HOME, "canaryprojects", "Canary's"}


@pytest.mark.usefixtures("place")
def test_a_public_page_names_no_host_no_user_and_no_folder_and_carries_no_record(tmp_path: Path) -> None:
    page = render(leaky(tmp_path), stale=[f"{LAB}/nets.py changed"], is_public=True)
    assert held(page) == []
    assert str(tmp_path / "runs") not in page
    assert capsule.BEGIN not in page
    assert "the record is not carried" in text_of(page)
    assert f"data:image/png;base64,{pages.png()}" in page, "pictures stay whole"
    assert "[lab]/data/x.csv" in page and "[host]" in page and "[user]" in page
    assert_page_is_inert(page)


@pytest.mark.usefixtures("place")
def test_a_log_that_stands_in_for_the_notebook_names_none_either(tmp_path: Path) -> None:
    run = leaky(tmp_path)
    run.log.write_text(f"{LAB}/x on {HOST} by {USER}\n")
    run.notebook.unlink()
    page = render(run, is_public=True)
    assert held(page) == []
    assert "[lab]/x on [host] by [user]" in page


def test_elsewhere_the_home_folders_of_the_run_are_known_by_their_form(tmp_path: Path) -> None:
    page = render(leaky(tmp_path), is_public=True)
    assert held(page) == []


def test_words_of_the_field_are_no_logins(tmp_path: Path) -> None:
    text = "the square root of gpus, /root/x, a/root/b, https://example.org/home/page and local minima"
    hiding = Hiding.of(make_run(tmp_path, manifest={"user": "root", "host": "localhost"}))
    assert hiding.text(text) == "the square root of gpus, ~/x, a/root/b, https://example.org/home/page and local minima"
    assert Hiding({}).text("nothing known") == "nothing known"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/srv/lab", "[lab]"), ("/srv/lab/x", "[lab]/x"), ("/srv/lab2", "/srv/lab2"), ("/srv/labour/x", "/srv/labour/x"),
        ("ada", "[user]"), ("adagrad", "adagrad"), ("lambada", "lambada"), ("ada@gpu7", "[user]@[host]"), ("gpu70", "gpu70"),
        ("/home/bob/x", "~/x"), ("C:/Users/bob", "C:~"), ("/Users/bob", "~"), ("(/home/bob)", "(~)"), ("'/home/bob'", "'~'"),
    ],
)  # fmt: skip
def test_what_is_known_is_replaced_and_what_only_begins_like_it_is_not(text: str, shown: str) -> None:
    assert Hiding({"/srv/lab": "[lab]", "ada": "[user]", "gpu7": "[host]"}).text(text) == shown


def test_names_of_tags_styles_and_scripts_stay(tmp_path: Path) -> None:
    run = make_run(tmp_path, manifest={"user": "section", "host": "script"})
    page = render(run, is_public=True)
    plain = render(run)
    assert page.count("<section") == plain.count("<section") and page.count("<script>") == 1
    assert (
        page.partition("<style>")[2].partition("</style>")[0] == plain.partition("<style>")[2].partition("</style>")[0]
    )
    assert_page_is_inert(page)


def test_a_public_page_is_the_same_each_time_and_of_a_hostile_run_inert(tmp_path: Path) -> None:
    run = pages.hostile_run(tmp_path)
    page = render(run, is_public=True)
    assert render(run, is_public=True) == page
    assert_page_is_inert(page)


def test_an_author_is_named_and_a_login_is_not(tmp_path: Path) -> None:
    assert "Ada Lovelace" in render(
        make_run(tmp_path, manifest={"author": "Ada Lovelace", "user": "ada"}), is_public=True
    )
    page = render(make_run(tmp_path / "b", manifest={"author": "ada", "user": "ada"}), is_public=True)
    assert "Author" not in text_of(page)


def test_the_public_page_of_a_run_stands_beside_its_own(lab: Path) -> None:
    run = full_run(lab)
    own = reports.write_of_run(run)
    before = own.read_bytes()
    done = labkit("report", "3f9a1c", "--public")
    assert done.returncode == 0, done.stderr
    page = Path(done.stdout.strip())
    assert page == run.path / "report-public.html" and own.read_bytes() == before
    assert (page_summary(page) or {})["run"] == run.name
    assert str(lab) not in page.read_text()


@pytest.mark.slow
def test_public_pages_of_notebooks_have_a_folder_of_their_own_and_are_left_when_up_to_date(lab: Path) -> None:
    from tiny import write

    write(lab / "notebooks" / "plain.ipynb", "import os; print(os.getcwd())")
    for options, folder in (((), "reports"), (("--public",), "reports/public")):
        done = labkit("report", *options)
        assert (done.returncode, done.stdout.splitlines()) == (0, [f"{folder}/plain.html", f"{folder}/index.html"])
    own, page = lab / "reports" / "plain.html", lab / "reports" / "public" / "plain.html"
    assert page_notebook(own) is not None and page_notebook(page) is None
    assert str(lab) in own.read_text().replace("&#39;", "'") and "[lab]/notebooks" in page.read_text()
    assert str(lab.parent) not in page.read_text().replace("&#39;", "'")
    assert labkit("report", "--public").stdout == "nothing to do: the reports in reports/public are up to date\n"
