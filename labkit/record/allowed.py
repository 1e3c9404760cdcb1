"""Which values a declared parameter may have: its type, its choices and its range.

Types and choices are read from the annotation, a range from the comment (`in [0, 1)`); nothing of them is executed. An
annotation that says more than is understood here allows everything.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from labkit.record.declared import Parameter

SCALARS: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str, "None": type(None)}
CONTAINERS = {"list": "list", "List": "list", "tuple": "tuple", "Tuple": "tuple", "dict": "dict", "Dict": "dict"}
RANGE = re.compile(r"(?<!\bas )\bin\s*([\[(])([^\[\]()]*)([\])]?)")


@dataclass(frozen=True)
class Form:
    """One kind of value.

    Attributes:
        kind: `int`, `list`, … or `choice`.
        choice: The value itself, of a choice.
        items: What a container's items may be: one entry for all, or with `places` one for each.
        places: The number of items is fixed.
    """

    kind: str
    choice: Any = None
    items: tuple[Forms, ...] = ((),)
    places: bool = False

    def __str__(self) -> str:
        """The form as messages name it."""
        if self.kind == "choice":
            return repr(self.choice)
        inside = ["Any" if not forms else " | ".join(map(str, forms)) for forms in self.items]
        if self.kind not in CONTAINERS.values() or self.items == ((),):
            return self.kind
        if self.kind == "tuple" and not self.places:
            inside.append("...")
        return f"{self.kind}[{', '.join(['str', *inside] if self.kind == 'dict' else inside)}]"


Forms = tuple[Form, ...]  # alternatives; none stands for all there are


@dataclass(frozen=True)
class Interval:
    """A range of numbers, as in `[0, 1)`."""

    low: float
    high: float
    with_low: bool
    with_high: bool

    def holds(self, number: float) -> bool:
        """Tells whether a number lies inside; NaN never does."""
        above = self.low <= number if self.with_low else self.low < number
        return above and (number <= self.high if self.with_high else number < self.high)

    def __str__(self) -> str:
        return f"{'(['[self.with_low]}{self.low}, {self.high}{')]'[self.with_high]}"


@dataclass(frozen=True)
class Allowed:
    """What a declaration allows.

    Attributes:
        forms: The alternatives of its type; empty where every type is allowed.
        interval: Where its numbers, those in lists too, must lie.
    """

    forms: Forms = ()
    interval: Interval | None = None

    def __str__(self) -> str:
        """Type, choices and range as messages name them."""
        parts = [" or ".join(map(str, self.forms))] if self.forms else []
        return ", ".join([*parts, *([f"in {self.interval}"] if self.interval else [])])

    def fit(self, value: Any) -> Any:
        """Returns a value in its declared type: an integer for a float becomes one, a list for a tuple too.

        Raises:
            ValueError: It is not allowed; the message goes on after "NAME = VALUE".
        """
        try:
            fitted = _fit(value, self.forms)
        except ValueError:
            raise ValueError(self._misfit(value)) from None
        if self.interval and not all(map(self.interval.holds, _numbers(fitted))):
            raise ValueError(f"is outside of the range {self.interval}")
        return fitted

    def _misfit(self, value: Any) -> str:
        kind = "None" if value is None else type(value).__name__
        if all(form.kind in ("choice", "None") for form in self.forms):
            known = [form.choice for form in self.forms if isinstance(form.choice, str)]
            near = difflib.get_close_matches(value, known, 1) if isinstance(value, str) else []
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            return f"is none of {', '.join(map(str, self.forms))}{hint}"
        other = f"a {kind} of something else" if any(form.kind == kind for form in self.forms) else kind
        return f"is {other}, but the notebook declares {self}"


def allowed(parameter: Parameter) -> Allowed:
    """Returns what a declaration allows; without an annotation, values of the default's type.

    Raises:
        ValueError: The declaration makes no sense; the message says why.
    """
    if parameter.type:
        forms = _forms(parameter.type)
    else:
        kind = type(parameter.default).__name__
        forms = (Form(kind),) if kind in SCALARS or kind in CONTAINERS.values() else ()
    return Allowed(forms, _interval(parameter.help))


def broken(parameters: list[Parameter]) -> list[str]:
    """Returns what is wrong with declarations: they make no sense, or their own default breaks them."""
    problems = []
    for parameter in parameters:
        try:
            allowed(parameter).fit(parameter.default)
        except ValueError as error:
            problems.append(
                f"line {parameter.line} of the parameters: {parameter.name} = {parameter.default!r:.80} {error}"
            )
    return problems


def _forms(annotation: str | ast.expr) -> Forms:
    """Returns the alternatives that an annotation names; none where it says more than is understood here."""
    if isinstance(annotation, str):
        try:
            annotation = ast.parse(annotation, mode="eval").body
        except SyntaxError:
            return ()
    match annotation:
        case ast.Constant(None):
            return (Form("None"),)
        case ast.Constant(str(text)):
            return _forms(text)
        case ast.Name(name) | ast.Attribute(attr=name):
            if name in SCALARS:
                return (Form(name),)
            return (Form(CONTAINERS[name]),) if name in CONTAINERS else ()
        case ast.BinOp(left, ast.BitOr(), right):
            return _either([left, right])
        case ast.Subscript(ast.Name(name) | ast.Attribute(attr=name), inner):
            return _subscripted(name, inner.elts if isinstance(inner, ast.Tuple) else [inner])
    return ()


def _either(nodes: list[ast.expr]) -> Forms:
    found = [_forms(node) for node in nodes]
    return tuple(dict.fromkeys(form for forms in found for form in forms)) if all(found) else ()


def _subscripted(name: str, inner: list[ast.expr]) -> Forms:
    """Returns what `name[inner]` stands for."""
    if name == "Literal":
        return tuple(map(_choice, inner))
    if name == "Union":
        return _either(inner)
    if name == "Optional":
        return (*found, Form("None")) if (found := _either(inner)) else ()
    kind = CONTAINERS.get(name)
    if kind == "list" and len(inner) == 1:
        return (Form(kind, items=(_forms(inner[0]),)),)
    if kind == "dict" and len(inner) == 2:
        return (Form(kind, items=(_forms(inner[1]),)),)
    if kind == "tuple":
        if len(inner) == 2 and isinstance(inner[1], ast.Constant) and inner[1].value is ...:
            return (Form(kind, items=(_forms(inner[0]),)),)
        return (Form(kind, items=tuple(map(_forms, inner)), places=True),)
    return ()


def _choice(node: ast.expr) -> Form:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        value = ...
    if value is None:
        return Form("None")
    if not isinstance(value, (str, bool, int, float)):
        raise ValueError(f"declares the choice {ast.unparse(node):.80}; choices are texts, numbers, True, False, None")
    return Form("choice", value)


def _fit(value: Any, forms: Forms) -> Any:
    if not forms:
        return value
    for form in sorted(forms, key=lambda form: form.kind == "float"):  # an integer stays one where it may
        try:
            return _fit_form(value, form)
        except ValueError:
            continue
    raise ValueError


def _fit_form(value: Any, form: Form) -> Any:
    kind = type(value).__name__
    if form.kind == "choice":
        if type(value) is type(form.choice) and value == form.choice:
            return value
    elif form.kind == "float" and kind == "int":
        if abs(value) < 2**1024 and float(value) == value:
            return float(value)
    elif form.kind in SCALARS:
        if type(value) is SCALARS[form.kind] or (form.kind == "str" and isinstance(value, str)):
            return value
    elif form.kind == "dict" and kind == "dict":
        return {key: _fit(item, form.items[0]) for key, item in value.items()}
    elif kind == form.kind or (kind, form.kind) == ("list", "tuple"):
        items = form.items if form.places else form.items * len(value)
        return type(form.kind == "tuple" and () or [])(
            _fit(item, forms) for item, forms in zip(value, items, strict=True)
        )
    raise ValueError


def _numbers(value: Any) -> Iterator[float]:
    """Yields the numbers of a value, those in lists too."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value


def _interval(text: str) -> Interval | None:
    """Returns the range that a comment states; prose that only looks like one, `in (roughly) 5`, is none.

    Raises:
        ValueError: It allows nothing, is not closed, or there are two.
    """
    found = []
    for opening, inside, closing in RANGE.findall(text):
        ends = [_end(end) for end in inside.split(",")]
        if len(ends) != 2 or None in ends:
            continue
        if not closing:
            raise ValueError(f"has a range that is not closed: in {opening}{inside}")
        found.append(Interval(*ends, opening == "[", closing == "]"))
    if len(found) > 1:
        raise ValueError(f"has more than one range: {' and '.join(map(str, found))}")
    if found and not (found[0].low < found[0].high or found[0].holds(found[0].low)):
        raise ValueError(f"has a range that holds nothing: {found[0]}")
    return found[0] if found else None


def _end(text: str) -> float | None:
    text = text.strip().replace("∞", "inf").replace("−", "-")
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return None if number != number else number
    return None
