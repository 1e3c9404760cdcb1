"""A record written out again as a lab of its own: its notebook, modules and data at their places, and the run beside.

Nothing that is there is replaced, no link is followed, nothing is executed: what comes out is files with the contents
that the record has, under names that were checked.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import CapsuleProblem, FolderProblem
from labkit.record import capsule
from labkit.record.capsule import Capsule
from labkit.record.carried import DATA, LeftOut, clash, is_safe
from labkit.record.find import find
from labkit.record.provenance import LOCK
from labkit.record.rundir import ID, RunDir, folder_name
from labkit.record.text import counted

NOTEBOOK = "source/notebook.ipynb"
MODULES = "source/modules/"
LABKIT = f"{MODULES}labkit/"  # its own modules, which a run in its clone has: a lab takes the labkit that is installed
RECORD = "record"  # the folder of the one run
RUNS = "runs"  # what is executed in the new lab goes here; the folder also marks it as a lab
SOURCES = {"params.yaml": "params.yaml", "requirements.txt": "requirements.txt", LOCK: f"source/{LOCK}"}  # by place
SHOWN = 50  # lines of what is missing


@dataclass(frozen=True)
class LaidOut:
    """What was written.

    Attributes:
        folder: The new lab.
        notebook: The notebook as it was before the run, at its place in the lab; None where the record has none.
        record: The record as a run directory.
        files: What was written, by path in the folder; the record's own files are not named.
        missing: What the run had and the record has not.
    """

    folder: Path
    notebook: Path | None
    record: RunDir
    files: tuple[str, ...]
    missing: tuple[LeftOut, ...]


def opened(name: str, runs: Path) -> Capsule:
    """Returns the record of a report or of a run.

    Args:
        name: The file of a report, or any name of a run.
        runs: The folder of runs.

    Raises:
        BadInput: There is no such report or run, or its record cannot be used.
    """
    path = Path(name)
    if name.endswith((".html", ".htm")) and path.is_file():
        return capsule.read(path.resolve())
    return capsule.of_run(find(name, runs))


def lay_out(packed: Capsule, folder: Path) -> LaidOut:
    """Writes a record into a folder, as the lab that its run had.

    Args:
        packed: The record.
        folder: Where to; made where it is missing. It may hold other things, but nothing of the same names.

    Raises:
        CapsuleProblem: The record holds two files for one place.
        FolderProblem: The folder cannot be written, or holds something of that name; nothing is left over.
    """
    places, missing = _places(packed)
    record = _record_folder(packed, places)
    whole = {**places, **{f"{record}/{name}": name for name in packed.files if not name.startswith(DATA)}}
    if twice := clash(whole):
        raise CapsuleProblem(f"the record has two files for {twice!a:.200}; nothing was written")
    contents = {place: packed.files[name] for place, name in whole.items()}
    contents[f"{record}/{capsule.INDEX}"] = capsule.index(packed)
    folder = Path(os.path.abspath(folder))
    _write(folder, contents)
    notebook = next((folder / place for place, name in places.items() if name == NOTEBOOK), None)
    return LaidOut(folder, notebook, RunDir(folder / record), tuple(sorted(places)), tuple(missing))


def told(made: LaidOut) -> Iterator[str]:
    """Yields a line for each thing that was written, and for each that the record does not have."""
    where = os.path.relpath(made.folder)
    for place in made.files:
        yield os.path.join(where, place)
    yield f"the record: {os.path.relpath(made.record.path)}"
    if made.notebook is None:
        yield "not in the record: the notebook as it was before the run"
    for one in made.missing[:SHOWN]:
        size = f"{one.bytes:,} bytes" if one.bytes >= 0 else "size unknown"
        about = ", ".join(filter(None, (size, one.fingerprint)))
        yield f"not in the record: {one.path.removeprefix(DATA)} ({about}): {one.why}"
    if len(made.missing) > SHOWN:
        more = counted(len(made.missing) - SHOWN, "further file")
        yield f"not in the record: {more}; {capsule.INDEX} and inputs.json in the record name them"


def _places(packed: Capsule) -> tuple[dict[str, str], list[LeftOut]]:
    """Returns which file of the record goes to which place in the lab, and what is missing there.

    Where two files have one place, as a module that the notebook also read as data, they must be one.
    """
    missing = packed.missing()
    places: dict[str, str] = {}
    manifest = packed.json("run.json")
    wanted: list[tuple[str, str]] = []
    if NOTEBOOK in packed.files:
        inside = manifest.get("notebook")
        if not isinstance(inside, str) or not is_safe(inside) or not inside.endswith(".ipynb"):
            inside = "notebook.ipynb"
        wanted.append((inside, NOTEBOOK))
    modules = sorted(name for name in packed.files if name.startswith(MODULES) and not name.startswith(LABKIT))
    wanted += [(name[len(MODULES) :], name) for name in modules]
    wanted += [(name[len(DATA) :], name) for name in sorted(packed.files) if name.startswith(DATA)]
    wanted += [(place, name) for place, name in SOURCES.items() if name in packed.files]
    for place, name in wanted:
        content = packed.files[name]
        if place in places and packed.files[places[place]] == content:
            continue
        if clash([*places, place]) or place.split("/")[0] == RUNS:
            missing.append(LeftOut(name, len(content), "", f"{place} is the place of another file"))
            continue
        places[place] = name
    return places, missing


def _record_folder(packed: Capsule, places: dict[str, str]) -> str:
    """Returns the path of the run's directory in the new lab; nothing of the lab has the name of its first folder."""
    manifest = packed.json("run.json")
    name, number = manifest.get("name"), manifest.get("id")
    name = folder_name(name) if isinstance(name, str) else "run"
    number = number if isinstance(number, str) and ID.fullmatch(number) else "unknown"
    top = RECORD
    while any(place.split("/")[0].casefold() == top for place in places):
        top += "-"
    return f"{top}/{name if is_safe(name) else 'run'}/{number}"


def _write(folder: Path, contents: dict[str, bytes]) -> None:
    """Writes new files below a folder, all or none: beside their places first."""
    tops = sorted({place.split("/")[0] for place in contents} | {RUNS})
    is_new = not os.path.lexists(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = next((top for top in tops if os.path.lexists(folder / top)), None)
        if taken is not None:
            raise FolderProblem(f"{folder / taken} is there already; nothing was written: name a new or empty folder")
        beside = folder / f".unpack-{secrets.token_hex(4)}"
        try:
            (beside / RUNS).mkdir(parents=True)
            for place, content in contents.items():
                target = beside / place
                target.parent.mkdir(parents=True, exist_ok=True)
                with open(target, "xb") as file:
                    file.write(content)
            for top in tops:
                os.rename(beside / top, folder / top)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except (OSError, ValueError) as error:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise FolderProblem(f"the record cannot be written to {folder}: {reason}") from error
