"""Which files of a run a report carries, and what it says of those that it leaves out.

Carried is what the run can be made again from, and what it gave in numbers: not the pictures, the log and the executed
notebook, which are on the page, and not checkpoints. Of the data only small files come along, as long as they are what
the run read. A file that looks as if it held a key stays where it is.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from labkit.record import secret
from labkit.record.files import open_record, read_json, read_regular
from labkit.record.find import folder_of
from labkit.record.rundir import ATTEMPT, RunDir

DATA = "data/"  # before the path in the lab of a data file
MEMBER_BYTES = 64 * 2**20
DATA_FILE_BYTES = 2**20
DATA_BYTES = 4 * 2**20
SEARCHED_BYTES = 4 * 2**20  # of a file that might hold a key
MOST_FILES = 5_000
MOST_LEFT_OUT = 500
FINGERPRINTED_BYTES = 2**30
TOP = (
    "run.json", "params.yaml", "environment.json", "requirements.txt", "machine.json", "inputs.json", "spread.json",
    "fingerprints.jsonl", "stated.json", "training.json", "journal.jsonl", "metrics.jsonl",
)  # fmt: skip
OF_ATTEMPT = ("exit.json", "claim.json", "restored.json", "resume.json", "kernel.json")
RAW_DATA = (".csv", ".npz")
SETTINGS = (".json", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".conf", ".properties")
LONGEST_NAME_BYTES = 1_000
_NOT_SEARCHED = re.compile(r"source/notebook\.ipynb|.*\.(?:whl|whl\.bz2|npz)|(?!source/modules/|data/).*\.json")
_ODD = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]|\A[A-Za-z]:")


@dataclass(frozen=True)
class LeftOut:
    """A file that belongs to a run and does not come along.

    Attributes:
        path: Its path in the run; of data, `data/` and its path in the lab, or its absolute path.
        bytes: Its size; -1 where that is not known.
        fingerprint: `sha256:…` or `blake3:…`; empty where there is none.
        why: Why it does not.
    """

    path: str
    bytes: int
    fingerprint: str
    why: str


def gather(run: RunDir) -> tuple[dict[str, bytes], list[LeftOut]]:
    """Returns what a report carries of a run, by name, and what it does not.

    Links are followed nowhere but to data, which count only with the content that the run read.
    """
    files: dict[str, bytes] = {}
    left_out: list[LeftOut] = []
    for name, path in record_files(run):
        if len(files) >= MOST_FILES:
            left_out.append(LeftOut("…", -1, "", f"the run has more than {MOST_FILES} files"))
            break
        read = _read(name, path)
        if isinstance(read, LeftOut):
            left_out.append(read)
        elif read is not None:
            files[name] = read
    data, not_data = _data(run)
    return files | data, [*left_out, *not_data, *_checkpoints(run)][:MOST_LEFT_OUT]


def is_safe(name: str) -> bool:
    """Tells whether a name may be made a path below some folder: it leads nowhere else, and hides nowhere."""
    parts = name.split("/")
    return (
        not _ODD.search(name)
        and all(part and not part.startswith(".") and len(os.fsencode(part)) <= 255 for part in parts)
        and len(os.fsencode(name)) <= LONGEST_NAME_BYTES
    )


def clash(names: Iterable[str]) -> str:
    """Returns a name that is taken twice, as a file or as a folder, for some file system; empty where none is."""
    files: set[str] = set()
    folders: set[str] = set()
    for name in names:
        plain = unicodedata.normalize("NFC", name).casefold()
        above = [plain[: found.start()] for found in re.finditer("/", plain)]
        if plain in files or plain in folders or not files.isdisjoint(above):
            return name
        files.add(plain)
        folders.update(above)
    return ""


def record_files(run: RunDir) -> Iterator[tuple[str, Path]]:
    """Yields the run's files that may come along, sorted, each by its path in the run."""
    for name in TOP:
        yield name, run.path / name
    for folder in (run.source, run.figures):
        for inside, path in _below(folder):
            if folder == run.source or path.suffix in RAW_DATA:
                yield f"{folder.name}/{inside}", path
    for inside, path in _below(run.attempts):
        number, _, rest = inside.partition("/")
        if ATTEMPT.fullmatch(number) and (rest in OF_ATTEMPT or rest.startswith("source/")):
            yield f"attempts/{inside}", path


def _below(folder: Path, inside: str = "", depth: int = 0) -> Iterator[tuple[str, Path]]:
    """Yields the files below a folder of a run by their path in there, without following links."""
    if depth > 40 or folder.is_symlink():
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path), f"{inside}{entry.name}/", depth + 1)
        elif entry.is_file(follow_symlinks=False):
            yield f"{inside}{entry.name}", Path(entry.path)


def _read(name: str, path: Path) -> bytes | LeftOut | None:
    """Returns a file's content, or why it stays; None where there is none."""
    file = open_record(path)
    if file is None:
        return None
    with file:
        size = os.fstat(file.fileno()).st_size
        if not is_safe(name):
            return LeftOut(name.encode("utf-8", "replace").decode(), size, "", "its name is hidden or odd")
        if size > MEMBER_BYTES:
            whole = size <= FINGERPRINTED_BYTES
            return LeftOut(
                name, size, f"sha256:{_digest(file)}" if whole else "", f"it is larger than {MEMBER_BYTES // 2**20} MiB"
            )
        try:
            content = file.read(MEMBER_BYTES)
        except OSError as error:
            return LeftOut(name, size, "", f"it cannot be read: {error.strerror}")
    if _may_hold_key(name) and _holds_key(content):
        # Without its fingerprint, by which a short key could be guessed.
        return LeftOut(name, len(content), "", "it looks as if it held a key")
    return content


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while piece := file.read(2**20):
        digest.update(piece)
    return digest.hexdigest()


def _may_hold_key(name: str) -> bool:
    return name not in TOP[:-2] and name != "metrics.jsonl" and not _NOT_SEARCHED.fullmatch(name)


def _holds_key(content: bytes) -> bool:
    return secret.holds_secret(content[:SEARCHED_BYTES].decode("utf-8", "replace"))


def _data(run: RunDir) -> tuple[dict[str, bytes], list[LeftOut]]:
    """Returns the small data files that are as the run read them, and the others; the smallest come first."""
    carried: dict[str, bytes] = {}
    left_out = []
    labs = _labs(run)
    room = DATA_BYTES
    for size, path, fingerprint in inputs(run):
        name = path if path.startswith("/") else DATA + path
        content, why = None, ""
        if path.startswith("/"):
            why = "it lies outside the lab"
        elif not is_safe(name) or secret.names_secret(path):
            why = "its name is hidden, odd, or that of a key"
        elif size > DATA_FILE_BYTES or size > room or len(carried) >= MOST_FILES:
            why = "data come along up to 1 MiB each and 4 MiB in all"
        else:
            places = (Path(os.path.realpath(lab / path)) for lab in labs)
            found = (read_regular(place, DATA_FILE_BYTES) for place in places)
            content = next((one for one in found if one is not None), None)
            why = _unlike(content, size, fingerprint, path.lower().endswith(SETTINGS))
        if content is not None and not why:
            carried[name] = content
            room -= size
        else:
            left_out.append(LeftOut(name, size, f"blake3:{fingerprint}" if "key" not in why else "", why))
    return carried, left_out


def _labs(run: RunDir) -> list[Path]:
    """Returns where a run's lab may be: where it was, and where the way from the folder of runs leads now.

    A run from elsewhere may name any folder; a file counts only where its content is known to the run already.
    """
    facts = read_json(run.manifest) or {}
    was, way = facts.get("lab"), facts.get("lab_from_runs")
    labs = [Path(was)] if isinstance(was, str) and os.path.isabs(was) and "\0" not in was else []
    if isinstance(way, str) and "\0" not in way:
        labs.append(folder_of(run) / way)
    return labs


def inputs(run: RunDir) -> list[tuple[int, str, str]]:
    """Returns size, path and fingerprint of each data file that a run says it read; the smallest first."""
    return inputs_of(read_json(run.path / "inputs.json"))


def inputs_of(facts: dict[str, Any] | None) -> list[tuple[int, str, str]]:
    """Returns the same from the content of `inputs.json`; what is damaged in it is left out."""
    files = (facts or {}).get("files")
    found = []
    for path, one in files.items() if isinstance(files, dict) else ():
        size, fingerprint = (one.get("bytes"), one.get("blake3")) if isinstance(one, dict) else (None, None)
        if (
            type(size) is int
            and size >= 0
            and isinstance(fingerprint, str)
            and re.fullmatch("[0-9a-f]{64}", fingerprint)
        ):
            found.append((size, path, fingerprint))
    return sorted(found)


def _assigns_key(content: bytes) -> bool:
    return secret.assigns_secret(content.decode("utf-8", "replace"))


def _unlike(content: bytes | None, size: int, fingerprint: str, is_settings: bool) -> str:
    """Returns why a data file cannot stand for what the run read; empty where it can."""
    from blake3 import blake3

    if content is None:
        return "it is no longer there"
    if len(content) != size or blake3(content).hexdigest() != fingerprint:
        return "it is no longer what the run read"
    return "it looks as if it held a key" if _holds_key(content) or (is_settings and _assigns_key(content)) else ""


def _checkpoints(run: RunDir) -> Iterator[LeftOut]:
    for inside, path in _below(run.checkpoints):
        facts = read_json(path) if re.fullmatch(r"\d{6,}\.json", inside) else None
        size, digest = ((facts or {}).get(key) for key in ("bytes", "sha256"))
        if type(size) is int and isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest):
            yield LeftOut(f"checkpoints/{path.stem}.pt", size, f"sha256:{digest}", "checkpoints do not come along")
