"""Which values a declared parameter may have: its type, its choices and its range.

Types and choices are read from the annotation, a range from the comment (`in [0, 1)`); nothing of them is executed. An
annotation that says more than is understood here allows everything.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from labkit.record.declared import Parameter
from labkit.record.interval import Interval, stated
from labkit.record.secret import masked

SCALARS: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str, "None": type(None)}
CONTAINERS = {"list": "list", "List": "list", "tuple": "tuple", "Tuple": "tuple", "dict": "dict", "Dict": "dict"}


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
class Allowed:
    """What a declaration allows.

    Attributes:
        forms: The alternatives of its type; empty where every type is allowed.
        interval: Where its numbers, those in lists and mappings too, must lie.
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
    return Allowed(forms, stated(parameter.help))


def shown(value: Any) -> str:
    """Returns a value as messages name it: without what looks like a secret, cut after 80 characters."""
    try:
        return masked(repr(value))[:80]
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "an integer of very many digits"


def broken(parameters: list[Parameter]) -> list[str]:
    """Returns what is wrong with declarations: they make no sense, or their own default breaks them."""
    problems = []
    for parameter in parameters:
        try:
            allowed(parameter).fit(parameter.default)
        except ValueError as error:
            name, default = parameter.name, shown(parameter.default)
            problems.append(f"line {parameter.line} of the parameters: {name} = {default} {error}")
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
    return tuple(form for forms in found for form in forms) if all(found) else ()


def _subscripted(name: str, inner: list[ast.expr]) -> Forms:
    """Returns what `name[inner]` stands for."""
    if name == "Literal" and not inner:
        raise ValueError("declares no choices")
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
    except (ValueError, TypeError):
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
        if _as_float(value) == value:
            return _as_float(value)
    elif form.kind in SCALARS:
        if type(value) is SCALARS[form.kind]:
            return value
    elif form.kind == "dict" and kind == "dict":
        return {key: _fit(item, form.items[0]) for key, item in value.items()}
    elif kind == form.kind or (kind, form.kind) == ("list", "tuple"):
        items = form.items if form.places else form.items * len(value)
        make = tuple if form.kind == "tuple" else list
        return make(_fit(item, forms) for item, forms in zip(value, items, strict=True))
    raise ValueError


def _as_float(value: int) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None


def _numbers(value: Any) -> Iterator[float]:
    """Yields the numbers of a value, those in lists and under the keys of mappings too."""
    if isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _numbers(item)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value
