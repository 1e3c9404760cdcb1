"""The directory of one sweep: what was asked, which of its points have a result, and who works on it.

`accepted/<point>.json` is made in one step and can be made once: a point has one result, however often the sweep was
killed. Whoever works on the sweep holds `sessions/<n>/`, made by a rename that only one process can do.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labkit.errors import BadInput, FolderProblem, RunNotFound
from labkit.record import lab, sweepform
from labkit.record.files import now, read_json, write_json
from labkit.record.find import is_of, whereabouts
from labkit.record.process import Process
from labkit.record.rundir import ID, SWEEPS
from labkit.record.status import HEARTBEAT_S, shows_life

FORMAT = 1
SESSION = re.compile(r"[1-9][0-9]{0,8}")
POINT = re.compile(r"([1-9][0-9]{0,8})\.json")


@dataclass(frozen=True)
class SweepDir:
    """The paths of one sweep. Nothing here reads or writes unless its name says so.

    Attributes:
        path: Its directory.
    """

    path: Path

    @property
    def id(self) -> str:
        """The time of the start and a random suffix; its runs record it as `sweep`."""
        return self.path.name

    @property
    def name(self) -> str:
        """`sweeps/` and the id, as commands print and take it."""
        return f"{SWEEPS}/{self.id}"

    @property
    def runs(self) -> Path:
        """The folder of runs that it lies in, and its runs too."""
        return self.path.parent.parent

    @property
    def manifest(self) -> Path:
        """What was asked: notebook, points, metric, command."""
        return self.path / "sweep.json"

    @property
    def proposed(self) -> Path:
        """Of a search: one file a point, there before the point is run."""
        return self.path / "proposed"

    @property
    def notebook(self) -> Path:
        """The notebook as it was, of a sweep whose runs a cluster begins whenever it comes to them."""
        return self.path / "notebook.ipynb"

    @property
    def accepted(self) -> Path:
        """One file a point that has its result."""
        return self.path / "accepted"

    @property
    def aside(self) -> Path:
        """Results that were taken back, so that their points could be tried again."""
        return self.path / "aside"

    @property
    def sessions(self) -> Path:
        """One folder for each time that somebody worked on it."""
        return self.path / "sessions"

    @property
    def progress(self) -> Path:
        """Where it stands, as whoever works on it last wrote it."""
        return self.path / "progress.json"

    @property
    def log(self) -> Path:
        """What a sweep that was left to itself printed."""
        return self.path / "sweep.log"

    @property
    def summary(self) -> Path:
        """What came of it; there once every point has a result."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """The page made from it."""
        return self.path / "report.html"

    def read_manifest(self) -> dict[str, Any]:
        """Returns what was asked.

        Raises:
            FolderProblem: It is missing or not a sweep's.
        """
        found = read_json(self.manifest)
        if found is None or not isinstance(found.get("points"), list):
            raise FolderProblem(f"{self.manifest} is missing or not JSON; begin the sweep anew")
        if not isinstance(found.get("format"), int) or found["format"] > FORMAT:
            raise FolderProblem(f"{self.manifest} has format {found.get('format')!r}, this labkit reads up to {FORMAT}")
        if (wrong := sweepform.wrong_in_manifest(found)) is not None:
            raise FolderProblem(f"{self.manifest} is damaged: {wrong} is not as labkit writes it; begin the sweep anew")
        return found

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replaces what was asked.

        Raises:
            FolderProblem: It cannot be written.
        """
        try:
            write_json(self.manifest, manifest)
        except OSError as error:
            raise FolderProblem(f"{self.manifest} cannot be written: {error.strerror or error}") from error

    def is_over(self) -> bool:
        """Tells whether every point had a result, and the summary was written."""
        return self.summary.exists()


def total(manifest: Mapping[str, Any]) -> int:
    """Returns how many points a sweep has in the end; a search has not proposed all of them from the beginning."""
    return int((manifest.get("search") or {}).get("trials", len(manifest.get("points", []))))


def create(runs: Path, manifest: Mapping[str, Any]) -> SweepDir:
    """Makes the directory of a new sweep, whole, in one step.

    Args:
        runs: The folder of runs.
        manifest: The content of `sweep.json`; `format`, `id` and `created` are filled in.

    Raises:
        FolderProblem: It cannot be made; nothing is left over.
    """
    moment = datetime.now(UTC)
    made = SweepDir(runs / SWEEPS / f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03}Z-{secrets.token_hex(3)}")
    hidden = SweepDir(made.path.with_name(f".{made.id}"))
    try:
        hidden.accepted.mkdir(parents=True)
        hidden.sessions.mkdir()
        write_json(hidden.manifest, {"format": FORMAT, "id": made.id, "created": now(), **manifest})
        os.rename(hidden.path, made.path)
    except OSError as error:
        shutil.rmtree(hidden.path, ignore_errors=True)
        raise FolderProblem(f"no sweep can be made in {runs}: {error.strerror or error}") from error
    return made


def every(runs: Path) -> list[SweepDir]:
    """Returns the sweeps in a folder of runs, oldest first."""
    try:
        found = [entry for entry in os.scandir(runs / SWEEPS) if ID.fullmatch(entry.name)]
        return [SweepDir(Path(entry.path)) for entry in sorted(found, key=lambda one: one.name) if entry.is_dir()]
    except OSError:
        return []


def find(text: str, runs: Path) -> SweepDir:
    """Returns the sweep that `text` names: a path, an id or its last characters, `last`, or `sweeps/` and one of these.

    Raises:
        RunNotFound: Nothing or more than one sweep goes by that name.
    """
    path = Path(os.path.abspath(text))
    if text and os.path.isfile(path / "sweep.json"):
        return SweepDir(path)
    known = every(runs)
    name = text.removeprefix(f"{SWEEPS}/")
    found = (
        _of_this_lab(known, runs)[-1:] if name == "last" else [one for one in known if name and one.id.endswith(name)]
    )
    if len(found) == 1:
        return found[0]
    listed = ", ".join(one.id for one in (found or known)[-5:]) or "none"
    raise RunNotFound(
        f"{text!r} names {len(found) or 'no'} sweep{'s' * (len(found) > 1)} in {runs}; there are: {listed}"
    )


def _of_this_lab(known: list[SweepDir], runs: Path) -> list[SweepDir]:
    """Returns the sweeps of the working directory's lab; all where its own folder of runs is another."""
    root = lab.root(Path.cwd())
    here = whereabouts(root, runs)
    own = [one for one in known if is_of(read_json(one.manifest) or {}, here)]
    return own or (known if lab.runs_folder(root) != runs else [])


# results


def accept(sweep: SweepDir, point: int, result: Mapping[str, Any]) -> bool:
    """Keeps the result of a point, in one step; tells whether it did, for a point has one result.

    Raises:
        OSError: It cannot be written.
    """
    target = sweep.accepted / f"{point}.json"
    beside = sweep.accepted / f".{point}.{secrets.token_hex(4)}"
    write_json(beside, {"point": point, **result, "accepted": now()}, durable=False)
    try:
        os.link(beside, target)  # unlike a rename, it never replaces
    except FileExistsError:
        return False
    except OSError:  # a file system without links: who holds the sweep is alone
        if target.exists():
            return False
        os.rename(beside, target)
    finally:
        beside.unlink(missing_ok=True)
    return True


def results(sweep: SweepDir, *, mend: bool = False) -> dict[int, dict[str, Any]]:
    """Returns the accepted results by point; a file that is damaged, or of no point of the sweep, is none.

    Args:
        sweep: The sweep.
        mend: Move what is damaged, as a power cut can leave it, out of the way: its point gets a result again.

    Raises:
        OSError: It cannot be moved.
    """
    found: dict[int, dict[str, Any]] = {}
    numbers = _numbers(_names(sweep.accepted))
    known = _points(sweep) if numbers else set()
    for number in numbers:
        if known is not None and number not in known:
            continue
        result = result_of(sweep, number, mend=mend)
        if result is not None:
            found[number] = result
    return found


def result_of(sweep: SweepDir, point: int, *, mend: bool = False) -> dict[str, Any] | None:
    """Returns the accepted result of one point, as `results` does; None where it has none."""
    path = sweep.accepted / f"{point}.json"
    result = sweepform.result(read_json(path), point)
    if result is None and mend:
        with suppress(FileNotFoundError):  # a rename also moves a folder, and loses nothing that was unreadable once
            os.rename(path, sweep.accepted / f".{point}.damaged.{secrets.token_hex(4)}")
    return result


def _points(sweep: SweepDir) -> set[int] | None:
    """Returns the numbers of the points that a sweep has so far; None where its manifest cannot be read."""
    try:
        manifest = sweep.read_manifest()
    except FolderProblem:
        return None
    return {*(one["point"] for one in manifest["points"]), *_numbers(_names(sweep.proposed))}


def _numbers(names: Iterable[str]) -> list[int]:
    """Returns the points that have a file of their own, in their order."""
    return sorted(int(match[1]) for name in names if (match := POINT.fullmatch(name)))


def put_aside(sweep: SweepDir, point: int) -> None:
    """Takes a point's result back, so that it can have another one; the file is kept.

    Raises:
        OSError: It cannot be moved.
    """
    sweep.summary.unlink(missing_ok=True)  # first: the sweep is no longer over
    sweep.aside.mkdir(exist_ok=True)
    os.rename(sweep.accepted / f"{point}.json", sweep.aside / f"{point}.{secrets.token_hex(4)}.json")


def aside(sweep: SweepDir) -> set[str]:
    """Returns the names of runs whose results were taken back."""
    return {str((read_json(sweep.aside / name) or {}).get("run")) for name in _names(sweep.aside)}


# points of a search


def propose(sweep: SweepDir, point: int, facts: Mapping[str, Any]) -> None:
    """Keeps a point that a search has proposed: a sweep that goes on has the same.

    Raises:
        FolderProblem: It cannot be written.
    """
    try:
        sweep.proposed.mkdir(exist_ok=True)
        write_json(sweep.proposed / f"{point}.json", {"point": point, **facts, "proposed": now()})
    except OSError as error:
        raise FolderProblem(f"{sweep.proposed} cannot be written: {error.strerror or error}") from error


def proposed(sweep: SweepDir) -> list[dict[str, Any]]:
    """Returns the points that a search has proposed so far, in their order.

    Raises:
        FolderProblem: One is missing or damaged, so that a result may be of another point.
    """
    found = [read_json(sweep.proposed / f"{number}.json") for number in _numbers(_names(sweep.proposed))]
    for number, one in enumerate(found, 1):
        if not sweepform.is_point(one, number):
            raise FolderProblem(f"{sweep.proposed / f'{number}.json'} is missing or damaged; begin the sweep anew")
    return [one for one in found if one is not None]


# who works on it


@dataclass
class Session:
    """The right to work on a sweep, until `end`, or until this process is gone."""

    path: Path
    _over: threading.Event = field(default_factory=threading.Event)

    def show_life(self) -> None:
        """Shows life to other hosts from now on, whatever else this process is doing."""

        def beat() -> None:
            while not self._over.wait(HEARTBEAT_S):
                with suppress(OSError):
                    os.utime(self.path / "holder.json")

        threading.Thread(target=beat, name="labkit-sweep", daemon=True).start()

    def end(self) -> None:
        """Gives the right back."""
        self._over.set()
        try:
            write_json(self.path / "end.json", {"ended": now()}, durable=False)
        except OSError:
            pass  # that this process is gone says it too


def claim(sweep: SweepDir, command: list[str]) -> Session:
    """Takes the right to work on a sweep, which one process has at a time.

    Raises:
        BadInput: Somebody else has it.
        FolderProblem: The sweep cannot be written.
    """
    newest = session(sweep)  # looked for once: who begins a session after this is in the way of the rename
    if (other := _holder(newest)) is not None:
        raise BadInput(_held(sweep, other))
    number = int(newest.name) + 1 if newest else 1
    hidden = sweep.sessions / f".{number}.{secrets.token_hex(4)}"
    target = sweep.sessions / str(number)
    try:
        hidden.mkdir()
        own = Process.of(os.getpid()).facts()
        write_json(hidden / "holder.json", {"creator": own, "command": command, "created": now()})
        os.rename(hidden, target)
    except OSError as error:
        shutil.rmtree(hidden, ignore_errors=True)
        if target.exists():
            raise BadInput(_held(sweep, holder(sweep))) from None
        raise FolderProblem(f"{sweep.sessions} cannot be written: {error.strerror or error}") from error
    taken = Session(target)
    taken.show_life()
    return taken


def session(sweep: SweepDir) -> Path | None:
    """Returns the newest session of a sweep; None where nobody has worked on it."""
    newest = max((int(one) for one in _names(sweep.sessions) if SESSION.fullmatch(one)), default=0)
    return sweep.sessions / str(newest) if newest else None


def holder(sweep: SweepDir) -> Process | None:
    """Returns who works on a sweep now; None where nobody does."""
    return _holder(session(sweep))


def _holder(newest: Path | None) -> Process | None:
    if newest is None or (newest / "end.json").exists():
        return None
    found = Process.read((read_json(newest / "holder.json") or {}).get("creator"))
    if found is None:
        return None
    return found if shows_life(found, newest / "holder.json") else None


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _held(sweep: SweepDir, other: Process | None) -> str:
    who = f"process {other.pid} on {other.host}" if other is not None else "somebody else"
    return f"{sweep.name} is being worked on by {who}; wait for it, or stop it first: labkit stop {sweep.name}"
