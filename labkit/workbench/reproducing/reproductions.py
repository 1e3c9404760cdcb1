"""What came of making a run again, kept beside the run: a file for programs and a page for readers, for each time."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.errors import FolderProblem
from labkit.record.files import read_json, write_atomic, write_json
from labkit.record.rundir import RunDir
from labkit.workbench.wording import date

if TYPE_CHECKING:
    from labkit.workbench.reproducing.compare import Comparison

FOLDER = "reproductions"
NAME = re.compile(r"\d{8}T\d{6}\.\d{3}Z(-\d+)?\.json")
VERDICTS = ("identical", "within tolerance", "diverged", "could not run")


@dataclass(frozen=True)
class Reproduction:
    """One time that a run was made again.

    Attributes:
        verdict: One of VERDICTS.
        created: When.
        cause: Why it is not identical.
        path: The file that says it.
    """

    verdict: str
    created: str
    cause: str
    path: Path

    @property
    def page(self) -> Path:
        """The page of it."""
        return self.path.with_suffix(".html")

    def __str__(self) -> str:
        return f"{self.verdict}, {date(self.created)}"

    def facts(self) -> dict[str, Any]:
        """Returns what a program gets."""
        facts = {"verdict": self.verdict, "created": self.created, "cause": self.cause}
        return facts | {"page": str(self.page), "path": str(self.path)}


def store(comparison: Comparison, run: RunDir) -> Reproduction:
    """Writes a comparison beside the run that was made again, and returns where; the run's own report is left as it is.

    Raises:
        FolderProblem: It cannot be written.
    """
    from labkit.workbench.reproducing import verdictpage

    folder = run.path / FOLDER
    name = re.sub(r"[-:]", "", comparison.created)
    try:
        folder.mkdir(exist_ok=True)
        number = 1
        while (folder / f"{name}.json").exists():
            number += 1
            name = f"{name.partition('-')[0]}-{number}"
        write_atomic(folder / f"{name}.html", verdictpage.render(comparison).encode("utf-8", "replace"))
        write_json(folder / f"{name}.json", comparison.facts())
    except OSError as error:
        raise FolderProblem(f"the verdict cannot be written to {folder}: {error.strerror or error}") from error
    return Reproduction(comparison.verdict, comparison.created, comparison.cause, folder / f"{name}.json")


def latest(run: RunDir) -> Reproduction | None:
    """Returns what came of the last time that a run was made again; None where it never was. Damage is passed over."""
    folder = run.path / FOLDER
    try:
        if folder.is_symlink():
            return None
        names = sorted((name for name in os.listdir(folder) if NAME.fullmatch(name)), key=_order, reverse=True)
    except OSError:
        return None
    for name in names:
        facts = read_json(folder / name) or {}
        verdict, created, cause = (facts.get(key) for key in ("verdict", "created", "cause"))
        if verdict in VERDICTS and isinstance(created, str) and isinstance(cause, str):
            return Reproduction(verdict, created, cause, folder / name)
    return None


def _order(name: str) -> tuple[str, int]:
    moment, _, number = name.removesuffix(".json").partition("-")
    return moment, int(number or 1)
