"""The Markdown of a notebook as HTML: headings for the table of contents, formulas as MathML, nothing fetched."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from markupsafe import Markup, escape
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath, MathInlineParser

from labkit.workbench.pages import sanitise
from labkit.workbench.pages.formulas import Formulas
from labkit.workbench.pages.sanitise import text_of

LONGEST_LATEX = 20_000  # characters; openers that nothing closes take quadratic time
MOST_OPENERS = 1_000
LONGEST = 300_000  # characters of one cell
DEEPEST_QUOTE = re.compile(r"^(?:[ >*+-]{60,}|(?:\s*\d+[.)]\s*){20,})", re.MULTILINE)


@dataclass(frozen=True)
class Heading:
    """A heading of the notebook: its depth, text and the id of its place on the page."""

    level: int
    text: str
    anchor: str


@dataclass
class Prose:
    """Renders the Markdown of one page and remembers its headings.

    Attributes:
        formulas: Counts the page's formulas.
        headings: Headings in order.
        language: Of code blocks that name none.
    """

    formulas: Formulas = field(default_factory=Formulas)
    headings: list[Heading] = field(default_factory=list)

    def render(self, source: str, attachments: object = None) -> Markup:
        """Returns Markdown as HTML that passed the sanitiser; text that is too large for it is shown as it is."""
        openers = sum(map(source.count, ("\\[", "\\(", "\\begin{")))
        if len(source) <= LONGEST and openers <= MOST_OPENERS and not DEEPEST_QUOTE.search(source):
            try:
                made = MarkdownWithMath(renderer=_Renderer(self, attachments), inline=_Inline(hard_wrap=False))(source)
            except (RecursionError, ValueError, KeyError, TypeError, AttributeError):
                made = None
            clean = sanitise.html(str(made)) if made is not None else None
            if clean is not None:
                return clean
        return Markup('<pre class="as-text">{}</pre>').format(source[:LONGEST])

    def anchor(self, text: str) -> str:
        """Returns an id for a heading, as Jupyter makes it, that no other heading of the page has."""
        wanted = re.sub(r"\s+", "-", text.strip())[:80] or "heading"
        taken = {heading.anchor for heading in self.headings}
        number, name = 1, wanted
        while sanitise.PREFIX + name in taken:
            number += 1
            name = f"{wanted}-{number}"
        return name


class _Inline(MathInlineParser):
    """Jupyter's reading of mathematics, but for prices: in `$5 and $10` nothing is a formula."""

    SPECIFICATION = MathInlineParser.SPECIFICATION | {
        "inline_math_tex": r"(?<![$\\])\$(?P<math_inline_tex>(?! )(?:[^$\\]|\\.)+?(?<! )| (?:[^$\\]|\\.)+? )\$(?![$\d])"
    }


class _Renderer(IPythonRenderer):
    """Writes HTML for the sanitiser, which has the last word."""

    def __init__(self, prose: Prose, attachments: object) -> None:
        super().__init__(escape=False, exclude_anchor_links=True)
        self._prose = prose
        self._attached = attachments if isinstance(attachments, dict) else {}

    def block_code(self, code: str, info: str | None = None) -> str:
        return f"<pre><code>{highlighted(code, (info or '').strip().split(' ')[0])}</code></pre>\n"

    def heading(self, text: str, level: int, **attrs: Any) -> str:
        shown = (sanitise.html(text) or Markup("")).striptags()
        name = self._prose.anchor(shown)
        self._prose.headings.append(Heading(level, shown, sanitise.PREFIX + name))
        return f'<h{level} id="{escape(name)}">{text}</h{level}>\n'

    def block_math(self, body: str) -> str:
        return str(self._prose.formulas.render(body, display=True))

    def inline_math(self, body: str) -> str:
        return str(self._prose.formulas.render(body, display=False))

    def latex_environment(self, name: str, body: str) -> str:
        return str(self._prose.formulas.render(rf"\begin{{{name}}}{body}\end{{{name}}}", display=True))

    def image(self, text: str, url: str, title: str | None = None) -> str:
        if url.startswith("attachment:"):
            kinds = self._attached.get(url.removeprefix("attachment:"))
            for kind, data in kinds.items() if isinstance(kinds, dict) else ():
                picture = _attached_image(kind, data, text)
                if picture is not None:
                    return str(picture)
        elif url.startswith("data:image/"):
            return f'<img src="{escape(url)}" alt="{escape(Markup(text).striptags())}">'
        return str(sanitise.not_shown("image not in this page", url[:200]))

    def task_list_item(self, text: str, checked: bool = False) -> str:
        return f"<li>{'☑' if checked else '☐'} {text}</li>\n"

    def block_mermaidjs(self, code: str) -> str:
        return f"<pre><code>{escape(code)}</code></pre>\n"


def _attached_image(kind: str, data: object, alt: str) -> Markup | None:
    import base64
    import binascii

    if kind == "image/svg+xml" and not text_of(data).lstrip().startswith("<"):
        try:
            data = base64.b64decode(text_of(data), validate=False).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            return None
    return sanitise.image(kind, data, Markup(alt).striptags())


def latex(source: str, formulas: Formulas) -> Markup:
    """Returns an output of LaTeX: its formulas converted, the text between them escaped."""
    if len(source) > LONGEST_LATEX:
        return Markup("<pre>{}</pre>").format(source)
    parts = re.split(
        r"(\$\$.+?\$\$|\$(?:[^$\\]|\\.)+?\$|\\\[.+?\\\]|\\\(.+?\\\)|\\begin\{([a-z]+\*?)\}.*?\\end\{\2\})",
        source,
        flags=re.DOTALL,
    )
    out = Markup("")
    for text, formula in zip(parts[::3], [*parts[1::3], None], strict=True):
        out += escape(text)
        if formula is None:
            continue
        if formula.startswith("\\begin"):
            out += formulas.render(formula, display=True)
        else:
            width = 1 if formula[0] == "$" and formula[1] != "$" else 2
            shown_large = formula.startswith(("$$", "\\[")) or formula.startswith("$\\displaystyle")
            body = formula[width:-width].removeprefix("\\displaystyle")
            out += formulas.render(body, display=shown_large)
    return out


@lru_cache(maxsize=1024)
def highlighted(code: str, language: str) -> Markup:
    """Returns source code with its parts marked by class; a language that is not known stays plain."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter

    lexer = _lexer(language.lower())
    if lexer is None or len(code) > 100_000:
        return escape(code)
    return Markup(highlight(code, lexer, HtmlFormatter(nowrap=True)).rstrip("\n"))


@lru_cache(maxsize=32)
def _lexer(language: str) -> Any:
    """Returns the reader of a language among those that Pygments ships; none from a plugin."""
    from pygments.lexers import LEXERS, find_lexer_class

    if language in {"python", "python3", "ipython", "ipython3", "py"}:
        from pygments.lexers import PythonLexer

        return PythonLexer(stripnl=False)
    for _, name, aliases, _, _ in LEXERS.values():
        if language and language in aliases:
            return find_lexer_class(name)(stripnl=False)
    return None
