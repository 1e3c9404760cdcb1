"""What happened to a run, derived from evidence: its exit record, its processes, its heartbeat."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.record import ENDS
from labkit.record.files import iso, read_json
from labkit.record.process import Process, boot_id, children, holders, name_of, start_ticks
from labkit.record.rundir import RunDir

HEARTBEAT_S = 2.0
FAR_S = 1e11  # three thousand years
FRESH_S = 60.0  # a heartbeat older than this shows no life; also room for the clocks of two hosts
ALL_PROCESSES = 0xEFFFFFFC  # the inode of the namespace that sees every process (Linux, proc_ns.h)


@dataclass(frozen=True, repr=False)
class Status:
    """What happened to a run.

    Attributes:
        state: One of STATES.
        reason: Why, in a sentence; empty where the state says all.
        duration_s: How long the newest attempt ran, or has run so far; None where it is not known.
        exit: The exit record; empty where there is none.
        left: Processes that the run left behind and that still live, as `PID name`.
    """

    state: str
    reason: str = ""
    duration_s: float | None = None
    exit: dict[str, Any] | None = None
    left: tuple[str, ...] = ()

    @property
    def is_over(self) -> bool:
        """Tells whether nothing more will happen to the run by itself."""
        return self.state not in ("queued", "running")

    def __str__(self) -> str:
        ended = (self.exit or {}).get("kernel_exit")
        code = ended.get("code") if isinstance(ended, dict) else None
        parts = [f"{self.state}: {self.reason}" if self.reason else self.state]
        parts += [f"exit {code}"] if isinstance(code, int) else []
        parts += [f"{self.duration_s:,.1f} s"] if self.duration_s is not None else []
        return ", ".join([*parts, *(f"still alive: {one}" for one in self.left if one not in self.reason)])

    def __repr__(self) -> str:
        return f"<{self}>"  # what a notebook shows of `labkit.last_run().status`


def exit_record(
    state: str,
    reason: str,
    began: float | None,
    *,
    written_by: str,
    kernel_exit: dict[str, int | None] | None = None,
    error: Any = None,
    left: Sequence[Any] = (),
) -> dict[str, Any]:
    """Returns the record of an attempt that ends now.

    Args:
        state: One of ENDS.
        reason: Why, in a sentence; empty where the state says all.
        began: When it started, in seconds since the epoch; None where that is not known.
        written_by: `supervisor`, `runner` or `kernel`.
        kernel_exit: The kernel's exit `code` and the `signal` that ended it.
        error: The exception of the cell that failed: `cell`, `cell_id`, `ename`, `evalue`.
        left: Processes that had to be ended, each with `pid` and `name`.
    """
    ended = time.time()
    return {
        "status": state,
        "reason": reason,
        "started": None if began is None else iso(began),
        "ended": iso(ended),
        "duration_s": None if began is None else round(ended - began, 3),
        "kernel_exit": kernel_exit,
        "error": error,
        "left": list(left),
        "written_by": written_by,
    }


def status(run: RunDir) -> Status:
    """Returns the status of a run. Never `running` without a sign of life."""
    if (recorded := _recorded(run)) is not None:
        return recorded
    started = read_json(run.process)
    if started is None:
        return _not_started(run)
    process = Process.read(started.get("process"))
    if process is None:
        return Status("unknown", f"{run.process} does not say which process ran")
    began = _seconds(started.get("started_s"))
    so_far = time.time() - began if began is not None else None
    if not process.is_here():
        if has_fresh_heartbeat(run):
            return Status("running", f"on {process.host}", so_far)
        return Status("unknown", f"it ran on {process.host}, which cannot be asked from here")
    if process.is_alive() or (has_fresh_heartbeat(run) and _lives_in_a_container(process)):
        return Status("running", "", so_far)
    if _is_out_of_sight(process):
        if has_fresh_heartbeat(run):
            return Status("running", "out of sight from here", so_far)
        return Status("unknown", f"its process {process.pid} cannot be seen from here")
    # It may have written its record and ended since that was looked for.
    return _recorded(run) or _without_record(run, process, _heartbeat_age_s(run), began)


def _recorded(run: RunDir) -> Status | None:
    ended = read_json(run.exit)
    if ended is None or ended.get("status") not in ENDS:
        return None
    return Status(str(ended["status"]), str(ended.get("reason") or ""), _seconds(ended.get("duration_s")), ended)


def has_fresh_heartbeat(run: RunDir) -> bool:
    """Tells whether a run has lately shown life, wherever it runs; a killed one's heartbeat stays fresh for a while."""
    age_s = _heartbeat_age_s(run)
    return age_s is not None and abs(age_s) < FRESH_S


def shows_life(process: Process, sign: Path) -> bool:
    """Tells whether a process lives: it is seen, or it cannot be and has lately touched a file."""
    if process.is_here() and process.is_alive():
        return True
    if not _is_fresh(sign):
        return False
    return not process.is_here() or _lives_in_a_container(process) or _is_out_of_sight(process)


def _lives_in_a_container(process: Process) -> bool:
    """Tells whether a process lives in a namespace below this one, where it has the number that it recorded."""
    if process.start == 0 or process.boot != boot_id():
        return False
    found = (pid for below in children().values() for pid in below if start_ticks(pid) == process.start)
    return any(_innermost_number(pid) == str(process.pid) for pid in found)


def _innermost_number(pid: int) -> str:
    """Returns the number that a process has for itself; empty where the system does not say."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.split()[-1] for line in lines if line.startswith("NSpid:")), "")


def _is_out_of_sight(process: Process) -> bool:
    """Tells whether a process of this host and boot may live although /proc does not show it.

    That is so where it began before the first process that can be seen here, as in a container that is younger, and
    where /proc hides the processes of other users (hidepid).
    """
    if process.boot != boot_id():
        return False
    return _is_hidden(process.pid) or (not _sees_all() and 0 < process.start < (start_ticks(1) or 0))


def _is_hidden(pid: int) -> bool:
    if pid <= 0 or os.access(f"/proc/{pid}/stat", os.R_OK):
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        pass
    return False


def _sees_all() -> bool:
    try:
        return os.stat("/proc/self/ns/pid").st_ino == ALL_PROCESSES
    except OSError:
        return False


def _not_started(run: RunDir) -> Status:
    resumption = read_json(run.resumption)
    asked = resumption or read_json(run.manifest) or {}
    creator = Process.read(asked.get("creator"))
    if creator is not None and creator.is_alive():
        return Status("queued")
    if _is_fresh(run.attempt / "job.json"):  # a runner of its own was asked for just now
        return Status("queued")
    if resumption is not None and creator is not None and creator.is_here():
        return Status("killed", f"process {creator.pid}, which was to resume it, is gone")
    return Status("unknown", "there is no sign that it ever started")


def _without_record(run: RunDir, process: Process, age_s: float | None, began: float | None) -> Status:
    """Describes a run of this host whose process is gone without having said how it ended."""
    duration = None
    if age_s is not None and began is not None:
        duration = max(0.0, time.time() - age_s - began)
    if process.boot and process.boot != boot_id():
        return Status("killed", "the machine was restarted while it ran", duration)
    left = tuple(f"{pid} {name_of(pid)}" for pid in holders(run.log))
    reason = (
        f"its process {process.pid} is gone without an exit record: it was killed from outside, or the disk was full"
    )
    if left:
        reason += f"; still alive: {', '.join(left)}"
    return Status("killed", reason, duration, None, left)


def _is_fresh(path: Path) -> bool:
    try:
        return abs(time.time() - path.lstat().st_mtime) < FRESH_S
    except OSError:
        return False


def _heartbeat_age_s(run: RunDir) -> float | None:
    try:
        return time.time() - run.heartbeat.lstat().st_mtime
    except OSError:
        return None


def _seconds(value: Any) -> float | None:
    """Returns a recorded number of seconds that can be reckoned with."""
    return float(value) if isinstance(value, (int, float)) and abs(value) < FAR_S else None
