"""What TRAIN, TEST, RESUME, MODEL_PATH and TRACKERS mean together, in a notebook that declares them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labkit.record.allowed import shown
from labkit.record.declared import Parameter
from labkit.workbench.running import trackers


def contradictions(values: Mapping[str, Any]) -> list[str]:
    """Returns what is wrong with a combination of parameters; nothing where a name is not declared.

    Args:
        values: Every declared parameter with the value that it would have.
    """
    problems = []
    if values.get("TRAIN") is False:
        if values.get("TEST") is False:
            problems.append("TRAIN=False and TEST=False leave nothing to do; leave one of them out")
        if values.get("RESUME"):
            problems.append("RESUME goes on with a training, and TRAIN=False trains nothing; leave one of them out")
        elif values.get("MODEL_PATH") == "":
            problems.append("TRAIN=False needs MODEL_PATH, the trained model to evaluate")
    if wrong := trackers.unknown(values):
        known = ", ".join(trackers.KNOWN)
        problems.append(f"TRACKERS names {', '.join(map(shown, wrong))}; the trackers are {known}")
    return problems


def names_checkpoint(name: str, declared: list[Parameter]) -> bool:
    """Tells whether a notebook means a checkpoint by RESUME or MODEL_PATH: declared as such, they are empty texts."""
    return any(parameter.name == name and parameter.default == "" for parameter in declared)
