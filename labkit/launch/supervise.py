"""The supervisor: a small process that owns every process of a run.

It is the kernel's parent and a child subreaper, so that whatever the kernel starts, detached or not, ends up below it.
It holds a channel to the runner, the process that drives papermill. When the runner goes away, on a stop, or at the
time limit it ends all of its descendants; last of all it writes the exit record.

    attached:  labkit run ── supervisor ── kernel ── workers       the runner starts the supervisor
    detached:  supervisor ─┬─ runner                               the supervisor starts the runner
                           └─ kernel ── workers                    and lives on its own

Both sides send JSON objects, a line each:

    to the supervisor    {"start": {...}}  {"signal": 2}  {"stop": "SIGTERM"}  {"outcome": {"status": "failed", ...}}
                         {"keep": true}
    to the runner        {"started": {"pid": 12}}  {"refused": "why"}  {"stopping": "SIGTERM"}
                         {"exited": {"code": 0, "signal": null}}
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from labkit.launch import memory
from labkit.launch.channel import CHANNEL, KERNEL, RECORD_RETRY_S
from labkit.launch.processes import STOP_SIGNALS, adopt_orphans, end_descendants, spawn
from labkit.launch.verdict import End, verdict
from labkit.record.files import iso, read_json, write_json
from labkit.record.process import DETACHED, Process
from labkit.record.status import HEARTBEAT_S, exit_record

ORPHAN_GRACE_S = 1.5  # for the kernel to act on SIGTERM once its runner is gone


@dataclass(frozen=True)
class Start:
    """What to start, and under which limits.

    Attributes:
        argv: The kernel's command.
        env: Its whole environment.
        cwd: Its working directory.
        run: The run's attempt folder, log and all; None for a kernel that is no run.
        log: Where the kernel's standard output and error go.
        grace_s: Seconds from a stop request to the kill.
        timeout_s: Seconds that the run may take; None for no limit.
        scratch: A private folder that goes when the kernel has ended.
        cold: Why the kernel is no warm one.
    """

    argv: list[str]
    env: dict[str, str]
    cwd: str
    run: str | None = None
    log: str | None = None
    grace_s: float = 30.0
    timeout_s: float | None = None
    scratch: str | None = None
    cold: str = ""


def _spawn(start: Start) -> int:
    return spawn(start.argv, start.env, start.cwd, start.log)


@dataclass
class Supervisor:
    """The state of one supervised kernel; `serve` runs it to its end."""

    channel: socket.socket
    runner: Process
    detached: bool = False  # the runner is below this process, not above
    spawn: Callable[[Start], int] = _spawn  # starts the kernel and returns its process id
    start: Start | None = None
    kernel: Process | None = None
    kernel_exit: dict[str, int | None] | None = None
    peak_rss_bytes: int = 0
    refused: str = ""  # why the kernel could not be started
    outcome: dict[str, Any] | None = None
    stop: str = ""  # the name of the signal, or "timeout"
    runner_lost: bool = False
    keeps: bool = False  # the private folder, for a kernel that will be started again
    overdue: bool = False  # killed because the grace was over
    began: float = 0.0
    steps: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    waiting: bytes = b""
    oom_kills: int = 0

    def serve(self) -> None:
        """Starts the kernel as soon as it is told to, and stays until everything below has ended."""
        watcher = _signals_as_bytes()
        with selectors.DefaultSelector() as selector:
            selector.register(self.channel, selectors.EVENT_READ, self._read_channel)
            selector.register(watcher, selectors.EVENT_READ, lambda: self._read_signals(watcher))
            while self.kernel_exit is None and not (self.runner_lost and self.kernel is None):
                for key, _ in selector.select(self._until_next_step()):
                    key.data()
                if self.runner_lost and self.channel in selector.get_map():
                    selector.unregister(self.channel)
                self._beat()
                self._take_due_steps()
        self._conclude()

    # what comes in

    def _read_channel(self) -> None:
        try:
            data = self.channel.recv(2**20)
        except OSError:
            data = b""
        if not data:
            self.runner_lost = True
            if self.outcome is None:
                self._later(0.0, lambda: self._send_signal(signal.SIGTERM))
                self._later(ORPHAN_GRACE_S, self._kill)
            else:
                self._later(ORPHAN_GRACE_S * 4, self._kill)  # it is closing already
            return
        *lines, self.waiting = (self.waiting + data).split(b"\n")
        for line in lines:
            self._act(json.loads(line))

    def _act(self, message: dict[str, Any]) -> None:
        if "start" in message:
            self._start(Start(**message["start"]))
        if "signal" in message:
            self._send_signal(message["signal"])
        if "stop" in message:
            self._stop(message["stop"])
        if "outcome" in message:
            self.outcome = message["outcome"]
        if "keep" in message:
            self.keeps = True

    def _read_signals(self, watcher: socket.socket) -> None:
        for number in watcher.recv(4096):
            if number == signal.SIGCHLD:
                self._reap()
            else:
                self._stop(signal.Signals(number).name)

    # what goes on

    def _start(self, start: Start) -> None:
        self.start, self.began = start, time.time()
        self.oom_kills = memory.oom_kills()
        try:
            pid = self.spawn(start)
        except OSError as error:
            self.refused = f"{error.filename or start.argv[0]}: {error.strerror or error}"
            self._tell({"refused": self.refused})
            self.kernel_exit = {"code": 127, "signal": None}
            return
        self.kernel = Process.of(pid)
        if start.run is not None:
            self._write(
                "process.json",
                {
                    "process": Process.of(os.getpid()).facts(),
                    "kernel": self.kernel.facts(),
                    "runner": self.runner.facts(),
                    "started": iso(self.began),
                    "started_s": self.began,
                    "warm": self.spawn is not _spawn,
                    "cold": start.cold,
                },
            )
        if start.timeout_s is not None:
            self._later(start.timeout_s, lambda: self._stop("timeout"))
        self._tell({"started": {"pid": pid}})

    def _stop(self, cause: str) -> None:
        """Asks the kernel to stop at its next step boundary; interrupts it late in the grace, kills it at the end."""
        if self.stop or self.start is None:
            return
        self.stop = cause
        self._tell({"stopping": cause})
        self._send_signal(signal.SIGTERM)
        self._later(self.start.grace_s * 2 / 3, lambda: self._send_signal(signal.SIGINT))
        self._later(self.start.grace_s, self._kill_overdue)

    def _kill_overdue(self) -> None:
        self.overdue = True
        self._kill()

    def _kill(self) -> None:
        self._send_signal(signal.SIGKILL)

    def _send_signal(self, number: int) -> None:
        if self.kernel is None or self.kernel_exit is not None:
            return
        try:
            if number == signal.SIGTERM:
                os.kill(self.kernel.pid, number)  # the flag; its workers must go on until the step boundary
            else:
                os.killpg(self.kernel.pid, number)
        except (ProcessLookupError, PermissionError):
            pass

    def _reap(self) -> None:
        """Takes note of children that ended, the kernel and adopted ones alike."""
        while True:
            try:
                pid, state, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self.kernel is not None and pid == self.kernel.pid:
                code = os.waitstatus_to_exitcode(state)
                self.kernel_exit = {"code": max(code, 0), "signal": -code if code < 0 else None}
                self.peak_rss_bytes = usage.ru_maxrss * 1024

    def _beat(self) -> None:
        if self.start is not None and self.start.run is not None:
            _touch(Path(self.start.run) / "heartbeat")

    def _later(self, delay_s: float, step: Callable[[], None]) -> None:
        self.steps.append((time.monotonic() + delay_s, step))

    def _until_next_step(self) -> float:
        due = min((moment for moment, _ in self.steps), default=float("inf"))
        return max(0.0, min(HEARTBEAT_S, due - time.monotonic()))

    def _take_due_steps(self) -> None:
        moment = time.monotonic()
        due = [step for when, step in self.steps if when <= moment]
        self.steps = [(when, step) for when, step in self.steps if when > moment]
        for step in due:
            step()

    # how it ends

    def _conclude(self) -> None:
        if self.start is None:
            return
        left = end_descendants(spare=self.runner.pid if self.detached else None)
        if self.start.run is not None:
            self._write_exit(left)
        self._tell({"exited": self.kernel_exit or {"code": 127, "signal": None}})
        self._outlast_runner()
        if self.start.scratch and not self.keeps:
            shutil.rmtree(self.start.scratch, ignore_errors=True)

    def _outlast_runner(self) -> None:
        """Waits until the runner has let go: it may still use the private folder, or write its report."""
        self.channel.setblocking(True)
        try:
            while self.channel.recv(2**16):
                pass
        except OSError:
            pass

    def _write_exit(self, left: list[dict[str, Any]]) -> None:
        assert self.start is not None
        state, reason = verdict(self._end())
        record = exit_record(
            state,
            reason,
            self.began,
            written_by="supervisor",
            kernel_exit=self.kernel_exit,
            error=(self.outcome or {}).get("error"),
            left=left,
        ) | {"peak_rss_bytes": self.peak_rss_bytes, "stop": self.stop or None}
        end = time.monotonic() + RECORD_RETRY_S
        while not self._write("exit.json", record) and time.monotonic() < end:
            if not Path(str(self.start.run)).exists():
                return  # a cell deleted the run
            time.sleep(0.2)

    def _end(self) -> End:
        assert self.start is not None and self.kernel_exit is not None
        is_ours = self.start.run is not None and KERNEL in self.start.argv
        return End(
            kernel_exit=self.kernel_exit,
            outcome=self.outcome or {},
            refused=self.refused,
            stop=self.stop,
            why=self._why(),
            overdue=self.overdue,
            runner_gone=self.runner.pid if self.runner_lost else None,
            counted=not is_ours or Path(str(self.start.run), "kernel.json").exists(),
            grace_s=self.start.grace_s,
            timeout_s=self.start.timeout_s,
            peak_rss_bytes=self.peak_rss_bytes,
            memory_limit_bytes=memory.limit_bytes(),
            oom_kills=memory.oom_kills() - self.oom_kills,
        )

    def _why(self) -> str:
        """Returns why the run was to stop, where who asked for it gave a reason."""
        assert self.start is not None
        given = read_json(Path(self.start.run) / "stop.json") if self.stop and self.start.run is not None else None
        return str((given or {}).get("reason") or "")

    def _write(self, name: str, value: dict[str, Any]) -> bool:
        """Writes a record of this attempt; tells whether the disk took it."""
        assert self.start is not None and self.start.run is not None
        try:
            write_json(Path(self.start.run) / name, value)
        except OSError:
            return False
        return True

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self.channel.sendall(orjson.dumps(message) + b"\n")
        except OSError:
            pass  # the runner is gone; reading the channel says so


def _signals_as_bytes() -> socket.socket:
    """Turns the signals of interest into bytes that a selector can wait for."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    for number in (*STOP_SIGNALS, signal.SIGCHLD):
        if not (number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN):  # nohup
            signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    _KEPT.append(writer)
    return reader


_KEPT: list[socket.socket] = []  # the wakeup end must not be collected


def _touch(path: Path) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        os.utime(fd)
        os.close(fd)
    except OSError:
        pass


def main(arguments: list[str]) -> None:
    """Runs one supervisor: `supervise FD`, or `supervise --detached RUNNER…`."""
    adopt_orphans()
    if arguments[0] != DETACHED:
        Supervisor(socket.socket(fileno=int(arguments[0])), Process.of(os.getppid())).serve()
        return
    ours, theirs = socket.socketpair()
    with theirs:
        runner = subprocess.Popen(
            arguments[1:],
            pass_fds=[theirs.fileno()],
            env=os.environ | {CHANNEL: str(theirs.fileno())},
            stdin=subprocess.DEVNULL,
        )
    runner.returncode = 0
    Supervisor(ours, Process.of(runner.pid), detached=True).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
