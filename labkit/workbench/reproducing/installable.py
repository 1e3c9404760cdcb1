"""What pip is asked for, from a record that may come from anyone: names and exact versions, nothing else.

A line of requirements can hold options, addresses and files, each of which would make pip read or execute something
that nobody agreed to. So no line is passed on; names and versions are read from them and written anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from labkit.errors import BadInput
from labkit.record.files import read_json
from labkit.record.rundir import RunDir
from labkit.workbench.reproducing.chain import mapping

NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,98}[a-z0-9])?")
VERSION = re.compile(r"(?:\d{1,9}!)?[0-9][0-9A-Za-z.]{0,60}(?:\+[0-9A-Za-z.]{1,60})?")  # PEP 440, more or less
PIN = re.compile(r"\s*([A-Za-z0-9._-]+)(?:\[[A-Za-z0-9._, -]*\])?\s*==\s*([^\s;\\#,]+)")
OF_THE_ENVIRONMENT = ("labkit", "pip", "setuptools", "wheel")
BROUGHT_BY_TORCH = re.compile(r"nvidia-.*|cuda-.*|(?:pytorch-)?triton(?:-rocm|-xpu)?")  # it pins them, per platform


def requirements(then: RunDir) -> dict[str, str]:
    """Returns what was installed, by name: all but what torch brings, what was edited in place, and pip itself.

    Raises:
        BadInput: The record does not say what was installed.
    """
    found = pins(_text(then))
    about = mapping((read_json(then.source / "packages.json") or {}).get("packages"))
    kept = {
        name: version
        for name, version in found.items()
        if name not in OF_THE_ENVIRONMENT
        and not BROUGHT_BY_TORCH.fullmatch(name)
        and mapping(about.get(name)).get("origin") != "editable"
    }
    if not kept:
        raise BadInput("the record does not say which packages were installed")
    return kept


def pins(text: str) -> dict[str, str]:
    """Returns the exact versions in a text of requirements, by name; every other line says nothing."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = PIN.match(line)
        name = re.sub(r"[-_.]+", "-", match[1]).lower() if match else ""
        if match and NAME.fullmatch(name) and VERSION.fullmatch(match[2]):
            found[name] = match[2]
    return found


def lines(wanted: dict[str, str]) -> str:
    """Returns requirements for pip; what few indexes have stands first, so that a missing one is soon known."""
    ordered = sorted(wanted.items(), key=lambda pin: ("+" not in pin[1], pin[0]))
    return "".join(f"{name}=={version}\n" for name, version in ordered)


def without(wanted: dict[str, str], said: Iterable[str]) -> tuple[dict[str, str], str] | None:
    """Returns what to ask for after pip found no such package, and what to say of it; None where it said other things.

    `2.13.0+cpu` is on PyTorch's own index alone; others have 2.13.0. What is on no index at all is left out.
    """
    match = re.search(r"No matching distribution found for ([A-Za-z0-9._-]+)==", "\n".join(said))
    name = re.sub(r"[-_.]+", "-", match[1]).lower() if match else ""
    version = wanted.get(name)
    if version is None:
        return None
    if "+" in version:
        public = version.partition("+")[0]
        return wanted | {name: public}, f"no index has {name} {version}; {public} is taken"
    left = {one: pinned for one, pinned in wanted.items() if one != name}
    return left, f"no index has {name} {version} for this Python; it is left out"


def _text(then: RunDir) -> str:
    try:
        return then.requirements.read_text("utf-8")
    except (OSError, ValueError):
        return ""
