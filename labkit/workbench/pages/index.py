"""The page of all reports in a folder, made from what each of them says about itself in its first bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import quote

from labkit.record.files import read_regular, write_atomic
from labkit.record.page import page_summary
from labkit.workbench.pages.looks import PAGE, page_parts

NAME = "index.html"
NOTEBOOKS = "notebooks"


@dataclass(frozen=True)
class Row:
    """One report in the list; every field is text for a reader.

    Attributes:
        page: The report's file name.
        title: The experiment's name.
        state: How its run ended; empty for a notebook without a run.
        verdicts: How many expectations held and did not.
        number: The main number with its name.
        given: The parameters that the run was given.
        question: What the experiment asks, as the notebook says it; likewise `conclusion` and `next_steps`.
        date: When the run started.
        duration: How long it took.
        stale: Why the report is stale; empty where it is not.
        reproduced: What came of making the run again, and when; empty where nobody did.
    """

    page: str
    title: str = ""
    state: str = ""
    verdicts: str = ""
    number: str = ""
    given: str = ""
    question: str = ""
    conclusion: str = ""
    next_steps: str = ""
    date: str = ""
    duration: str = ""
    stale: str = ""
    reproduced: str = ""

    @property
    def link(self) -> str:
        """The page's address relative to the list."""
        return "./" + quote(self.page)


def page_name(root: Path, inside: str) -> str:
    """Returns the file name of a notebook's page, which no other notebook of its lab has.

    It is the path below `notebooks/`, or in a lab without that folder below the lab, with `--` between the folders. A
    notebook elsewhere, or one whose name could be read as another path, has a fingerprint of its path behind `---`.

    Args:
        root: The lab.
        inside: The notebook's path in the lab.
    """
    parts = Path(inside).with_suffix("").parts
    is_below = len(parts) > 1 and parts[0] == NOTEBOOKS
    parts = parts[1:] if is_below else parts
    name = "--".join(parts)
    is_plain = all("--" not in part and part == part.strip("-") for part in parts) and f"{name}.html" != NAME
    if is_plain and (is_below or not (root / NOTEBOOKS).is_dir()):
        return f"{name}.html"
    return f"{name}---{hashlib.sha256(os.fsencode(inside)).hexdigest()[:8]}.html"


def write_index(folder: Path) -> bool:
    """Writes the page of all reports in a folder unless it is up to date; tells whether it was written.

    Raises:
        OSError: It cannot be written; an earlier page stays.
    """
    made = render(rows(folder)).encode("utf-8", "replace")
    if read_regular(folder / NAME, len(made) + 1) == made:
        return False
    write_atomic(folder / NAME, made)
    return True


def rows(folder: Path) -> list[Row]:
    """Returns a row for each report in a folder, by file name; other files and links are left out."""
    found = []
    try:
        pages = sorted(path for path in folder.iterdir() if path.suffix == ".html" and path.name != NAME)
    except OSError:
        return []
    for path in pages:
        summary = page_summary(path)
        if summary is not None:
            names = [field.name for field in fields(Row) if field.name != "page"]
            found.append(Row(path.name, **{name: str(summary.get(name) or "")[:300] for name in names}))
    return found


def render(found: Sequence[Row]) -> str:
    """Returns the page that lists these reports."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(PAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("index.html.j2").render(rows=found, **page_parts())
