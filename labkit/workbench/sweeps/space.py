"""What a search chooses of: for each parameter a range, on a logarithmic scale or not, or a list of choices.

`16..128` is a range of integers or floats, as the parameter is declared; `16..128..16` takes steps; `log:1e-4..1e-1` is
a range on a logarithmic scale; `relu,gelu` are choices; a single value is fixed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labkit.errors import ParameterProblem
from labkit.record.allowed import allowed
from labkit.record.declared import Parameter
from labkit.record.spread import is_seed
from labkit.workbench.notebooks.literals import literal, read_literal
from labkit.workbench.notebooks.notebook import Notebook
from labkit.workbench.notebooks.params import Raw
from labkit.workbench.sweeps import points
from labkit.workbench.sweeps.points import Axis, Quoted, Span

DIGITS = 4  # of the width of a range that its values differ by, or of a value on a logarithmic scale
NOTATION = "write LOW..HIGH, LOW..HIGH..STEP, log:LOW..HIGH, or a list of values"


@dataclass(frozen=True)
class Range:
    """Numbers of which one is chosen; integers where the ends are integers.

    Attributes:
        low: The lowest.
        high: The highest.
        log: On a logarithmic scale.
        step: From each integer to the next.
    """

    low: float
    high: float
    log: bool = False
    step: int = 1

    @property
    def size(self) -> float:
        """How many values there are."""
        return math.inf if isinstance(self.low, float) else (self.high - self.low) // self.step + 1

    def value(self, chosen: float) -> float:
        """Returns the value for what Optuna chose: floats with as many digits as make a difference."""
        if not isinstance(self.low, float):
            return int(chosen)
        width = min(self.high - self.low, chosen) if self.log else self.high - self.low
        return min(self.high, max(self.low, round(chosen, DIGITS - math.floor(math.log10(width)))))

    def chosen(self, value: float) -> float:
        """Returns what Optuna would have chosen to this value."""
        return value

    def __str__(self) -> str:
        return f"{'log:' * self.log}{self.low}..{self.high}{f'..{self.step}' * (self.step > 1)}"


@dataclass(frozen=True)
class Choices:
    """Values of which one is chosen, whatever their types."""

    values: tuple[Any, ...]

    @property
    def size(self) -> float:
        """How many values there are."""
        return len(self.values)

    def __str__(self) -> str:
        return ",".join(map(literal, self.values))

    def value(self, chosen: int) -> Any:
        """Returns the value for what Optuna chose, its place."""
        return self.values[chosen]

    def chosen(self, value: Any) -> int:
        """Returns what Optuna would have chosen to this value."""
        return [literal(one) for one in self.values].index(literal(value))


@dataclass(frozen=True)
class Space:
    """A search space.

    Attributes:
        free: What is chosen, by parameter.
        fixed: The parameters that have one value.
    """

    free: Mapping[str, Range | Choices]
    fixed: Mapping[str, Any]

    @property
    def size(self) -> float:
        """How many points there are."""
        return math.prod(one.size for one in self.free.values())

    def facts(self) -> dict[str, Any]:
        """Returns what a record keeps."""
        return {
            "free": {
                name: {"choices": [literal(value) for value in one.values]}
                if isinstance(one, Choices)
                else dict(vars(one))
                for name, one in self.free.items()
            },
            "fixed": {name: literal(value) for name, value in self.fixed.items()},
        }

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Space:
        """Returns the space that `facts` stand for."""
        free = {
            name: Choices(tuple(map(read_literal, one["choices"]))) if "choices" in one else Range(**one)
            for name, one in facts["free"].items()
        }
        return cls(free, {name: read_literal(text) for name, text in facts["fixed"].items()})


def space(
    source: Notebook,
    assignments: Iterable[str],
    files: Iterable[Path] = (),
    *,
    values: Mapping[str, Any] | None = None,
) -> Space:
    """Returns the search space that a command line or a cell asks for.

    Args:
        source: The notebook that declares the parameters.
        assignments: What `-p` says.
        files: YAML files; later ones win, and `-p` wins over all.
        values: What a cell gave to `labkit.sweep`: lists are choices, ranges are text.

    Raises:
        ParameterProblem: Something of it cannot be; nothing was started.
    """
    axes, door = points.listed(source, assignments, files, _read, values)
    for at, axis in enumerate(axes):  # each value once, beside the first ones of the others
        for value in axis.values[1:]:
            door.admit(
                axes, [*(other.values[0] for other in axes[:at]), value, *(one.values[0] for one in axes[at + 1 :])]
            )
    declared = {parameter.name: parameter for parameter in door.declared}
    free = {axis.name: _dimension(axis, declared[axis.name]) for axis in axes if len(axis.values) > 1}
    if seed := next(filter(is_seed, free), None):
        raise ParameterProblem(
            f"a search must not choose {seed}: the luckiest seed is no result; give it one value, and then compare the "
            f"best points over seeds, in a sweep without --search"
        )
    if not free:
        raise ParameterProblem("there is nothing to search; give a range or a list: -p LEARNING_RATE=log:1e-4..1e-1")
    return Space(dict(sorted(free.items())), {axis.name: axis.values[0] for axis in axes if len(axis.values) == 1})


def _read(
    written: Sequence[points.Written], name: Any, declared: Sequence[Parameter]
) -> tuple[Sequence[Any], Span | None]:
    """Returns the ends of a range that stands alone, else the values of a list.

    Raises:
        ValueError: It is no notation.
    """
    if not points.is_text(name, declared):
        plain = [text for _, text in written if isinstance(text, str) and not isinstance(text, Quoted)]
        if len(written) == len(plain) == 1 and (match := points.SPAN.fullmatch(plain[0])):
            return (Raw(match[2]), Raw(match[3])), Span(bool(match[1]), int(match[4] or 1))
        if wrong := [text for text in plain if not points.RANGE.fullmatch(text) and _is_meant_as_range(text)]:
            raise ValueError(f"{wrong[0]} is no range of a search; {NOTATION}")
    return points.multiplied(written, name, declared)


def _is_meant_as_range(text: str) -> bool:
    return text.strip().startswith("log:") or ".." in text


def _dimension(axis: Axis, parameter: Parameter) -> Range | Choices:
    """Returns what is chosen of for a parameter.

    Raises:
        ParameterProblem: A range holds nothing, or its numbers are not of the declared type.
    """
    if axis.span is None:
        if len(set(map(literal, axis.values))) < len(axis.values):
            raise ParameterProblem(f"{axis.name}={Choices(axis.values)} lists a value twice; list each once")
        return Choices(axis.values)
    (low, high), span = axis.values, axis.span
    found = Range(low, high, span.log, span.step)
    kinds = {form.kind for form in allowed(parameter).forms} or {"int", "float"}
    if type(low) is not type(high):  # declared as either
        found = Range(float(low), float(high), span.log, span.step)
    if type(found.low).__name__ not in kinds:
        raise ParameterProblem(
            f"{axis.name}={found} is a range, but the notebook declares {allowed(parameter)}; list values"
        )
    if not found.low < found.high:
        raise ParameterProblem(f"{axis.name}={found}: the range is empty; {NOTATION}, LOW below HIGH")
    if span.log and found.low <= 0:
        raise ParameterProblem(f"{axis.name}={found}: on a logarithmic scale LOW is above 0")
    if span.step != 1 and (span.log or isinstance(found.low, float)):
        raise ParameterProblem(
            f"{axis.name}={found}: only plain ranges of integers take steps; list the values instead"
        )
    if span.step != 1 and not 1 < span.step <= found.high - found.low:
        raise ParameterProblem(f"{axis.name}={found}: the step is from 1 to HIGH - LOW")
    return found if span.step == 1 else replace(found, high=found.low + (found.size - 1) * span.step)
