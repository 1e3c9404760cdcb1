"""How a runner and its supervisor find each other: a socket that either of them starts the other with."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from labkit.record.process import DETACHED

KERNEL = "labkit.launch.kernel"  # the module that is run as a kernel of labkit's own
RECORD_RETRY_S = 30.0  # how long to try when the disk refuses the record of an end
RUN = "LABKIT_RUN"  # in a kernel's environment: the run that `labkit.start()` joins
LOG = "LABKIT_LOG"  # in a kernel's environment: the file that takes all its output
SLOT = "LABKIT_SLOT"  # in the environment of a runner: which variables its place sets, whatever a kernel wants
CHANNEL = "LABKIT_CHANNEL"  # in a detached runner's environment: the descriptor that leads to its supervisor

counts: dict[str, Any] = {}  # of the run in this process: a disk that refused them may take them at the kernel's end


def launch() -> socket.socket:
    """Starts a supervisor for this process, which becomes its runner, and returns the channel to it."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "labkit.launch.supervise", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    process.returncode = 0  # it outlives this handle; the channel tells when it ends
    return ours


def launch_detached(argv: list[str], output: Path) -> int:
    """Starts a supervisor that lives on its own and itself starts a runner; returns the supervisor's process id.

    Args:
        argv: The runner's command; it finds the channel through the environment (`join`).
        output: The file that takes what the runner prints.
    """
    return start_detached("labkit.launch.supervise", argv, output)


def start_detached(module: str, arguments: list[str], output: Path) -> int:
    """Starts a module of labkit as a process that outlives this one, and its kernel; returns its process id."""
    with output.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, DETACHED, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    process.returncode = 0
    return process.pid


def join() -> socket.socket | None:
    """Returns the channel to the supervisor that started this process, or None where none did."""
    number = os.environ.pop(CHANNEL, None)
    return socket.socket(fileno=int(number)) if number else None
