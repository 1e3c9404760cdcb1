"""A notebook as the parts of a page: cells, headings, the question and the conclusion. Damaged cells become text."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from markupsafe import Markup

from labkit.record.expectations import in_short
from labkit.record.files import read_regular
from labkit.record.rundir import RunDir
from labkit.workbench.notebooks import outline
from labkit.workbench.pages import sanitise
from labkit.workbench.pages.console import console
from labkit.workbench.pages.curves import curve
from labkit.workbench.pages.facts import Band, Facts, inside
from labkit.workbench.pages.outputs import Output, outputs
from labkit.workbench.pages.prose import Heading, Prose, highlighted
from labkit.workbench.pages.sanitise import text_of
from labkit.workbench.wording import cell_name

PRINTED = 1000  # characters of a computed conclusion on the first screen
IN_SHORT = 280  # characters of question, conclusion and next steps in the list of reports
CURVES = 12  # metrics whose course is drawn
LEFT_FIGURES = 20


@dataclass(frozen=True)
class Cell:
    """One cell on the page.

    Attributes:
        kind: `prose`, `code` or `raw`.
        body: Its HTML; for code, the source.
        outputs: What it showed.
        number: Its place in the notebook, from 1; 0 for what is no cell of it.
        name: What it is called.
        lines: Lines of source.
        failed: An error is among its outputs.
        waiting: The run ended before its turn came.
    """

    kind: str
    body: Markup
    outputs: tuple[Output, ...] = ()
    number: int = 0
    name: str = ""
    lines: int = 0
    failed: bool = False
    waiting: bool = False


@dataclass
class Document:
    """Everything that stands on a page."""

    title: str
    facts: Facts
    language: str = ""
    question: Markup = field(default_factory=Markup)
    conclusion: Markup = field(default_factory=Markup)
    next_steps: Markup = field(default_factory=Markup)
    cells: list[Cell] = field(default_factory=list)
    headings: list[Heading] = field(default_factory=list)
    formulas: int = 0
    formulas_as_source: int = 0

    @property
    def contents(self) -> list[Heading]:
        """Headings of the first three levels."""
        return [heading for heading in self.headings if heading.level <= 3 and heading.text]

    @property
    def bands(self) -> list[Band]:
        """The lines across the top; the one about the run's state leads to the cell that ended it."""
        failed = self._failed_cell()
        if failed is None:
            return self.facts.bands
        return [replace(band, text=_linked(band.text, failed)) if band.is_state else band for band in self.facts.bands]

    def _failed_cell(self) -> Cell | None:
        failed = [cell for cell in self.cells if cell.failed]
        if self.facts.state == "interrupted":  # its cell is not recorded; none ran after it
            return failed[-1] if failed else None
        return next((cell for cell in failed if cell.number == self.facts.failed_cell), None)

    @property
    def curves(self) -> dict[str, Markup]:
        """The courses of the first metrics."""
        drawn = ((metric.name, curve(metric.values, metric.name)) for metric in self.facts.metrics[:CURVES])
        return {name: picture for name, picture in drawn if picture is not None}

    @property
    def summary(self) -> dict[str, str]:
        """What the page of all reports says about this one; field names as `index.Row` has them."""
        about, main = dict(self.facts.about), self.facts.main[:1]
        return {
            "run": about.get("Run", ""),
            "title": self.title[:300],
            "state": ", ".join([self.facts.state, *self.facts.labels]),
            "verdicts": in_short(self.facts.verdicts),
            "number": f"{main[0].name} {main[0].spread or main[0].last}" if main else "",
            "given": ", ".join(f"{one.name}={one.value}" for one in self.facts.parameters if one.given)[:300],
            "question": _in_short(self.question),
            "conclusion": _in_short(self.conclusion),
            "next_steps": _in_short(self.next_steps),
            "date": about.get("Date", ""),
            "duration": about.get("Duration", ""),
            "stale": "; ".join(self.facts.stale)[:300],
            "reproduced": about.get("Reproduced", ""),
        }

    def add_what_is_left(self, run: RunDir) -> None:
        """Adds the figures and the end of the log, for a run whose notebook cannot be shown."""
        try:
            pictures = sorted(path for path in run.figures.iterdir() if path.suffix == ".png")[:LEFT_FIGURES]
        except OSError:
            pictures = []
        for path in pictures:
            data = read_regular(inside(run, path), 10 * 2**20) if inside(run, run.figures) == run.figures else None
            picture = sanitise.image("image/png", base64.b64encode(data).decode(), path.stem) if data else None
            if picture is not None:
                body = Markup('<div class="picture">{}<p>{}</p></div>').format(picture, path.name)
                self.cells.append(Cell("prose", body))
        log = read_regular(inside(run, run.log), 64 * 2**20)
        if log:
            end = console(log[-20_000:].decode("utf-8", "replace"))
            self.cells.append(Cell("raw", Markup("<h2>The end of the log</h2><pre>{}</pre>").format(end)))


def parse(data: bytes) -> tuple[Any, str]:
    """Returns the notebook in these bytes, and what is wrong with it; one of them is empty."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        return None, f"the executed notebook (notebook.ipynb) is not JSON: {error}"
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        return None, "the executed notebook (notebook.ipynb) is no notebook of format 4"
    return content, ""


def document(content: Any, facts: Facts, name: str = "") -> Document:
    """Returns the parts of a page.

    Args:
        content: The notebook; any damaged part of it becomes text or is left out.
        facts: What is known of the run.
        name: Stands for the title where there is none.
    """
    content = content if isinstance(content, dict) else {}
    cells = [cell for cell in content.get("cells") or [] if isinstance(cell, dict)]
    title = outline.title(_markdown(cells))
    made = Document(facts.title or title or name or "Notebook", facts, _language(content))
    aside = Prose()  # what is repeated on the first screen counts once, below
    question, conclusion = outline.question(_markdown(cells)), outline.section(_markdown(cells), "conclusion")
    made.question = aside.render(question) if question else Markup("")
    made.conclusion = _printed(cells, "conclusion") + (aside.render(conclusion) if conclusion else Markup(""))
    steps = outline.next_steps(_markdown(cells))
    made.next_steps = aside.render(steps) if steps and steps not in conclusion else Markup("")
    prose = Prose()
    names = _names_by_count(cells)
    for number, cell in enumerate(cells, 1):
        made.cells += _cell(cell, number, prose, made, title, names)
    made.headings = prose.headings
    made.formulas, made.formulas_as_source = prose.formulas.shown, prose.formulas.as_source
    return made


def _cell(
    cell: dict[str, Any], number: int, prose: Prose, made: Document, title: str, names: dict[int, str]
) -> Iterator[Cell]:
    source = text_of(cell.get("source"))
    if cell.get("cell_type") == "markdown":
        if title and title == made.title and not prose.headings:
            source = outline.without_title(source, title)  # it stands at the top of the page
        if source.strip():
            yield Cell("prose", prose.render(source, cell.get("attachments")))
    elif cell.get("cell_type") == "code":
        name = cell_name(number, cell.get("id"))
        found = tuple(outputs(cell, name, prose.formulas, names))
        code = highlighted(source.rstrip("\n"), made.language) if source.strip() else Markup("")
        failed = any(output.kind == "error" for output in found)
        if code or found:
            lines = source.rstrip("\n").count("\n") + 1
            yield Cell("code", code, found, number, name, lines, failed, _is_waiting(cell))
    elif source.strip():
        yield Cell("raw", Markup("<pre>{}</pre>").format(console(source)))


def _names_by_count(cells: list[dict[str, Any]]) -> dict[int, str]:
    """Returns what cells are called by their execution count, as far as one cell alone has it."""
    counts = [cell.get("execution_count") for cell in cells]
    often = Counter(count for count in counts if isinstance(count, int))
    return {
        count: cell_name(number, cell.get("id"))
        for number, (cell, count) in enumerate(zip(cells, counts, strict=True), 1)
        if isinstance(count, int) and often[count] == 1
    }


def _is_waiting(cell: dict[str, Any]) -> bool:
    about = cell.get("metadata")
    engine = about.get("papermill") if isinstance(about, dict) else None
    return isinstance(engine, dict) and engine.get("status") == "pending"


def _linked(text: str, cell: Cell) -> Markup:
    """Returns a sentence in which the name of a cell leads to it; where it is not named, it is added."""
    before, name, after = text, cell.name, ""
    found = re.search(re.escape(cell.name), text, re.IGNORECASE)
    if found:
        before, name, after = text[: found.start()], found[0], text[found.end() :]
    else:
        before, after = f"{text.rstrip('.')}, in ", "."
    return Markup('{}<a href="#cell-{}">{}</a>{}').format(before, cell.number, name, after)


def _language(content: dict[str, Any]) -> str:
    about = content.get("metadata")
    info = about.get("language_info") if isinstance(about, dict) else None
    name = info.get("name") if isinstance(info, dict) else None
    return name if isinstance(name, str) else "python"


def _markdown(cells: list[dict[str, Any]]) -> Iterator[str]:
    return (text_of(cell.get("source")) for cell in cells if cell.get("cell_type") == "markdown")


def _printed(cells: list[dict[str, Any]], name: str) -> Markup:
    """Returns what the code of a section printed, as paragraphs: an answer computed from the run says most."""
    is_in_section = False
    for cell in cells:
        if cell.get("cell_type") == "markdown":
            is_in_section = is_in_section or bool(outline.section(_markdown([cell]), name))
        elif is_in_section:
            texts = [text_of(output.get("text")) for output in _outputs(cell) if output.get("name") == "stdout"]
            lines = "".join(texts)[:PRINTED].strip().splitlines()
            if lines:
                return Markup("").join(Markup("<p>{}</p>").format(line) for line in lines)
    return Markup("")


def _outputs(cell: dict[str, Any]) -> list[dict[str, Any]]:
    found = cell.get("outputs")
    return [output for output in found if isinstance(output, dict)] if isinstance(found, list) else []


def _in_short(shown: Markup) -> str:
    """Returns the text of a part of the page, short enough to stand in its first bytes."""
    text = shown.striptags()
    return text if len(text) <= IN_SHORT else text[:IN_SHORT].rsplit(" ", 1)[0] + " …"
