# ruff: noqa: E501  (rows of data stay rows)
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pages
import pandas as pd
import pytest
from pages import code, make_run, notebook, prose, shown, stream

from labkit.workbench.pages.index import write_index
from labkit.workbench.pages.report import write_report

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


def test_the_record_in_a_page_is_neither_shown_nor_run_nor_printed(browser: Any, tmp_path: Path) -> None:
    run = pages.hostile_run(tmp_path)
    run.source.joinpath("changes.patch").write_text(pages.EVERY_ATTACK * 1000)
    run.figures.joinpath("noise.npz").write_bytes(os.urandom(2_000_000))
    visit = Visit(browser, write_report(run, tmp_path / "digits.html"))
    carried = "document.querySelectorAll('template')"
    assert visit.ask(f"[{carried}.length, {carried}[0].childElementCount, {carried}[0].content.childElementCount]") == [
        1,
        0,
        0,
    ]
    assert visit.ask(f"{carried}[0].content.textContent.length") > 2_600_000
    assert visit.ask(f"{carried}[0].getClientRects().length") == 0
    start = visit.ask(f"{carried}[0].content.textContent.slice(0, 60)")
    for media in ("screen", "print"):
        visit.page.emulate_media(media=media)
        assert start not in visit.ask("document.body.innerText")
    assert visit.requests == visit.problems == []
    assert visit.ask("window.__xss === undefined")


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


LONG_METRICS = "".join(
    f'{{"step": {step}, "test_accuracy_of_the_large_model_on_unseen_data": 0.98765, "val_loss": {step}e-7}}\n'
    for step in range(100, 110)
)
AWKWARD = {
    "metrics": LONG_METRICS,
    "manifest": {
        "parameters": {"A_RATHER_LONG_NAME_OF_A_PARAMETER": 1, "DATA": "/a/long/path" * 9, "EPOCHS": 3},
        "given": {"EPOCHS": 3},
    },
    "environment": {"wheel": "cp311-cp311-manylinux_2_28_x86_64" * 3, "determinism": {"cublas_workspace": ":4096:8"}},
}
OPEN_ALL = "document.querySelectorAll('details').forEach(details => { details.open = true; })"
CUT = """(within => [...document.querySelectorAll(within)]
  .filter(box => box.scrollWidth > box.clientWidth + 1).map(box => box.className + ': ' + box.textContent.slice(0, 60)))"""
OUTSIDE = """(within => [...document.querySelectorAll(within)]
  .filter(box => box.getClientRects().length && box.getBoundingClientRect().right > document.documentElement.clientWidth)
  .map(box => box.textContent.slice(0, 60)))"""


@pytest.mark.parametrize("width", [390, 900, 1440])
def test_no_line_and_no_table_of_the_page_itself_is_cut(browser: Any, tmp_path: Path, width: int) -> None:
    run = pages.failed_run(tmp_path, **AWKWARD)
    visit = Visit(browser, write_report(run, tmp_path / "digits.html"), width=width)
    visit.ask(OPEN_ALL)
    assert (
        visit.ask(
            f"{CUT}('.stream pre, .error pre, .wide, .parameters, .environment, .about, .environment :is(th, td)')"
        )
        == []
    )
    assert visit.ask(f"{OUTSIDE}('.first *, .environment *, .stream pre')") == []
    overlapping = """[...document.querySelectorAll('tr')].filter(row => {
      const parts = [...row.cells].map(cell => { const range = document.createRange(); range.selectNodeContents(cell);
                                                 return [...range.getClientRects()]; });
      return parts.some((ours, i) => parts.slice(i + 1).some(theirs => ours.some(a => theirs.some(
        b => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1))));
    }).map(row => row.textContent)"""
    assert visit.ask(overlapping) == []


def test_a_name_breaks_between_its_words_and_nowhere_else(browser: Any, tmp_path: Path) -> None:
    visit = Visit(browser, write_report(make_run(tmp_path, PAGE, **AWKWARD), tmp_path / "digits.html"), width=390)
    lines = """(cell => { const tops = [...cell.childNodes].filter(node => node.nodeType === 3).map(node => {
      const range = document.createRange(); range.selectNode(node); return range.getClientRects().length; });
      return tops.every(lines => lines === 1); })"""
    assert visit.ask(f"[...document.querySelectorAll('.parameters th, .metrics tbody th')].every({lines})")


@pytest.mark.parametrize("width", [900, 1440])
def test_the_run_and_its_parameters_stand_in_line(browser: Any, tmp_path: Path, width: int) -> None:
    manifest = {"parameters": {"EPOCHS": 3, "BATCH": 64}, "given": {"EPOCHS": 3}}
    visit = Visit(browser, write_report(make_run(tmp_path, manifest=manifest), tmp_path / "digits.html"), width=width)
    where = "(what => { const box = document.querySelector(what).getBoundingClientRect(); return [box.left, box.top, box.bottom, box.right]; })"
    caption, name, value, table = (
        visit.ask(f"{where}('.parameters {part}')") for part in ("caption", "th", "tr:first-child td", "tbody")
    )
    run, first = visit.ask(f"{where}('.about')"), visit.ask(f"{where}('.about div')")
    title, metrics = visit.ask(f"{where}('h1')"), visit.ask(f"{where}('.metrics th')")
    assert caption[0] == pytest.approx(name[0], abs=0.5)
    assert value[3] == pytest.approx(table[3], abs=0.5)
    assert first[1:3] == pytest.approx(name[1:3], abs=1.5), "their first rows are at one height"
    assert run[0] == pytest.approx(title[0], abs=0.5)
    assert run[0] == pytest.approx(metrics[0], abs=0.5)
    assert visit.ask(
        "getComputedStyle(document.querySelector('.about dt')).paddingLeft === getComputedStyle(document.querySelector('.parameters th')).paddingLeft"
    )


def test_the_status_line_leads_to_the_cell_that_failed(browser: Any, tmp_path: Path) -> None:
    visit = Visit(browser, write_report(pages.failed_run(tmp_path), tmp_path / "digits.html"), width=390)
    visit.page.click(".band a")
    assert visit.page.url.endswith("#cell-3")
    top = visit.ask("document.querySelector('.failed').getBoundingClientRect().top")
    assert 0 <= top < 450
    assert visit.page.is_visible(".failed details.code pre")


CONTRAST = """() => {
  const light = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).map(part => { const x = part / 255;
    return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const colours = ['black', 'red', 'green', 'yellow', 'blue', 'magenta', 'cyan', 'white'];
  const found = [];
  for (const place of document.querySelectorAll('.error > pre, .stream > pre')) {
    for (const under of ['', ...colours]) for (const over of ['', ...colours]) {
      const text = document.createElement('span');
      text.className = (over && `ansi-${over}-fg `) + (under && `ansi-${under}-bg`);
      place.append(text);
      let behind = text, paper;
      while ((paper = getComputedStyle(behind).backgroundColor) === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
      const [a, b] = [light(getComputedStyle(text).color), light(paper)].sort((x, y) => y - x);
      const contrast = (a + 0.05) / (b + 0.05);
      if (contrast < 4.5) found.push([place.parentElement.className, over, under, contrast]);
    }
  }
  return found;
}"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_colour_of_a_terminal_is_readable_on_every_ground(browser: Any, tmp_path: Path, dark: bool) -> None:
    page = write_report(pages.failed_run(tmp_path), tmp_path / "digits.html")
    page.write_text(page.read_text().replace("</main>", '<div class="output stream stderr"><pre>x</pre></div></main>'))
    visit = Visit(browser, page, dark=dark)
    assert visit.ask(CONTRAST) == []


def test_a_printed_report_is_light_and_whole(browser: Any, tmp_path: Path) -> None:
    row = "<tr>" + "<td>-0.12345678</td>" * 22 + "</tr>"
    cells = [code("x", shown(text_html=f"<table class=dataframe>{row}</table>"), stream("wide " * 200))]
    cells += [prose("| " + " | ".join(f"column {i}" for i in range(15)) + " |\n|" + "---|" * 15 + "\n|" + " 1 |" * 15)]
    visit = Visit(
        browser,
        write_report(make_run(tmp_path, notebook(*cells), **AWKWARD), tmp_path / "d.html"),
        width=680,
        dark=True,
    )
    visit.page.click("button[data-do=theme]")
    visit.page.click("button[data-do=theme]")
    visit.page.emulate_media(media="print", color_scheme="dark")
    assert visit.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert visit.ask(f"{OUTSIDE}('td, th, pre, p')") == []
    assert visit.ask(f"{CUT}('.html, .wide, .prose table, pre')") == []
    for hidden in (".tools", ".contents", "details.code"):
        assert not visit.page.is_visible(hidden)
    assert visit.ask(
        "[...document.querySelectorAll('pre, .html')].every(box => getComputedStyle(box).maxHeight === 'none')"
    )
    assert visit.page.is_visible(".environment td"), "what is folded on the screen, but for code, is on paper"


@pytest.mark.parametrize("width", [390, 900, 1440])
def test_the_list_of_reports_cuts_no_title_and_no_number(browser: Any, tmp_path: Path, width: int) -> None:
    title = "A very long title of an experiment that compares seven optimisers on twelve data sets"
    run = make_run(tmp_path, notebook(prose(f"# {title}")), metrics=LONG_METRICS, manifest={"title": title})
    write_report(run, tmp_path / "a.html", stale=["the notebook changed"])
    write_report(make_run(tmp_path / "b", notebook(prose("# Digits"))), tmp_path / "b.html")
    write_index(tmp_path)
    visit = Visit(browser, tmp_path / "index.html", width=width)
    assert visit.ask(f"{CUT}('.wide, td, th')") == []
    assert visit.ask(f"{OUTSIDE}('td, th, a')") == []
    assert visit.ask("document.querySelector('tbody th').getBoundingClientRect().width") > 200
    lines = """(() => { const range = document.createRange(); range.selectNodeContents(document.querySelector('td.date'));
                        return new Set([...range.getClientRects()].map(line => line.top)).size; })()"""
    assert visit.ask(lines) <= 2


VERDICTS = [
    {"text": "the accuracy on the test set exceeds ninety percent", "condition": "test_accuracy > 0.9", "verdict": "not held", "value": 0.7},
    {"text": "learns fast", "condition": "val_accuracy > 0.9 by epoch 2", "verdict": "not held", "value": 0.6667},
]  # fmt: skip


def test_a_table_of_verdicts_fits_a_telephone(browser: Any, tmp_path: Path) -> None:
    rows = [{**one, "reason": "", "late": False, "evidence": {}} for one in VERDICTS]
    table = pd.DataFrame(VERDICTS).assign(reason="").to_html()
    content = notebook(prose("# Digits\n\n## Conclusion\n\nNo."), code("run.verdicts()", shown(text_html=table)))
    page = write_report(make_run(tmp_path, content, manifest={"verdicts": rows}), tmp_path / "a.html")
    visit = Visit(browser, page, width=390)
    assert visit.ask(f"{CUT}('.html, .verdicts td')") == []
    narrow = "[...document.querySelectorAll('.verdicts td')].filter(cell => cell.clientWidth < 60).length"
    assert visit.ask(narrow) == 0


@pytest.mark.parametrize("width", [700, 1280])
def test_no_word_in_the_headings_of_the_list_is_broken(browser: Any, tmp_path: Path, width: int) -> None:
    rows = [{**one, "reason": "", "late": False, "evidence": {}} for one in VERDICTS]
    run = make_run(tmp_path, notebook(prose("# Digits")), metrics=LONG_METRICS, manifest={"verdicts": rows})
    write_report(run, tmp_path / "a.html")
    write_index(tmp_path)
    visit = Visit(browser, tmp_path / "index.html", width=width)
    headings = """[...document.querySelectorAll('thead th')].filter(cell => {
        const range = document.createRange(); range.selectNodeContents(cell);
        return new Set([...range.getClientRects()].map(line => line.top)).size > cell.textContent.split(' ').length;
    }).map(cell => cell.textContent)"""
    assert visit.ask(headings) == []
