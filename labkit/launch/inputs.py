"""Which data files a run reads, and what was in them: seen through Python's audit events, fingerprinted beside the run.

Seen is what Python opens, also for NumPy, pandas and PyTorch. Not seen is what a library opens by itself in C, as some
readers of Parquet and images do, and what other processes open.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from labkit.record.files import write_json
from labkit.record.rundir import RunDir

MOST = 100_000  # files; what is beyond is counted only
PAUSE_S = 1.0  # between what is seen and its fingerprint, so that the start of a run is not held up
NOT_OF_CELLS = ("requirements.lock", "pyproject.toml")  # labkit reads them itself
CODE = (".py", ".pyc", ".pyd", ".so", ".ipynb")
NO_DATA = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/", "/lib/", "/lib64/", "/run/", "/var/lib/", "/var/cache/")
INSTALLED = re.compile(r"/site-packages/|/dist-packages/|\.(?:dist|egg)-info/")
DATA_ANYWHERE = (".cache",)  # hidden folders in which data sets and weights are kept
NO_CACHED_DATA = ("matplotlib", "fontconfig", "pip", "labkit", "torch_extensions", "torchinductor", "jedi", "mypy")


class Seen:
    """The files that this process opened."""

    def __init__(self) -> None:
        self.read: dict[str, None] = {}
        self.written: set[str] = set()
        self.more = 0

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        """Takes an audit event; never fails, and costs next to nothing."""
        if event != "open":
            return
        path, mode, flags = args
        if type(path) is not str:
            if not isinstance(path, os.PathLike | bytes):
                return  # a descriptor
            path = os.fsdecode(path)
        if path[:1] != "/":
            if mode is None:  # os.open, which may mean another folder than the working directory
                return
            try:
                path = os.path.abspath(path)
            except OSError:  # the working directory is gone; an error here would be one of who opens the file
                return
        if _is_written(mode, flags):
            if path not in self.read:
                self.written.add(path)
        elif path not in self.read and path not in self.written:
            if len(self.read) >= MOST:
                self.more += 1
            elif not path.startswith(_installed()):
                self.read[path] = None


def _is_written(mode: Any, flags: Any) -> bool:
    if isinstance(mode, str):
        return not mode.startswith("r") or "+" in mode
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))


seen: Seen | None = None


def watch() -> None:
    """Begins to look at what this process opens; a hook cannot be taken out again, so there is one."""
    global seen
    if seen is None:
        seen = Seen()
        sys.addaudithook(seen.hook)


class Inputs:
    """Fingerprints of the data files that a run reads, in its record.

    Args:
        run: The run.
        root: The lab.
        runs: The folder of runs: what lies in there is no data, and what is known of files is kept there.
    """

    def __init__(self, run: RunDir, root: Path, runs: Path) -> None:
        self._run, self._root, self._runs = run, str(root), runs
        self._known_of: set[str] = set()
        self._facts: dict[str, dict[str, Any]] = {}
        self._problems: dict[str, str] = {}
        self._known: Any = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._follow, name="labkit-inputs", daemon=True).start()

    def _follow(self) -> None:
        while not self._ended.wait(PAUSE_S):
            self._catch_up(threads=1)

    def end(self) -> None:
        """Fingerprints what is left, and writes it down."""
        self._ended.set()
        self._catch_up(threads=None)

    def _catch_up(self, threads: int | None) -> None:
        if seen is None:
            return
        with self._lock:
            new = [path for path in list(seen.read) if path not in self._known_of and self._is_data(path)]
            self._known_of.update(new)
            if new:
                self._look_at(new, threads)

    def _look_at(self, paths: list[str], threads: int | None) -> None:
        from labkit.record.fingerprints import Known

        assert seen is not None
        if self._known is None:
            self._known = Known(self._runs, threads)
        for path in paths:
            if path in seen.written:
                continue
            name = os.path.relpath(path, self._root) if path.startswith(self._root + os.sep) else path
            try:
                found, size = self._known.of_file(Path(path))
                self._facts[name] = {"blake3": found, "bytes": size}
            except OSError as error:
                if os.path.exists(path) and os.path.isfile(path):
                    self._problems[name] = error.strerror or str(error)
        left_out = self._problems | ({"more": f"{seen.more} further files"} if seen.more else {})
        try:
            write_json(self._run.inputs, {"files": self._facts, "left_out": left_out}, durable=False)
        except OSError:
            pass  # what is missing in the record is unknown to who reproduces it

    def _is_data(self, path: str) -> bool:
        if path.endswith(CODE) or path.startswith(str(self._runs) + os.sep) or INSTALLED.search(path):
            return False
        if path.startswith(self._root + os.sep):
            inside = path[len(self._root) + 1 :]
            return inside not in NOT_OF_CELLS and not inside.startswith((".git/", ".venv/"))
        if path.startswith(NO_DATA) or path.startswith(_temporary()):
            return False
        parts = Path(path).parts
        hidden = [part for part in parts if part.startswith(".") and part not in DATA_ANYWHERE]
        return not hidden and not (set(parts) & set(DATA_ANYWHERE) and set(parts) & set(NO_CACHED_DATA))


def add(paths: Iterable[str]) -> None:
    """Takes files for data of the run that other processes read, as the workers of a loader do."""
    if seen is not None:
        for path in paths:
            seen.hook("open", (path, "r", 0))


def scripts(root: Path) -> dict[str, Path]:
    """Returns the files of Python code in a lab that were read, as `%run` does, by their path inside."""
    inside = str(root) + os.sep
    found = (path for path in (list(seen.read) if seen is not None else ()) if path.endswith(".py"))
    return {os.path.relpath(path, root): Path(path) for path in found if path.startswith(inside)}


@cache
def _temporary() -> str:
    return os.path.join(tempfile.gettempdir(), "labkit-")


@cache
def _installed() -> tuple[str, ...]:
    """Returns the folders of Python and of installed packages."""
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {*map(sysconfig.get_path, kinds), sys.prefix, sys.base_prefix}
    return tuple(folder + os.sep for folder in folders if folder)
