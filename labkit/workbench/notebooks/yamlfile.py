"""Parameters in YAML 1.2: plain types only, and what is read is what was written."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any

from labkit.errors import ParameterProblem
from labkit.record.secret import masked
from labkit.workbench.notebooks.literals import TOO_LARGE

LIMIT_BYTES = 2**20
VALUES = re.compile(r' with value ".*" \(original value: ".*"\)', re.DOTALL)  # what the reader repeats of a key twice


def read_yaml(path: Path) -> dict[Any, Any]:
    """Returns the parameters in a YAML 1.2 file: a flat mapping; dates stay text, `yes` is text, `1e-4` a number.

    Raises:
        ParameterProblem: It cannot be read, is no mapping, or holds a key twice.
    """
    name = masked(str(path))  # somebody may have meant -p
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT_BYTES + 1)
        if len(data) > LIMIT_BYTES:
            raise ParameterProblem(f"{name} has more than 1 MiB: parameters are few; let the notebook read large data")
        value = yaml_value(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ParameterProblem(f"{name} cannot be read: it is no text in UTF-8 ({error})") from error
    except OSError as error:
        raise ParameterProblem(f"{name} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ParameterProblem(f"{name}: {error}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ParameterProblem(f"{name} holds {type(value).__name__}; write one `NAME: value` a line")
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
    reader.constructor.add_constructor("tag:yaml.org,2002:str", _construct_text)
    try:
        return reader.load(io.StringIO(text))
    except Exception as error:  # the reader's own, and what its constructors stumble over: KeyError for `!!bool x`
        said = VALUES.sub("", str(error).partition("To suppress this check")[0])
        said = " ".join(masked(said).replace('"<file>", ', "").split())
        hint = "; indent with spaces, not tabs" if "'\\t'" in said else ""
        raise ValueError(f"not YAML 1.2: {said[:300]}{hint}") from error


def _construct_text(loader: Any, node: Any) -> str:
    """Returns a scalar's text; where JSON writes a character as two halves, they are put together."""
    text = str(loader.construct_scalar(node))
    if not any(0xD800 <= ord(character) < 0xE000 for character in text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


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
    writer.dump({key: plain(value) for key, value in values.items()}, out)
    return out.getvalue()


def _represent_text(representer: Any, text: str) -> Any:
    """Quotes text that holds other line ends than a newline, which YAML folds into spaces elsewhere."""
    style = '"' if any(end in text for end in "\r\x85\u2028\u2029") else None
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def plain(value: Any) -> Any:
    """Returns a value in the types that YAML and JSON have; what has none of them as its source."""
    if isinstance(value, (set, frozenset)):
        return [plain(item) for item in sorted(value, key=repr)]
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, int) and abs(value) >= TOO_LARGE:
        return hex(value)
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    return repr(value)
