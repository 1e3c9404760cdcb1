"""What all pages share: the style, the script, and the policy that allows these two and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

PAGE = Path(__file__).parent / "assets"
LONGEST_WORD = 20  # characters of a name that stand on one line in any case


@cache
def page_parts() -> dict[str, Any]:
    """Returns `style`, `script` and `policy` for a template."""
    style, script = ((PAGE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return {"style": Markup(style), "script": Markup(script), "policy": policy}


def breakable(name: str) -> Markup:
    """Returns a long name as HTML that breaks after its parts; a table could else cut it anywhere, or not at all.

    >>> str(breakable("validation_accuracy_of_the_model"))
    'validation_<wbr>accuracy_<wbr>of_<wbr>the_<wbr>model'
    """
    if len(name) <= LONGEST_WORD:
        return escape(name)
    parts = re.findall(rf"[^_./-]{{1,{LONGEST_WORD}}}[_./-]{{0,3}}|[_./-]{{1,3}}", name)
    return Markup("<wbr>").join(parts)


def with_code(text: str) -> Markup:
    """Returns text as HTML in which what stands between backticks is code.

    >>> str(with_code("`x < 1` here"))
    '<code>x &lt; 1</code> here'
    """
    parts = re.split(r"`([^`]+)`", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if odd % 2 else part for odd, part in enumerate(parts)
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
