"""The door for parameters: what the user asks is checked against what the notebook declares, before anything starts."""

from __future__ import annotations

import ast
import difflib
import io
import keyword
import math
import re
from pathlib import Path
from typing import Any

from labkit.errors import ParameterProblem
from labkit.record.declared import Parameter

SECRET_NAME = re.compile(
    r"(^|_)(API_?KEY|ACCESS_?KEY|SECRET(_KEY)?|TOKEN|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE
)
# The forms that well-known services give their keys: OpenAI, GitHub, Hugging Face, AWS, Slack, Google.
SECRET_VALUE = re.compile(r"(sk-|gh[pousr]_|github_pat_|hf_|AKIA|xox[abprs]-|AIza)[A-Za-z0-9_-]{12,}")
SCALARS: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "list": (list,),
    "tuple": (list,),
    "dict": (dict,),
    "None": (type(None),),
}


def resolve(parameters: list[Parameter], given: dict[str, Any], where: str) -> dict[str, Any]:
    """Returns the values that a run gets: those given, checked and of the declared type.

    Args:
        parameters: What the notebook declares.
        given: What the user asks for; text from a command line is a `Raw`.
        where: The notebook, for messages.

    Raises:
        ParameterProblem: A name is unknown or a value does not fit; all such findings in one message.
    """
    known = {parameter.name: parameter for parameter in parameters}
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in given.items():
        parameter = known.get(name) if isinstance(name, str) else None
        if parameter is None:
            problems.append(_unknown(name, known, where))
            continue
        try:
            _refuse_secret(name, value)
            values[name] = _fitted(parameter, value)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ParameterProblem("\n".join(problems))
    return values


def _refuse_secret(name: str, value: Any) -> None:
    """Keeps keys out of the record, in which every parameter stands.

    Raises:
        ValueError: The value looks like a key, or the name says that it is one.
    """
    if isinstance(value, str) and value and (SECRET_NAME.search(name) or SECRET_VALUE.match(value)):
        raise ValueError(
            f"{name} looks like a secret, and parameters are recorded for all to read; "
            f"let the notebook read it from the environment: os.environ[{name!r}]"
        )


def _unknown(name: Any, known: dict[str, Parameter], where: str) -> str:
    if not known:
        return f"{name!r:.80}: {where} declares no parameters; tag the cell that has them `parameters`"
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        return f"{name!r:.80} is not a name that a parameter can have; {where} declares {', '.join(known)}"
    near = difflib.get_close_matches(name.upper(), [key.upper() for key in known], 1, 0.6)
    hint = next((f", did you mean {key}?" for key in known if near and key.upper() == near[0]), "")
    return f"{where} has no parameter {name!r:.80}{hint or '.'} It declares {', '.join(known)}"


class Raw(str):
    """A value as typed on a command line: text that takes the declared type."""


def _fitted(parameter: Parameter, value: Any) -> Any:
    """Returns a value in the declared type.

    Raises:
        ValueError: It does not fit; the message names the default.
    """
    kinds = kinds_of(parameter)
    if isinstance(value, Raw):
        value = _typed(str(value), kinds)
    _refuse_what_no_cell_can_say(parameter, value)
    if isinstance(value, bool) and kinds and "bool" not in kinds:
        raise _misfit(parameter, value, kinds)
    if kinds and not any(isinstance(value, SCALARS[kind]) for kind in kinds):
        raise _misfit(parameter, value, kinds)
    if "float" in kinds and "int" not in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def kinds_of(parameter: Parameter) -> tuple[str, ...]:
    """Returns the simple types that a declaration allows; none where it allows all.

    The annotation decides; without one, the default's type.
    """
    if parameter.type:
        try:
            return _kinds(ast.parse(parameter.type, mode="eval").body)
        except SyntaxError:
            return ()
    if parameter.default is None:
        return ()
    kind = type(parameter.default).__name__
    return (kind,) if kind in SCALARS else ()


def _kinds(node: ast.expr) -> tuple[str, ...]:
    match node:
        case ast.BinOp(left, ast.BitOr(), right):
            one, other = _kinds(left), _kinds(right)
            return one + other if one and other else ()
        case ast.Subscript(ast.Name("Optional"), inner):
            return (*found, "None") if (found := _kinds(inner)) else ()
        case ast.Subscript(ast.Name(name), _) | ast.Name(name):
            return (name,) if name in SCALARS else ()
        case ast.Constant(None):
            return ("None",)
    return ()


def _typed(text: str, kinds: tuple[str, ...]) -> Any:
    """Returns command-line text as the declared type reads it: `str` takes it as it stands, the rest as YAML 1.2."""
    if "None" in kinds and text in ("None", "null", "~"):
        return None
    if "str" in kinds:
        return text
    if "bool" in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if "float" in kinds and text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return float(text)
    try:
        return yaml_value(text)
    except ValueError:
        return text


def _misfit(parameter: Parameter, value: Any, kinds: tuple[str, ...]) -> ValueError:
    return ValueError(
        f"{parameter.name} = {value!r:.80} is {type(value).__name__}, "
        f"but the notebook declares {' or '.join(kinds)} (default {parameter.default!r:.80})"
    )


def _refuse_what_no_cell_can_say(parameter: Parameter, value: Any, depth: int = 0) -> None:
    if depth > 50:
        raise ValueError(f"{parameter.name} is nested more than 50 deep")
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError(f"{parameter.name}: the keys of a mapping must be text")
        for item in (*value, *value.values()):
            _refuse_what_no_cell_can_say(parameter, item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _refuse_what_no_cell_can_say(parameter, item, depth + 1)
    elif isinstance(value, str):
        if any(0xD800 <= ord(character) < 0xE000 for character in value):
            raise ValueError(f"{parameter.name} holds half of a character (a lone surrogate); no file can keep it")
    elif not isinstance(value, (bool, int, float, type(None))):
        raise ValueError(f"{parameter.name} = {value!r:.80}: {type(value).__name__} cannot be given to a notebook")


def effective(parameters: list[Parameter], values: dict[str, Any]) -> dict[str, Any]:
    """Returns every declared parameter with the value that it has in the run."""
    return {parameter.name: _plain(values.get(parameter.name, parameter.default)) for parameter in parameters}


def parse_assignment(text: str) -> tuple[str, Raw]:
    """Returns name and value of `NAME=VALUE`.

    Raises:
        ParameterProblem: There is no `=`.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ParameterProblem(f"-p {text!r}: write NAME=VALUE")
    return name.strip(), Raw(value)


def read_yaml(path: Path) -> dict[str, Any]:
    """Returns the parameters in a YAML 1.2 file: a flat mapping; dates stay text, `yes` is text, `1e-4` a number.

    Raises:
        ParameterProblem: It cannot be read, is no mapping, or holds a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ParameterProblem(f"{path} cannot be read: {error}") from error
    try:
        value = yaml_value(text)
    except ValueError as error:
        raise ParameterProblem(f"{path}: {error}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ParameterProblem(f"{path} holds {type(value).__name__}; write one `NAME: value` a line")
    return value


def yaml_value(text: str) -> Any:
    """Returns what a YAML 1.2 text says, in plain types.

    Raises:
        ValueError: It is not YAML, or says something that no parameter can be.
    """
    from ruamel.yaml import YAML

    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 2)
    if "*" in text and _has_alias(text):
        raise ValueError("an alias (*name) stands for another value; write the value out")  # a few could mean billions
    reader.constructor.add_constructor("tag:yaml.org,2002:timestamp", lambda loader, node: node.value)
    try:
        return reader.load(io.StringIO(text))
    except Exception as error:  # the reader's own, and what its constructors stumble over: KeyError for `!!bool x`
        raise ValueError(f"not YAML 1.2: {' '.join(str(error).split())[:300]}") from error


def _has_alias(text: str) -> bool:
    from ruamel.yaml import YAML
    from ruamel.yaml.events import AliasEvent

    try:
        return any(isinstance(event, AliasEvent) for event in YAML(typ="safe", pure=True).parse(io.StringIO(text)))
    except Exception:
        return False  # reading it says what is wrong


def yaml_text(values: dict[str, Any]) -> str:
    """Returns values as YAML 1.2, a key a line, that `yaml_value` reads back equal."""
    from ruamel.yaml import YAML

    writer = YAML(typ="safe", pure=True)
    writer.version = None
    writer.default_flow_style = False
    writer.allow_unicode = True
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    writer.width = 2**20
    writer.representer.add_representer(str, _represent_text)
    out = io.StringIO()
    writer.dump({key: _plain(value) for key, value in values.items()}, out)
    return out.getvalue()


def _represent_text(representer: Any, text: str) -> Any:
    """Quotes text that holds other line ends than a newline, which YAML folds into spaces elsewhere."""
    style = '"' if any(end in text for end in "\r\x85\u2028\u2029") else None
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return [_plain(item) for item in sorted(value, key=repr)]
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    return repr(value)
