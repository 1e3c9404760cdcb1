"""What a lab and its user have set once: `[tool.labkit]` in pyproject.toml, and over it `~/.config/labkit.toml`.

A command's option and `$LABKIT_RUNS` win over both. A setting of a table inside, `[tool.labkit.slurm]`, goes by
`slurm.partition`.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import ConfigProblem

KEYS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "runs": (str, "the folder of runs, from the lab's folder"),
    "grace_s": ((int, float), "seconds from a stop to the kill"),
    "on_end": (str, "a shell command when a run has ended; it finds $LABKIT_RUN and $LABKIT_STATUS"),
    "slurm.account": (str, "the account that jobs are charged to"),
    "slurm.partition": (str, "the partition that jobs go to"),
    "slurm.time": (str, "the time limit of a job, as sbatch takes it: '12:00:00'"),
    "slurm.cpus": (int, "the number of CPU cores of a job; 0 for the cluster's own"),
    "slurm.gpus": (int, "the number of GPUs of a job"),
    "slurm.memory": (str, "the memory of a job, as sbatch takes it: '32G'"),
    "slurm.modules": (list, "a list of the modules that a job loads"),
    "slurm.lines": (list, "a list of further lines of the script: `#SBATCH --qos=long`, `source env.sh`"),
    "slurm.warn_s": (int, "seconds before the time limit in which a job is told to stop, 60 or more"),
}
DEFAULTS: dict[str, Any] = {
    "runs": "runs",
    "grace_s": 30.0,
    "on_end": "",
    "slurm.account": "",
    "slurm.partition": "",
    "slurm.time": "",
    "slurm.cpus": 0,
    "slurm.gpus": 0,
    "slurm.memory": "",
    "slurm.modules": [],
    "slurm.lines": [],
    "slurm.warn_s": 120,
}
TABLES = ("slurm",)
LEAST = {"slurm.warn_s": 60}
LIMIT_BYTES = 2**20


@dataclass(frozen=True)
class Setting:
    """A value, and the file that it comes from; `default` where none names it."""

    value: Any
    origin: str = "default"


def settings(lab: Path) -> dict[str, Setting]:
    """Returns every setting of a lab.

    Raises:
        ConfigProblem: A file is not TOML, names an unknown key, or gives one a value that it cannot have.
    """
    found = {name: Setting(value) for name, value in DEFAULTS.items()}
    own = user_file()
    for path, table in ((lab / "pyproject.toml", "tool.labkit"), *([(own, "")] if own else [])):
        for name, value in _table(path, table).items():
            _check(path, name, value)
            found[name] = Setting(value, str(path))
    return found


def user_file() -> Path | None:
    """Returns the user's own file, which need not exist; None for a user without a home."""
    folder = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    try:
        return Path(folder).expanduser() / "labkit.toml"
    except RuntimeError:
        return None


def _table(path: Path, name: str) -> dict[str, Any]:
    try:
        if not path.is_file():
            return {}
        with path.open("rb") as file:
            text = file.read(LIMIT_BYTES).decode()
    except OSError:
        return {}
    except UnicodeDecodeError as error:
        raise ConfigProblem(f"{path} is not UTF-8: {error}") from error
    try:
        found: Any = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        if name and "labkit" not in text:
            return {}  # another tool's business
        raise ConfigProblem(f"{path} is not TOML: {error}") from error
    for part in filter(None, name.split(".")):
        found = found.get(part, {}) if isinstance(found, dict) else {}
    if not isinstance(found, dict):
        raise ConfigProblem(f"{path}: {name} is no table; write [{name}]")
    return _flat(path, name, found)


def _flat(path: Path, name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of a table and of the tables in it that labkit knows, `slurm.time` for the latter."""
    flat: dict[str, Any] = {}
    for key, value in found.items():
        if key not in TABLES:
            flat[key] = value
        elif isinstance(value, dict):
            flat |= {f"{key}.{inner}": setting for inner, setting in value.items()}
        else:
            raise ConfigProblem(f"{path}: {key} is no table; write [{'.'.join(filter(None, (name, key)))}]")
    return flat


def _check(path: Path, name: str, value: Any) -> None:
    if name not in KEYS:
        near = difflib.get_close_matches(name, KEYS, 1)
        hint = f", did you mean {near[0]}?" if near else "."
        raise ConfigProblem(f"{path}: there is no setting {name!r:.60}{hint} Known are {', '.join(KEYS)}")
    wanted, meaning = KEYS[name]
    is_kind = isinstance(value, wanted) and not isinstance(value, bool)
    is_odd = isinstance(value, int | float) and not LEAST.get(name, 0) <= value < 1e9
    is_odd = is_odd or (isinstance(value, str) and ("\0" in value or (name == "runs" and not value.strip())))
    if name.partition(".")[0] in TABLES:
        is_odd = is_odd or not all(_is_line(one) for one in (value if isinstance(value, list) else [str(value)]))
    if not is_kind or is_odd:
        raise ConfigProblem(f"{path}: {name} = {value!r:.60} cannot be: {meaning}")


def _is_line(value: Any) -> bool:
    """Tells whether a value can stand in a line of a script: anything else would say what nobody wrote."""
    return isinstance(value, str) and value.isprintable()
