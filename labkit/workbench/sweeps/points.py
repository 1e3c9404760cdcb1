"""The points of a sweep: what a command line or a file lists, multiplied out, and checked before anything starts."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labkit.errors import FolderProblem, ParameterProblem
from labkit.record import sweepdir
from labkit.record.allowed import allowed, shown
from labkit.record.declared import Parameter
from labkit.record.files import plain_json
from labkit.record.sweepdir import SweepDir
from labkit.workbench.notebooks import params
from labkit.workbench.notebooks.literals import literal, read_literal
from labkit.workbench.notebooks.notebook import Notebook
from labkit.workbench.notebooks.params import Raw, Source
from labkit.workbench.notebooks.yamlfile import read_yaml

RANGE = re.compile(r"\s*([+-]?\d{1,15})\.\.([+-]?\d{1,15})(?:\.\.(\d{1,15}))?\s*")
NUMBER = r"([+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"
SPAN = re.compile(rf"\s*(log:)?\s*{NUMBER}\.\.{NUMBER}(?:\.\.(\d{{1,15}}))?\s*")  # a range that a search chooses of
OPTION = "--"  # begins the keys of a file that are no parameters: options, as on the command line
MOST = 100_000  # points of one sweep
BRACKETS = {"[": "]", "{": "}", "(": ")"}


@dataclass(frozen=True)
class Point:
    """One point of a sweep.

    Attributes:
        number: Its place, from 1.
        values: The parameters that its run is given, of their declared types.
    """

    number: int
    values: dict[str, Any]

    @property
    def key(self) -> tuple[tuple[str, str], ...]:
        """What no other point of the sweep has: names and the source of each value, which keeps its type and bits."""
        return tuple((name, literal(value)) for name, value in sorted(self.values.items()))

    def facts(self) -> dict[str, Any]:
        """Returns what a record keeps."""
        values = {name: literal(value) for name, value in self.values.items()}
        return {"point": self.number, "given": plain_json(self.values), "values": values}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Point:
        """Returns the point that `facts` stand for."""
        return cls(facts["point"], {name: read_literal(text) for name, text in facts["values"].items()})


def proposed(sweep: SweepDir) -> list[Point]:
    """Returns the points that a search has proposed so far, in their order.

    Raises:
        FolderProblem: One is missing or damaged, so that a result may be of another point.
    """
    found = []
    for one in sweepdir.proposed(sweep):
        try:
            found.append(Point.of(one))
        except ValueError as error:
            path = sweep.proposed / f"{one['point']}.json"
            raise FolderProblem(f"{path} is damaged: {error}; begin the sweep anew") from error
    return found


@dataclass(frozen=True)
class Axis:
    """A parameter and the values that it takes, one after the other.

    Attributes:
        source: The file that lists them, or `-p`.
        name: The parameter, as it was written there.
        values: At least one.
        span: They are the ends of a range that is searched; None where they are all there are.
    """

    source: str
    name: Any
    values: tuple[Any, ...]
    span: Span | None = None


@dataclass(frozen=True)
class Span:
    """A range of which a search chooses, as it was written.

    Attributes:
        log: On a logarithmic scale.
        step: From each integer to the next.
    """

    log: bool = False
    step: int = 1


Written = tuple[Any, Any]  # a value, and how it was written
Read = Callable[[Sequence[Written], Any, Sequence[Parameter]], tuple[Sequence[Any], Span | None]]


class Quoted(str):
    """Text that stood in quotes: it is no range."""


def points(
    source: Notebook,
    assignments: Iterable[str],
    files: Iterable[Path] = (),
    *,
    values: Mapping[str, Any] | None = None,
    zipped: bool = False,
) -> list[Point]:
    """Returns the points that a command line or a cell asks for, the last parameter varying fastest.

    Args:
        source: The notebook that declares the parameters.
        assignments: What `-p` says: `NAME=VALUE`, `NAME=V1,V2`, `NAME=1..5`.
        files: YAML files, in which lists are swept; later ones win, and `-p` wins over all.
        values: What a cell gave to `labkit.sweep`, in which lists are swept.
        zipped: Take the first values together, then the second ones, instead of each with each.

    Raises:
        ParameterProblem: Something of it cannot be; nothing was started.
    """
    axes, door = listed(source, assignments, files, multiplied, values)
    _refuse_too_many(axes, zipped)
    combined = _zipped(axes) if zipped else itertools.product(*(axis.values for axis in axes))
    made = [Point(number, door.admit(axes, values)) for number, values in enumerate(combined, 1)]
    _refuse_twins(made)
    return made


def listed(
    source: Notebook,
    assignments: Iterable[str],
    files: Iterable[Path],
    read: Read,
    values: Mapping[str, Any] | None = None,
) -> tuple[list[Axis], Door]:
    """Returns what a command line and files say, with declared names and types, and the door for combinations of it.

    Args:
        source: The notebook that declares the parameters.
        assignments: What `-p` says.
        files: YAML files.
        read: Makes of what is listed for a parameter its values.
        values: What a notebook's cell says.

    Raises:
        ParameterProblem: Something of it cannot be.
    """
    declared = source.parameters()
    axes = [axis for path in files for axis in _of_mapping(str(path), read_yaml(path), declared, read)]
    axes += _of_mapping("labkit.sweep", values or {}, declared, read)
    axes += _of_command_line(assignments, declared, read)
    door = Door(source.path.name, declared, source.computed(), source.written())
    door.admit(axes, [axis.values[0] for axis in axes])  # says what is wrong with names, in all sources
    return [door.typed(axis) for axis in _without_overridden(axes)], door


def split(text: str) -> list[str]:
    """Returns the values in a command line's text: at commas that are neither quoted nor within brackets.

    >>> split("0.1, 0.01"), split("[1,2],[3]"), split("'a,b',c")
    (['0.1', '0.01'], ['[1,2]', '[3]'], ['a,b', 'c'])

    Raises:
        ValueError: A quote is not closed, or a value is empty.
    """
    parts, depth, begin, place = [], [], 0, 0  # type: ignore[var-annotated]
    while place < len(text):
        character = text[place]
        if character in "'\"" and (depth or not text[begin:place].strip()):
            place = text.find(character, place + 1)
            if place < 0:
                raise ValueError(f"the quote {character} is not closed")
        elif character in BRACKETS:
            depth.append(BRACKETS[character])
        elif depth and character == depth[-1]:
            depth.pop()
        elif character == "," and not depth:
            parts.append(text[begin:place])
            begin = place + 1
        place += 1
    if not parts:
        return [_unquoted(text)]
    parts.append(text[begin:])
    if not all(part.strip() for part in parts):
        raise ValueError("a value in its list is empty; an empty text is written ''")
    return [_unquoted(part.strip()) for part in parts]


def _unquoted(text: str) -> str:
    is_quoted = len(text) > 1 and text[0] in "'\"" and text.find(text[0], 1) == len(text) - 1
    return Quoted(text[1:-1]) if is_quoted else text


def _of_command_line(assignments: Iterable[str], declared: Sequence[Parameter], read: Read) -> list[Axis]:
    axes = []
    for source in params.from_command_line(assignments, ()):
        for name, text in source.pairs:
            try:
                values, span = read([(Raw(part), part) for part in split(text)], name, declared)
            except ValueError as error:
                raise ParameterProblem(f"-p {name}={shown(str(text))}: {error}") from None
            axes.append(Axis(source.name, name, tuple(values), span))
    return axes


def _of_mapping(where: str, given: Mapping[Any, Any], declared: Sequence[Parameter], read: Read) -> list[Axis]:
    axes = []
    for name, value in given.items():
        if _is_option(name):
            continue
        written = value if isinstance(value, list) else [value]
        if not written:
            raise ParameterProblem(f"{where}: {name} lists no value; for an empty list as its value write [[]]")
        try:
            values, span = read([(one, one) for one in written], name, declared)
        except ValueError as error:
            raise ParameterProblem(f"{where}: {name}: {error}") from None
        axes.append(Axis(where, name, tuple(values), span))
    return axes


def options(path: Path) -> dict[str, Any]:
    """Returns what a sweep's file says beside parameters: `--search: tpe`.

    Raises:
        ParameterProblem: It cannot be read.
    """
    return {name: value for name, value in read_yaml(path).items() if _is_option(name)}


def _is_option(name: Any) -> bool:
    return isinstance(name, str) and name.startswith(OPTION)


def multiplied(written: Sequence[Written], name: Any, declared: Sequence[Parameter]) -> tuple[list[Any], None]:
    """Returns all values of a list, those of ranges of integers one by one.

    Raises:
        ValueError: A range is empty or too long.
    """
    return [found for value, text in written for found in _spread(value, text, name, declared)], None


def _spread(value: Any, written: Any, name: Any, declared: Sequence[Parameter]) -> Iterator[Any]:
    """Yields a value, or each number of the range that it is.

    Raises:
        ValueError: A range is empty or too long.
    """
    match = RANGE.fullmatch(written) if isinstance(written, str) and not isinstance(written, Quoted) else None
    if match is None or is_text(name, declared):
        yield value
        return
    first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
    if step == 0 or last < first:
        raise ValueError(f"the range {written} is empty; write FIRST..LAST or FIRST..LAST..STEP, counting up")
    if (last - first) // step >= MOST:
        raise ValueError(f"the range {written} has more than {MOST:,} values")
    yield from range(first, last + 1, step)


def is_text(name: Any, declared: Sequence[Parameter]) -> bool:
    """Tells whether a parameter takes text and nothing else: `1..5` then means itself."""
    named = [one for one in declared if one.name.casefold() == str(name).casefold()]
    forms = [form for one in named for form in allowed(one).forms]
    return bool(forms) and all(form.kind == "str" for form in forms)


@dataclass(frozen=True)
class Door:
    """A notebook's parameters cell, read once: its name, what can be set, what is computed, what is written."""

    where: str
    declared: list[Parameter]
    computed: dict[str, int]
    written: list[Parameter]

    def typed(self, axis: Axis) -> Axis:
        """Returns an axis with its declared name and values of the declared type: text is read once, not per point.

        Raises:
            ParameterProblem: A value does not fit.
        """
        values: list[tuple[str, Any]] = []
        for value in axis.values:
            try:
                found = params.resolve(self.declared, [Source(axis.source, ((axis.name, value),))], self.where)
            except ParameterProblem as error:
                raise ParameterProblem(f"{error}{_hint([axis], self.declared)}") from None
            values += found.items()
        return replace(axis, name=values[0][0], values=tuple(value for _, value in values))

    def admit(self, axes: Sequence[Axis], values: Sequence[Any]) -> dict[str, Any]:
        """Returns the values of one point, checked.

        Raises:
            ParameterProblem: They cannot be.
        """
        by_source: dict[str, list[tuple[Any, Any]]] = {}
        for axis, value in zip(axes, values, strict=True):
            by_source.setdefault(axis.source, []).append((axis.name, value))
        asked = [Source(name, tuple(pairs)) for name, pairs in by_source.items()]
        try:
            return params.admit(self.declared, asked, self.where, self.computed, self.written)
        except ParameterProblem as error:
            raise ParameterProblem(f"{error}{_hint(axes, self.declared)}") from None


def _hint(axes: Sequence[Axis], declared: Sequence[Parameter]) -> str:
    """Returns what helps where a list was meant as one value, or a range is one of a search."""
    if any(isinstance(value, str) and SPAN.fullmatch(value) for axis in axes for value in axis.values):
        return "\na range of floats, or on a logarithmic scale, is for --search"
    lists = {one.name.casefold() for one in declared if isinstance(one.default, (list, tuple))}
    named = [axis for axis in axes if str(axis.name).casefold() in lists and not axis.source.startswith("-")]
    if not any(not isinstance(value, list) for axis in named for value in axis.values):
        return ""
    name = named[0].name
    return f"\na list in a sweep's file lists points; one value that is a list stands in another: {name}: [[1, 2]]"


def _without_overridden(axes: Sequence[Axis]) -> list[Axis]:
    """Returns the axes that count: of those of one parameter the last, for later sources win."""
    last = {str(axis.name).casefold(): axis for axis in axes}
    return list(last.values())


def _refuse_too_many(axes: Sequence[Axis], zipped: bool) -> None:
    count = math.prod(len(axis.values) for axis in axes)
    if not zipped and count > MOST:
        listed = " × ".join(f"{len(axis.values)} {axis.name}" for axis in axes if len(axis.values) > 1)
        raise ParameterProblem(f"{listed} are {count:,} points; a sweep has {MOST:,} at most")


def _zipped(axes: Sequence[Axis]) -> Iterator[tuple[Any, ...]]:
    lengths = {str(axis.name): len(axis.values) for axis in axes if len(axis.values) > 1}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} has {count}" for name, count in lengths.items())
        raise ParameterProblem(f"--zip takes lists of one length: {listed}")
    count = max(lengths.values(), default=1)
    return zip(*(axis.values * (1 if len(axis.values) > 1 else count) for axis in axes), strict=True)


def _refuse_twins(made: Sequence[Point]) -> None:
    seen: dict[Any, int] = {}
    for point in made:
        if (first := seen.setdefault(point.key, point.number)) != point.number:
            said = ", ".join(f"{name}={shown(value)}" for name, value in point.values.items())
            raise ParameterProblem(f"points {first} and {point.number} are the same: {said}; list each value once")
