"""The outputs of code cells as HTML: the richest form that needs no script, with a note where another one did."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from labkit.workbench.pages import prose, sanitise
from labkit.workbench.pages.console import console, shortened
from labkit.workbench.pages.formulas import Formulas
from labkit.workbench.pages.sanitise import text_of

PICTURES = ("image/svg+xml", "image/png", "image/jpeg", "image/webp", "image/gif")
NEEDS_SCRIPT = {  # beginnings of media types, and what readers know them as
    "application/vnd.jupyter.widget": "widget",
    "application/vnd.plotly": "plotly figure",
    "application/vnd.bokeh": "bokeh figure",
    "application/vnd.holoviews": "holoviews figure",
    "application/vnd.vega": "vega figure",
    "application/javascript": "script",
    "text/vnd.mermaid": "mermaid drawing",
    "application/vnd.": "interactive output",
}
# IPython counts executions, `Cell In[3], line 1`; a page names cells by their place. Colours stand in between.
_COUNTED_CELL = re.compile(r"(?:Cell|Input)(?:\s|\x1b\[[0-9;]*m)+In ?\[(\d{1,9})\]")
_ACTIVE_HTML = re.compile(r"<(?:script|iframe|object|embed)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Output:
    """One output on the page.

    Attributes:
        kind: `stream`, `result` or `error`; decides its looks.
        body: Its HTML.
        note: What of it is not shown; empty where all is.
    """

    kind: str
    body: Markup
    note: str = ""


def outputs(cell: dict[str, Any], place: str, formulas: Formulas, names: Mapping[int, str]) -> list[Output]:
    """Returns the outputs of a code cell in order; streams that follow each other are one.

    Args:
        cell: The cell, from a notebook that may be damaged.
        place: What the cell is called, for readers who cannot see pictures.
        formulas: Counts the page's formulas.
        names: What cells are called, by their execution count; for tracebacks.
    """
    found: list[Output] = []
    streams: list[str] = []
    name = None
    for output in [*_dicts(cell.get("outputs")), {}]:
        if streams and (output.get("output_type") != "stream" or output.get("name") != name):
            text = "".join(streams)
            if text.strip():
                found.append(Output("stream stderr" if name == "stderr" else "stream", _pre(text)))
            streams = []
        kind = output.get("output_type")
        if kind == "stream":
            name = output.get("name")
            streams.append(text_of(output.get("text")))
        elif kind in {"display_data", "execute_result"}:
            found.append(_rich(output, place, formulas))
        elif kind == "error":
            found.append(_error(output, names))
    return found


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _pre(text: str) -> Markup:
    return Markup("<pre>{}</pre>").format(console(text))


def _error(output: dict[str, Any], names: Mapping[int, str]) -> Output:
    traceback = output.get("traceback")
    text = "\n".join(map(text_of, traceback)) if isinstance(traceback, list) else text_of(traceback)
    text = _COUNTED_CELL.sub(lambda found: names.get(int(found[1]), found[0]), text)
    head = f"{text_of(output.get('ename')) or 'Error'}: {text_of(output.get('evalue'))}"
    body = Markup('<p class="error-name">{}</p>').format(shortened(head, 2000)) + (_pre(text) if text else "")
    return Output("error", body)


def _rich(output: dict[str, Any], place: str, formulas: Formulas) -> Output:
    data = output.get("data")
    data = data if isinstance(data, dict) else {}
    html = text_of(data.get("text/html"))
    needs = next((what for mime in data for start, what in NEEDS_SCRIPT.items() if mime.startswith(start)), "")
    if not needs and _ACTIVE_HTML.search(html):
        needs = "script"
    body, shown = _best(output, data, html, place, formulas, picture_first=bool(needs))
    if needs:
        text = "the text it began with is shown" if needs == "widget" else "its text is shown"
        what = {"picture": "its picture is shown", "text": text}.get(shown, "nothing else was saved")
        return Output("result", body, f"{needs.capitalize()}: this page runs no scripts; {what}.")
    if shown == "nothing" and data:
        return Output("result", body, f"Not shown here: {', '.join(sorted(map(str, data)))[:200]}.")
    return Output("result", body)


def _best(
    output: dict[str, Any], data: dict[str, Any], html: str, place: str, formulas: Formulas, *, picture_first: bool
) -> tuple[Markup, str]:
    """Returns the richest form that a page without scripts can show, and which it is."""
    forms = [_from_html, _from_markup, _from_picture, _from_text]
    for form in [_from_picture, *forms] if picture_first else forms:
        body = form(output, data, html, place, formulas)
        if body is not None:
            return body, {"_from_picture": "picture"}.get(form.__name__, "text")
    return Markup(""), "nothing"


def _from_html(
    output: dict[str, Any], data: dict[str, Any], html: str, place: str, formulas: Formulas
) -> Markup | None:
    clean = sanitise.html(html) if html.strip() else None
    if clean is None or not ("<img" in clean or clean.striptags().strip()):
        return None
    return Markup('<div class="html">{}</div>').format(clean)


def _from_markup(
    output: dict[str, Any], data: dict[str, Any], html: str, place: str, formulas: Formulas
) -> Markup | None:
    if "text/markdown" in data:
        return Markup('<div class="prose">{}</div>').format(
            prose.Prose(formulas).render(text_of(data["text/markdown"]))
        )
    if "text/latex" in data and len(text_of(data["text/latex"])) < prose.LONGEST:
        return Markup('<div class="prose">{}</div>').format(prose.latex(text_of(data["text/latex"]), formulas))
    return None


def _from_picture(
    output: dict[str, Any], data: dict[str, Any], html: str, place: str, formulas: Formulas
) -> Markup | None:
    for kind in PICTURES:
        if kind not in data:
            continue
        about = output.get("metadata")
        size = about.get(kind) if isinstance(about, dict) else None
        size = size if isinstance(size, dict) else {}
        picture = sanitise.image(kind, data[kind], f"figure from {place}", size.get("width"), size.get("height"))
        if picture is not None:
            return Markup('<div class="picture">{}</div>').format(picture)
    return None


def _from_text(
    output: dict[str, Any], data: dict[str, Any], html: str, place: str, formulas: Formulas
) -> Markup | None:
    if "text/plain" in data:
        return _pre(text_of(data["text/plain"]))
    if "application/json" in data:
        return _pre(json.dumps(data["application/json"], indent=1, ensure_ascii=False))
    if html and not _ACTIVE_HTML.search(html):
        return _pre(html)  # too large to be read as HTML
    return None
