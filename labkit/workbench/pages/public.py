"""A page for strangers: without the names of machine, user and folders that a run leaves everywhere.

What is known is replaced: the lab's folder, the folder of runs, home folders, the login and the host's name, in the
notebook's text and on the page. Pictures stay as they are, and so does what an author wrote about anything else: a
person looks before a page goes out.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import escape as escape_markup

from labkit.record.files import read_json
from labkit.record.find import folder_of
from labkit.record.process import host
from labkit.record.provenance import user
from labkit.record.rundir import RunDir
from labkit.workbench.pages.console import without_codes
from labkit.workbench.pages.facts import Facts

NOT_CARRIED = "public: the record is not carried"  # what the page says of its capsule
# Logins and hosts that tell nothing of anyone, and are words that a page may need.
NOBODYS = frozenset(
    "root user admin guest nobody test runner ubuntu debian jovyan docker vagrant localhost localdomain local".split()
)
WITHHELD = ("host", "user")  # of the environment check
_HOME = r"(?<![\w.~-])(?:(?:/var)?/home|/Users)/[^\s/\"'<>&:;,|\\)\]}]+|(?<![\w.~-])/root(?=/)"
_PIECES = re.compile(r"<style>.*?</style>|<script>.*?</script>|<(?:\"[^\"]*\"|[^\">])*>|[^<]+|<", re.S)
_VALUE = re.compile(r'(?<==")(?!data:)[^"]*')


class Hiding:
    """What must not stand on a page, and what stands there instead.

    Args:
        names: Texts that tell where a run was or whose it is, each with what is written for it; paths begin with a
            slash or `~`.
    """

    def __init__(self, names: dict[str, str]) -> None:
        self._instead: dict[str, str] = {}
        for name, instead in names.items():
            self._instead |= dict.fromkeys(_forms(name), instead)
        longest_first = sorted(self._instead, key=lambda form: (-len(form), form))
        paths = [_path_pattern(form) for form in longest_first if form[0] in "/~"]
        words = [rf"(?<!\w){re.escape(form)}(?!\w)" for form in longest_first if form[0] not in "/~"]
        self._known = re.compile("|".join([*paths, _HOME, *words]))

    @classmethod
    def of(cls, run: RunDir) -> Hiding:
        """Returns what is known of a run's place, and of the one where its page is made."""
        return cls(dict(_names(run)))

    def text(self, text: str) -> str:
        """Returns a text without what must not stand there; where colours run through that, it loses all of them."""
        made = self._known.sub(self._replaced, text)
        if "\x1b" in text:
            bare = self._known.sub(self._replaced, without_codes(text))
            return made if bare == without_codes(made) else bare
        return made

    def notebook(self, value: Any) -> Any:
        """Returns a notebook, or a part of one, with every text in it so; pictures stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.notebook(item) for item in value]
        if isinstance(value, dict):
            return {key: item if _is_picture(key) else self.notebook(item) for key, item in value.items()}
        return value

    def facts(self, facts: Facts) -> Facts:
        """Takes out of the facts what a stranger is not told."""
        facts.details = [(name, text) for name, text in facts.details if name not in WITHHELD]
        facts.about = [row for row in facts.about if row[0] != "Author" or not self._is_login(row[1])]
        return facts

    def _is_login(self, author: str) -> bool:
        return author in NOBODYS or self.text(author) != author

    def page(self, page: str) -> str:
        """Returns a finished page without it: in what is read and in what tags say, but not in their names."""
        return "".join(self._piece(piece) for piece in _PIECES.findall(page))

    def _piece(self, piece: str) -> str:
        if piece.startswith(("<style>", "<script>", "<meta http-equiv=")):
            return piece
        if piece.startswith("<"):
            return _VALUE.sub(lambda found: self._known.sub(self._replaced, found[0]), piece) if "=" in piece else piece
        return self._known.sub(self._replaced, piece)

    def _replaced(self, found: re.Match[str]) -> str:
        return self._instead.get(found[0], "~")


def _names(run: RunDir) -> Iterator[tuple[str, str]]:
    """Yields each name with what stands for it; where one path is two things, the last counts."""
    facts = read_json(run.manifest) or {}
    lab = facts.get("lab") if isinstance(facts.get("lab"), str) else ""
    labs = {lab, os.path.realpath(lab)} if lab else set()
    runs = {str(folder_of(run)), os.path.realpath(folder_of(run))}
    homes = {str(Path.home()), *(found[0] for path in labs | runs if (found := re.match(_HOME, path)))}
    for path in labs:
        above = os.path.dirname(path)
        if above.count("/") > 1:
            yield above, "[lab]/.."
    for path in runs:
        yield path, "[runs]"
    for home in homes:
        yield home, "~"
        yield from ((f"~{path[len(home) :]}", "[lab]") for path in labs if path.startswith(home + "/"))
    for path in labs:
        yield path, "[lab]"
    for name, instead in (("host", "[host]"), ("user", "[user]")):
        for whole in (facts.get(name), host() if name == "host" else user()):
            for known in {str(whole or ""), str(whole or "").partition(".")[0]}:
                if len(known) > 1 and known.lower() not in NOBODYS:
                    yield known, instead


def _forms(name: str) -> set[str]:
    """Returns how a name may be written: plainly, in HTML, in an address, in JSON, in a representation."""
    if name.strip("/~") == "":
        return set()
    forms = {name, escape(name), escape(name, quote=False), str(escape_markup(name)), quote(name, errors="replace")}
    return forms | {json.dumps(name)[1:-1], json.dumps(name, ensure_ascii=False)[1:-1], repr(name)[1:-1]}


def _path_pattern(form: str) -> str:
    """Returns the pattern of a path, which a longer name does not begin with; a short one stands at a beginning."""
    before = r"(?<![\w.~-])" if form.count("/") == 1 or form[0] == "~" else ""
    return rf"{before}{re.escape(form)}(?![\w-])"


def _is_picture(key: Any) -> bool:
    return isinstance(key, str) and key.startswith("image/") and key != "image/svg+xml"
