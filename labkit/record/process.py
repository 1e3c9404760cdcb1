"""Who a process is, so that a number taken over by another process is not mistaken for it."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

DETACHED = "--detached"  # the first argument of a module that labkit starts to outlive whoever asked for it
SERVER = "labkit-warm"  # what a server of warm kernels and its supervisors call themselves: forks share a command line


@dataclass(frozen=True)
class Process:
    """One process on one boot of one host; the start time tells it from a later one with the same number."""

    pid: int
    start: int  # clock ticks since boot
    boot: str
    host: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """Returns the identity of a live process; its start is 0 where the system does not tell."""
        return cls(pid, start_ticks(pid) or 0, boot_id(), host())

    @classmethod
    def read(cls, facts: Any) -> Process | None:
        """Returns the identity written in a record, or None where it is not one."""
        try:
            return cls(int(facts["pid"]), int(facts["start"]), str(facts["boot"]), str(facts["host"]))
        except (TypeError, KeyError, ValueError, OverflowError):
            return None

    def facts(self) -> dict[str, Any]:
        """Returns what a record keeps."""
        return asdict(self)

    def is_here(self) -> bool:
        """Tells whether this host is the one that can see the process."""
        return self.host == host()

    def is_alive(self) -> bool:
        """Tells whether the process still runs on this host, in this boot."""
        if not self.is_here() or self.boot != boot_id():
            return False
        start = start_ticks(self.pid)
        return start is not None and (self.start == 0 or start == self.start)


def host() -> str:
    """Returns the name of this machine."""
    return socket.gethostname()


@cache
def boot_id() -> str:
    """Returns what tells one boot of a machine from the next; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def start_ticks(pid: int) -> int | None:
    """Returns when a process started, in clock ticks since boot; None where it does not run (a zombie does not)."""
    try:
        state, fields = stat_fields(pid)
    except FileNotFoundError:
        return _start_without_proc(pid)
    except (OSError, ValueError, IndexError):
        return None
    return None if state in "ZX" else int(fields[18])


def stat_fields(pid: int) -> tuple[str, list[str]]:
    """Returns a process's state and the fields of /proc/PID/stat that follow its name (parent first, session third)."""
    text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    state, *fields = text[text.rindex(")") + 2 :].split()
    return state, fields


def _start_without_proc(pid: int) -> int | None:
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)  # macOS has no /proc: life is all that can be told
    except ProcessLookupError:
        return None
    except (PermissionError, OverflowError):
        pass
    return 0


def name_of(pid: int) -> str:
    """Returns the command of a process, shortened; empty where it cannot be read."""
    return b" ".join(_words(pid)).decode(errors="replace").strip()[:200]


def is_detached(pid: int) -> bool:
    """Tells whether labkit started a process to outlive whoever asked for it; it looks after all that is below it."""
    words = _words(pid)
    is_module = words[1:3] == [b"-P", b"-m"] and words[4:5] == [DETACHED.encode()] and words[3].startswith(b"labkit.")
    return is_module or _short_name(pid) == SERVER


def call_itself(name: str) -> None:
    """Gives this process a short name, which its forks have too (Linux; elsewhere nothing changes)."""
    try:
        Path("/proc/self/comm").write_text(name)
    except OSError:
        pass


def _short_name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").rstrip("\n")
    except OSError:
        return ""


def _words(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def children() -> dict[int, list[int]]:
    """Returns the live children of every process that can be seen."""
    found: dict[int, list[int]] = {}
    for pid in _pids():
        try:
            state, fields = stat_fields(pid)
        except (OSError, ValueError):
            continue
        if state not in "ZX":
            found.setdefault(int(fields[0]), []).append(pid)
    return found


def descendants(pid: int) -> list[int]:
    """Returns every live process below `pid`, nearest first; not what was started to outlive it."""
    tree = children()
    found: list[int] = []
    front = [pid]
    while front:
        front = [child for parent in front for child in tree.get(parent, ()) if not is_detached(child)]
        found += front
    return found


def holders(path: Path) -> list[int]:
    """Returns the live processes that print into `path`: whatever a run started has its log as standard output."""
    wanted = os.path.realpath(path)
    return [pid for pid in _pids() if pid != os.getpid() and any(_link(pid, fd) == wanted for fd in (1, 2))]


def _link(pid: int, fd: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return ""


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
