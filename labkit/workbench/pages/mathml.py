"""MathML from the converter, checked against the list of what browsers show, and put right where they differ.

Browsers implement MathML Core: no `mathvariant` but `normal`, no `columnalign`, no `menclose`. What Core lacks is
expressed by characters and classes, or refused: a formula that looks right and says something else is worse than none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from html import escape
from xml.etree import ElementTree

_SPACE = "{http://www.w3.org/1998/Math/MathML}"
_LENGTH = r"[+-]?\d*\.?\d+(?:em|ex|px|pt|cm|mm)?"
_BOOL = "true|false"
_TOKENS = frozenset("mi mn mo mtext mspace".split())
_CHILDREN = {  # how many an element must have
    **dict.fromkeys("msub msup munder mover mfrac mroot".split(), 2),
    **dict.fromkeys("msubsup munderover".split(), 3),
}
_ATTRIBUTES: dict[str, dict[str, str]] = {
    "math": {"display": "block|inline"},
    "mi": {"mathvariant": "normal"},
    "mo": {
        **dict.fromkeys("stretchy fence movablelimits accent".split(), _BOOL),
        "form": "prefix|infix|postfix",
        **dict.fromkeys("minsize maxsize lspace rspace".split(), _LENGTH),
    },
    "mspace": dict.fromkeys("width height depth".split(), _LENGTH),
    "mfrac": {"linethickness": _LENGTH},
    "mstyle": {"displaystyle": _BOOL, "scriptlevel": r"\+?\d"},
    "mpadded": dict.fromkeys("width height depth lspace voffset".split(), _LENGTH),
    "mover": {"accent": _BOOL},
    "munder": {"accentunder": _BOOL},
    "mtable": {"displaystyle": _BOOL, "class": "tight"},
    "mtd": {"class": "left|right"},
    "mtext": {"class": "bold|italic|mono"},
}
_ELEMENTS = frozenset("mrow msqrt mphantom mtr".split()) | _CHILDREN.keys() | _ATTRIBUTES.keys() | {"mn"}
_SPACING_ONLY = frozenset("columnspacing rowspacing xmlns".split())  # lost without a change of meaning
_NAMED_SPACES = {"negativethinmathspace": "-0.167em"}
_TEXT_LOOKS = {"bold": "bold", "italic": "italic", "monospace": "mono", "sans-serif": None}
_STYLES = {
    "bold": "MATHEMATICAL BOLD",
    "bold-italic": "MATHEMATICAL BOLD ITALIC",
    "double-struck": "MATHEMATICAL DOUBLE-STRUCK",
    "script": "MATHEMATICAL SCRIPT",
    "fraktur": "MATHEMATICAL FRAKTUR",
    "sans-serif": "MATHEMATICAL SANS-SERIF",
    "monospace": "MATHEMATICAL MONOSPACE",
}
_OLDER_NAMES = {"double-struck": "DOUBLE-STRUCK", "script": "SCRIPT", "fraktur": "BLACK-LETTER"}
# Upright single letters come as references (\mathrm{d}), italic ones as themselves.
_UPRIGHT = re.compile(r"<mi>&#x0*([46][1-9a-fA-F]|[57][0-9aA]);</mi>")
_FENCES = frozenset("()[]{}|‖⟨⟩⌈⌉⌊⌋")


class NotShown(ValueError):
    """Browsers would not show this MathML as it was meant."""


def checked(source: str, display: bool) -> str:
    """Returns MathML that holds only what the list names.

    Raises:
        NotShown: There is something else in it.
        xml.etree.ElementTree.ParseError: It is not XML.
    """
    if "<!" in source or "<?" in source:
        raise NotShown("declaration")
    root = ElementTree.fromstring(_UPRIGHT.sub(r'<mi mathvariant="normal">&#x\1;</mi>', source))
    out: list[str] = []
    _write(root, out.append)
    return "".join(out).replace("<math", '<math display="block"' if display else "<math", 1)


def _write(element: ElementTree.Element, put: Callable[[str], None]) -> None:
    name = element.tag.removeprefix(_SPACE)
    if name == "math":
        element.attrib.clear()
    if name not in _ELEMENTS or len(element) != _CHILDREN.get(name, len(element)):
        raise NotShown(name)
    if name in _TOKENS and len(element):
        raise NotShown(f"markup inside {name}")
    if name not in _TOKENS and (element.text or "").strip():
        raise NotShown(f"text inside {name}")
    if any((child.tail or "").strip() for child in element):
        raise NotShown(f"text inside {name}")
    name = _put_right(name, element)
    attributes = "".join(f' {key}="{escape(value)}"' for key, value in _kept(name, element))
    put(f"<{name}{attributes}>")
    if name in _TOKENS:
        put(escape(element.text or "", quote=False))
    for child in element:
        _write(child, put)
    put(f"</{name}>")


def _kept(name: str, element: ElementTree.Element) -> list[tuple[str, str]]:
    kept = []
    for key, value in element.attrib.items():
        allowed = _ATTRIBUTES.get(name, {}).get(key)
        if allowed is None:
            if key not in _SPACING_ONLY:
                raise NotShown(f"{name} {key}")
        elif re.fullmatch(allowed, value):
            kept.append((key, value))
        else:
            raise NotShown(f"{name} {key}={value!r}")
    return kept


def _put_right(name: str, element: ElementTree.Element) -> str:
    """Expresses what MathML Core lacks by what it has; returns the element's name."""
    if name in {"mi", "mn", "mo", "mtext"}:
        return _put_token_right(name, element)
    if name == "mspace":
        if "linebreak" in element.attrib:
            raise NotShown("line break")
        for key, value in element.attrib.items():
            element.set(key, _NAMED_SPACES.get(value, value))
    elif name == "mtd":
        aligned = element.attrib.pop("columnalign", "center")
        if aligned != "center":
            element.set("class", aligned)
    elif name == "mtable" and element.get("columnspacing", "").startswith("0em"):
        element.set("class", "tight")  # the columns of an alignment belong together
    elif name == "mrow":
        _join_upright(element)
    if name in {"math", "mrow", "mtd", "msqrt", "mstyle"}:
        _space_functions(element)
    base = element[0] if name in {"msub", "msup", "msubsup"} else None
    if base is not None and base.get("movablelimits") == "true":
        return {"msub": "munder", "msup": "mover", "msubsup": "munderover"}[name]
    return name


def _put_token_right(name: str, element: ElementTree.Element) -> str:
    text = element.text or ""
    if "\\" in text or (name != "mtext" and re.search(r"[$#&<>]{2}|[${}]\w|[\x00-\x1f]", text)):
        raise NotShown(f"source in {name}")  # a command that the converter did not know
    if name == "mn" and not re.fullmatch(r"[\d.,]+|[^\x00-\x7f]+", text):
        raise NotShown("a length taken for a number")
    variant = element.attrib.pop("mathvariant", None)
    if name == "mtext":
        look = _TEXT_LOOKS[variant] if variant else None
        if look:
            element.set("class", look)
    elif variant == "normal" and name == "mi":
        element.set("mathvariant", "normal")
    elif variant and variant not in {"normal", "italic"} and name != "mo":
        element.text = "".join(styled(character, variant) for character in text)
    if name == "mi" and len(text) == 1 and unicodedata.category(text) in {"Sm", "Ps", "Pe", "So"}:
        element.attrib.clear()
        name = "mo"
        if text in _FENCES:
            element.set("stretchy", "false")
    return name


def styled(character: str, variant: str) -> str:
    """Returns a letter or digit in a style of its own, as Unicode has it.

    >>> styled("R", "double-struck"), styled("θ", "bold-italic")
    ('ℝ', '𝜽')

    Raises:
        NotShown: There is no such character.
    """
    name = unicodedata.name(character, "")
    short = re.sub(r"^(?:LATIN|GREEK) |LETTER |^GREEK LUNATE ", "", name).replace("LUNATE ", "")
    if name.startswith("LATIN") and not re.fullmatch(r"(?:CAPITAL|SMALL) [A-Z]", short):
        raise NotShown(name)
    for style in (_STYLES.get(variant), _OLDER_NAMES.get(variant)):
        try:
            return unicodedata.lookup(f"{style} {short}")
        except KeyError:
            continue
    raise NotShown(f"{character} in {variant}")


def _join_upright(row: ElementTree.Element) -> None:
    r"""Makes one word of upright letters, as in \mathrm{softmax}: one by one they would be spaced as a product."""
    children = list(row)
    if len(children) > 1 and all(
        child.tag.removeprefix(_SPACE) == "mi" and child.get("mathvariant") == "normal" for child in children
    ):
        children[0].text = "".join(child.text or "" for child in children)
        for child in children[1:]:
            row.remove(child)


def _space_functions(row: ElementTree.Element) -> None:
    """Puts a thin space between a function's name and an argument without parentheses: log p, not logp."""
    children = list(row)
    for place in range(len(children) - 2, -1, -1):
        base = children[place]
        if base.tag.removeprefix(_SPACE) in _CHILDREN and len(base):
            base = base[0]
        is_function = base.tag.removeprefix(_SPACE) in {"mi", "mo"} and re.fullmatch("[a-z]{2,}", base.text or "")
        follows = children[place + 1].tag.removeprefix(_SPACE)
        if is_function and base.get("mathvariant") is None and follows not in {"mo", "mspace"}:
            row.insert(place + 1, ElementTree.Element(f"{_SPACE}mspace", {"width": "0.167em"}))
