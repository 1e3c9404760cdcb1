"""An existing notebook takes up labkit's structure: headings, the tag of its parameters, the start of a run, ids.

Its code cells stay as they are and where they are. What cannot be told from headings and code is said, not guessed.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labkit.errors import NotebookProblem
from labkit.record.declared import declared
from labkit.record.provenance import git
from labkit.record.text import counted
from labkit.workbench.notebooks import check, lint, notebook, outline, tidy
from labkit.workbench.notebooks.hygiene import Content
from labkit.workbench.notebooks.outline import Cell

START = "import labkit\n\nrun = labkit.start()"
TO_MOVE = "TODO: does this section begin here? Move this heading to where it does."
OTHER_RUN = re.compile(r"\brun\s*=[^=]|\b(as|for) run\b|\bdef run\(")
NAMES = {  # what other notebooks call the sections
    "Goal": r"aims?|goals?|hypothes[ie]s|introduction|motivation|objectives?|purpose|questions?",
    "Environment": r"dependencies|environment|imports?|libraries|packages|requirements|set-?up",
    "Data": r"data|data ?sets?|data ?loaders?|pre-?processing",
    "Model": r"architecture|models?|networks?",
    "Training": r"fit|fitting|optimi[sz]ation|training|train",
    "Analysis": r"analysis|evaluat\w+|experiments?|predictions?|results?|test|testing|validation|visuali[sz]ation",
    "Conclusion": r"conclusions?|discussion|next steps|summary",
}
CODE = {  # what the code of a section does
    "Data": r"\b(DataLoader|\w*Dataset|read_csv|load_\w+|datasets?\.\w+|make_\w+|train_test_split|digits|batches)\(",
    "Model": r"^class \w+\(.*Module\b|^\w+ *= *.*\bSequential\(|^\w+ *= *(torchvision\.)?models?\.\w+\(",
    "Training": r"\.backward\(|\.fit\(|\btrain\w*\(",
    "Analysis": r"\b(accuracy\w*|confusion_matrix|classification_report|evaluate|predict|plot|imshow)\(|\bplt\.",
}


@dataclass(frozen=True)
class Adopted:
    """A notebook with labkit's structure.

    Attributes:
        content: The notebook.
        done: What was put in.
        undecided: What its author has to look at.
    """

    content: Content
    done: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)


def adopt(path: Path, *, force: bool = False, dry: bool = False) -> Adopted:
    """Puts labkit's structure into a notebook's file.

    Args:
        path: The notebook.
        force: Also where git could not bring back what is there now.
        dry: Write nothing.

    Raises:
        NotebookProblem: It cannot be read, is not in Python, or holds changes that are in no commit.
    """
    content, problems = lint.parse(notebook.bytes_of(path))
    if content is None:
        raise NotebookProblem(f"{path}: {problems[0]}")
    language = notebook.Notebook(path, content).language
    if language != "python":
        raise NotebookProblem(f"{path} is written in {language}; labkit's structure is for Python")
    if not (force or dry):
        _refuse_what_git_cannot_bring_back(path)
    made = adopted(content, dry=dry)
    if made.done and not dry:
        check.write(path, tidy.dumps(made.content))
    return made


def _refuse_what_git_cannot_bring_back(path: Path) -> None:
    name, path = os.path.relpath(path), path.resolve()  # a link's target is what would be written
    try:
        listed = git(path.parent, "--literal-pathspecs", "ls-files", "-v", "-z", "--", path.name)
        state = git(path.parent, "--literal-pathspecs", "status", "--porcelain", "--", path.name)
    except OSError as error:
        raise NotebookProblem(
            f"{name} is not in git ({error}), so nothing could bring it back; --force adopts it"
        ) from None
    if state or not listed:
        raise NotebookProblem(f"{name} holds changes that are in no commit; commit them first, or --force adopts it")
    if not listed.startswith(b"H "):
        raise NotebookProblem(
            f"git was told not to look at {name}, and may lack its changes; --force adopts it,"
            f" git update-index --no-assume-unchanged --no-skip-worktree {shlex.quote(path.name)} lets git look"
        )


def adopted(content: Content, *, dry: bool = False) -> Adopted:
    """Returns a notebook with labkit's structure; doing it twice changes nothing more.

    Args:
        content: The notebook.
        dry: Say what would be done, since nobody writes it.
    """
    tag, add, give = ("would tag", "would add", "would give") if dry else ("tagged", "added", "gave")
    cells = [dict(cell) for cell in content["cells"]]
    tagged, cells = _with_tag(cells)
    started, cells = _with_start(cells)
    places, cells = _with_sections(cells)
    made, renamed = tidy.with_ids(content | {"cells": cells})
    headings = outline.first_headings(cells)
    done, undecided = [], []
    if tagged is not None:
        names = ", ".join(parameter.name for parameter in declared(outline.source(tagged)))
        done.append(f"{tag} cell {_number(cells, tagged)} as the parameters: {names:.80}")
    elif not any(map(outline.is_parameters, cells)):
        undecided.append("no cell holds plain values only: put the parameters into one, and tag it `parameters`")
    if started is not None:
        done.append(f"{add} `run = labkit.start()` as cell {_number(cells, started)}")
        undecided += _other_runs(cells, started)
    for name, is_known in places.items():
        done.append(f"{add} `## {name}` as cell {headings[name].index + 1}")
        if not is_known:
            undecided.append(f"where the section {name} begins: move cell {headings[name].index + 1} there")
    if renamed:
        done.append(f"{give} {counted(len(renamed), 'cell')} an id")
    return Adopted(made, done, undecided)


def _number(cells: Sequence[Cell], cell: Cell) -> int:
    return next(number for number, other in enumerate(cells, 1) if other is cell)


def _with_tag(cells: list[Cell]) -> tuple[Cell | None, list[Cell]]:
    """Tags the first cell that holds nothing but assignments of plain values, and returns it too."""
    index = next((index for index, cell in enumerate(cells) if _is_plain(cell)), None)
    if index is None or any(map(outline.is_parameters, cells)):
        return None, cells
    tags = [*outline.tags(cells[index]), outline.PARAMETERS]
    tagged = cells[index] | {"metadata": cells[index]["metadata"] | {"tags": tags}}
    return tagged, [*cells[:index], tagged, *cells[index + 1 :]]


def _is_plain(cell: Cell) -> bool:
    """Tells whether a cell assigns plain values to names, and does nothing else."""
    if cell["cell_type"] != "code":
        return False
    source = outline.source(cell)
    try:
        body, values = ast.parse(source).body, {parameter.name for parameter in declared(source)}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    names = []
    for statement in body:
        match statement:
            case ast.AnnAssign(ast.Name(name)) | ast.Assign([ast.Name(name)]):
                names.append(name)
    return bool(body) and len(names) == len(body) and set(names) == values


def _with_start(cells: list[Cell]) -> tuple[Cell | None, list[Cell]]:
    """Puts the start of the run behind the parameters, else before the first code, and returns it too."""
    if any(map(outline.starts, cells)):
        return None, cells
    index = next((index + 1 for index, cell in enumerate(cells) if outline.is_parameters(cell)), None)
    if index is None:
        index = next((index for index, cell in enumerate(cells) if cell["cell_type"] == "code"), len(cells))
    start: Cell = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": START}
    return start, [*cells[:index], start, *cells[index:]]


def _other_runs(cells: Sequence[Cell], start: Cell) -> list[str]:
    """Returns which cell gives the name `run` to something else."""
    for number, cell in enumerate(cells, 1):
        if cell["cell_type"] == "code" and cell is not start and OTHER_RUN.search(outline.source(cell)):
            return [f"cell {number} gives the name `run` to something else: rename it"]
    return []


def _with_sections(cells: list[Cell]) -> tuple[dict[str, bool], list[Cell]]:
    """Puts in the headings of the sections that have none; returns which, and of each whether its place is known.

    One whose place is not known stands above the next that has one, so that they are in order.
    """
    there = {name: heading.index for name, heading in outline.first_headings(cells).items() if heading.is_exact}
    places = _places(cells, there)
    above: dict[int, list[Cell]] = {}
    missing = [name for name in outline.SECTIONS if name not in there]
    for name in missing:
        later = outline.SECTIONS[outline.SECTIONS.index(name) :]
        index = next((places[other] for other in later if other in places), len(cells))
        text = f"## {name}" if name in places else f"## {name}\n\n*{TO_MOVE}*"
        above.setdefault(index, []).append({"cell_type": "markdown", "metadata": {}, "source": text})
    made = [cell for index in range(len(cells) + 1) for cell in above.get(index, []) + cells[index : index + 1]]
    return {name: name in places for name in missing}, made


def _places(cells: Sequence[Cell], there: dict[str, int]) -> dict[str, int]:
    """Returns above which cell each section begins, as far as that can be told; none stands above an earlier one.

    Args:
        cells: All of them, parameters and start among them.
        there: The sections that have their heading already.
    """
    places = dict(there)
    low = 0
    started = next((index + 1 for index, cell in enumerate(cells) if outline.starts(cell)), 0)
    for number, name in enumerate(outline.SECTIONS):
        if name in there:
            low = max(low, there[name] + 1)
            continue
        high = min([there[other] for other in outline.SECTIONS[number:] if other in there], default=len(cells))
        found = _found(cells, name, range(max(low, started if number else 0), high))
        if found is None and name == "Environment" and low <= started <= high:
            places[name] = low = started  # empty: the imports stand above the parameters
        elif found is None and name == "Conclusion":
            places[name] = high
        elif found is not None:
            places[name], low = found, found + (1 if number else 0)
    return places


def _found(cells: Sequence[Cell], name: str, within: range) -> int | None:
    """Returns where a section begins: at its heading, else at the text above the first code that is of its kind."""
    if name == "Goal":
        return min(_below_title(cells), within.stop)
    for index in within:
        if _has_heading(cells[index], name):
            return index
    if name == "Conclusion":
        return _last_words(cells, within)
    for index in within:
        if _has_code(cells[index], name):
            return _above_text(cells, index, within)
    return None


def _last_words(cells: Sequence[Cell], within: range) -> int | None:
    """Returns the text that the notebook ends with."""
    if not within or within.stop != len(cells) or cells[-1]["cell_type"] != "markdown":
        return None
    return _above_text(cells, len(cells) - 1, within)


def _above_text(cells: Sequence[Cell], index: int, within: range) -> int:
    """Returns the first of the Markdown cells that lead to a cell."""
    while index - 1 in within and cells[index - 1]["cell_type"] == "markdown":
        index -= 1
    return index


def _below_title(cells: Sequence[Cell]) -> int:
    """Returns where the goal begins in a notebook that may open with its title."""
    is_prose = bool(cells) and cells[0]["cell_type"] == "markdown"
    return 1 if is_prose and outline.title([outline.source(cells[0])]) else 0


def _has_heading(cell: Cell, name: str) -> bool:
    if cell["cell_type"] != "markdown":
        return False
    words = rf"(?i)[\d.\s:)]*(?:(?:the|our|load\w*|defin\w*|build\w*|creat\w*|import\w*) ){{0,3}}(?:{NAMES[name]})\b.*"
    return any(
        re.fullmatch(words, found[2].strip())
        for found in outline.HEADING.finditer(outline.unfenced(outline.source(cell)))
    )


def _has_code(cell: Cell, name: str) -> bool:
    if cell["cell_type"] != "code":
        return False
    source = outline.source(cell)
    if name == "Environment":
        parsed = outline.tree(source)
        body = parsed.body if parsed else []
        return bool(body) and all(isinstance(line, ast.Import | ast.ImportFrom) for line in body)
    return name in CODE and re.search(CODE[name], source, re.MULTILINE) is not None
