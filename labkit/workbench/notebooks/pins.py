"""The lock of a new lab: what is installed here, as far as labkit and the lab's tests need it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse

# What a build of torch brings for itself; pip resolves torch's own needs, so that a CPU build stays one.
LEFT_TO_TORCH = re.compile(r"(nvidia|cuda)-.+|triton|pytorch-triton(-.+)?")
NOT_PINNED = {"pip", "setuptools", "wheel"}  # an environment's own tools
TESTS = "pytest>=8.2"
HEADER = """\
# What this lab runs on, as it was installed where `labkit init` made it, with Python {python}.
# To change it, edit a line and run `make env`; `labkit doctor` names what differs.
"""
FOLDER = "wheels"
HERE_ONLY = "# from this machine; for others, put its wheel into wheels/ and write ./wheels/labkit-….whl\n"

Find = Callable[[str], metadata.Distribution]


def lock(find: Find = metadata.distribution) -> tuple[str, Path | None]:
    """Returns the text of a lock, and labkit's own wheel where that has to come along, in FOLDER."""
    line, wheel = own_line(find)
    pins = [f"{name}=={version}" for name, version in sorted(installed(["labkit", TESTS], find).items())]
    if not any(pin.startswith("pytest==") for pin in pins):
        pins.append(TESTS)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return HEADER.format(python=python) + "".join(f"{pin}\n" for pin in [line, *pins]), wheel


def installed(names: Iterable[str], find: Find = metadata.distribution) -> dict[str, str]:
    """Returns the versions of packages and of all that they need, labkit itself left out.

    Args:
        names: Requirements, such as `pytest>=8.2`.
        find: Returns an installed distribution by its name.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    seen = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        need = waiting.pop()
        name = canonicalize_name(need.name)
        extras = need.extras or {""}
        if (name, *sorted(extras)) in seen or name in NOT_PINNED or LEFT_TO_TORCH.fullmatch(name):
            continue
        seen.add((name, *sorted(extras)))
        try:
            distribution = find(name)
        except metadata.PackageNotFoundError:
            continue
        found[name] = distribution.version.partition("+")[0]  # torch 2.13.0+cpu is one build of 2.13.0
        needs = map(Requirement, distribution.requires or [])
        waiting += [
            need for need in needs if need.marker is None or any(need.marker.evaluate({"extra": x}) for x in extras)
        ]
    found.pop("labkit", None)
    return found


def own_line(find: Find = metadata.distribution) -> tuple[str, Path | None]:
    """Returns the line that installs labkit from where it came from, and its wheel where that is a file here."""
    from labkit import __version__

    try:
        text = find("labkit").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        text = None
    if not text:
        return f"labkit=={__version__}", None
    origin = json.loads(text)
    url = str(origin["url"])
    if "vcs_info" in origin:
        return f"labkit @ {origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}", None
    if not url.startswith("file:"):
        return f"labkit @ {url}", None
    path = Path(unquote(urlparse(url).path))
    if path.suffix == ".whl" and path.is_file():
        return f"./{FOLDER}/{path.name}", path
    return f"{HERE_ONLY}labkit @ {url}", None
