"""What a sweep has the workers of a Dask cluster do: look whether they suit it, execute a run, stop it.

    sweep ── scheduler ── Dask's worker ── a worker process of ours ── supervisor ── kernel

Dask only says who executes what. The run is owned as on one machine: when Dask's worker goes, or does not want the
run's result any more, the sockets below it close and everything leaves.
"""

from __future__ import annotations

import asyncio
import os
import platform
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import labkit
from labkit.errors import BadInput
from labkit.record.machine import SET_BY_LABKIT
from labkit.record.process import host
from labkit.record.rundir import RunDir
from labkit.workbench.notebooks import notebook
from labkit.workbench.running import job, outcome
from labkit.workbench.running.job import Job
from labkit.workbench.running.slots import THREADS, VISIBLE
from labkit.workbench.running.workers import WorkerGone, Workers

TICK_S = 0.25  # between two looks whether a run is still wanted
IDLE_S = 10.0  # after which a worker without a run ends the process that waits for the next one
WORKING = ("running", "paused", "closing_gracefully")  # states of Dask's workers whose tasks go on
NANNY_HASH_SEED = "6640"  # what Dask gives its workers where no hash seed is set


@dataclass(frozen=True)
class Expected:
    """What a sweep needs of each worker.

    Attributes:
        runs: The folder of runs.
        notebook: The notebook.
        sha256: The notebook's fingerprint.
        kernel: The kernel's name.
        versions: Of labkit, Python and torch, by name.
        mark: A folder in the folder of runs, made for this look.
        token: What stands in the file `sweep` there.
    """

    runs: str
    notebook: str
    sha256: str
    kernel: str
    versions: Mapping[str, str]
    mark: str = ""
    token: str = ""

    def sign(self, name: str) -> None:
        """Writes a worker's file beside the sweep's.

        Raises:
            OSError: It cannot be written.
        """
        Path(self.runs, self.mark, name).write_text(self.token)

    def is_signed(self, name: str) -> bool:
        """Tells whether a worker's, or the sweep's, file is here as it was written."""
        try:
            return Path(self.runs, self.mark, name).read_text() == self.token
        except FileNotFoundError:
            return False


@dataclass(frozen=True)
class Found:
    """What a worker is.

    Attributes:
        id: A name that no other worker has, at this address or another.
        host: Its machine.
        problems: Why the sweep cannot use it; it can where there are none.
    """

    id: str
    host: str
    problems: tuple[str, ...] = ()


def versions() -> dict[str, str]:
    """Returns what must be alike everywhere; of torch not the build, for a login node may have none for its workers."""
    try:
        torch = metadata.version("torch").partition("+")[0]
    except metadata.PackageNotFoundError:
        torch = "none"
    return {"labkit": labkit.__version__, "Python": ".".join(platform.python_version_tuple()[:2]), "torch": torch}


async def look(expected: Expected, dask_worker: Any = None) -> Found:
    """Looks whether this worker suits a sweep; Dask passes itself."""
    found = await asyncio.to_thread(lambda: tuple(_problems(expected, dask_worker.id)))
    return Found(dask_worker.id, host(), found)


def _problems(expected: Expected, name: str) -> Iterator[str]:
    for package, version in versions().items():
        if version != expected.versions.get(package):
            yield f"it has {package} {version}, the sweep {expected.versions.get(package)}"
    try:
        if not expected.is_signed("sweep"):
            there = "is another folder" if os.path.isdir(expected.runs) else "does not exist"
            yield f"{expected.runs} {there} there; mount the sweep's folder at the same path"
            return
        expected.sign(name)
    except OSError as error:
        yield f"{expected.runs} cannot be used there: {error.strerror or error}"
        return
    try:
        if notebook.read(Path(expected.notebook)).sha256 != expected.sha256:
            yield f"{expected.notebook} has other cells there"
        job.check_kernel(expected.kernel)
    except BadInput as error:
        yield str(error)


async def stop(run: RunDir, number: int, why: Mapping[str, Any] | None = None) -> bool | None:
    """Asks a run of this worker to stop at its next step; tells whether it was there to ask, None where it is over."""

    def ask() -> bool | None:
        return outcome.stop(run, number, why) or (None if run.process.exists() else False)

    return await asyncio.to_thread(ask)


def attend(worker_id: str, carry_out: Callable[[Job], Any], work: Job) -> Any:
    """Has a run executed, as a task of Dask's; returns what it came to.

    Raises:
        WorkerGone: The task has come to another worker than the one that it was given to, or nobody wants it any more.
            Dask does a lost task again by itself; a run is begun anew by its sweep alone.
    """
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def is_wanted() -> bool:
        task = worker.state.tasks.get(key)
        return worker.status.name in WORKING and task is not None and task.state == "executing"

    if worker.id != worker_id or work.directory.exit.exists():
        raise WorkerGone("the worker was started anew")
    with _room.entered(worker.state.nthreads, is_wanted) as workers:
        future = workers.submit(carry_out, work)
        while not wait([future], TICK_S).done:
            if not is_wanted():
                workers.kill()
                raise WorkerGone("Dask has given it up")
        return future.result()


def environment(threads: int, given: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that runs of a worker have set beyond its own.

    A run has the threads of its worker. Dask's nanny sets 1 in all of them, which nobody meant; other numbers stay.

    Args:
        threads: How many the worker has.
        given: The worker's environment.
    """
    found = {name: str(threads) for name in THREADS if given.get(name, "1") == "1"}
    found |= {VISIBLE: given[VISIBLE]} if VISIBLE in given else {}  # whatever GPU a notebook's kernel would take
    if given.get("PYTHONHASHSEED") == NANNY_HASH_SEED:
        found["PYTHONHASHSEED"] = SET_BY_LABKIT["PYTHONHASHSEED"]
    return found


class _Room:
    """The one place for a run in a worker, whichever sweeps ask for it."""

    def __init__(self) -> None:
        self._taken = threading.Lock()
        self._workers: Workers | None = None
        self._end: threading.Timer | None = None

    @contextmanager
    def entered(self, threads: int, is_wanted: Callable[[], bool]) -> Iterator[Workers]:
        """Waits until the place is free, and gives the process that executes."""
        while not self._taken.acquire(timeout=TICK_S):
            if not is_wanted():
                raise WorkerGone("Dask has given it up")
        try:
            if self._end is not None:
                self._end.cancel()
            if self._workers is None:
                self._workers = Workers([environment(threads, os.environ)])
            yield self._workers
        except BaseException:
            self._close()
            raise
        finally:
            self._end = threading.Timer(IDLE_S, self._leave)
            self._end.daemon = True
            self._end.start()
            self._taken.release()

    def _leave(self) -> None:
        if self._taken.acquire(blocking=False):
            self._close()
            self._taken.release()

    def _close(self) -> None:
        if self._workers is not None:
            self._workers.kill()
            self._workers = None


_room = _Room()
