"""What stands in a sweep's files, checked: a hand may have edited them, a disk or a power cut damaged them. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

RUN = re.compile(r"[^\x00-\x1f/\\.][^\x00-\x1f/\\]*/[^\x00-\x1f/\\.][^\x00-\x1f/\\]*")  # no `..`, nothing hidden
NOT_FINITE = ("NaN", "Infinity", "-Infinity")


def wrong_in_manifest(found: Mapping[str, Any]) -> str | None:
    """Returns what in a `sweep.json` is not as it was written; None where all is."""
    for number, point in enumerate(found["points"], 1):
        if not is_point(point, number):
            return f"point {number}"
    search, settings = found.get("search"), found.get("settings", {})
    if "search" in found and not _is_search(search):
        return "search"
    if not isinstance(settings, dict):
        return "settings"
    for name, kinds in (("metric", str), ("lowest", bool), ("kernel", str), ("report", bool)):
        if not isinstance(settings.get(name), kinds | None):
            return name
    for name in ("timeout_s", "grace_s"):
        if settings.get(name) is not None and number_of(settings[name]) is None:
            return name
    return None


def _is_search(found: Any) -> bool:
    """Tells whether this is the plan of a search."""
    kinds = {"sampler": str, "trials": int, "seed": int, "prune": bool, "space": dict}
    if not isinstance(found, dict) or {name: type(one) for name, one in found.items()} != kinds:
        return False
    free, fixed = found["space"].get("free"), found["space"].get("fixed")
    are_mappings = isinstance(free, dict) and isinstance(fixed, dict)
    return are_mappings and all(map(_is_free, free.values())) and _are_texts(fixed.values())


def _is_free(found: Any) -> bool:
    """Tells whether this is what a search chooses a value of: literals, or a range."""
    if not isinstance(found, dict):
        return False
    if "choices" in found:
        return isinstance(found["choices"], list) and _are_texts(found["choices"])
    is_range = found.keys() == {"low", "high", "log", "step"} and isinstance(found["log"], bool)
    return is_range and all(type(found[name]) in (int, float) for name in ("low", "high", "step"))


def is_point(facts: Any, number: int) -> bool:
    """Tells whether these are the facts of this point."""
    if not isinstance(facts, dict) or type(facts.get("point")) is not int or facts["point"] != number:
        return False
    values = facts.get("values")
    return isinstance(facts.get("given"), dict) and isinstance(values, dict) and _are_texts(values.values())


def result(found: Mapping[str, Any] | None, number: int) -> dict[str, Any] | None:
    """Returns an accepted result with its floats restored; None where it is damaged, or of another point."""
    if found is None or type(found.get("point")) is not int or found["point"] != number:
        return None
    metrics, labels = numbers_of(found.get("metrics", {})), found.get("labels", [])
    is_sound = (
        is_run_name(found.get("run"))
        and isinstance(found.get("status"), str)
        and metrics is not None
        and isinstance(labels, list)
        and _are_texts(labels)
    )
    pruned = _pruned(found.get("pruned"))
    if not is_sound or (found["status"] == "pruned" and pruned is None):
        return None
    took_s = number_of(found.get("duration_s"))
    reason = found.get("reason") or ""
    checked: dict[str, Any] = {
        "metrics": metrics,
        "reason": reason if isinstance(reason, str) else "",
        "duration_s": took_s if took_s is not None and math.isfinite(took_s) else None,
    }
    kept = {name: value for name, value in found.items() if name != "pruned"}
    return kept | checked | ({"pruned": pruned} if pruned else {})


def _pruned(found: Any) -> dict[str, Any] | None:
    if not isinstance(found, dict) or not isinstance(found.get("metric"), str) or type(found.get("after")) is not int:
        return None
    value = number_of(found.get("value"))
    return None if value is None else found | {"value": value}


def is_run_name(name: Any) -> bool:
    """Tells whether this is the name of a run, which leads out of no folder of runs: `digits-cnn/20261121T...`."""
    return isinstance(name, str) and RUN.fullmatch(name) is not None


def numbers_of(found: Any) -> dict[str, float] | None:
    """Returns metrics as floats; None where one of them is no number."""
    if not isinstance(found, dict):
        return None
    numbers = {str(name): number_of(value) for name, value in found.items()}
    sound = {name: value for name, value in numbers.items() if value is not None}
    return sound if len(sound) == len(numbers) else None


def number_of(value: Any) -> float | None:
    """Returns a number as a float, also one that JSON has as text; None where it is none."""
    if type(value) not in (int, float) and value not in NOT_FINITE:
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _are_texts(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)
