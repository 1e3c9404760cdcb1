"""Starting and ending processes so that none gets away."""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from labkit.record.process import descendants, name_of

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
CHILD_GRACE_S = 1.0  # for what a kernel left behind to act on SIGTERM
PR_SET_PDEATHSIG = 1  # from linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Makes this process the new parent of every orphan below it (Linux; elsewhere nothing changes)."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def end_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Has the system send this process, just forked, a signal when its parent ends (Linux; elsewhere it lives on)."""
    _prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def leave_terminal() -> None:
    """Sends what is still printed nowhere: the terminal has been closed, and writing to it would be an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for fd in (1, 2):
        if stat.S_ISCHR(os.fstat(fd).st_mode):  # isatty says no of a closed one
            os.dup2(nowhere, fd)
    os.close(nowhere)


def spawn(argv: list[str], env: dict[str, str], cwd: str, log: str | None) -> int:
    """Starts a process with default signals, its output appended to `log`, and no way to outlive this one.

    Returns:
        Its process id; the caller waits for it.

    Raises:
        OSError: It cannot be started.
    """
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666) if log else None
    parent = os.getpid()

    def prepare() -> None:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)  # a shell's `&` and nohup hand down ignored ones
        end_with(parent)

    try:
        process = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=prepare,
        )
    finally:
        if output is not None:
            os.close(output)
    process.returncode = 0  # this handle waits for nothing; the caller does
    return process.pid


def end_descendants(spare: int | None = None) -> list[dict[str, Any]]:
    """Ends every process below this one and returns who they were.

    `spare` and what is below it are left alone: a detached run's runner, which has the notebook to save.
    """

    def living() -> list[int]:
        spared = {spare, *descendants(spare)} if spare else set()
        return [pid for pid in descendants(os.getpid()) if pid not in spared]

    return end_processes(living)


def end_processes(living: Callable[[], list[int]]) -> list[dict[str, Any]]:
    """Ends the processes that `living` returns, until it returns none: SIGTERM, a second later SIGKILL.

    Returns:
        Who they were; helpers that left by themselves within a moment are not named.
    """
    found: dict[int, str] = {}
    began = time.monotonic()
    while (age_s := time.monotonic() - began) < 10 and (
        pids := living() or living()
    ):  # one may fork while it is looked for
        for pid in pids:
            if age_s > 0.1 and pid not in found:
                found[pid] = name_of(pid)
                _kill_one(pid, signal.SIGTERM)
            if age_s > CHILD_GRACE_S:
                _kill_one(pid, signal.SIGKILL)
        time.sleep(0.02)
        _reap_all()
    return [{"pid": pid, "name": name} for pid, name in found.items()]


def _kill_one(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _reap_all() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
