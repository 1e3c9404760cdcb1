"""A conflicted notebook led through: git's three versions merged, the rest asked, and the result given back to git."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.errors import NotebookProblem
from labkit.record.files import read_json, write_json
from labkit.workbench.git.cellmerge import flaws, merge, readable
from labkit.workbench.git.conflicts import Answer, Conflict, Merged, holds_marks, is_answer, resolved
from labkit.workbench.git.gitrepo import answer, git, inside
from labkit.workbench.notebooks import check
from labkit.workbench.notebooks.clean import dumps
from labkit.workbench.notebooks.notebook import CONFLICT

Ask = Callable[[str, Conflict, int, int], Answer | None]  # (notebook, conflict, number, how many): None leaves it open
Content = dict[str, Any]

MARKS_WITHOUT_SIDES = (
    "{path} holds conflict marks, but git no longer has its two sides: it was added or committed as it is."
    " Before that commit, git checkout --merge -- {path} brings them back; after it, git log -5 -- {path}"
    " shows the versions, and git checkout COMMIT -- {path} takes one"
)


@dataclass(frozen=True)
class Conflicted:
    """A notebook of which git holds several versions.

    Attributes:
        root: The working tree.
        path: The notebook's path in it.
        versions: The names of git's objects: what both sides started from, ours, theirs; None where a side has none.
    """

    root: Path
    path: str
    versions: tuple[str | None, str | None, str | None]

    @property
    def file(self) -> Path:
        """The notebook's file."""
        return self.root / self.path


@dataclass(frozen=True)
class Outcome:
    """What came of a notebook.

    Attributes:
        settled: How many conflicts were decided.
        left: What remains, as sentences; empty where git has the result.
        notes: What else there is to know.
    """

    settled: int
    left: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def conflicted(root: Path, names: tuple[Path, ...] = ()) -> list[Conflicted]:
    """Returns the conflicted notebooks of a working tree; of those named, if any are.

    Raises:
        NotebookProblem: One that is named does not exist, or has marks of a conflict that git no longer knows.
        GitProblem: One that is named lies outside of the working tree.
    """
    found: dict[str, list[str | None]] = {}
    for entry in git(root, "ls-files", "--unmerged", "-z").split(b"\0")[:-1]:
        facts, _, path = entry.decode(errors="surrogateescape").partition("\t")
        mode, blob, stage = facts.split()
        if path.endswith(".ipynb") and mode.startswith("100"):
            found.setdefault(path, [None, None, None])[int(stage) - 1] = blob
    chosen = {inside(root, name): name for name in names} or {path: Path(path) for path in found}
    for path, name in chosen.items():
        if path not in found:
            _check_unconflicted(name)
    return [
        Conflicted(root, path, (old, our, their))
        for path in chosen
        if path in found
        for old, our, their in [found[path]]
    ]


def _check_unconflicted(path: Path) -> None:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotebookProblem(f"{path} cannot be read: {error.strerror}") from error
    content = _parsed(data)
    if CONFLICT.search(data) or (content is not None and holds_marks(content)):
        raise NotebookProblem(MARKS_WITHOUT_SIDES.format(path=path))


def _parsed(data: bytes) -> Content | None:
    try:
        return readable(json.loads(data))
    except (ValueError, RecursionError):
        return None


def settle(notebook: Conflicted, ask: Ask, *, anew: bool = False) -> Outcome:
    """Merges a conflicted notebook, asks what nobody else can decide, and gives git the result once all is decided.

    The file is a valid notebook in any case. What was decided is remembered while something is left. What is saved
    meanwhile stays as it is.

    Args:
        notebook: The notebook.
        ask: What to ask for each conflict.
        anew: Merge git's versions even where the file seems to have been settled by hand.

    Raises:
        NotebookProblem: A side is no notebook.
        FolderProblem: The file cannot be written; what was decided is remembered.
    """
    if None in notebook.versions[1:]:
        return _keep_or_delete(notebook, ask)
    base, ours, theirs = _versions(notebook)
    memory = _Memory(notebook)
    before = _present(notebook)
    started = merge(base, ours, theirs, memory.order)
    as_left = [dumps(resolved(started, answers)) for answers in ({}, memory.answers)]
    if not anew and _is_settled_by_hand(before, [*as_left, *(dumps(side) for side in (base, ours, theirs) if side)]):
        text = f"it was settled by hand: git add {notebook.path} takes it as it is, labkit merge --anew starts again"
        return Outcome(0, (text,))
    merged, answers = _asked(notebook.path, (base, ours, theirs), memory, ask)
    made = resolved(merged, answers)
    open_ones = [conflict for conflict in merged.conflicts if not is_answer(conflict, answers.get(conflict.key))]
    left = [f"{conflict.cell or 'the notebook'}: {conflict.about}" for conflict in open_ones]
    left = left or flaws(made, ours, theirs)
    memory.keep(answers)
    if _present(notebook) != before:
        return Outcome(0, ("it was saved while you were asked, and stays as it is; labkit merge knows your answers",))
    notes = [*merged.notes, *_kept_copy(notebook, before, [*as_left, dumps(made)])]
    check.write(notebook.file, dumps(made))
    if not left:
        git(notebook.root, "--literal-pathspecs", "add", "--", notebook.path)
        memory.keep({})
    return Outcome(len(started.conflicts) - len(open_ones), tuple(left), tuple(notes))


def _present(notebook: Conflicted) -> bytes:
    """Returns what lies in the file now; nothing where there is none."""
    return notebook.file.read_bytes() if notebook.file.is_file() else b""


def _versions(notebook: Conflicted) -> tuple[Content | None, Content, Content]:
    """Returns what both sides started from, ours and theirs.

    Raises:
        NotebookProblem: A side is no notebook.
    """
    old, *sides = (git(notebook.root, "cat-file", "blob", blob) if blob else b"" for blob in notebook.versions)
    found = []
    for side, data in zip(("ours", "theirs"), sides, strict=True):
        try:
            found.append(readable(json.loads(data)))
        except (ValueError, RecursionError) as error:
            other = "theirs" if side == "ours" else "ours"
            advice = f"git checkout --{other} -- {notebook.path} && git add {notebook.path} takes the other side whole"
            raise NotebookProblem(f"{notebook.path}: {side} is no notebook ({error}); {advice}") from error
    return _parsed(old), found[0], found[1]


def _asked(
    path: str, versions: tuple[Content | None, Content, Content], memory: _Memory, ask: Ask
) -> tuple[Merged, dict[str, Answer]]:
    """Returns the merge with all answers, those remembered and those given now."""
    answers, order = dict(memory.answers), memory.order
    merged = merge(*versions, order)
    if merged.order:
        given = ask(path, merged.order, 1, len(merged.conflicts))
        if given and is_answer(merged.order, given):
            answers["order"] = given
            merged = merge(*versions, given.take)
    conflicts = [conflict for conflict in merged.conflicts if conflict.key != "order"]
    for number, conflict in enumerate(conflicts, 1):
        if is_answer(conflict, answers.get(conflict.key)):
            continue
        given = ask(path, conflict, number, len(conflicts))
        if given and is_answer(conflict, given):
            answers[conflict.key] = given
    return merged, answers


def _is_settled_by_hand(before: bytes, known: list[bytes]) -> bool:
    """Tells whether a file is a notebook without marks that neither git nor labkit wrote."""
    content = _parsed(before)
    if content is None or holds_marks(content):
        return False
    ours = _sources(content)
    return all(ours != _sources(json.loads(other)) for other in known)


def _sources(notebook: Content) -> list[tuple[Any, str, Any]]:
    return [(cell.get("id"), "".join(cell["source"]), cell["metadata"]) for cell in notebook["cells"]]


def _kept_copy(notebook: Conflicted, before: bytes, known: list[bytes]) -> list[str]:
    """Keeps a file that somebody may have edited among git's objects, and returns where it is."""
    if not before or before in known:
        return []
    blob = git(notebook.root, "hash-object", "-w", "--no-filters", "--stdin", stdin=before).decode().strip()
    return [f"the file as it was: git cat-file -p {blob[:12]}"]


def _keep_or_delete(notebook: Conflicted, ask: Ask) -> Outcome:
    """Settles a notebook that one side has and the other has not."""
    _, ours, theirs = notebook.versions
    has, lacks = ("ours", "theirs") if ours else ("theirs", "ours")
    if not ours and not theirs:
        return Outcome(0, (f"both sides deleted or renamed it: git rm --cached {notebook.path}",))
    change = "changed" if notebook.versions[0] else "added"
    texts = {has: "(the notebook)", lacks: "(no notebook)"}
    about = f"{has} {change} the notebook, {lacks} has it no more"
    given = ask(notebook.path, Conflict("file", "", about, texts["ours"], texts["theirs"]), 1, 1)
    if given is None:
        return Outcome(0, (about,))
    before, blob = _present(notebook), git(notebook.root, "cat-file", "blob", ours or theirs or "")
    if given.take == lacks:
        notes = _kept_copy(notebook, before, [blob])
        git(notebook.root, "--literal-pathspecs", "rm", "-q", "-f", "--", notebook.path)
        return Outcome(1, (), tuple(notes))
    notes = []
    if _parsed(before) is None:
        notes = _kept_copy(notebook, before, [blob])
        check.write(notebook.file, blob)
    git(notebook.root, "--literal-pathspecs", "add", "--", notebook.path)
    return Outcome(1, (), tuple(notes))


class _Memory:
    """What was decided of a notebook in an earlier call, in git's folder, while git holds the same versions."""

    def __init__(self, notebook: Conflicted) -> None:
        self.path = notebook.path
        self.versions = list(notebook.versions)
        self.file = notebook.root / answer(notebook.root, "rev-parse", "--git-path", "labkit-merge.json")
        self.all = read_json(self.file) or {}
        kept = self.all.get(self.path)
        same = isinstance(kept, dict) and kept.get("versions") == self.versions
        self.answers = _answers(kept.get("answers")) if same and isinstance(kept, dict) else {}

    @property
    def order(self) -> str:
        """Whose order of cells was chosen; empty where none was."""
        return self.answers["order"].take if "order" in self.answers else ""

    def keep(self, answers: dict[str, Answer]) -> None:
        """Remembers what was decided; without answers, nothing of this notebook."""
        kept = {path: value for path, value in self.all.items() if path != self.path}
        if answers:
            plain = {key: [given.take, given.text] for key, given in answers.items()}
            kept[self.path] = {"versions": self.versions, "answers": plain}
        if kept:
            write_json(self.file, kept, durable=False)
        else:
            self.file.unlink(missing_ok=True)


def _answers(kept: Any) -> dict[str, Answer]:
    pairs = kept.items() if isinstance(kept, dict) else []
    return {key: Answer(value[0], value[1]) for key, value in pairs if isinstance(value, list) and len(value) == 2}
