"""A run that is worked on by hand, in JupyterLab or as a script: no supervisor watches it, its own process does."""

from __future__ import annotations

import copy
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from labkit.errors import FolderProblem
from labkit.kernel import cells
from labkit.kernel.explored import deviations, failed, of_this_run
from labkit.kernel.journal import Journal
from labkit.kernel.saved import Saved, parameter_names, read_saved
from labkit.launch import inputs, signals
from labkit.launch.verdict import NOT_COUNTED
from labkit.record import lab, provenance, version
from labkit.record.files import dumps, is_deep, iso, plain_json, write_json
from labkit.record.find import whereabouts
from labkit.record.process import Process
from labkit.record.rundir import SCRATCH, create
from labkit.record.secret import is_secret
from labkit.record.status import HEARTBEAT_S, exit_record
from labkit.record.summary import summarise

SOURCE_S = 10.0  # for git and the list of packages, when a run closes early


class Log:
    """The log of a run by hand. A disk that refuses it stops nothing; what did not get there is counted.

    Attributes:
        lost: Bytes that the disk did not take.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self.lost = 0

    def write(self, text: str) -> None:
        """Appends text."""
        data = text.encode("utf-8", "backslashreplace")
        while data:
            try:
                if self._fd < 0:
                    self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
                data = data[os.write(self._fd, data) :]
            except OSError:
                self.lost += len(data)
                return

    def close(self) -> None:
        """Closes the file; what is written later is lost."""
        fd, self._fd = self._fd, -1
        try:
            if fd >= 0:
                os.close(fd)
        except OSError:
            pass


class ByHand:
    """What labkit does around a run by hand: its directory, its sign of life, its journal, its end.

    Attributes:
        directory: The run's directory, under `runs/.scratch/`.
        notebook: The notebook or the script.
        parameters: What `parameters_now` finds at the start; an empty VERSION filled in.
    """

    def __init__(self) -> None:
        self.notebook = cells.notebook_path()
        self._lab = lab.root(self.notebook.parent)
        self._saved_at_start = read_saved(self.notebook)
        self.at_start = copy.deepcopy(parameters_now(self._saved_at_start))  # a cell may change a list in place
        self.parameters = copy.deepcopy(self.at_start) | version.filled(self.at_start, {}, self._lab)
        self._began = time.time()
        runs = lab.runs_folder(self.notebook.parent)
        manifest = self._manifest() | whereabouts(self._lab, runs)
        process = Process.of(os.getpid()).facts()
        facts = {"process": process, "started": iso(self._began), "started_s": self._began}
        files: dict[str, bytes | str] = {"attempts/1/process.json": dumps(facts, pretty=True) + b"\n"}
        self.directory = create(runs / SCRATCH, self.notebook.stem, manifest, files)
        self.journal = Journal(self.directory.journal, self.at_start)
        self.log = Log(self.directory.log)
        inputs.watch()
        self._data = inputs.Inputs(self.directory, self._lab, runs)
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
        """Returns in what the work so far differs from a clean run of the saved notebook."""
        entries, changed = self.journal.entries, self.journal.changed()
        try:
            saved = self._saved()
            if saved is None or not entries:
                return []
            return deviations(entries, saved, self.at_start, changed, before=self.journal.before)
        except Exception as error:
            return [_not_judged(error)]

    def _saved(self) -> Saved | None:
        if not self.notebook.exists():
            self.notebook = cells.notebook_path()  # it was renamed meanwhile
        return read_saved(self.notebook)

    def close(self, is_counted: bool = True) -> None:
        """Records what the run came to, and last of all how it ended: one that is cut off here has not finished.

        Args:
            is_counted: What was lost stands in the record.
        """
        self._ended.set()
        self.journal.close()
        explored, failed_cells = self._judged()
        state, reason = self._how_it_ended(failed_cells)
        if state == "finished" and not is_counted:
            reason = NOT_COUNTED
        self._source.join(SOURCE_S)  # it writes into the manifest too
        self._label(explored)
        try:
            summarise(self.directory, state)
            self._data.end()
            provenance.elsewhere.update(inputs.scripts(self._lab))
            provenance.record_modules(self.directory.source, self._lab)
        except Exception as error:  # readers make their own summary
            print(f"labkit: not all of {self.directory.name} could be recorded: {error!r:.300}", file=sys.stderr)
        record(self.directory.exit, exit_record(state, reason, self._began, written_by="kernel"))
        self.log.close()

    def _judged(self) -> tuple[list[str], list[str]]:
        """Returns in what the work, now over, differs from a clean run, and the cells that failed."""
        entries = self.journal.entries
        try:
            saved = self._saved()
            if saved is None or not entries:
                return [], failed(entries, None)
            own = of_this_run(entries, self.journal.running(), saved)
            began = self._saved_at_start if len(own) < len(entries) else None
            then, changed, before = self.at_start, own[-1].changed, self.journal.before
            return deviations(own, saved, then, changed, before=before, over=True, began=began), failed(own, saved)
        except Exception as error:
            return [_not_judged(error)], failed(entries, None)

    def _how_it_ended(self, failed_cells: list[str]) -> tuple[str, str]:
        raised = getattr(sys, "last_value", None) if cells.shell() is None else None  # what ended a script
        if signals.requested():
            return "interrupted", signals.requested()
        if isinstance(raised, KeyboardInterrupt):
            return "interrupted", "Ctrl-C"
        if raised is not None:
            return "failed", f"{type(raised).__name__}: {raised}"
        return ("failed", f"{', '.join(failed_cells)} raised") if failed_cells else ("finished", "")

    def _label(self, explored: list[str]) -> None:
        if not explored:
            return
        try:
            labels = self.directory.read_manifest()["labels"]
            self.directory.update_manifest(labels=[*labels, "explored"], explored="; ".join(explored))
        except (OSError, FolderProblem) as error:
            print(f"labkit: the label `explored` could not be written: {error}", file=sys.stderr)


def _not_judged(error: Exception) -> str:
    """Returns a reason: whatever stands in its notebook, a run ends, and is not taken for a clean one."""
    return f"its journal could not be judged: {type(error).__name__}: {error!s:.200}"


def parameters_now(saved: Saved | None) -> dict[str, Any]:
    """Returns the parameters: the plain variables that the notebook's parameters cell declares.

    Where it has no such cell, they are all plain variables in upper case.
    """
    values = cells.values()
    if saved is not None and saved.parameters is not None:
        names = [name for name in parameter_names(saved, cells.history()) if name in values]
    else:
        names = [name for name in values if name.isupper()]
    return {name: values[name] for name in names if _is_plain(values[name])}


def _without_secrets(parameters: dict[str, Any]) -> dict[str, Any]:
    """Returns parameters for the record; a secret, read from the environment as it should be, is named and not said."""
    return {name: "not recorded: a secret" if is_secret(name, value) else value for name, value in parameters.items()}


def _is_plain(value: Any) -> bool:
    """Tells whether a record can say a value, so that it can be read back."""
    try:
        dumps(value)
        return not is_deep([[plain_json(value)]])  # it stands in an object in the manifest
    except Exception:  # such as integers of over 4300 digits, or what a class of the notebook's own raises
        return False


def record(path: Path, value: dict[str, Any]) -> bool:
    """Writes a record, or says that it could not be written; tells whether it was."""
    try:
        write_json(path, value)
    except OSError as error:
        print(f"labkit: {path} could not be written: {error}", file=sys.stderr)
        return False
    return True
