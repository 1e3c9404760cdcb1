r"""LaTeX formulas as MathML, or their source with a mark where the result could not be trusted.

The converter (latex2mathml) is lenient: it drops `\newcommand`, shows unknown commands as identifiers, closes open
braces by itself, ignores alignment in environments it does not know, and lets markup through `\text` and `\href`. So a
formula is first read token by token against a list of what was seen to convert well, a few constructs are rewritten
into ones that do, and the result must consist of known MathML and nothing else (`mathml`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache

from markupsafe import Markup

from labkit.workbench.pages import mathml

LONGEST = 4000  # characters
DEEPEST = 30  # nested groups

_TOKEN = re.compile(
    r"\\(?:begin|end)\s*\{[^{}]*\}|\\operatorname\*?\s*\{[^{}]*\}|\\[A-Za-z]+\*?|\\.|\s+|\d+(?:\.\d+)?|.", re.DOTALL
)
_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%[^\n]*\n?")
_TEXT = re.compile(r"(\\(?:text(?:rm|bf|it|tt|sf|normal)?|mbox))\s*\{([^{}$\\&<>%#^~]*)\}")
_LENGTH = re.compile(r"\\(?:hspace|kern|mkern|hskip)\*?\s*(\{?)\s*-?\d*\.?\d+\s*(?:em|ex|pt|mu|cm|mm)\s*(\}?)")
_ROW_GAP = re.compile(r"(\\\\)\s*\[\s*-?\d*\.?\d+\s*(?:em|ex|pt|mu|cm|mm)\s*\]")
_LABEL = re.compile(r"\\label\s*\{[^{}]*\}|\\(?:nonumber|notag)(?![A-Za-z])")
_TAG = re.compile(r"\\tag\s*\{([A-Za-z0-9.' -]*)\}")
_ARG_OPERATOR = re.compile(r"\\operatorname\*?\s*\{\s*arg\s*(?:\\[,;! ])?\s*(max|min)\s*\}")
_WHOLE = re.compile(r"\s*\\begin\{(equation\*?|displaymath|math)\}(.*)\\end\{\1\}\s*", re.DOTALL)
_UNITS = ("in", "mm", "cm", "pt", "em", "ex", "pc", "bp", "dd", "cc", "sp", "mu")

_GRIDS = frozenset("matrix pmatrix bmatrix Bmatrix vmatrix Vmatrix smallmatrix cases array align* split".split())
_AS_GRID = {  # environments that the converter shows without their alignment or with numbers that nobody gave
    "align": "align*",
    "aligned": "split",
    "eqnarray": "align*",
    "eqnarray*": "align*",
    "gather": "array",
    "gather*": "array",
    "gathered": "array",
}
_FENCED = frozenset("pmatrix bmatrix Bmatrix vmatrix Vmatrix".split())
_COMMANDS = frozenset(
    "frac dfrac tfrac cfrac binom dbinom tbinom sqrt hat bar vec dot ddot tilde acute grave breve check mathring "
    "widehat widetilde overline underline overbrace underbrace overrightarrow overleftarrow overset underset stackrel "
    "substack mathbb mathbf mathcal mathfrak mathit mathrm mathscr mathsf mathtt mathnormal boldsymbol "
    "bm text textrm textbf "
    "textit texttt textsf textnormal mbox left right middle big Big bigg Bigg bigl bigr bigm Bigl Bigr Bigm biggl "
    "biggr Biggl Biggr quad qquad enspace thinspace hspace kern displaystyle textstyle limits nolimits mod pmod bmod "
    "xrightarrow xleftarrow phantom argmax argmin lim max min sup inf det gcd limsup liminf Pr sin cos tan cot sec csc "
    "sinh cosh tanh coth arcsin arccos arctan exp ln lg log deg dim hom ker sim iff implies".split()
)
_ESCAPES = frozenset(",;:!> {}|_%#$&\\")
_REWRITTEN = {r"\arg": r"\operatorname{arg}", r"\sgn": r"\operatorname{sgn}", r"\sim": r"\thicksim", r"\perp": r"\bot"}
_ACCENTLIKE = frozenset({"not", "surd", "sqrt", "And"})  # in the table of symbols, but no symbol by themselves


@dataclass
class Formulas:
    """Formulas of one page, and how many of them show their source.

    Attributes:
        shown: Formulas in all.
        as_source: Those that could not be converted cleanly.
    """

    shown: int = 0
    as_source: int = 0

    def render(self, source: str, *, display: bool) -> Markup:
        """Returns a formula as MathML, or its source with a mark."""
        self.shown += 1
        converted = mathml_of(source, display)
        if converted is not None:
            return Markup(converted)
        self.as_source += 1
        return Markup('<code class="formula-source">{}</code>').format(source.strip())


class _Refused(Exception):
    """The formula holds something that is not known to convert well."""


@lru_cache(maxsize=4096)
def mathml_of(source: str, display: bool) -> str | None:
    """Returns a formula as MathML; None where that would not surely say what the source says."""
    from latex2mathml.converter import convert

    try:
        prepared = _prepared(source)
        return mathml.checked(convert(prepared, display="block" if display else "inline"), display)
    except Exception:  # the converter raises whatever it meets: KeyError, IndexError, RecursionError, its own
        return None


def _prepared(source: str) -> str:
    """Returns the formula in the constructs that convert well.

    Raises:
        _Refused: It holds something else.
    """
    if not source.strip() or len(source) > LONGEST:
        raise _Refused
    text = _COMMENT.sub(r"\1", source)
    while whole := _WHOLE.fullmatch(text):
        text = whole[2]
    text = _ROW_GAP.sub(r"\1", _LABEL.sub("", text))
    text = _TAG.sub(lambda tag: rf"\qquad\text{{({tag[1]})}}", text)
    text = _ARG_OPERATOR.sub(r"\\arg\1 ", text)
    return _Reader().read(text)


class _Reader:
    """Reads one formula from left to right, copies what is known, refuses the rest."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.open: list[str] = []  # groups and environments that are open, innermost last

    def read(self, text: str) -> str:
        position = 0
        while position < len(text):
            if found := _TEXT.match(text, position):
                self.out.append(f"{found[1]}{{{found[2]}}}")
            elif (found := _LENGTH.match(text, position)) and bool(found[1]) == bool(found[2]):
                self.out.append(found[0])
            else:
                found = _TOKEN.match(text, position)
                assert found is not None  # the last alternative takes any character
                self._take(found[0], text, found.end())
            position = found.end()
        if self.open:
            raise _Refused
        return "".join(self.out)

    def _take(self, token: str, text: str, end: int) -> None:
        if token.startswith((r"\begin", r"\end")):
            self._environment(token, text, end)
        elif token.startswith("\\"):
            self._command(token)
        elif token == "{":
            self._enter("{")
            self.out.append(token)
        elif token == "}":
            self._leave("{")
            self.out.append(token)
        elif token == "&" and not (self.open and self.open[-1] in _GRIDS):
            raise _Refused  # only the cells of a grid are separated
        elif token in {"$", "#", "%"}:
            raise _Refused
        else:
            # The converter would read `2mm` as a length, although it is a product here.
            is_unit = token[0].isdigit() and text[end:].lstrip().startswith(_UNITS)
            self.out.append(token + "{}" if is_unit else token)

    def _command(self, token: str) -> None:
        name = token[1:]
        if token == "\\\\":
            if not (self.open and self.open[-1] in _GRIDS | {"substack"}):
                raise _Refused  # a line break outside a grid is not shown by browsers
        elif name.startswith("operatorname"):
            if not re.fullmatch(r"operatorname\*?\s*\{[A-Za-z]+\}", name):
                raise _Refused
        elif name == "left":
            self._enter("left")
        elif name == "right":
            self._leave("left")
        elif (name.startswith("text") and name not in {"textstyle"}) or name == "mbox":
            raise _Refused  # `_TEXT` takes the plain ones; here there is markup, mathematics or a brace inside
        elif (name == "middle" and "left" not in self.open) or not (
            name in _COMMANDS or name in _ESCAPES or token in _REWRITTEN or name in _symbols()
        ):
            raise _Refused
        self.out.append(_REWRITTEN.get(token, token))
        if name == "substack":
            self.open.append("substack?")

    def _environment(self, token: str, text: str, end: int) -> None:
        kind, _, name = token[1:-1].partition("{")
        name = _AS_GRID.get(name.strip(), name.strip())
        if name not in _GRIDS:
            raise _Refused
        if kind.strip() == "end":
            self._leave(name)
            self.out.append(rf"\end{{{name}}}" + ("}" if name in _FENCED else ""))
            return
        self._enter(name)
        # Without the group a script after the matrix would bind to its closing bracket alone.
        self.out.append(("{" if name in _FENCED else "") + rf"\begin{{{name}}}")
        if name == "array":
            written = token[token.index("{") + 1 : -1].strip() == "array"
            if written and not re.match(r"\s*\{[lcr\s]+\}", text[end:]):
                raise _Refused  # rules between columns are not shown by browsers
            if not written:
                self.out.append("{c}")

    def _enter(self, what: str) -> None:
        if what == "{" and self.open and self.open[-1] == "substack?":
            self.open[-1] = "substack"
            return
        self.open.append(what)
        if len(self.open) > DEEPEST:
            raise _Refused

    def _leave(self, what: str) -> None:
        last = self.open.pop() if self.open else None
        if last != what and not (what == "{" and last == "substack"):
            raise _Refused


@cache
def _symbols() -> frozenset[str]:
    """Names of commands that stand for one visible character."""
    import unicodedata

    from latex2mathml.symbols_parser import SYMBOLS

    return (
        frozenset(
            name[1:]
            for name, code in SYMBOLS.items()
            if re.fullmatch(r"\\[A-Za-z]+", name)
            and unicodedata.category(chr(int(code.split("-")[0], 16)))[0] in "LNPS"
            and "-" not in code
        )
        - _ACCENTLIKE
    )
