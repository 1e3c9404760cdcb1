"""The allow-lists that everything made by a notebook passes on its way into a page.

A list names what may stay; the rest goes. HTML that was parsed and filtered here holds no script, no handler, no style,
no form, no frame, no address that the browser would fetch, and no id or class of the page's own.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import cache
from typing import Any

from markupsafe import Markup, escape

from labkit.workbench.pages.nesting import regular

PREFIX = "nb-"  # before every id from a notebook; the page's own ids never start so

TEXT_TAGS = frozenset(
    "a abbr b blockquote br caption cite code col colgroup dd del details dfn div dl dt em figcaption figure "
    "h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark ol p pre q s samp small span strong sub summary sup table tbody td "
    "tfoot th thead time tr u ul var".split()
)
MATH_TAGS = frozenset(
    "math mi mn mo ms mspace mtext mrow mfrac msqrt mroot mstyle mpadded mphantom msub msup msubsup munder mover "
    "munderover mtable mtr mtd".split()
)
# Removed with all that is inside; other unknown tags go and leave their text.
DROPPED_WHOLE = frozenset(
    "script style template noscript noembed noframes iframe object embed applet title textarea select svg xmp "
    "plaintext head audio video canvas".split()
)
ATTRIBUTES = {
    "a": {"href", "title", "id"},
    "img": {"src", "alt", "title", "width", "height"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan", "scope"},
    "ol": {"start"},
    "abbr": {"title"},
    "time": {"datetime"},
    "details": {"open"},
    **{f"h{level}": {"id"} for level in range(1, 7)},
    "math": {"display"},
    "mi": {"mathvariant"},
    "mo": set("stretchy fence form minsize maxsize movablelimits lspace rspace accent".split()),
    "mspace": {"width", "height", "depth"},
    "mfrac": {"linethickness"},
    "mstyle": {"displaystyle", "scriptlevel", "mathsize"},
    "mpadded": {"width", "height", "depth", "lspace", "voffset"},
    "mover": {"accent"},
    "munder": {"accentunder"},
    "mtable": {"displaystyle"},
}
CODE_CLASSES = frozenset(
    "c c1 ch cm cp cpf cs err esc g gd ge gh gi go gp gr gs gt gu il k kc kd kn kp kr kt l ld m mb mf mh mi mo n na "
    "nb nc nd ne nf ni nl nn no nt nv nx o ow p pm py s s1 s2 sa sb sc sd se sh si sr ss sx vc vg vi vm w bp fm".split()
)
CLASSES = {
    "span": set(CODE_CLASSES | {"not-shown"}),
    "code": {"formula-source"},
    "table": {"dataframe"},
    "mtable": {"tight"},
    "mtd": {"left", "right"},
    "mtext": {"bold", "italic", "mono"},
}
IMAGE_KINDS = {  # media type: how its bytes begin
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}
MAX_HTML = 1_000_000  # characters; more is shown as text
MAX_SVG = 3_000_000
_ADDRESS = re.compile(r"(?:https?://|mailto:)[^\x00-\x20]+", re.IGNORECASE)
_DATA_IMAGE = re.compile(r"data:(image/[a-z+]+);base64,([A-Za-z0-9+/=]+)")
_SVG_BEGIN = re.compile(r"<svg[\s>]", re.IGNORECASE)
_SVG_END = re.compile(r"</svg\s*>", re.IGNORECASE)
_LOST_IMAGE = re.compile(r'<img((?:\s+[a-z]+="[^"]*")*)\s*>')
_ALT = re.compile(r'\salt="([^"]*)"')


def html(text: str) -> Markup | None:
    """Returns HTML with only what the lists name, or None where it is too large to be worth reading."""
    if len(text) > MAX_HTML:
        return None
    clean = _cleaner().clean(regular(_picture_svg(text), TEXT_TAGS | MATH_TAGS, ATTRIBUTES, DROPPED_WHOLE))
    return Markup(_LOST_IMAGE.sub(_name_lost_image, clean))


def not_shown(what: str, name: object = "") -> Markup:
    """Returns the short note that stands where something of a notebook is left out."""
    label = f"{what}: {name}" if name else what
    return Markup('<span class="not-shown">[{}]</span>').format(label if len(label) < 300 else label[:300] + "…")


def address(text: str) -> str:
    """Returns where a link of a notebook may lead: http, https, mailto or a place on the page; else nothing."""
    text = text.strip()
    if text.startswith("#"):
        return "#" + PREFIX + text[1:].removeprefix(PREFIX)
    return text if _ADDRESS.fullmatch(text) else ""


def image(kind: str, data: object, alt: str, width: object = None, height: object = None) -> Markup | None:
    """Returns a picture held in the page itself, or None where the data are not one of the known kinds.

    Args:
        kind: Media type, as the notebook names it.
        data: Base64 text, as notebooks hold pictures; SVG as its source.
        alt: What a reader who cannot see it is told.
        width: In pixels, where the notebook gives it.
        height: In pixels, where the notebook gives it.
    """
    if kind == "image/svg+xml":
        return svg_image(text_of(data), alt)
    coded = re.sub(r"\s+", "", text_of(data))
    try:
        start = base64.b64decode(coded[:64], validate=True)
        base64.b64decode(coded[-64:] if len(coded) % 4 == 0 else "!", validate=True)
    except (binascii.Error, ValueError):
        return None
    if not start.startswith(IMAGE_KINDS.get(kind, ())) or not re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", coded):
        return None
    size = "".join(
        f' {name}="{value}"'
        for name, value in (("width", width), ("height", height))
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10_000
    )
    return Markup('<img src="data:{};base64,{}" alt="{}"{}>').format(kind, coded, alt, Markup(size))


def svg_image(source: str, alt: str) -> Markup | None:
    """Returns an SVG as a picture, in which browsers run no script and fetch nothing; None where it is none."""
    begin = re.search(r"<svg\b[^>]*>", source, re.IGNORECASE)
    if begin is None or len(source) > MAX_SVG or "<!ENTITY" in source.upper():
        return None
    if "xmlns=" not in begin[0]:
        source = source[: begin.start() + 4] + ' xmlns="http://www.w3.org/2000/svg"' + source[begin.start() + 4 :]
    coded = base64.b64encode(source.encode("utf-8", "replace")).decode()
    return Markup('<img src="data:image/svg+xml;base64,{}" alt="{}">').format(coded, alt)


def text_of(value: object) -> str:
    """Returns the text of a notebook's field: text, or a list of lines; anything else as its representation."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "".join(value)
    return "" if value is None else repr(value)


def _picture_svg(text: str) -> str:
    """Turns drawings written into HTML into pictures, which cannot act."""
    out: list[str] = []
    position = 0
    while begin := _SVG_BEGIN.search(text, position):
        end = _SVG_END.search(text, begin.end())
        if end is None:
            break
        out += (text[position : begin.start()], svg_image(text[begin.start() : end.end()], "picture") or "")
        position = end.end()
    return "".join([*out, text[position:]])


def _name_lost_image(found: re.Match[str]) -> str:
    if ' src="' in found[1]:
        return found[0]
    alt = _ALT.search(found[1])
    return str(not_shown("image not in this page", Markup(alt[1]).unescape() if alt else ""))


def _filter(tag: str, name: str, value: str) -> str | None:
    if name == "href":
        return address(value) or None
    if name == "src":
        found = _DATA_IMAGE.fullmatch(value)
        return value if found and found[1] in {*IMAGE_KINDS, "image/svg+xml"} else None
    if name in {"width", "height"} and tag == "img":
        return value if re.fullmatch(r"\d{1,4}", value) else None
    return value


@cache
def _cleaner() -> Any:
    import nh3

    return nh3.Cleaner(
        tags=set(TEXT_TAGS | MATH_TAGS),
        clean_content_tags=set(DROPPED_WHOLE),
        attributes=ATTRIBUTES,
        allowed_classes=CLASSES,
        attribute_filter=_filter,
        url_schemes={"http", "https", "mailto", "data"},  # data: stays for pictures alone, see _filter
        link_rel="noopener noreferrer nofollow",
        id_prefix=PREFIX,
        strip_comments=True,
    )


def plain(text: object) -> Markup:
    """Returns any value as escaped text."""
    return escape(text_of(text))
