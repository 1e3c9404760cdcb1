# ruff: noqa: E501  (rows of data stay rows)
from __future__ import annotations

from pathlib import Path
from typing import Any

import pages
import pytest
from pages import code, make_run, notebook, prose, shown, stream

from labkit.workbench.index import write_index
from labkit.workbench.report import write_report

pytestmark = pytest.mark.browser

PAGE = notebook(
    prose("# Digits\n\n## Goal\n\n> Can it?"),
    prose(r"## Model" + "\n\n" + r"$$ \mathcal{L} = -\frac{1}{N} \sum_{n=1}^{N} \log p_\theta(y_n \mid x_n) \qquad " * 1 + r"x $$"),
    code("print(1)  # " + "long " * 60, stream("wide " * 200), shown(image_png=pages.png())),
    prose("| " + " | ".join(f"column {i}" for i in range(30)) + " |\n|" + "---|" * 30 + "\n|" + " 1 |" * 30),
    code("x", shown(text_html="<table class=dataframe><tr>" + "<td>123456789</td>" * 60 + "</tr></table>")),
    prose("## " + "Averylongwordwithoutanyspace" * 8),
    prose("## Conclusion\n\nYes."),
)  # fmt: skip


class Visit:
    """One page opened with the network refused, and everything it tried."""

    def __init__(
        self, browser: Any, path: Path, *, width: int = 1280, javascript: bool = True, dark: bool = False
    ) -> None:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            java_script_enabled=javascript,
            color_scheme="dark" if dark else "light",
            offline=True,
        )
        self.url = path.as_uri()
        self.requests: list[str] = []
        self.problems: list[str] = []
        context.route("**/*", self._route)
        self.page = context.new_page()
        self.page.on("dialog", lambda dialog: (self.problems.append(dialog.message), dialog.dismiss()))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda message: self.problems.append(message.text) if message.type == "error" else None)
        self.page.goto(self.url)
        self.page.wait_for_timeout(300)

    def _route(self, route: Any) -> None:
        url = route.request.url
        if url == self.url or url.startswith("data:"):
            route.continue_()
        else:
            self.requests.append(url)
            route.abort()

    def ask(self, script: str) -> Any:
        return self.page.evaluate(script)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    return write_report(pages.hostile_run(tmp_path), tmp_path / "hostile.html", stale=[pages.EVERY_ATTACK])


def test_a_hostile_notebook_asks_for_nothing_and_runs_nothing(browser: Any, hostile: Path) -> None:
    visit = Visit(browser, hostile)
    for selector in ("summary", "button", "main a", "details"):
        for element in visit.page.query_selector_all(selector)[:60]:
            for event in ("mouseover", "focus", "toggle"):
                element.dispatch_event(event)
    visit.page.wait_for_timeout(300)
    assert visit.requests == []
    assert visit.problems == []
    assert visit.ask("window.__xss === undefined")
    assert visit.page.url == visit.url
    assert visit.ask("document.querySelectorAll('script').length") == 1
    assert visit.ask("document.querySelectorAll('iframe, object, embed, form, input, svg, link, base').length") == 0
    assert visit.ask(
        "[...document.querySelectorAll('*')].every(e => [...e.attributes].every(a => !/^on|^style$/i.test(a.name)))"
    )


def test_the_policy_refuses_what_the_sanitiser_would_have_missed(browser: Any, tmp_path: Path) -> None:
    page = write_report(make_run(tmp_path, PAGE), tmp_path / "digits.html")
    attack = "<script>window.__xss=1</script><img src='https://example.invalid/x.png' onerror='window.__xss=1'>"
    page.write_text(page.read_text().replace("<footer>", attack + "<footer>"))
    visit = Visit(browser, page)
    assert visit.ask("window.__xss === undefined")
    assert visit.requests == []
    assert any("Content Security Policy" in problem for problem in visit.problems)


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_report_is_complete_and_fits_narrow_and_wide(browser: Any, tmp_path: Path, width: int, dark: bool) -> None:
    metrics = "".join(f'{{"step": {i}, "a_rather_long_metric_name": {i}, "loss": {100 - i}}}\n' for i in range(100))
    page = write_report(make_run(tmp_path, PAGE, metrics=metrics), tmp_path / "digits.html")
    visit = Visit(browser, page, width=width, dark=dark)
    assert visit.requests == visit.problems == []
    assert visit.ask("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert visit.ask("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert visit.ask("document.querySelector('math').getBoundingClientRect().height > 10")
    assert visit.ask("document.querySelector('math').namespaceURI") == "http://www.w3.org/1998/Math/MathML"
    light = visit.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light is not dark


def test_code_opens_with_one_button_and_the_theme_changes(browser: Any, tmp_path: Path) -> None:
    visit = Visit(browser, write_report(make_run(tmp_path, PAGE), tmp_path / "digits.html"))
    assert visit.ask("[...document.querySelectorAll('details.code')].every(code => !code.open)")
    visit.page.click("button[data-do=code]")
    assert visit.ask("[...document.querySelectorAll('details.code')].every(code => code.open)")
    visit.page.click("button[data-do=theme]")
    assert visit.ask("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert visit.problems == []


def test_a_report_is_usable_without_its_script(browser: Any, tmp_path: Path) -> None:
    visit = Visit(browser, write_report(make_run(tmp_path, PAGE), tmp_path / "digits.html"), javascript=False)
    assert not visit.page.is_visible("button[data-do=code]")
    assert not visit.page.is_visible("details.code pre")
    visit.page.click("details.code summary")
    assert visit.page.is_visible("details.code pre")
    visit.page.click("nav a >> nth=1")
    assert "#nb-" in visit.page.url


def test_the_list_of_reports_leads_to_each_and_fits(browser: Any, tmp_path: Path) -> None:
    folder = tmp_path / "reports & more #1"
    folder.mkdir()
    write_report(make_run(tmp_path, PAGE), folder / "it's #1?.html")
    write_index(folder)
    visit = Visit(browser, folder / "index.html", width=390)
    assert visit.requests == visit.problems == []
    assert visit.ask("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    link = visit.ask("document.querySelector('td a, th a').href")
    assert link == (folder / "it's #1?.html").as_uri().replace("'", "%27")
