"""A server with PyTorch imported and nothing computed, which forks supervisors that fork warm kernels.

    who asks ── channel ── supervisor ── kernel        the server is the supervisor's parent, and not in the way

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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from labkit.launch import processes
from labkit.launch.supervise import Start, Supervisor
from labkit.launch.warm import LAUNCHERS
from labkit.record.process import Process, is_detached

INLINE = "module://matplotlib_inline.backend_inline"  # what a kernel sets before matplotlib is imported
PRELOADED = """
    numpy pandas torch torch._dynamo torch._inductor.config torch.optim torch.utils.data torch.nn.functional
    matplotlib matplotlib.pyplot matplotlib_inline.backend_inline matplotlib.backends.backend_agg
    debugpy IPython IPython.core.pylabtools ipykernel.kernelapp ipykernel.ipkernel ipykernel.inprocess
    comm ipywidgets tqdm.auto sklearn.datasets sklearn.model_selection sklearn.metrics
    labkit.kernel.run labkit.kernel.training labkit.kernel.data labkit.kernel.loading labkit.kernel.environment
    labkit.kernel.figures labkit.kernel.determinism labkit.kernel.datasets labkit.kernel.trainingstate
    labkit.kernel.machine labkit.kernel.prints labkit.kernel.tables labkit.kernel.layers labkit.launch.kernel
""".split()
MESSAGE_BYTES = 2**16


def main(arguments: list[str]) -> None:
    """Serves until nobody has asked for anything for a while: `SOCKET LOCK IDLE_S`."""
    path, lock, idle_s = Path(arguments[0]), int(arguments[1]), float(arguments[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    beside = path.with_suffix(f".{os.getpid()}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(beside))
    os.chmod(beside, 0o600)
    listener.listen(64)
    try:
        preload()
        refusal = unsafe_threads()
        if refusal:
            print(f"no warm kernels: {refusal}", flush=True)
            time.sleep(min(60.0, idle_s))  # the lock is held meanwhile: not everybody who asks starts it again
            return
        if not path.with_suffix(".lock").exists():
            return  # all servers were asked to end meanwhile
        os.rename(beside, path)
        Server(listener, lock, idle_s).serve()
    finally:
        beside.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        for ending in (".lock", *([".log"] if _is_empty(path.with_suffix(".log")) else [])):
            path.with_suffix(ending).unlink(missing_ok=True)


def _is_empty(path: Path) -> bool:
    return path.exists() and not path.stat().st_size


def preload() -> None:
    """Imports what kernels will want; what is not installed is left out."""
    os.environ.setdefault("MPLBACKEND", INLINE)
    for name in PRELOADED:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is here is never garbage, and a fork that looked through it would copy it


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

    def __init__(self, listener: socket.socket, lock: int, idle_s: float) -> None:
        self._listener, self._lock, self._idle_s = listener, lock, idle_s
        self._supervisors: set[int] = set()
        self._stopping = False

    def serve(self) -> None:
        """Answers requests until it has been idle, or is asked to stop."""
        processes.adopt_orphans()  # what a killed supervisor leaves comes here, and is ended
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ, self._answer)
            selector.register(reader, selectors.EVENT_READ, lambda: self._reap(reader))
            asked = time.monotonic()
            while not self._stopping and time.monotonic() - asked < self._idle_s:
                for key, _ in selector.select(min(5.0, self._idle_s)):
                    key.data()
                    asked = time.monotonic()
                self._end_orphans()

    def _stop(self) -> None:
        self._stopping = True

    def _answer(self) -> None:
        connection, _ = self._listener.accept()
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

    def _end_orphans(self) -> None:
        """Ends what a supervisor that was killed has left: it came to this process, as every orphan below it does."""
        for pid in _children() - self._supervisors:
            if not is_detached(pid):
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)


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
    _as_fork(lambda: _become_kernel(start, module, output, parent))
    raise AssertionError  # it has left


def _become_kernel(start: Start, module: str, output: int | None, parent: int) -> None:
    """Sets all that a new process would have from its start, and runs the kernel's module."""
    os.setsid()
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
    os.environ.clear()
    os.environ.update(start.env)
    os.chdir(start.cwd)
    time.tzset()
    tempfile.tempdir = None
    importlib.invalidate_caches()
    reseed()
    sys.executable = shutil.which(start.argv[0]) or sys.executable
    sys.argv = [module, *start.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def reseed() -> None:
    """Seeds the global generators from the system, as a new process does: else all forks would draw the same."""
    import random

    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].seed()


def _as_fork(act: Callable[[], None]) -> None:
    """Does something in a forked process, which never comes back from it."""
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
        os._exit(code)


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
