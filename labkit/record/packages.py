"""What is installed: exact versions, with the wheel or the conda build that each came from."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


def installed() -> dict[str, Any]:
    """Returns Python and every installed package.

    Returns:
        `python`, `implementation`, `prefix`, and `packages`: for each name its `version`, the `tag` of its wheel, the
        `build` of conda's package, and the `origin` of what came from no index: `editable`, or where from, without
        names and passwords.
    """
    packages: dict[str, dict[str, str]] = {}
    builds = _conda_builds()
    for folder in _folders():
        name, _, version = folder.name.rpartition(".")[0].partition("-")
        key = re.sub(r"[-_.]+", "-", name).lower()
        if not version or key in packages:  # the first on the path is the one that is imported
            continue
        facts = {"version": version.split("-py")[0], "tag": _tag(folder), "origin": _origin(folder)}
        facts["build"] = builds.get(key, "")
        packages[key] = {what: value for what, value in facts.items() if value}
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "prefix": sys.prefix,
        "packages": dict(sorted(packages.items())),
    }


def _folders() -> Iterator[Path]:
    """Yields the folders in which installed packages describe themselves.

    Their names say name and version; `importlib.metadata` would read all of their texts, which takes ten times as long.
    """
    for place in dict.fromkeys(sys.path):
        try:
            entries = sorted(os.scandir(place or "."), key=lambda entry: entry.name)
        except OSError:
            continue
        yield from (Path(entry.path) for entry in entries if entry.name.endswith((".dist-info", ".egg-info")))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def _tag(folder: Path) -> str:
    """Returns the first tag of the wheel that a package was installed from, as `cp311-cp311-linux_x86_64`."""
    found = re.search(r"^Tag: (\S+)$", _text(folder / "WHEEL"), re.MULTILINE)
    return found[1] if found else ""


def _origin(folder: Path) -> str:
    try:
        facts = json.loads(_text(folder / "direct_url.json") or "{}")
        if facts.get("dir_info", {}).get("editable"):
            return "editable"
        url = urlsplit(facts.get("url") or "")
    except (ValueError, AttributeError):
        return ""
    if url.scheme == "file":
        return "file"
    commit = (facts.get("vcs_info") or {}).get("commit_id", "")
    return f"{url.scheme}://{url.hostname or ''}{url.path}{f'@{commit}' if commit else ''}" if url.scheme else ""


def _conda_builds() -> dict[str, str]:
    """Returns the builds of conda's packages, `version-build`, from the names of their records."""
    folder, builds = Path(sys.prefix, "conda-meta"), {}
    for path in folder.glob("*.json") if folder.is_dir() else ():
        name, _, build = path.stem.rpartition("-")
        name, _, version = name.rpartition("-")
        builds[name.lower()] = f"{version}-{build}"
    return builds
