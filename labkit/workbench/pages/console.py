"""What programs print, as HTML: colours as classes, progress bars in their last state, floods without the middle."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

LONGEST = 200_000  # characters of one output; of more, the beginning and the end are shown
_KEPT_HEAD, _KEPT_TAIL = 150_000, 40_000
_STYLE = re.compile(r"\x1b\[([0-9;:]*)m")
_OTHER_CODES = re.compile(
    r"\x1b\[[0-9;:?<=>!]*[@-ln-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[^\[\]]|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]"
)
_COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")


def console(text: str) -> Markup:
    """Returns printed text as HTML in which everything but colours is escaped."""
    return _coloured(_OTHER_CODES.sub("", last_states(shortened(text))))


def without_codes(text: str) -> str:
    """Returns text without the codes by which a terminal colours it or moves about."""
    return _OTHER_CODES.sub("", _STYLE.sub("", text))


def shortened(text: str, longest: int = LONGEST) -> str:
    """Returns the beginning and the end of a text that is too long for a page, and says what is missing."""
    if len(text) <= longest:
        return text
    head, tail = _KEPT_HEAD * longest // LONGEST, _KEPT_TAIL * longest // LONGEST
    missing = len(text) - head - tail
    note = f"[… {missing:,} characters are not shown here; the run's output.log has them …]"
    return f"{text[:head]}\n\n{note}\n\n{text[-tail:]}"


def last_states(text: str) -> str:
    """Returns the text as a terminal shows it in the end: what a carriage return went back over is gone."""
    text = text.replace("\r\n", "\n")
    if "\r" not in text and "\b" not in text:
        return text
    return "\n".join(_last_state(line) for line in text.split("\n"))


def _last_state(line: str) -> str:
    shown = ""
    for part in line.replace("\b", "").split("\r")[-50:]:  # earlier ones are long overwritten
        shown = part + shown[len(part) :] if "\x1b" not in part + shown else part or shown
    return shown


def _coloured(text: str) -> Markup:
    out: list[str] = []
    looks: dict[str, str] = {}  # what is on: foreground, background, weight, line
    position = 0
    for code in _STYLE.finditer(text):
        _put(text[position : code.start()], looks, out)
        position = code.end()
        _change(looks, code[1])
    _put(text[position:].replace("\x1b", ""), looks, out)
    return Markup("".join(out))


def _put(text: str, looks: dict[str, str], out: list[str]) -> None:
    if text:
        classes = " ".join(sorted(looks.values()))
        out.append(f'<span class="{classes}">{escape(text)}</span>' if classes else str(escape(text)))


def _change(looks: dict[str, str], codes: str) -> None:
    numbers = [int(code or 0) for code in re.split("[;:]", codes) if len(code) < 4]
    while numbers:
        number = numbers.pop(0)
        if number == 0:
            looks.clear()
        elif number in {1, 4}:
            looks[str(number)] = "ansi-bold" if number == 1 else "ansi-underline"
        elif number in {22, 24}:
            looks.pop(str(number - 20 if number == 24 else 1), None)
        elif number in {38, 48}:
            _change_palette(looks, "fg" if number == 38 else "bg", numbers)
        elif number in {39, 49}:
            looks.pop("fg" if number == 39 else "bg", None)
        else:
            for start, ground in ((30, "fg"), (90, "fg"), (40, "bg"), (100, "bg")):
                if start <= number < start + 8:
                    looks[ground] = f"ansi-{_COLOURS[number - start]}-{ground}"


def _change_palette(looks: dict[str, str], ground: str, numbers: list[int]) -> None:
    """Takes a colour of the large palettes: the first sixteen have names, the others would need styles of their own."""
    kind = numbers.pop(0) if numbers else 0
    if kind == 5 and numbers:
        colour = numbers.pop(0)
        if colour < 16:
            looks[ground] = f"ansi-{_COLOURS[colour % 8]}-{ground}"
    elif kind == 2:
        del numbers[:3]
