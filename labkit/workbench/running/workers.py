"""Worker processes that stay: each imports everything once and then executes one function after the other.

    sweep ─┬─ nursery ── worker, worker, …      the nursery imports everything and forks workers
           └─ a socket to each worker

The nursery has one thread and starts nothing else, so that its forks are safe. A worker that dies takes only its own
call with it and is replaced. When the sweep goes away, however it does, the sockets close and all of them leave.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from multiprocessing.connection import Connection
from typing import Any

from labkit.launch.channel import SLOT
from labkit.record.given import GIVEN, noted, restored

REQUEST_BYTES = 2**16
Call = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class WorkerGone(Exception):
    """The worker that executed a call has died: killed from outside, or out of memory."""


class Workers(Executor):
    """Executes calls in worker processes of this machine, one call at a time in each.

    Args:
        environments: For each worker the variables that its process, and all that it starts, has set.
        many: There will be more calls than workers: a server of warm kernels is started with the first of them.
    """

    def __init__(self, environments: Sequence[Mapping[str, str]], *, many: bool = False) -> None:
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        places = [_as_place(environment) for environment in environments]
        self._nursery = _Nursery(places[0], many)
        self._lines = [_Line(self._nursery, place) for place in places]
        self._threads = [
            threading.Thread(target=line.serve, args=(self._calls,), name=f"worker {number}", daemon=True)
            for number, line in enumerate(self._lines, 1)
        ]
        self._closed = False
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Has a worker call a function, as soon as one is idle."""
        if self._closed:
            raise RuntimeError("these workers have been shut down")
        future: Future[Any] = Future()
        self._calls.put((future, fn, args, kwargs))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Lets the workers leave when they have done what was submitted; or only what they are at."""
        if cancel_futures:
            self._cancel_waiting()
        if not self._closed:
            self._closed = True
            for _ in self._threads:
                self._calls.put(None)
        if wait:
            for thread in self._threads:
                thread.join()
            self._nursery.close()

    def kill(self) -> None:
        """Ends all workers at once; the supervisors of their runs end the rest within seconds."""
        self._closed = True
        self._cancel_waiting()
        for _ in self._threads:
            self._calls.put(None)
        for line in self._lines:
            line.cut()
        self._nursery.close()

    def _cancel_waiting(self) -> None:
        while True:
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                return
            if call is not None:
                call[0].cancel()

    def __exit__(self, kind: Any, *_: object) -> None:
        self.kill() if kind is not None else self.shutdown()


def _as_place(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns a place's variables with the word that they hold for every kernel in it, and what there was before."""
    return {
        **environment,
        SLOT: " ".join(environment),
        GIVEN: noted(restored(os.environ), {**os.environ, **environment}),
    }


class _Nursery:
    """The process that forks workers; started again where it has died."""

    def __init__(self, environment: Mapping[str, str], many: bool) -> None:
        self._lock = threading.Lock()
        self._environment = {**os.environ, **environment}
        self._many = many
        self._door = self._start()

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "labkit.workbench.running.workers",
                    str(theirs.fileno()),
                    *["many"] * self._many,
                ],
                env=self._environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a terminal's Ctrl-C is for the sweep alone
            )
        process.returncode = 0  # it leaves when its door closes
        return ours

    def fork(self, environment: Mapping[str, str]) -> socket.socket:
        """Returns the socket to a new worker."""
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            request = json.dumps(dict(environment)).encode()
            try:
                socket.send_fds(self._door, [request], [theirs.fileno()])
            except OSError:
                self._door.close()
                self._door = self._start()
                socket.send_fds(self._door, [request], [theirs.fileno()])
        return ours

    def close(self) -> None:
        with self._lock:
            self._door.close()


class _Line:
    """The way to one worker, which a thread of the sweep's process serves."""

    def __init__(self, nursery: _Nursery, environment: dict[str, str]) -> None:
        self._nursery = nursery
        self._environment = environment
        self._socket: socket.socket | None = None
        self._connection: Connection | None = None

    def serve(self, calls: queue.SimpleQueue[Call | None]) -> None:
        """Passes calls on until there is None."""
        while (call := calls.get()) is not None:
            future, fn, args, kwargs = call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                is_good, value = self._ask((fn, args, kwargs))
            except (EOFError, OSError) as error:
                self.cut()
                future.set_exception(WorkerGone(f"its worker died ({type(error).__name__})"))
            except Exception as error:  # what cannot be pickled
                future.set_exception(error)
            else:
                future.set_result(value) if is_good else future.set_exception(value)
        self.cut()

    def _ask(self, call: Any) -> Any:
        if self._connection is None:
            self._socket = self._nursery.fork(self._environment)
            self._connection = Connection(os.dup(self._socket.fileno()))
        self._connection.send(call)
        return self._connection.recv()

    def cut(self) -> None:
        """Closes the way, at which the worker leaves."""
        line, self._socket, self._connection = self._socket, None, None
        if line is not None:
            try:
                line.shutdown(socket.SHUT_RDWR)  # wakes who reads
            except OSError:
                pass
            line.close()


# in the nursery's process, and in the workers'


def nurse(door: socket.socket, many: bool) -> None:
    """Forks a worker for each request, until the door closes."""
    if many:
        from labkit.workbench.running import outcome

        outcome.begin_server()  # it imports torch while this process imports what it needs
    _import_everything()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # workers that ended leave nothing to wait for
    while True:
        request, fds, *_ = socket.recv_fds(door, REQUEST_BYTES, 1)
        if not request:
            return
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            door.close()
            os.environ.update(json.loads(request))
            work(fds[0])
        os.close(fds[0])


def _import_everything() -> None:
    """Imports what executing a run and writing its report need; nothing that starts a thread."""
    import jupyter_client.manager  # noqa: F401
    import papermill.execute  # noqa: F401
    import zmq.asyncio  # noqa: F401

    from labkit.launch import provisioner  # noqa: F401
    from labkit.workbench.pages import report, reports  # noqa: F401
    from labkit.workbench.running import engine, execute, outcome  # noqa: F401


def work(fd: int) -> None:
    """Executes calls that come over a socket, until it closes; does not return."""
    threading.Thread(target=_leave_with_the_sweep, args=(os.dup(fd),), daemon=True).start()
    line = Connection(fd)
    try:
        while True:
            fn, args, kwargs = line.recv()
            try:
                answer = (True, fn(*args, **kwargs))
            except Exception as error:
                answer = (False, RuntimeError(f"{type(error).__name__}: {error}"))
            line.send(answer)
    except (EOFError, OSError):
        os._exit(0)


def _leave_with_the_sweep(fd: int) -> None:
    """Ends this process as soon as the other end of a socket is closed, whatever it is doing."""
    watcher = select.poll()
    watcher.register(fd, select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0))
    watcher.poll()
    os._exit(0)


if __name__ == "__main__":
    from labkit.workbench.running import workers  # what is pickled must not be of `__main__`

    workers.nurse(socket.socket(fileno=int(sys.argv[1])), "many" in sys.argv)
