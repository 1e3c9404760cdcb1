"""The directory of one run: the name of each of its files, and how it is made."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labkit.errors import FolderProblem
from labkit.record.files import read_json, write_atomic, write_json

FORMAT = 1
SCRATCH = ".scratch"
SWEEPS = "sweeps"  # in a folder of runs: what was asked of many runs together, no runs themselves
MIXED = "mixed"  # label of a run that went on although something was not what it was
NO_RESULT = ("debug", "stand-in", "explored", MIXED)  # labels of runs whose numbers stand for nothing
ATTEMPT = re.compile(r"[1-9][0-9]{0,8}")
ID = re.compile(r"\d{8}T\d{6}\.\d{3}Z-[0-9a-f]{6}")


@dataclass(frozen=True)
class RunDir:
    """The paths of one run. Nothing here reads or writes unless its name says so.

    Attributes:
        path: Its directory.
        number: The attempt that is meant; None for the newest, whichever that is when it is asked for.
    """

    path: Path
    number: int | None = field(default=None, compare=False)

    def pinned(self) -> RunDir:
        """Returns the paths of the attempt that is the newest now: who belongs to it writes into no later one."""
        return RunDir(self.path, int(self.attempt.name)) if self.attempt.name.isdecimal() else self

    @property
    def id(self) -> str:
        """The time of the start and a random suffix, as in `20261121T101500.123Z-3f9a1c`."""
        return self.path.name

    @property
    def name(self) -> str:
        """The notebook's name and the id, as commands print and take it."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def is_scratch(self) -> bool:
        """Tells whether it lies among the runs by hand."""
        return self.path.parent.parent.name == SCRATCH

    @property
    def manifest(self) -> Path:
        """Identity, parameters and summary."""
        return self.path / "run.json"

    @property
    def params(self) -> Path:
        """The parameters in effect, as YAML."""
        return self.path / "params.yaml"

    @property
    def environment(self) -> Path:
        """The environment check."""
        return self.path / "environment.json"

    @property
    def requirements(self) -> Path:
        """Exact versions of the installed packages."""
        return self.path / "requirements.txt"

    @property
    def source(self) -> Path:
        """Git state, the notebook as it was, and first-party modules."""
        return self.path / "source"

    @property
    def machine(self) -> Path:
        """What the bits of a result depend on beside the code: hardware, libraries, settings, variables."""
        return self.path / "machine.json"

    @property
    def inputs(self) -> Path:
        """The data files that the cells read, with fingerprints of their content."""
        return self.path / "inputs.json"

    @property
    def fingerprints(self) -> Path:
        """One line a fingerprint of data in memory, or of weights: at the start, at each checkpoint, at the end."""
        return self.path / "fingerprints.jsonl"

    @property
    def metrics(self) -> Path:
        """One line a logged step."""
        return self.path / "metrics.jsonl"

    @property
    def training(self) -> Path:
        """What optimizer and scheduler were set to."""
        return self.path / "training.json"

    @property
    def stated(self) -> Path:
        """What the notebook stated: expectations, conclusions, labels."""
        return self.path / "stated.json"

    @property
    def journal(self) -> Path:
        """One line a cell that was executed by hand."""
        return self.path / "journal.jsonl"

    @property
    def log(self) -> Path:
        """Everything that was printed."""
        return self.path / "output.log"

    @property
    def figures(self) -> Path:
        """Pictures, each beside its raw data."""
        return self.path / "figures"

    @property
    def checkpoints(self) -> Path:
        """Saved states of the training."""
        return self.path / "checkpoints"

    @property
    def notebook(self) -> Path:
        """The executed notebook."""
        return self.path / "notebook.ipynb"

    @property
    def report(self) -> Path:
        """The page made from this run."""
        return self.path / "report.html"

    @property
    def attempts(self) -> Path:
        """One folder for each time that the run was started or resumed."""
        return self.path / "attempts"

    @property
    def attempt(self) -> Path:
        """The folder of the attempt that is meant."""
        if self.number is not None:
            return self.attempts / str(self.number)
        if self.attempts.is_symlink():
            return self.path / "no attempts"  # no reader follows a link out of the run
        try:
            numbers = [int(entry.name) for entry in os.scandir(self.attempts) if ATTEMPT.fullmatch(entry.name)]
        except OSError:
            numbers = []
        return self.attempts / str(max(numbers, default=1))

    def earlier(self) -> Path:
        """Returns the folder of the newest attempt before this one that began; claims that died are passed over."""
        for number in range(int(self.attempt.name) - 1, 1, -1):
            if (self.attempts / str(number) / "process.json").exists():
                return self.attempts / str(number)
        return self.attempts / "1"

    @property
    def process(self) -> Path:
        """Which processes the newest attempt runs in."""
        return self.attempt / "process.json"

    @property
    def exit(self) -> Path:
        """How the newest attempt ended."""
        return self.attempt / "exit.json"

    @property
    def stop(self) -> Path:
        """Why the newest attempt was asked to stop, where somebody gave a reason."""
        return self.attempt / "stop.json"

    @property
    def kernel(self) -> Path:
        """What the kernel of the newest attempt counted: written, refused, lost."""
        return self.attempt / "kernel.json"

    @property
    def claim(self) -> Path:
        """How far the newest attempt gives the same numbers when it is run again, and why not further."""
        return self.attempt / "claim.json"

    @property
    def heartbeat(self) -> Path:
        """A file whose time says when the newest attempt last showed life."""
        return self.attempt / "heartbeat"

    @property
    def resumption(self) -> Path:
        """Who asked for the newest attempt, where it goes on with an earlier one, and what was different."""
        return self.attempt / "resume.json"

    @property
    def restored(self) -> Path:
        """What the newest attempt went on from."""
        return self.attempt / "restored.json"

    @property
    def begun(self) -> Path:
        """What a resumed attempt has logged before it was known what it goes on from."""
        return self.attempt / "begun.jsonl"

    @property
    def queued(self) -> Path:
        """How many lines of metrics there will be when those that are on their way from a GPU have arrived."""
        return self.attempt / "queued"

    @property
    def progress(self) -> Path:
        """Where the newest attempt's loop stands."""
        return self.attempt / "progress.json"

    def read_manifest(self) -> dict[str, Any]:
        """Returns the manifest, with every key that readers rely on.

        Raises:
            FolderProblem: It is missing or not a manifest.
        """
        return _BLANK | {key: value for key, value in self._written_manifest().items() if _fits(key, value)}

    def _written_manifest(self) -> dict[str, Any]:
        found = read_json(self.manifest)
        if found is None:
            raise FolderProblem(f"{self.manifest} is missing or not JSON; the run's other files can still be read")
        number = found.get("format")
        if not isinstance(number, int) or number > FORMAT:
            raise FolderProblem(
                f"{self.manifest} has format {number!r}, this labkit reads up to {FORMAT}; a newer labkit reads it"
            )
        return found

    def update_manifest(self, **changes: Any) -> None:
        """Replaces some keys of the manifest; those this version does not know are kept."""
        write_json(self.manifest, self._written_manifest() | changes)  # a damaged one is refused, not replaced


_BLANK: dict[str, Any] = {
    "format": FORMAT,
    "id": "",
    "name": "",
    "notebook": "",
    "title": "",
    "kind": "run",
    "created": "",
    "parameters": {},
    "given": {},
    "declared": [],
    "source_sha256": "",
    "author": "",
    "user": "",
    "host": "",
    "command": [],
    "kernel": "",
    "labels": [],
    "summary": {},
    "verdicts": [],
    "claim": {},
}


def _fits(key: str, value: Any) -> bool:
    return key not in _BLANK or isinstance(value, type(_BLANK[key]))


def create(runs: Path, name: str, manifest: dict[str, Any], files: dict[str, bytes | str] | None = None) -> RunDir:
    """Makes the directory of a new run, whole, in one step.

    It is filled under a hidden name and then renamed: nobody finds one without its manifest, and no two runs share one.

    Args:
        runs: The lab's folder of runs; made where it is missing.
        name: The notebook's name, which becomes the folder's.
        manifest: The first content of `run.json`; `format`, `id`, `name` and `created` are filled in.
        files: Further files, by path inside the run.

    Raises:
        FolderProblem: The folder cannot be made or written; no run is left over.
    """
    folder = runs / folder_name(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            moment = datetime.now(UTC)
            made = RunDir(folder / f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03}Z-{secrets.token_hex(3)}")
            hidden = RunDir(folder / f".{made.id}")
            created = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            identity = {"format": FORMAT, "id": made.id, "name": name, "created": created}
            try:
                _fill(hidden, _BLANK | manifest | identity, files or {})
                if made.path.exists():
                    continue  # a twin in the same millisecond with the same suffix
                os.rename(hidden.path, made.path)
            finally:
                shutil.rmtree(hidden.path, ignore_errors=True)
            break
        for link in (folder / "last", runs / "last"):
            _point(link, made.path)
    except OSError as error:
        raise FolderProblem(
            f"no run can be made in {folder}: {error.strerror or error}; "
            "choose another folder with --runs, or make this one writable"
        ) from error
    return made


def _fill(run: RunDir, manifest: dict[str, Any], files: dict[str, bytes | str]) -> None:
    for folder in (run.source, run.figures, run.attempts / "1"):
        folder.mkdir(parents=True)
    for name, content in files.items():
        target = run.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, content, durable=False)
    run.metrics.touch()
    run.log.touch()
    write_json(run.manifest, manifest)


def _point(link: Path, target: Path) -> None:
    """Lets `link` lead to `target`, in one step; a link is a convenience, so failing to make one stops nothing."""
    beside = link.with_name(f".{link.name}.{secrets.token_hex(4)}")
    try:
        if link.exists() and not link.is_symlink():
            return  # a notebook called `last` owns that name
        os.symlink(os.path.relpath(target, link.parent), beside)
        os.replace(beside, link)
    except OSError:
        beside.unlink(missing_ok=True)


def folder_name(name: str) -> str:
    """Returns `name` as one safe folder name: no separators, not hidden, at most 100 bytes."""
    safe = re.sub(r"[\x00-\x1f/\\]", "-", name).strip().lstrip(".") or "notebook"
    if safe in ("last", SWEEPS):
        safe += "_"
    return safe.encode("utf-8", "replace")[:100].decode("utf-8", "ignore")
