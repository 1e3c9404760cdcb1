"""The environment that a user gave, where labkit has set something else for a kernel."""

from __future__ import annotations

import json
from collections.abc import Mapping

GIVEN = "LABKIT_GIVEN"  # an environment variable: what was there before, by name
INLINE = "module://matplotlib_inline.backend_inline"  # what a kernel sets as MPLBACKEND where nothing is


def noted(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Returns what `restored` needs: by name what a variable was, None for unset, and what it has been set to."""
    changed = {
        name: [before.get(name), value]
        for name, value in now.items()
        if before.get(name) != value and not name.startswith("LABKIT_")
    }
    return json.dumps(changed)


def restored(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns an environment with what was there before labkit set it; what a user has changed since then stays."""
    found = {name: value for name, value in environment.items() if name != GIVEN}
    try:
        noted = dict(json.loads(environment.get(GIVEN) or "{}"))
    except ValueError:
        return found
    for name, (before, now) in noted.items():
        if found.get(name) != now:
            continue
        del found[name]
        if before is not None:
            found[name] = before
    return found
