"""The door for parameters: what the user asks is checked against what the notebook declares, before anything starts."""

from __future__ import annotations

import difflib
import keyword
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import NotebookProblem, ParameterProblem
from labkit.record.allowed import Allowed, Forms, allowed, broken, shown
from labkit.record.declared import Parameter
from labkit.record.secret import is_secret, is_secret_default
from labkit.workbench.notebooks import modes
from labkit.workbench.notebooks.literals import TOO_LARGE, literal
from labkit.workbench.notebooks.yamlfile import plain, read_yaml, yaml_value

LISTED = 20  # findings in a message, and names


class Raw(str):
    """A value as typed on a command line: text that takes the declared type."""


@dataclass(frozen=True)
class Source:
    """One place where a user asked for parameters.

    Attributes:
        name: The place as the user knows it: a file, or `-p`.
        pairs: Names, in any case, and values.
    """

    name: str
    pairs: tuple[tuple[Any, Any], ...]


Asked = Mapping[Any, Any] | Sequence[Source]  # of several sources, the later ones win


@dataclass(frozen=True)
class _Cell:
    """A notebook's parameters cell: the notebook's name, what can be set, what is computed in which line."""

    where: str
    parameters: list[Parameter]
    computed: Mapping[str, int]

    @property
    def defaults(self) -> dict[str, Any]:
        return {parameter.name: parameter.default for parameter in self.parameters}


def from_command_line(assignments: Iterable[str], files: Iterable[Path]) -> list[Source]:
    """Returns the parameters that a command line asks for: files in their order, then what `-p` says.

    Raises:
        ParameterProblem: A file cannot be read, or an assignment is none.
    """
    sources = [Source(str(path), tuple(read_yaml(path).items())) for path in files]
    parts = [text.partition("=") for text in assignments]
    wrong = [f"-p {shown(text)}: write NAME=VALUE, as in -p EPOCHS=3" for text, equals, _ in parts if not equals]
    if wrong:
        raise ParameterProblem(_listed(wrong))
    sources.append(Source("-p", tuple((name.strip(), Raw(value)) for name, _, value in parts)))
    return [source for source in sources if source.pairs]


def resolve(
    parameters: list[Parameter], asked: Asked, where: str, computed: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Returns the values that were asked for, checked and of the declared type.

    Args:
        parameters: What the notebook declares.
        asked: What the user asks for; text from a command line is a `Raw`.
        where: The notebook, for messages.
        computed: Names that the cell computes, with their lines.

    Raises:
        ParameterProblem: A name is unknown or a value does not fit; all such findings in one message.
    """
    values, problems = _taken(_Cell(where, parameters, computed or {}), asked)
    if problems:
        raise ParameterProblem(_listed(problems))
    return values


def admit(
    parameters: list[Parameter],
    asked: Asked,
    where: str,
    computed: Mapping[str, int] | None = None,
    written: Iterable[Parameter] = (),
) -> dict[str, Any]:
    """Returns what `resolve` does, after checking all that would run: combinations and the notebook's own declarations.

    Args:
        parameters: What the notebook declares.
        asked: What the user asks for; text from a command line is a `Raw`.
        where: The notebook, for messages.
        computed: Names that the cell computes, with their lines.
        written: Further plain values in the cell: none of them may be a secret either.

    Raises:
        ParameterProblem: What was asked for cannot be, alone or together.
        NotebookProblem: A declaration makes no sense, or its own default breaks it or looks like a secret.
    """
    cell = _Cell(where, parameters, computed or {})
    every = [*parameters, *written]
    if exposed := [_exposed(one, where) for one in every if is_secret_default(one.name, one.default)]:
        raise NotebookProblem(_listed(exposed))  # alone: other messages repeat defaults
    values, problems = _taken(cell, asked)
    problems += modes.contradictions(cell.defaults | values)
    wrong = [f"{where}, {problem}; correct the notebook" for problem in broken(parameters)]
    if wrong:
        raise NotebookProblem(_listed(wrong + problems))
    if problems:
        raise ParameterProblem(_listed(problems))
    return values


def effective(parameters: Iterable[Parameter], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns every declared parameter with the value that it has in the run."""
    return {parameter.name: plain(values.get(parameter.name, parameter.default)) for parameter in parameters}


def comes_back(parameter: Parameter, value: Any) -> bool:
    """Tells whether a file, in YAML's types, can give a parameter this value, and of the same type."""
    try:
        return literal(_fitted(parameter, plain(value))) == literal(value)
    except (ValueError, RecursionError):
        return False


def _exposed(parameter: Parameter, where: str) -> str:
    """Returns why a notebook is refused that says a secret: with every run of it, its source is recorded."""
    return (
        f"{where}, line {parameter.line} of the parameters: the default of {parameter.name} looks like a secret, and "
        f"notebooks and runs are for all to read; read it from the environment, os.environ[{parameter.name!r}], in "
        "another cell, and replace a key that others may have seen"
    )


def _taken(cell: _Cell, asked: Asked) -> tuple[dict[str, Any], list[str]]:
    """Returns the values that fit, by their declared names, and what is wrong with the others."""
    wanted, problems = _named(cell, asked)
    values: dict[str, Any] = {}
    for parameter in cell.parameters:
        if parameter.name in wanted:
            try:
                values[parameter.name] = _fitted(parameter, wanted[parameter.name])
            except ValueError as error:
                problems.append(str(error))
    return values, problems


def _named(cell: _Cell, asked: Asked) -> tuple[dict[str, Any], list[str]]:
    """Returns what is asked for by declared name, and what is wrong with the names."""
    wanted: dict[str, Any] = {}
    problems: list[str] = []
    for source in [Source("", tuple(asked.items()))] if isinstance(asked, Mapping) else asked:
        spelled: dict[str, str] = {}
        for name, value in source.pairs:
            found = _declared_names(name, cell.defaults)
            if len(found) != 1:
                problems.append(_no_parameter(name, found, cell) + ("" if problems else _known(cell)))
            elif found[0] in spelled:
                other = f", as {spelled[found[0]]} and as {name}" if spelled[found[0]] != name else ""
                problems.append(f"{found[0]} is given twice{f' by {source.name}' * bool(source.name)}{other}")
            else:
                spelled[found[0]] = name
                wanted[found[0]] = value
    return wanted, problems


def _known(cell: _Cell) -> str:
    """Returns what a message says once: the names that there are."""
    names = list(cell.defaults)
    return f"; {cell.where} declares {', '.join(names[:LISTED])}{', …' * (len(names) > LISTED)}" if names else ""


def _declared_names(name: Any, known: Iterable[str]) -> list[str]:
    """Returns the parameters that a name can mean: the one so spelled, else those that differ in case only."""
    if not isinstance(name, str):
        return []
    name = unicodedata.normalize("NFKC", name)  # as Python reads names
    return [name] if name in known else [other for other in known if other.casefold() == name.casefold()]


def _no_parameter(name: Any, meant: list[str], cell: _Cell) -> str:
    """Returns why a name is no parameter of the notebook."""
    where = cell.where
    if meant:
        return f"{shown(name)} can mean {' or '.join(meant)}; write one of them"
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        return f"{shown(name)} is not a name that a parameter can have"
    lines = {other.casefold(): line for other, line in cell.computed.items()}
    if name.casefold() in lines:
        return f"{name} is computed in line {lines[name.casefold()]} of the parameters of {where}, and cannot be set"
    if not cell.parameters:
        return f"{shown(name)}: {where} declares no parameters; tag the cell that has them `parameters`"
    by_case = {other.upper(): other for other in cell.defaults}
    near = difflib.get_close_matches(name.upper(), by_case, 1, 0.6)
    return f"{where} has no parameter {shown(name)}{f' (did you mean {by_case[near[0]]}?)' if near else ''}"


def _listed(problems: list[str]) -> str:
    """Returns findings a line each, not more than can be read."""
    problems = list(dict.fromkeys(problems))
    if len(problems) <= LISTED:
        return "\n".join(problems)
    return "\n".join([*problems[: LISTED - 1], f"… and {len(problems) - LISTED + 1} more"])


def _fitted(parameter: Parameter, value: Any) -> Any:
    """Returns a value in the declared type.

    Raises:
        ValueError: It does not fit; the message names what is allowed and the default.
    """
    name, given = parameter.name, value
    allows = allowed(parameter)
    if isinstance(given, Raw):
        value = _typed(str(given), allows.forms)
    _refuse_what_no_cell_can_say(name, value)
    if is_secret(name, value) or is_secret("", given):  # as typed, it stands in the recorded command, comments too
        raise ValueError(_secret(name, value))
    try:
        return allows.fit(value)
    except ValueError as error:
        hint = _hint(given, allows)
        raise ValueError(f"{name} = {shown(value)} {error} (default {shown(parameter.default)}){hint}") from None


def _hint(given: Any, allows: Allowed) -> str:
    """Returns what to do about a value that does not fit, where that can be guessed."""
    if not isinstance(given, Raw):
        return ""
    if [form.kind for form in allows.forms] == ["bool"]:
        return "; write true or false"
    several = re.split(r",|\.\.", given)
    try:
        for text in several:
            allows.fit(_typed(text.strip(), allows.forms))
    except ValueError:
        return ""
    return "; `labkit sweep` tries several values" if len(several) > 1 else ""


def _typed(text: str, forms: Forms) -> Any:
    """Returns command-line text as the declared type reads it: `str` takes it as it stands, the rest as YAML 1.2."""
    kinds = {form.kind for form in forms}
    choices = [form.choice for form in forms if form.kind == "choice"]
    if "None" in kinds and text in ("None", "null", "~"):
        return None
    if kinds == {"str"} or text in choices or ("str" in kinds and not text.partition("#")[0].strip()):
        return text  # without letters too, where YAML reads nothing
    if text.lower() in ("true", "false") and ("bool" in kinds or any(isinstance(one, bool) for one in choices)):
        return text.lower() == "true"
    if "float" in kinds and text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return float(text)
    try:
        value = yaml_value(text)
    except ValueError:
        return text
    if isinstance(value, float) and math.isinf(value) and "inf" not in text.lower():
        return text  # too large for a float: no number
    if type(value) is int and value == 0 and text.lstrip().startswith("-") and _is_float(kinds):
        return -0.0
    return value if "str" not in kinds or _fits_another(value, kinds) else text


def _is_float(kinds: set[str]) -> bool:
    return "float" in kinds and "int" not in kinds


def _fits_another(value: Any, kinds: set[str]) -> bool:
    """Tells whether a value that was read from text is of a declared type other than text."""
    kind = "None" if value is None else type(value).__name__
    return kind in kinds or (kind == "int" and "float" in kinds)


def _secret(name: str, value: Any) -> str:
    """Returns why a secret is refused: every parameter stands in the record."""
    looks = "looks like a secret" if isinstance(value, str) else "holds what looks like a secret"
    return (
        f"{name} {looks}, and parameters are recorded for all to read; "
        f"let the notebook read it from the environment: os.environ[{name!r}]"
    )


def _refuse_what_no_cell_can_say(name: str, value: Any, depth: int = 0) -> None:
    if depth > 50:
        raise ValueError(f"{name} is nested more than 50 deep")
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError(f"{name}: the keys of a mapping must be text")
        for item in (*value, *value.values()):
            _refuse_what_no_cell_can_say(name, item, depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_what_no_cell_can_say(name, item, depth + 1)
    elif isinstance(value, str):
        if any(0xD800 <= ord(character) < 0xE000 for character in value):
            raise ValueError(f"{name} holds half of a character (a lone surrogate); no file can keep it")
    elif isinstance(value, int) and abs(value) >= TOO_LARGE:
        raise ValueError(f"{name} is an integer of more than 4300 digits, which Python reads from no text")
    elif not isinstance(value, (bool, int, float, type(None))):
        raise ValueError(f"{name}: {type(value).__name__} cannot be given to a notebook")
