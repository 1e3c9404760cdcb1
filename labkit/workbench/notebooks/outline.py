"""The parts of a notebook: its title, the seven sections, the cells with a fixed place, and the words of cell ids."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

SECTIONS = ("Goal", "Environment", "Data", "Model", "Training", "Analysis", "Conclusion")
PARAMETERS, START = "parameters", "start"  # the tag and the id of one cell, the id of the other
REQUIRED = {  # parameters that every template and worked notebook declares, with the line that does
    "VERSION": 'VERSION: str = ""  # of the code, from the git tag',
    "DEBUG": "DEBUG: bool = False  # a small subset and two short epochs, to see that everything runs",
    "RESUME": 'RESUME: str = ""  # a run to continue',
    "TRAIN": "TRAIN: bool = True  # train the model",
    "TEST": "TEST: bool = True  # measure the model on the test data",
    "MODEL_PATH": 'MODEL_PATH: str = ""  # a checkpoint to begin with',
    "RANDOM_SEED": "RANDOM_SEED: int = 0  # of data, initial weights and batches",
}
Cell = dict[str, Any]

WORD_ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
USES_LABKIT = re.compile(r"^[ \t]*(import|from)[ \t]+labkit\b", re.MULTILINE)
MAGIC = re.compile(r"^[ \t]*[%!?].*$", re.MULTILINE)
UNWRITTEN = re.compile(r"TODO title|\{title\}", re.IGNORECASE)  # what a template begins with in place of a title
# A part that only takes spaces gives none back (`*+`): else a line of thousands of spaces costs their square.
HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]++(\S.*)$", re.MULTILINE)
UNDERLINED = re.compile(r"\A\s*+([^\n#>*-][^\n]*)\n=+[ \t]*$", re.MULTILINE)
NEXT_STEPS = re.compile(r"^ {0,3}(?:#{1,6}[ \t]|\*\*)[ \t]*+next steps\b[^\n]*$", re.MULTILINE | re.IGNORECASE)
FENCE = re.compile(r" {0,3}(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?(`{3,}(?=[^`]*\Z)|~{3,})(.*)")  # in a list as well
SECTION_LENGTH = 4000  # characters of a section that are looked at


def title(sources: Iterable[str]) -> str:
    """Returns the first heading in the Markdown cells of a notebook; empty where none, or none yet, is written."""
    for source in map(unfenced, sources):
        found = HEADING.search(source)
        underlined = UNDERLINED.search(source)
        if underlined and not (found and found.start() < underlined.start()):
            return underlined[1].strip()
        if found:
            text = _plain(found[2])
            return "" if UNWRITTEN.match(text) else text
    return ""


def unfenced(source: str) -> str:
    """Returns Markdown with spaces in place of its fenced blocks of code, so that all else stays where it is."""
    if "```" not in source and "~~~" not in source:
        return source
    lines, fence = [], ""
    for line in source.split("\n"):
        found = FENCE.match(line)
        mark, rest = (found[1], found[2]) if found else ("", "")
        was_fenced = bool(fence)
        if not fence:
            fence = mark
        elif mark.startswith(fence) and not rest.strip():
            fence = ""
        lines.append(" " * len(line) if was_fenced or fence else line)
    return "\n".join(lines)


def _plain(heading: str) -> str:
    """Returns a heading's text without marks and the hashes that may close it."""
    text = heading.rstrip()
    unclosed = text.rstrip("#")
    if unclosed != text and unclosed[-1:] in ("", " ", "\t"):  # `C#` keeps its own
        text = unclosed.rstrip()
    return re.sub(r"[*_`]", "", text).strip()


def without_title(source: str, title: str) -> str:
    """Returns the Markdown of a cell without the title that it begins with."""
    for pattern, group in ((UNDERLINED, 1), (HEADING, 2)):
        found = pattern.search(unfenced(source))
        is_first = found is not None and not source[: found.start(1)].strip()
        if found and is_first and _plain(found[group]) == title and (group == 1 or found[1] == "#"):
            return source[found.end() :]
    return source


def section(sources: Iterable[str], name: str) -> str:
    """Returns the Markdown below the heading that names a section, up to the next heading in the same cell."""
    for source in sources:
        for found in HEADING.finditer(unfenced(source)):
            if re.fullmatch(rf"[\d.\s]*{name}(?![\w-]).{{0,40}}", _plain(found[2]), re.IGNORECASE):
                return _below(source, found)
    return ""


def _below(source: str, heading: re.Match[str]) -> str:
    """Returns the Markdown from the end of a heading to the next one."""
    following = HEADING.search(unfenced(source), heading.end())
    return source[heading.end() : following.start() if following else None].strip()[:SECTION_LENGTH]


def question(sources: Iterable[str]) -> str:
    """Returns the first paragraph of the goal, in Markdown."""
    return re.split(r"\n\s*\n", section(sources, "goal").strip(), maxsplit=1)[0]


def next_steps(sources: Iterable[str]) -> str:
    """Returns what stands below `Next steps`, a heading or a bold line, in Markdown."""
    for text in sources:
        if found := NEXT_STEPS.search(unfenced(text)):
            return _below(text, found)
    return ""


def source(cell: Cell) -> str:
    """Returns a cell's source as one text."""
    found = cell.get("source", "")
    return found if isinstance(found, str) else "".join(found)


def tags(cell: Cell) -> list[str]:
    """Returns the tags of a cell."""
    metadata = cell.get("metadata")
    found = metadata.get("tags") if isinstance(metadata, dict) else None
    return [tag for tag in found if isinstance(tag, str)] if isinstance(found, list) else []


def is_parameters(cell: Cell) -> bool:
    """Tells whether a cell is the one with the parameters."""
    return cell["cell_type"] == "code" and PARAMETERS in tags(cell)


def uses_labkit(cells: Sequence[Cell]) -> bool:
    """Tells whether a notebook imports labkit."""
    return any(cell["cell_type"] == "code" and USES_LABKIT.search(source(cell)) for cell in cells)


def tree(source: str) -> ast.Module | None:
    """Returns the syntax tree of a code cell, lines with magics as blank ones; None where it is not Python."""
    for text in (source, MAGIC.sub(lambda line: re.match(r"[ \t]*", line[0])[0] + "pass", source)):  # type: ignore[index]
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return None


def starts(cell: Cell) -> bool:
    """Tells whether a code cell calls `labkit.start()`."""
    if cell["cell_type"] != "code" or "start" not in source(cell):
        return False
    parsed = tree(source(cell))
    return any(is_start(node.func) for node in ast.walk(parsed) if isinstance(node, ast.Call)) if parsed else False


def is_start(function: ast.expr) -> bool:
    """Tells whether what is called is `labkit.start`."""
    match function:
        case ast.Attribute(ast.Name("labkit"), "start"):
            return True
    return False


@dataclass(frozen=True)
class Heading:
    """The heading of a section.

    Attributes:
        section: The section's name.
        index: Its cell, from 0.
        line: Its line in the cell, from 1.
        text: The heading as written.
    """

    section: str
    index: int
    line: int
    text: str

    @property
    def is_exact(self) -> bool:
        """It is written as the contract wants it, `## Data`."""
        return self.text == f"## {self.section}"


def headings(cells: Sequence[Cell]) -> list[Heading]:
    """Returns the headings that name a section, in their order, also those of another level or case, or numbered."""
    found = []
    for index, cell in enumerate(cells):
        text = unfenced(source(cell)) if cell["cell_type"] == "markdown" else ""
        for match in HEADING.finditer(text):
            name = re.sub(r"^[\d.\s]*", "", _plain(match[2])).rstrip(" :.").capitalize()
            if name in SECTIONS:
                found.append(Heading(name, index, text.count("\n", 0, match.start()) + 1, match[0].strip()))
    return found


def first_headings(cells: Sequence[Cell]) -> dict[str, Heading]:
    """Returns the heading of each section that has one: the first that is exact, else the first."""
    found: dict[str, Heading] = {}
    for heading in headings(cells):
        earlier = found.get(heading.section)
        if earlier is None or (heading.is_exact and not earlier.is_exact):
            found[heading.section] = heading
    return found


def sections_of(cells: Sequence[Cell]) -> list[str]:
    """Returns the section that each cell stands in; those above the first heading belong to the goal."""
    begins = {heading.index: heading.section for heading in first_headings(cells).values()}
    names, now = [], SECTIONS[0]
    for index in range(len(cells)):
        now = begins.get(index, now)
        names.append(now)
    return names


def fixed_ids(cells: Sequence[Cell]) -> dict[int, str]:
    """Returns the ids that cells must have, by their index: headings of sections, parameters, start."""
    fixed = {heading.index: heading.section.lower() for heading in reversed(first_headings(cells).values())}
    places = {PARAMETERS: is_parameters, START: starts}
    for word, is_the_one in places.items():
        index = next((i for i, cell in enumerate(cells) if is_the_one(cell) and i not in fixed), None)
        if index is not None:
            fixed[index] = word
    return fixed


def is_good_id(identity: object, section: str, fixed: str | None) -> bool:
    """Tells whether an id is the fixed one, or for other cells `<section>-<word>`."""
    if fixed is not None:
        return identity == fixed
    return (
        isinstance(identity, str)
        and len(identity) <= 64
        and WORD_ID.fullmatch(identity) is not None
        and identity.startswith(f"{section.lower()}-")
    )
