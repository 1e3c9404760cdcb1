"""The data files of a run that is made again: found by what is in them, and put where its cells look for them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import FolderProblem
from labkit.record.carried import inputs
from labkit.record.fingerprints import Known
from labkit.record.rundir import RunDir

COPIED_BYTES = 256 * 2**20  # larger files are linked to; a cell that wrote into its data would change the original


@dataclass(frozen=True)
class Placed:
    """What became of the data files.

    Attributes:
        missing: Files that are nowhere to be found, as lines for a reader.
        changed: Files whose content is not what it was.
    """

    missing: tuple[str, ...]
    changed: tuple[str, ...]


def place(then: RunDir, lab: Path, given: Path | None, labs: Sequence[Path], known: Known) -> Placed:
    """Puts the data files of a run into a lab, from the first place that has them with the recorded content.

    Args:
        then: The record.
        lab: The lab in which the notebook will run; what it has already is looked at first.
        given: A folder to look in, by the path in the lab or by the file's name alone.
        labs: Labs where the files may lie.
        known: Fingerprints that are known.

    Raises:
        FolderProblem: A file cannot be put there.
    """
    missing, changed = [], []
    for size, path, fingerprint in inputs(then):
        if ".." in Path(path).parts or "\0" in path:  # nothing that labkit has recorded
            missing.append(f"{path!a} leads out of the lab")
            continue
        found, is_same = _best(_candidates(path, lab, given, labs), fingerprint, known)
        if found is None:
            missing.append(f"{path} ({size:,} bytes, BLAKE3 {fingerprint[:16]}…)")
            continue
        if not is_same:
            changed.append(path)
        if not os.path.isabs(path):
            _put(found, lab / path)
    return Placed(tuple(missing), tuple(changed))


def _candidates(path: str, lab: Path, given: Path | None, labs: Sequence[Path]) -> Iterator[Path]:
    if os.path.isabs(path):
        yield Path(path)  # the cells will look there and nowhere else
        return
    yield lab / path
    if given is not None:
        inside = Path(path).parts
        yield from (given.joinpath(*inside[skipped:]) for skipped in range(len(inside)))
    yield from (one / path for one in labs)


def _best(candidates: Iterator[Path], fingerprint: str, known: Known) -> tuple[Path | None, bool]:
    """Returns the first file with the content, else the first that is there, and whether it has the content."""
    first: Path | None = None
    for path in candidates:
        try:
            is_same = known.of_file(path)[0] == fingerprint
        except (OSError, ValueError):
            continue
        if is_same:
            return path, True
        first = first or path
    return first, False


def _put(source: Path, target: Path) -> None:
    if target.exists():
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.stat().st_size > COPIED_BYTES:
            target.symlink_to(source.resolve())
        else:
            shutil.copyfile(source, target)
    except OSError as error:
        raise FolderProblem(f"{target} cannot be written: {error.strerror or error}") from error
