"""Whether a notebook keeps the contract: seven sections, one parameters cell, one start, ids that are words."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from labkit.record.allowed import allowed, shown
from labkit.record.declared import Parameter, computed, declared
from labkit.record.secret import is_secret_default, masked
from labkit.workbench.notebooks import outline
from labkit.workbench.notebooks.finding import Finding
from labkit.workbench.notebooks.outline import Cell

FORM = "`NAME: type = literal  # meaning, unit`"
FIX = "`labkit check --fix`"


def findings(cells: Sequence[Cell]) -> Iterator[Finding]:
    """Yields what is wrong with the structure of a notebook that uses labkit; one finding for one that does not."""
    if outline.uses_labkit(cells):
        yield from _sections(cells)
        yield from _parameters(cells)
        yield from _start(cells)
        yield from _word_ids(cells)
    else:
        yield Finding("it does not use labkit, so its structure is its own", "`labkit adopt` puts in what is missing")


def _sections(cells: Sequence[Cell]) -> Iterator[Finding]:
    found = outline.first_headings(cells)
    if not found:
        named = ", ".join(outline.SECTIONS)
        yield Finding(f"it has none of the sections {named}", "`labkit adopt` puts in their headings")
        return
    for name in outline.SECTIONS:
        if name not in found:
            yield Finding(f"the section {name} is missing", f"add a Markdown cell `## {name}` {_between(name, found)}")
    before: outline.Heading | None = None
    for name, heading in ((name, found[name]) for name in outline.SECTIONS if name in found):
        at = (heading.index + 1, _id(cells[heading.index]), heading.line)
        if not heading.is_exact:
            yield Finding(f"the heading of a section reads `{heading.text}`", f"write `## {name}`", *at)
        if before is not None and (heading.index, heading.line) < (before.index, before.line):
            problem = f"the section {name} stands before {before.section}"
            yield Finding(problem, f"the order is {', '.join(outline.SECTIONS)}", *at)
        elif before is not None and heading.index == before.index:
            yield Finding(f"the sections {before.section} and {name} share a cell", "split it before the heading", *at)
        before = heading
    yield from _empty_sections(cells, found)


def _between(name: str, found: dict[str, outline.Heading]) -> str:
    place = outline.SECTIONS.index(name)
    earlier = [other for other in outline.SECTIONS[:place] if other in found]
    later = [other for other in outline.SECTIONS[place + 1 :] if other in found]
    if not earlier:
        return f"and its code before {later[0]}" if later else "and its code"
    return f"and its code after those of {earlier[-1]}"


def _empty_sections(cells: Sequence[Cell], found: dict[str, outline.Heading]) -> Iterator[Finding]:
    sections = outline.sections_of(cells)
    coded = {name for name, cell in zip(sections, cells, strict=True) if cell["cell_type"] == "code"}
    for name, heading in found.items():
        if name not in coded and sections[heading.index] == name:
            at = (heading.index + 1, _id(cells[heading.index]))
            yield Finding(f"the section {name} has no code", "add a code cell below its text", *at)


def _parameters(cells: Sequence[Cell]) -> Iterator[Finding]:
    tagged = [index for index, cell in enumerate(cells) if outline.is_parameters(cell)]
    if not tagged:
        yield Finding(
            "no cell declares the parameters", "tag the code cell that does `parameters`, in the goal", *_goal(cells)
        )
        return
    for index in tagged[1:]:
        problem = f"cell {tagged[0] + 1} is tagged `parameters` as well"
        yield Finding(problem, "keep the tag on one cell", index + 1, _id(cells[index]))
    index = tagged[0]
    at = (index + 1, _id(cells[index]))
    section = outline.sections_of(cells)[index]
    if section != outline.SECTIONS[0]:
        yield Finding(f"the parameters stand in the section {section}", "move the cell into the goal", *at)
    yield from _declarations(outline.source(cells[index]), at)


def _goal(cells: Sequence[Cell]) -> tuple[int, str]:
    heading = outline.first_headings(cells).get(outline.SECTIONS[0])
    return (0, "") if heading is None else (heading.index + 1, _id(cells[heading.index]))


def _declarations(source: str, at: tuple[int, str]) -> Iterator[Finding]:
    try:
        body, parameters = ast.parse(source).body, {parameter.name: parameter for parameter in declared(source)}
        cell = _Declared(source, parameters, computed(source), at)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 0
        yield Finding(f"the parameters cell is not plain Python: {_said(error)}", f"write {FORM} a line", *at, line)
        return
    for statement in body:
        yield from _statement(statement, cell)
    for name, line in outline.REQUIRED.items():
        wanted = line.split(" = ")[0]
        if name not in parameters and name not in cell.computed:
            yield Finding(f"the parameters cell declares no {name}", f"add `{line}`", *at)
        elif name in parameters and parameters[name].type and f"{name}: {parameters[name].type}" != wanted:
            problem = f"{name} is declared as {parameters[name].type}"
            yield Finding(problem, f"write `{wanted} = …`", *at, parameters[name].line)


def _said(error: BaseException) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__


@dataclass(frozen=True)
class _Declared:
    """A parameters cell: its source, what it declares, the lines of what it computes, and where it stands."""

    source: str
    parameters: dict[str, Parameter]
    computed: dict[str, int]
    at: tuple[int, str]


def _statement(statement: ast.stmt, cell: _Declared) -> Iterator[Finding]:
    """Yields what keeps one statement from being a declaration."""
    line, at = statement.lineno, cell.at
    match statement:
        case ast.ImportFrom("typing", [ast.alias("Literal", None)]):
            return
        case ast.AnnAssign(ast.Name(name)) | ast.Assign([ast.Name(name)]):
            pass
        case ast.Assign():
            yield Finding("one statement gives values to several names", f"write {FORM} a line", *at, line)
            return
        case _:
            written = (ast.get_source_segment(cell.source, statement) or "").partition("\n")[0]
            problem = f"`{masked(written):.60}` declares no parameter"
            yield Finding(problem, "move it to a later cell", *at, line)
            return
    parameter = cell.parameters.get(name)
    if parameter is None:
        changed = cell.computed.get(name, line)
        here = line <= changed <= (statement.end_lineno or line)
        problem = f"{name} is {'computed' if here else f'changed in line {changed}'}, so no one can set it"
        yield Finding(problem, f"move {'it' if here else 'that line'} to a later cell", *at, line)
        return
    if parameter.line == line:  # a repeated name is judged by its last line
        yield from _declaration(parameter, at)


def _declaration(parameter: Parameter, at: tuple[int, str]) -> Iterator[Finding]:
    name, line = parameter.name, parameter.line
    if is_secret_default(name, parameter.default):
        problem = f"the default of {name} looks like a secret"
        yield Finding(problem, f"read it from the environment, in a later cell: os.environ[{name!r}]", *at, line)
        return  # other findings repeat the default
    if name != name.upper():
        yield Finding(f"the parameter {name} is not in upper case", f"write {name.upper()}", *at, line)
    if not parameter.type:
        kind = type(parameter.default).__name__
        yield Finding(f"{name} has no type", f"write `{name}: {kind} = {shown(parameter.default):.40}`", *at, line)
    if not parameter.help:
        yield Finding(f"{name} has no comment", f"say behind it what it means, in which unit: {FORM}", *at, line)
    try:
        allowed(parameter).fit(parameter.default)
    except ValueError as error:
        yield Finding(f"{name} = {shown(parameter.default)} {error}", "change default or declaration", *at, line)


def _start(cells: Sequence[Cell]) -> Iterator[Finding]:
    advice = "write `run = labkit.start()` in the cell after the parameters"
    starting = [index for index, cell in enumerate(cells) if outline.starts(cell)]
    tagged = [index for index, cell in enumerate(cells) if outline.is_parameters(cell)]
    if not starting:
        yield Finding("`labkit.start()` is called nowhere, so nothing can be recorded", advice)
        return
    index = starting[0]
    at = (index + 1, _id(cells[index]))
    if tagged and index <= tagged[0]:
        yield Finding("`labkit.start()` is called before the parameters have their values", advice, *at)
    parsed = outline.tree(outline.source(cells[index]))
    if not any(map(_names_run, parsed.body if parsed else [])):
        yield Finding("what `labkit.start()` returns is not called `run`", "write `run = labkit.start()`", *at)


def _names_run(statement: ast.stmt) -> bool:
    """Tells whether a statement is `run = labkit.start()`."""
    match statement:
        case ast.Assign([ast.Name("run")], ast.Call(call, [], [])):
            return outline.is_start(call)
    return False


def _word_ids(cells: Sequence[Cell]) -> Iterator[Finding]:
    """Yields the ids that are not the words which their place asks for; doubles are found with the format."""
    if not outline.first_headings(cells):
        return  # without sections no place asks for a word
    fixed = outline.fixed_ids(cells)
    for index, (cell, section) in enumerate(zip(cells, outline.sections_of(cells), strict=True)):
        identity, wanted = cell.get("id"), fixed.get(index)
        if not isinstance(identity, str) or outline.is_good_id(identity, section, wanted):
            continue
        meant = f"`{wanted}`" if wanted else f"`{section.lower()}-` and a word"
        yield Finding(f"the cell's id should be {meant}", f"{FIX} gives it one", index + 1, identity)


def _id(cell: Cell) -> str:
    identity = cell.get("id")
    return identity if isinstance(identity, str) else ""
