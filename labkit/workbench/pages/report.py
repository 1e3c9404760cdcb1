"""A run, or any notebook, as one HTML file that asks for nothing, runs nothing of the notebook, and works for ever.

`ReportExporter` is an nbconvert exporter, so `jupyter nbconvert --to labkit x.ipynb` works as well; `write_report` adds
what the record knows about the run. The page is a pure function of the run's files: the same run gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from markupsafe import Markup
from nbconvert.exporters.exporter import Exporter
from nbconvert.exporters.html import HTMLExporter
from traitlets import default

from labkit.record import capsule
from labkit.record.files import read_regular, write_atomic
from labkit.record.page import LONGEST_STAMP
from labkit.record.rundir import RunDir
from labkit.record.text import counted
from labkit.workbench.pages import document, public
from labkit.workbench.pages.document import Document
from labkit.workbench.pages.facts import Facts, facts_of, inside
from labkit.workbench.pages.looks import PAGE, breakable, page_parts

LARGEST_NOTEBOOK = 200 * 2**20


def render(run: RunDir, *, stale: Sequence[str] = (), stamp: str = "", is_public: bool = False) -> str:
    """Returns the report of a run as HTML, from what of its record is there.

    Args:
        run: The run; no link out of its directory is followed. Outside of it only small data files are read, and
            taken where they are what the run read.
        stale: What has changed since the run, as the ends of sentences: `the notebook changed`.
        stamp: Stands in the page's first bytes, for `page_stamp`.
        is_public: Carry no record, and name neither host, user nor their folders.

    Raises:
        ValueError: The stamp is too long to stand there.
    """
    facts = facts_of(run, stale)
    content, problem = _read_notebook(run)
    if problem:
        facts.problems.insert(0, problem)
    hiding = public.Hiding.of(run) if is_public else None
    if hiding is not None:
        content, facts = hiding.notebook(content), hiding.facts(facts)
    made = document.document(content, facts)
    if problem:
        made.add_what_is_left(run)
    if hiding is not None:
        return hiding.page(_fill(_exporter(), made, stamp, said=public.NOT_CARRIED))
    archive = capsule.pack(run)
    return _fill(_exporter(), made, stamp, capsule.element(archive), capsule.mark(archive))


def write_report(
    run: RunDir, target: Path, stale: Sequence[str] = (), stamp: str = "", is_public: bool = False
) -> Path:
    """Writes the report of a run in one step, and returns where.

    Raises:
        OSError: It cannot be written; an earlier page stays.
    """
    write_atomic(target, render(run, stale=stale, stamp=stamp, is_public=is_public).encode("utf-8", "replace"))
    return target


class ReportExporter(HTMLExporter):
    """One offline HTML page that runs nothing of the notebook."""

    export_from_notebook = "Lab report"

    def from_notebook_node(
        self, nb: nbformat.NotebookNode, resources: dict[str, Any] | None = None, **kw: Any
    ) -> tuple[str, dict[str, Any]]:
        """Returns the page of a notebook without a run, after nbconvert's own steps."""
        # HTMLExporter's method would take the finished page apart and write it anew.
        prepared, resources = Exporter.from_notebook_node(self, nb, resources, **kw)
        name = str((resources.get("metadata") or {}).get("name") or "notebook")
        return _fill(self, document.document(prepared, Facts(), name), ""), resources

    @default("template_paths")
    def _template_paths(self, prune: bool = True, root_dirs: Any = None) -> list[str]:
        return [str(PAGE)]  # no template of the same name elsewhere takes part

    @default("template_name")
    def _template_name_default(self) -> str:
        return "labkit"

    def get_template_names(self) -> list[str]:
        """Returns the one template's name; there is no other to fall back to."""
        return ["labkit"]

    def _create_environment(self) -> Any:
        environment = super()._create_environment()
        environment.autoescape = True
        environment.filters |= {"breakable": breakable, "counted": counted}
        environment.trim_blocks = environment.lstrip_blocks = True
        return environment


@cache
def _exporter() -> ReportExporter:
    return ReportExporter()


def _fill(exporter: ReportExporter, made: Document, stamped: str, carried: str = "", said: str = "") -> str:
    """Returns the page.

    Args:
        exporter: Whose template it is.
        made: What stands on it.
        stamped: What it is made from.
        carried: The element with the record.
        said: What the first bytes say of the record.
    """
    if len(escape(stamped)) > LONGEST_STAMP:
        raise ValueError(f"a page's stamp has at most {LONGEST_STAMP} characters")
    template = exporter.environment.get_template("report.html.j2")
    summary = json.dumps(made.summary, ensure_ascii=False)
    record = {"capsule": Markup(carried), "capsule_said": said, "is_public": said == public.NOT_CARRIED}
    return str(template.render(doc=made, facts=made.facts, stamp=stamped, summary=summary, **record, **page_parts()))


def _read_notebook(run: RunDir) -> tuple[Any, str]:
    """Returns the executed notebook, and what is wrong with it; one of them is empty."""
    if run.notebook.is_symlink() or inside(run, run.notebook) != run.notebook:
        return None, "notebook.ipynb leads out of the run and was not read"
    data = read_regular(run.notebook, LARGEST_NOTEBOOK + 1)
    if data is None:
        return None, "the executed notebook (notebook.ipynb) is missing"
    if len(data) > LARGEST_NOTEBOOK:
        return None, f"the executed notebook is larger than {LARGEST_NOTEBOOK // 2**20} MiB"
    return document.parse(data)
