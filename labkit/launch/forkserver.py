"""A server with PyTorch imported and nothing computed, which forks supervisors that fork warm kernels.

    who asks ── channel ── supervisor ── kernel        the server is the supervisor's parent, and not in the way

A server outlives whoever had it started, and stays until its last supervisor has ended: what a killed one leaves comes
to the server, as the orphans below it do, and is ended there.

It imports by name what a notebook would, and what the first optimizer would. It runs no tensor operation: after one in
the parent, the first parallel operation of a fork hangs. Threads that libraries started while they were imported must
be such that survive a fork; with any other it refuses to serve.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import runpy
import selectors
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.launch import leaving, processes
from labkit.launch.supervise import Start, Supervisor
from labkit.launch.warm import LAUNCHERS, stop_least_used
from labkit.record.given import INLINE
from labkit.record.process import Process, call_itself, is_detached

# Not `labkit.launch.kernel`, which a fork executes as its `__main__`: what it imports is there.
PRELOADED = """
    numpy pandas torch torch._dynamo torch._inductor.config torch.optim torch.utils.data torch.nn.functional
    matplotlib matplotlib.pyplot matplotlib_inline.backend_inline matplotlib.backends.backend_agg
    debugpy IPython IPython.core.pylabtools IPython.core.completerlib IPython.core.debugger IPython.core.oinspect
    IPython.extensions.storemagic IPython.utils.wildcard tornado.platform.asyncio
    ipykernel.kernelapp ipykernel.ipkernel ipykernel.inprocess ipykernel.debugger
    comm ipywidgets tqdm.auto sklearn.datasets sklearn.model_selection sklearn.metrics
    labkit.kernel.run labkit.kernel.training labkit.kernel.data labkit.kernel.loading labkit.kernel.environment
    labkit.kernel.figures labkit.kernel.determinism labkit.kernel.datasets labkit.kernel.trainingstate
    labkit.kernel.machine labkit.kernel.prints labkit.kernel.tables labkit.kernel.layers
    labkit.launch.capture labkit.launch.inputs labkit.launch.signals labkit.record.provenance
""".split()
MESSAGE_BYTES = 2**16


def main(arguments: list[str]) -> None:
    """Serves until nobody has asked for anything for a while: `SOCKET LOCK IDLE_S`."""
    path, lock, idle_s = Path(arguments[0]), int(arguments[1]), float(arguments[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    door = Door.at(path, lock, path.with_suffix(f".{os.getpid()}"))
    try:
        preload()
        refusal = unsafe_threads()
        if refusal:
            print(f"no warm kernels: {refusal}", flush=True)
            time.sleep(min(60.0, idle_s))  # the lock is held meanwhile: not everybody who asks starts it again
        elif door.open():
            stop_least_used(besides=path)
            Server(door, idle_s).serve()
    finally:
        door.close()


@dataclass
class Door:
    """The socket at which a server is asked, with the lock that keeps others from starting another one.

    Both may have been taken away meanwhile, and another server's may lie in their place: that is left alone.

    Attributes:
        path: The socket that others know.
        lock: The descriptor of the lock.
        beside: Where the socket lies until the server is ready.
        listener: The socket itself.
        made: What the socket was when it was made.
    """

    path: Path
    lock: int
    beside: Path
    listener: socket.socket
    made: os.stat_result

    @classmethod
    def at(cls, path: Path, lock: int, beside: Path) -> Door:
        """Returns a door that is still closed."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(beside))
        os.chmod(beside, 0o600)
        listener.listen(64)
        return cls(path, lock, beside, listener, os.lstat(beside))

    def open(self) -> bool:
        """Lets others ask; tells whether they may: not where all servers were asked to end meanwhile."""
        if not _is(self.path.with_suffix(".lock"), os.fstat(self.lock)):
            return False
        os.rename(self.beside, self.path)
        return True

    def close(self) -> None:
        """Takes away what is this server's, so that whoever asks next starts another one."""
        if self.listener.fileno() < 0:
            return
        lock, log = (self.path.with_suffix(ending) for ending in (".lock", ".log"))
        for path in (self.beside, self.path):
            if _is(path, self.made):
                path.unlink(missing_ok=True)
        if _is(lock, os.fstat(self.lock)):
            with suppress(OSError):
                if not log.stat().st_size:
                    log.unlink()
            lock.unlink(missing_ok=True)
        self.listener.close()
        os.close(self.lock)


def _is(path: Path, known: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.lstat(path), known)
    except OSError:
        return False


def preload() -> None:
    """Imports what kernels will want; what is not installed is left out."""
    os.environ.setdefault("MPLBACKEND", INLINE)
    gc.disable()  # it would look through all that is imported again and again
    for name in PRELOADED:
        with suppress(ImportError):
            importlib.import_module(name)
    if "matplotlib" in sys.modules:
        _read_before[:] = _settings_file(sys.modules["matplotlib"])
    gc.freeze()  # what is here is taken for no garbage: a fork that looked through it would copy it
    gc.enable()


def unsafe_threads() -> str:
    """Returns why a fork of this process would not be safe; empty where it is.

    OpenBLAS ends its threads before a fork and starts them again after it; any other thread would be missing in the
    child, and what it held locked would stay so.
    """
    from threadpoolctl import threadpool_info

    pools = threadpool_info()
    known = sum(one["num_threads"] - 1 for one in pools if one["internal_api"] == "openblas")
    count = len(os.listdir("/proc/self/task"))
    return f"{count - 1} threads after the imports, {known} of them OpenBLAS's" if count - 1 > known else ""


class Server:
    """Forks a supervisor for whoever asks, and ends when nobody does."""

    def __init__(self, door: Door, idle_s: float) -> None:
        self._door, self._idle_s = door, idle_s
        self._supervisors: set[int] = set()
        self._stopping = False

    def serve(self) -> None:
        """Answers requests until it has been idle, or is asked to stop; then stays until its supervisors have ended."""
        processes.adopt_orphans()  # what a killed supervisor leaves comes here, and is ended
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._door.listener, selectors.EVENT_READ, self._answer)
            selector.register(reader, selectors.EVENT_READ, lambda: self._reap(reader))
            asked = time.monotonic()
            while not self._stopping and (self._supervisors or time.monotonic() - asked < self._idle_s):
                for key, _ in selector.select(min(5.0, self._idle_s)):
                    key.data()
                    asked = time.monotonic()
                self._end_orphans()
            selector.unregister(self._door.listener)
            self._door.close()
            while self._end_orphans() or self._supervisors:
                for key, _ in selector.select(5.0):
                    key.data()

    def _stop(self) -> None:
        self._stopping = True

    def _answer(self) -> None:
        connection, _ = self._door.listener.accept()
        with connection:
            connection.settimeout(2.0)
            pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid != os.getuid():
                return
            try:
                data, fds, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, 3)
            except OSError:
                return
            if data == b"stop":
                self._stopping = True
                connection.sendall(b"stopping\n")
            elif len(fds) == 3:
                self._fork(connection, pid, json.loads(data), fds)
            for fd in fds:
                os.close(fd)

    def _fork(self, connection: socket.socket, asked_by: int, request: dict[str, Any], fds: list[int]) -> None:
        child = os.fork()
        if child:
            self._supervisors.add(child)
            with suppress(OSError):
                connection.sendall(b"forked\n")
                os.utime(self._door.path)  # the servers that were not asked for longest leave first
            return
        _as_fork(lambda: self._supervise(connection, asked_by, request, fds))

    def _supervise(self, connection: socket.socket, asked_by: int, request: dict[str, Any], fds: list[int]) -> None:
        """Becomes a supervisor, as one that was started with a command."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(fds[1], 1)
        os.dup2(fds[2], 2)
        channel = socket.socket(fileno=os.dup(fds[0]))
        _close_all_but(channel.fileno())
        os.chdir(request["cwd"])
        os.umask(request["umask"])
        _limit(request["limits"])
        processes.adopt_orphans()
        Supervisor(channel, Process.of(asked_by), spawn=fork_kernel).serve()

    def _reap(self, reader: socket.socket) -> None:
        with suppress(BlockingIOError):
            reader.recv(4096)
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            self._supervisors.discard(pid)

    def _end_orphans(self) -> bool:
        """Ends what a supervisor that was killed has left, and tells whether there was any.

        It came to this process, as every orphan below it does.
        """
        orphans = [pid for pid in _children() - self._supervisors if not is_detached(pid)]
        for pid in orphans:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        return bool(orphans)


def fork_kernel(start: Start) -> int:
    """Forks a kernel, in the place of a command that would start one, and returns its process id.

    Raises:
        OSError: It cannot be forked, or this is no kernel that a fork can become.
    """
    module = start.argv[2] if len(start.argv) > 2 and start.argv[1] == "-m" else ""
    if module not in LAUNCHERS:
        return processes.spawn(start.argv, start.env, start.cwd, start.log)
    output = os.open(start.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666) if start.log else None
    parent = os.getpid()
    child = os.fork()
    if child:
        if output is not None:
            os.close(output)
        return child
    _as_fork(lambda: _become_kernel(start, module, output, parent), leaving.leave)
    raise AssertionError  # it has left


def _become_kernel(start: Start, module: str, output: int | None, parent: int) -> None:
    """Sets all that a new process would have from its start, and runs the kernel's module."""
    os.setsid()
    call_itself(os.path.basename(start.argv[0]))
    signal.set_wakeup_fd(-1)
    for number in (*processes.STOP_SIGNALS, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    processes.end_with(parent)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    if output is not None:
        os.dup2(output, 1)
        os.dup2(output, 2)
    _close_all_but()
    set_by_debugger = {name: value for name, value in os.environ.items() if name.startswith("PYDEVD_")}
    os.environ.clear()
    os.environ.update(set_by_debugger | start.env)  # the former as its import does in a cold kernel
    os.chdir(start.cwd)
    time.tzset()
    tempfile.tempdir = None
    importlib.invalidate_caches()
    reseed()
    read_settings()
    sys.executable = shutil.which(start.argv[0]) or sys.executable
    sys.argv, sys.orig_argv = [module, *start.argv[3:]], list(start.argv)
    if not sys.flags.safe_path:
        sys.path.insert(0, os.getcwd())  # as `-m` does; each launcher takes it away again in its own way
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    leaving.spare_sockets(sys.modules["ipykernel.kernelapp"].IPKernelApp.instance())


def reseed() -> None:
    """Seeds the global generators from the system, as a new process does: else all forks would draw the same."""
    import random

    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].seed()


def read_settings() -> None:
    """Reads matplotlib's settings as its import would here: a file may lie beside the notebook, or have changed."""
    matplotlib = sys.modules.get("matplotlib")
    if matplotlib is None or _settings_file(matplotlib) == _read_before:
        return
    with warnings.catch_warnings(action="ignore"):  # some settings are on their way out
        found = dict(matplotlib.rc_params_from_file(matplotlib.matplotlib_fname()))
        matplotlib.rcParamsOrig.update(found)
        found.pop("backend", None)  # MPLBACKEND says it
        matplotlib.rcParams.update(found)


_read_before: list[Any] = []


def _settings_file(matplotlib: Any) -> list[Any]:
    """Returns which file of settings matplotlib finds, and when it was last changed."""
    path = matplotlib.matplotlib_fname()
    return [os.path.realpath(path), os.stat(path).st_mtime_ns]


def _as_fork(act: Callable[[], None], leave: Callable[[int], None] = os._exit) -> None:
    """Does something in a forked process, which never comes back from it: it leaves, with or without its exit hooks."""
    code = 1
    try:
        act()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        leave(code)


def _close_all_but(*kept: int) -> None:
    """Closes all descriptors but the standard ones and these."""
    previous = 2
    for fd in sorted(kept):
        os.closerange(previous + 1, fd)
        previous = fd
    os.closerange(previous + 1, max(map(int, os.listdir("/proc/self/fd")), default=previous) + 2)


def _limit(soft: dict[str, int]) -> None:
    for name, value in soft.items():
        number = getattr(resource, f"RLIMIT_{name}")
        with suppress(OSError, ValueError):
            resource.setrlimit(number, (value, resource.getrlimit(number)[1]))


def _children() -> set[int]:
    try:
        text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    except OSError:
        return set()
    return set(map(int, text.split()))
