"""A run that is worked on by hand, in JupyterLab or as a script: no supervisor watches it, its own process does."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from labkit.errors import FolderProblem
from labkit.kernel import cells
from labkit.kernel.journal import Journal, deviations, read_saved
from labkit.launch import signals
from labkit.record import lab, provenance, version
from labkit.record.files import iso, plain_json, write_json
from labkit.record.find import whereabouts
from labkit.record.process import Process
from labkit.record.rundir import SCRATCH, create
from labkit.record.secret import is_secret
from labkit.record.status import HEARTBEAT_S, exit_record
from labkit.record.summary import summarise

SOURCE_S = 10.0  # for git and the list of packages, when a run closes early


class ByHand:
    """What labkit does around a run by hand: its directory, its sign of life, its journal, its end.

    Attributes:
        directory: The run's directory, under `runs/.scratch/`.
        notebook: The notebook or the script.
        parameters: The plain variables in upper case, at the start; an empty VERSION filled in.
    """

    def __init__(self) -> None:
        self.notebook = cells.notebook_path()
        self._lab = lab.root(self.notebook.parent)
        self.at_start = parameters_now()
        self.parameters = self.at_start | version.filled(self.at_start, {}, self._lab)
        self._began = time.time()
        runs = lab.runs_folder(self.notebook.parent)
        manifest = self._manifest() | whereabouts(self._lab, runs)
        self.directory = create(runs / SCRATCH, self.notebook.stem, manifest)
        process = Process.of(os.getpid()).facts()
        facts = {"process": process, "started": iso(self._began), "started_s": self._began}
        write_json(self.directory.process, facts)
        self.journal = Journal(self.directory.journal)
        self.log = self.directory.log.open("a", encoding="utf-8", buffering=1)
        self._ended = threading.Event()
        source = (self.directory, self.notebook.parent)
        self._source = threading.Thread(target=provenance.record_source, args=source, name="labkit-source", daemon=True)
        self._source.start()
        threading.Thread(target=self._beat, name="labkit-heartbeat", daemon=True).start()

    def _manifest(self) -> dict[str, Any]:
        return {
            "notebook": os.path.relpath(self.notebook, self._lab),
            "title": self.notebook.stem,
            "kind": "scratch",
            "parameters": plain_json(_without_secrets(self.parameters)),
            "declared": list(self.parameters),
            "labels": ["debug"] if self.parameters.get("DEBUG") is True else [],
            "user": provenance.user(),
            "host": Process.of(os.getpid()).host,
        }

    def _beat(self) -> None:
        while not self._ended.is_set():
            try:
                self.directory.heartbeat.touch()
            except OSError:
                pass
            self._ended.wait(HEARTBEAT_S)

    def explored(self) -> list[str]:
        """Returns in what the work differs from a clean run of the saved notebook."""
        if not self.notebook.exists():
            self.notebook = cells.notebook_path()  # it was renamed meanwhile
        saved = read_saved(self.notebook)
        if saved is None or not self.journal.entries:
            return []
        return deviations(self.journal.entries, saved, self.at_start, cells.values())

    def close(self) -> None:
        """Records how the run ended and what it came to."""
        self._ended.set()
        self.journal.close()
        provenance.record_modules(self.directory.source, self._lab)
        self._source.join(SOURCE_S)  # it writes into the manifest too
        state, reason = self._how_it_ended()
        record(self.directory.exit, exit_record(state, reason, self._began, written_by="kernel"))
        self._label()
        summarise(self.directory)
        self.log.close()

    def _how_it_ended(self) -> tuple[str, str]:
        raised = getattr(sys, "last_value", None) if cells.shell() is None else None  # what ended a script
        if signals.requested():
            return "interrupted", signals.requested()
        if isinstance(raised, KeyboardInterrupt):
            return "interrupted", "Ctrl-C"
        if raised is not None:
            return "failed", f"{type(raised).__name__}: {raised}"
        failed = self.journal.failed()
        return ("failed", f"{', '.join(failed)} raised") if failed else ("finished", "")

    def _label(self) -> None:
        reasons = self.explored()
        if reasons:
            try:
                labels = self.directory.read_manifest()["labels"]
                self.directory.update_manifest(labels=[*labels, "explored"], explored="; ".join(reasons))
            except (OSError, FolderProblem) as error:
                print(f"labkit: the label `explored` could not be written: {error}", file=sys.stderr)


def parameters_now() -> dict[str, Any]:
    """Returns the notebook's plain variables in upper case."""
    return {name: value for name, value in cells.values().items() if name.isupper() and _is_plain(value)}


def _without_secrets(parameters: dict[str, Any]) -> dict[str, Any]:
    """Returns parameters for the record; a secret, read from the environment as it should be, is named and not said."""
    return {name: "not recorded: a secret" if is_secret(name, value) else value for name, value in parameters.items()}


def _is_plain(value: Any) -> bool:
    try:
        plain_json(value)
    except TypeError:
        return False
    return True


def record(path: Path, value: dict[str, Any]) -> None:
    """Writes a record, or says that it could not be written."""
    try:
        write_json(path, value)
    except OSError as error:
        print(f"labkit: {path} could not be written: {error}", file=sys.stderr)
