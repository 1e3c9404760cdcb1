"""How far the final numbers of a run made again may lie from the recorded ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labkit.workbench.wording import number

WITHIN_95 = 2 * math.sqrt(2)  # standard deviations of one run: 95 % of the differences of two lie within


@dataclass(frozen=True)
class Tolerance:
    """Allowed differences of final values.

    Attributes:
        relative: As a part of the recorded value, for every metric; None where none was given.
        absolute: For single metrics, instead of it.
        origin: Where they come from, for a reader: `5 seeds`, `--tolerance`.
    """

    relative: float | None = None
    absolute: Mapping[str, float] = field(default_factory=dict)
    origin: str = ""

    @classmethod
    def of_noise(cls, deviations: Mapping[str, float], origin: str) -> Tolerance:
        """Returns what holds 95 % of the differences of two seeds, from standard deviations over seeds."""
        return cls(absolute={name: WITHIN_95 * value for name, value in deviations.items()}, origin=origin)

    def limit(self, metric: str, then: float) -> float:
        """Returns how far a metric may lie from its recorded value."""
        if metric in self.absolute:
            return self.absolute[metric]
        return self.relative * abs(then) if self.relative is not None else 0.0

    def allows(self, metric: str, then: float, now: float) -> bool:
        """Tells whether a value is near enough to the recorded one; NaN is near NaN alone."""
        if then == now or (then != then and now != now):
            return True
        try:
            apart = float(abs(now - then))
            return math.isfinite(apart) and apart <= self.limit(metric, then)
        except OverflowError:  # integers beyond floats
            return False

    def facts(self) -> dict[str, Any]:
        """Returns what a record keeps."""
        absolute = dict(self.absolute)
        return {"relative": self.relative, "absolute": absolute, "origin": self.origin, "text": str(self)}

    def __str__(self) -> str:
        parts = []
        if self.absolute:
            parts.append(", ".join(f"{name} ± {number(float(value))}" for name, value in self.absolute.items()))
        if self.relative is not None:
            parts.append(f"{'others' if self.absolute else 'each'} within {100 * self.relative:.3g} %")
        text = "; ".join(parts) or "none"
        return f"{text} (from {self.origin})" if self.origin else text
