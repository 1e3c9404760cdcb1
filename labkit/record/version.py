"""The parameter VERSION: where the notebook leaves it empty, it says from which state of the lab a run was made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit.record.provenance import git

VERSION = "VERSION"
DESCRIBE = ("-c", "diff.ignoreSubmodules=all", "describe", "--tags", "--always", "--dirty")


def filled(parameters: Mapping[str, Any], given: Mapping[str, Any], lab: Path) -> dict[str, Any]:
    """Returns VERSION as git describes the lab, where the parameters leave it empty; else, or without git, nothing.

    Args:
        parameters: The notebook's parameters.
        given: Those that were asked for: a VERSION among them stays as it is.
        lab: The lab.
    """
    if parameters.get(VERSION) != "" or VERSION in given:
        return {}
    version = described(lab)
    return {VERSION: version} if version else {}


def described(folder: Path) -> str:
    """Returns the newest tag and what came after it, as in `v1.2-3-g1a2b3c4-dirty`; empty where git cannot tell."""
    try:
        return git(folder, *DESCRIBE).decode(errors="replace").strip()
    except OSError:
        return ""
