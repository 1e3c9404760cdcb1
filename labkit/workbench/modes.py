"""What TRAIN, TEST, RESUME and MODEL_PATH mean together, in a notebook that declares them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOT_YET = "labkit keeps no checkpoints yet"


def contradictions(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Returns what is wrong with a combination of parameters; nothing where a name is not declared.

    Args:
        values: Every declared parameter with the value that it would have.
        defaults: Their defaults.
    """
    problems = []
    if values.get("TRAIN") is False:
        if values.get("TEST") is False:
            problems.append("TRAIN=False and TEST=False leave nothing to do; leave one of them out")
        if values.get("RESUME"):
            problems.append("RESUME goes on with a training, and TRAIN=False trains nothing; leave one of them out")
        elif values.get("MODEL_PATH") == "":
            problems.append(f"TRAIN=False needs MODEL_PATH, the trained model to evaluate ({NOT_YET})")
    return problems + _not_yet(values, defaults)


def _not_yet(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Returns what has to wait until runs keep checkpoints; a notebook's own default is its own affair."""
    given = [name for name in ("RESUME", "MODEL_PATH") if defaults.get(name) == "" and values[name]]
    return [f"{name}={values[name]!r:.80} names a checkpoint, and {NOT_YET}; leave it out" for name in given]
