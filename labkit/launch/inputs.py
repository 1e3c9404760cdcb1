"""Which data files a run reads, and what was in them: seen through Python's audit events, fingerprinted beside the run.

Seen is what Python opens, also for NumPy, pandas and PyTorch. Not seen is what a library opens by itself in C, as some
readers of Parquet and images do, and what other processes open. What the run itself has written is no data, whoever
wrote it; a file that it reads and then writes counts as it was read.
"""

from __future__ import annotations

import math
import os
import re
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.record.files import read_json, write_json
from labkit.record.rundir import RunDir
from labkit.record.secret import names_secret

if TYPE_CHECKING:
    from labkit.record.fingerprints import Known

MOST = 100_000  # files; what is beyond is counted only
PAUSE_S = 1.0  # between what is seen and its fingerprint, so that the start of a run is not held up
SLICE_S = (
    0.02  # of each such pause, for fingerprints: many small files hold the notebook up; what is left comes at the end
)
GUESSED_BYTES = 2**16  # what a short file holds can be guessed by its fingerprint, as a password
KEPT_BYTES = 2**28  # larger files are not fingerprinted while somebody waits to write them
WRITING = 0.02  # the most of the time that writing the record may take
NOT_OF_CELLS = ("requirements.lock", "pyproject.toml")  # labkit reads them itself
CODE = (".py", ".pyc", ".pyd", ".so", ".ipynb")
NO_DATA = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/", "/lib/", "/lib64/", "/run/", "/var/lib/", "/var/cache/")
INSTALLED = re.compile(r"/site-packages/|/dist-packages/|\.(?:dist|egg)-info/")
DATA_ANYWHERE = (".cache",)  # hidden folders in which data sets and weights are kept
NO_CACHED_DATA = ("matplotlib", "fontconfig", "pip", "labkit", "torch_extensions", "torchinductor", "jedi", "mypy")


class Seen:
    """The files that this process opened.

    Attributes:
        read: Those that were read before they were written; `order` has them in order.
        written: Those that were written before they were read.
        more: How many others were read.
        before_write: Called with the path of one that was read and will now be written.
    """

    def __init__(self) -> None:
        self.read: set[str] = set()
        self.order: list[str] = []
        self.written: set[str] = set()
        self.more = 0
        self._folder, self._short = "", set[str]()  # the working directory, and what was read by a name from there
        self.before_write: Callable[[str], object] = lambda path: None

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        """Takes an audit event; never fails, and costs next to nothing."""
        if event == "os.rename":  # also os.replace
            if args[2] < 0 and args[3] < 0:  # else they mean other folders than the working directory
                self.written.discard(args[0])  # a name beside, which nobody reads
                self._take(args[1], is_written=True)
        elif event == "open":
            path, mode, flags = args
            # os.open may mean another folder too
            if mode is not None or (type(path) is str and path[:1] == "/"):
                self._take(path, _is_written(mode, flags))

    def _take(self, path: Any, is_written: bool) -> None:
        if type(path) is not str:
            if not isinstance(path, os.PathLike | bytes):
                return  # a descriptor
            path = os.fsdecode(path)
        if path[:1] != "/":
            try:
                folder = os.getcwd()
            except OSError:  # it is gone; an error here would be one of who opens the file
                return
            if folder != self._folder:
                self._folder, self._short = folder, set()
            if not is_written:
                if path in self._short:
                    return
                self._short.add(path)
            path = os.path.normpath(f"{folder}/{path}")
        if is_written:
            if path in self.read:
                self.before_write(path)
            else:
                self.written.add(path)
        elif path not in self.read and path not in self.written:
            if len(self.read) >= MOST:
                self.more += 1
            elif not path.startswith(_installed()):
                self.read.add(path)
                self.order.append(path)


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
        self._known: Known | None = None
        self._place = 0  # in the order of what was read
        self._began_s = _began_s(run)
        self._write_after_s = 0.0
        self._lock = threading.RLock()
        self._ended = threading.Event()
        if seen is not None:
            seen.before_write = self._keep_now
        threading.Thread(target=self._follow, name="labkit-inputs", daemon=True).start()

    def _follow(self) -> None:
        while not self._ended.wait(PAUSE_S):
            self._catch_up(time.monotonic() + SLICE_S, threads=1)

    def end(self) -> None:
        """Fingerprints what is left, and writes it down, also that there is nothing."""
        self._ended.set()
        self._catch_up(math.inf, threads=None)
        with self._lock:
            self._write()

    def _catch_up(self, until: float, threads: int | None) -> None:
        if seen is None or self._place == len(seen.order):
            return
        with self._lock:
            while self._place < len(seen.order) and time.monotonic() < until:
                path = seen.order[self._place]
                self._place += 1
                if path not in self._known_of and self._is_data(path):
                    self._look_at(path, threads)
            if self._known is not None:
                self._known.save()
            if time.monotonic() >= self._write_after_s and not self._ended.is_set():
                self._write()

    def _keep_now(self, path: str) -> None:
        """Fingerprints a file that is about to be written; an error here would be one of who writes."""
        with suppress(Exception):
            if path in self._known_of or not self._is_data(path):
                return
            with self._lock:
                if path in self._known_of:
                    return
                if os.path.getsize(path) <= KEPT_BYTES:
                    self._look_at(path, threads=None)
                else:
                    self._known_of.add(path)
                    self._problems[self._name(path)] = "it was written after it was read"

    def _look_at(self, path: str, threads: int | None) -> None:
        from labkit.record.fingerprints import Known

        assert seen is not None
        self._known_of.add(path)
        if self._known is None:
            self._known = Known(self._runs)
        try:
            facts = os.stat(path)
            if path in seen.written or max(facts.st_mtime, facts.st_ctime) > self._began_s:
                return  # the run wrote it, or a library or another process did for it
            if facts.st_size <= GUESSED_BYTES and names_secret(path):
                self._problems[self._name(path)] = "it may hold a password or a key"
                return
            found, size = self._known.of_file(path, threads)
            self._facts[self._name(path)] = {"blake3": found, "bytes": size}
        except (OSError, ValueError) as error:  # a name that no file can have is opened too, in vain
            if os.path.isfile(path):
                self._problems[self._name(path)] = getattr(error, "strerror", None) or str(error)

    def _name(self, path: str) -> str:
        return path[len(self._root) + 1 :] if path.startswith(self._root + os.sep) else path

    def _write(self) -> None:
        begun = time.monotonic()
        more = seen.more if seen is not None else 0
        left_out = self._problems | ({"more": f"{more} further files"} if more else {})
        with suppress(OSError):  # what is missing in the record is unknown to who reproduces it
            write_json(self._run.inputs, {"files": self._facts, "left_out": left_out}, durable=False)
        now = time.monotonic()
        self._write_after_s = now + (now - begun) / WRITING

    def _is_data(self, path: str) -> bool:
        if path.endswith(CODE) or path.startswith(str(self._runs) + os.sep) or INSTALLED.search(path):
            return False
        if path.startswith(self._root + os.sep):
            inside = path[len(self._root) + 1 :]
            return inside not in NOT_OF_CELLS and not inside.startswith((".git/", ".venv/"))
        if path.startswith((*NO_DATA, _temporary(), *_caches())):
            return False
        parts = Path(path).parts
        hidden = [part for part in parts if part.startswith(".") and part not in DATA_ANYWHERE]
        return not hidden and not (set(parts) & set(DATA_ANYWHERE) and set(parts) & set(NO_CACHED_DATA))


def _began_s(run: RunDir) -> float:
    """Returns when a run began, its first attempt: what is newer is no data, but made by the run."""
    first = read_json(RunDir(run.path, 1).process) or {} if run.attempt.name != "1" else {}
    started_s = first.get("started_s")
    return started_s if isinstance(started_s, float) else time.time()


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
def _caches() -> tuple[str, ...]:
    """Returns the folders of caches without data that the user put elsewhere."""
    caches, fonts = (os.environ.get(name) or "" for name in ("XDG_CACHE_HOME", "MPLCONFIGDIR"))
    folders = [os.path.join(caches, name) for name in NO_CACHED_DATA if caches]
    return tuple(os.path.abspath(folder) + os.sep for folder in [*folders, fonts] if folder)


@cache
def _installed() -> tuple[str, ...]:
    """Returns the folders of Python and of installed packages."""
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {*map(sysconfig.get_path, kinds), sys.prefix, sys.base_prefix}
    return tuple(folder + os.sep for folder in folders if folder)
