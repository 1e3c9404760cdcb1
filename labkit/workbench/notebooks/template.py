"""New notebooks from templates, those of the lab first, then labkit's own.

A template is a notebook that runs as it stands; in its Markdown, `{title}`, `{author}` and `{date}` are filled.
"""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from datetime import date
from pathlib import Path

import labkit
from labkit.errors import FolderProblem, NotebookProblem
from labkit.record.provenance import author
from labkit.workbench.notebooks import lint, outline, tidy
from labkit.workbench.notebooks.hygiene import Content
from labkit.workbench.notebooks.notebook import bytes_of

FOLDER = "templates"
PLACEHOLDER = re.compile(r"(?<!\w)\{(title|author|date)\}")  # `\text{title}` is a formula's
LONGEST_NAME = 200  # bytes


def own_folder() -> Path:
    """Returns the folder of the templates that labkit brings along: in its wheel, else in its checkout."""
    package = Path(labkit.__file__).parent
    inside = package / FOLDER
    return inside if inside.is_dir() else package.parent / FOLDER


def folders(root: Path) -> list[Path]:
    """Returns the folders of a lab's templates, its own first."""
    found = [folder for folder in (root / FOLDER, own_folder()) if folder.is_dir()]
    return list(dict.fromkeys(folder.resolve() for folder in found))


def templates(root: Path) -> dict[str, Path]:
    """Returns the templates by name, `labkit/experiment`; one of the lab hides labkit's of the same name."""
    found: dict[str, Path] = {}
    for folder in folders(root):
        for path in sorted(folder.rglob("*.ipynb")):
            if ".ipynb_checkpoints" not in path.parts:
                found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return found


def find(name: str, root: Path) -> Path:
    """Returns a template by its name, with or without its group.

    Raises:
        NotebookProblem: There is none of that name; the message names the nearest, and all.
    """
    known = templates(root)
    wanted = name.removesuffix(".ipynb")
    by_stem = {path.stem: path for path in reversed(known.values())}
    found = known.get(wanted) or by_stem.get(wanted)
    if found is None:
        near = difflib.get_close_matches(wanted, [*known, *by_stem], 1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise NotebookProblem(f"there is no template {name!r:.80}{hint} There are {', '.join(known) or 'none'}")
    return found


def new(name: str, template: str, root: Path) -> Path:
    """Writes a notebook from a template to the lab's `notebooks/` and returns its path; nothing is overwritten.

    Args:
        name: What is tried, in words (`Does dropout help?`), or a file name; the notebook's title and file name are
            made of it.
        template: The template's name.
        root: The lab.

    Raises:
        NotebookProblem: There is such a notebook already, or no such template, or it cannot be read.
        FolderProblem: The notebook cannot be written.
    """
    source = find(template, root)
    content, problems = lint.parse(bytes_of(source))
    if content is None:
        raise NotebookProblem(f"the template {source} cannot be used: {problems[0]}")
    path = root / "notebooks" / f"{file_name(name)}.ipynb"
    made = filled(content, {"title": title(name), "author": author(root), "date": date.today().isoformat()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(tidy.dumps(made))
    except FileExistsError:
        shown = os.path.relpath(path)
        raise NotebookProblem(f"there is a notebook {shown} already; choose another name, or open that one") from None
    except OSError as error:
        raise FolderProblem(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def filled(content: Content, values: dict[str, str]) -> Content:
    """Returns a notebook whose placeholders have their values; those without one stay."""
    cells = []
    for cell in content["cells"]:
        if cell["cell_type"] == "markdown":
            text = PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), outline.source(cell))
            cell = cell | {"source": text}
        cells.append(cell)
    return content | {"cells": cells}


def title(name: str) -> str:
    """Returns what a name says as a title: of a file name, its words."""
    text = " ".join(name.split()).removesuffix(".ipynb")
    if " " not in text:
        text = re.sub(r"[-_]+", " ", text.rpartition("/")[2]).strip()
    return text[:1].upper() + text[1:]


def file_name(name: str) -> str:
    """Returns the file name that stands for a name, without its ending: `Does dropout help?` is `does-dropout-help`.

    Raises:
        NotebookProblem: The name has nothing to make a file name of, or is too long for one.
    """
    text = unicodedata.normalize("NFC", name).strip().removesuffix(".ipynb")
    if " " not in text:
        text = text.removeprefix("./").removeprefix("notebooks/")
    made = re.sub(r"[\W_]+", "-", text.lower()).strip("-")
    if not made:
        raise NotebookProblem(f"{name!r:.80} has no letters to make a file name of; say in some words what is tried")
    if len(made.encode()) > LONGEST_NAME:
        raise NotebookProblem(f"{name!r:.80}… is too long for a file name; say in some words what is tried")
    return made
