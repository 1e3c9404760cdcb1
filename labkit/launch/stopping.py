"""Asking a run of this host to stop, whoever asks: a shell, a cell."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from labkit.errors import BadInput
from labkit.record.files import read_json, write_json
from labkit.record.process import Process
from labkit.record.rundir import RunDir
from labkit.record.status import Status, status

LOOK_S = 0.25
QUEUED_S = 60.0  # for a run that was left to itself to start


def when_started(run: RunDir) -> Status:
    """Returns the status of a run whose supervisor is not being started any more."""
    end = time.monotonic() + QUEUED_S
    while (found := status(run)).state == "queued" and time.monotonic() < end:
        time.sleep(LOOK_S)
    return found


def ask_to_stop(run: RunDir) -> Status:
    """Asks a run to stop at its next step boundary, as SIGTERM does, and returns how it stood.

    Raises:
        BadInput: It is over, runs on another host, or is somebody else's.
    """
    found = when_started(run)
    owner = Process.read((read_json(run.process) or {}).get("process"))
    if found.state != "running":
        raise BadInput(f"{run.name} is {found.state}{f' ({found.reason})' if found.reason else ''}; nothing to stop")
    if owner is None or not owner.is_here():
        where = owner.host if owner is not None else "another host"
        raise BadInput(f"{run.name} runs on {where}; stop it there")
    if not owner.is_alive():
        raise BadInput(f"{run.name} runs where its process {owner.pid} cannot be reached; stop it there")
    with suppress(OSError):  # a sweep would else try the point again
        write_json(run.stop, {"reason": "stopped by hand", "by_hand": True})
    terminate(owner, run.name)
    return found


def terminate(owner: Process, name: str) -> None:
    """Sends SIGTERM to the process that a run or a sweep belongs to; one that has just ended needs none.

    Raises:
        BadInput: It is somebody else's.
    """
    try:
        os.kill(owner.pid, signal.SIGTERM)
    except PermissionError:
        raise BadInput(f"{name} is another user's: process {owner.pid} may not be stopped") from None
    except ProcessLookupError:
        pass
