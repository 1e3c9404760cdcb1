"""Asks for warm kernels: where the server of this user and environment is, and how a supervisor is had from it.

A server stands for one set of everything that holds from the start of a process on: Python and what is installed, the
variables, of which any may be read when a library is loaded, cores, limits, control group, namespaces. Who differs in
any of it gets another server, or a cold kernel.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from labkit.launch import private
from labkit.record.process import SERVER, host

LAUNCHERS = ("labkit.launch.kernel", "ipykernel_launcher", "ipykernel")  # modules that a server can become
IDLE_S = 1800.0
IDLE = "LABKIT_WARM_IDLE_S"  # an environment variable with another number of seconds
SWITCH = "LABKIT_WARM"  # `0` means cold kernels alone
MOST = 3  # servers of a user at a time, each with PyTorch loaded; the least used ones leave
# What differs from one terminal, tab or run to the next and means nothing to a library that is loaded. CUDA reads its
# variables when it is started, which no server does.
OF_NO_MATTER = re.compile(
    r"(?:LABKIT|JPY|SSH|SLURM|TERM|TMUX|VSCODE|XDG_SESSION|DBUS_SESSION|GPG|VTE|GNOME_TERMINAL|KONSOLE|ITERM)_.*"
    r"|_|PWD|OLDPWD|SHLVL|COLUMNS|LINES|TERM|COLORTERM|TMUX|STY|WINDOW|WINDOWID|DISPLAY|WAYLAND_DISPLAY|XAUTHORITY"
    r"|INVOCATION_ID|JOURNAL_STREAM|SYSTEMD_EXEC_PID|PS[124]|PROMPT_COMMAND|CUDA_VISIBLE_DEVICES|CUDA_DEVICE_ORDER"
    r"|PYTEST_CURRENT_TEST|PYTEST_XDIST_WORKER"
)
# Neither `-P` nor `-m`: a fork has the server's flags, and its `__main__` is the kernel's alone.
SERVE = (
    f"open('/proc/self/comm', 'w').write({SERVER!r}); import sys; sys.path[:1] == [''] and sys.path.pop(0); "
    "from labkit.launch import forkserver; forkserver.main(sys.argv[1:])"
)
HARD_LIMITS = ("AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "NOFILE", "NPROC", "RSS", "STACK")
NAMESPACES = ("mnt", "net", "pid", "user", "ipc", "uts", "cgroup")
LONGEST_PATH_BYTES = 100  # of a socket: 107 with its end


class Cold(Exception):
    """A warm kernel cannot be had; the message says why."""


def launch(environment: Mapping[str, str], *, start: bool) -> socket.socket:
    """Has a supervisor forked for a kernel with this environment, and returns the channel to it.

    Args:
        environment: The kernel's whole environment.
        start: Where there is no server, start one for the next time.

    Raises:
        Cold: There is none yet, or none can be.
    """
    try:
        return _forked(environment, start)
    except OSError as error:  # whatever it is, a new process can still be a kernel
        raise Cold(f"no server can be asked: {error}") from error


def _forked(environment: Mapping[str, str], start: bool) -> socket.socket:
    if environment.get(SWITCH) == "0":
        raise Cold("switched off")
    if not sys.platform.startswith("linux"):
        raise Cold("only on Linux")
    path = address(environment)
    try:
        server = _connected(path)
    except OSError:
        if start:
            start_server(path, environment)
        raise Cold("no server is ready yet") from None
    with server:
        request = json.dumps({"cwd": os.getcwd(), "umask": _umask(), "limits": _soft_limits()}).encode()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(server, [request], [theirs.fileno(), 1, 2])
                server.settimeout(5.0)
                if server.recv(16) != b"forked\n":
                    raise OSError("no answer")
            except OSError as error:
                ours.close()
                raise Cold(f"its server did not answer: {error}") from error
    return ours


def address(environment: Mapping[str, str]) -> Path:
    """Returns the socket of the server for kernels with this environment.

    Raises:
        Cold: There is no folder that is this user's alone, or no server can have the modules that such a kernel finds.
    """
    if any(place and not os.path.isabs(place) for place in environment.get("PYTHONPATH", "").split(os.pathsep)):
        raise Cold("PYTHONPATH names a folder as seen from the notebook's")
    facts = {
        "python": [sys.prefix, os.path.realpath(sys.executable), sys.version],
        "paths": {place: _installed(place) for place in _places()},
        "labkit": _labkit(),
        "variables": {name: value for name, value in sorted(environment.items()) if not OF_NO_MATTER.fullmatch(name)},
        "process": _process(),
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]
    path = folder() / f"{key}.socket"
    if len(os.fsencode(path)) > LONGEST_PATH_BYTES:
        raise Cold(f"{path} is too long for a socket")
    return path


def folder() -> Path:
    """Returns the folder of the sockets, made where it is missing; nobody else can enter it.

    Raises:
        Cold: Somebody else has it, or others can enter.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(runtime) if runtime and os.path.isdir(runtime) else Path(tempfile.gettempdir())
    try:
        return private.folder(base / f"labkit-warm-{os.getuid()}")
    except OSError as error:
        raise Cold(str(error)) from error


def start_server(path: Path, environment: Mapping[str, str], idle_s: float = IDLE_S) -> None:
    """Starts a server in the background, unless one is being started; nothing here waits for it.

    Args:
        path: Its socket.
        environment: The environment of its kernels.
        idle_s: Seconds without a request after which it leaves, where no variable says otherwise.

    Raises:
        OSError: It cannot be started.
    """
    log = path.with_suffix(".log")
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", SERVE, str(path), str(lock), os.environ.get(IDLE) or str(idle_s)],
                env=dict(environment),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=[lock],  # it holds the lock while others may ask it
            )
    finally:
        os.close(lock)
    process.returncode = 0  # it outlives this handle


def wait_for(environment: Mapping[str, str], within_s: float, idle_s: float = IDLE_S) -> bool:
    """Starts a server where there is none, and waits until it is ready; tells whether it is."""
    try:
        path = address(environment)
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            try:
                _connected(path).close()
                return True
            except OSError:
                start_server(path, environment, idle_s)
                time.sleep(0.05)
    except (Cold, OSError):
        pass
    return False


def stop_all() -> int:
    """Ends all of this user's servers, and returns how many there were; kernels that they forked live on."""
    count = 0
    for path in servers():
        try:
            count += _stops(path)
        except OSError:
            path.unlink(missing_ok=True)
    for lock in _files("*.lock"):  # a server that is still importing looks for it before it serves
        lock.unlink(missing_ok=True)
    return count


def stop_least_used(besides: Path) -> None:
    """Asks this user's servers beyond the few that may be to leave, those first that nobody has asked for longest."""
    used = []
    for path in servers():
        with suppress(OSError):
            used.append((path.stat().st_mtime_ns, path))  # it touches its socket whenever it forks
    others = sorted((one for one in used if one[1] != besides), reverse=True)
    for _, path in others[MOST - 1 :]:
        with suppress(OSError):
            _stops(path)


def _stops(path: Path) -> bool:
    """Asks a server to leave, which it does when its last kernel has ended; tells whether it will.

    Raises:
        OSError: It does not answer.
    """
    with _connected(path) as server:
        server.sendall(b"stop")
        return server.recv(16) == b"stopping\n"


def servers() -> list[Path]:
    """Returns the sockets of this user's servers."""
    return _files("*.socket")


def _files(pattern: str) -> list[Path]:
    try:
        return sorted(folder().glob(pattern))
    except Cold:
        return []


def _connected(path: Path) -> socket.socket:
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        found.settimeout(5.0)
        found.connect(str(path))
    except OSError:
        found.close()
        raise
    return found


def _places() -> list[str]:
    """Returns the folders that any Python of this environment looks in; not those that this program brings along."""
    own = {"", os.getcwd(), os.path.dirname(os.path.abspath(sys.argv[0]))}
    return [place for place in sys.path if place not in own]


def _installed(place: str) -> int:
    """Returns when something was last installed in or removed from a folder of packages; 0 for a user's own folder."""
    if os.path.basename(place) not in ("site-packages", "dist-packages"):
        return 0
    try:
        return os.stat(place).st_mtime_ns
    except OSError:
        return 0


def _labkit() -> int:
    """Returns when labkit itself was last changed, which matters to its developers."""
    package = Path(__file__).parent.parent
    newest = 0
    for entry in os.scandir(package):
        places = os.scandir(entry.path) if entry.is_dir() else [entry]
        newest = max([newest, *(place.stat().st_mtime_ns for place in places if place.name.endswith(".py"))])
    return newest


def _process() -> dict[str, Any]:
    """Returns what a process has from its start and a fork takes from the server."""
    names = ((name, getattr(resource, f"RLIMIT_{name}", None)) for name in HARD_LIMITS)
    return {
        "host": host(),  # whose folder for sockets may be another's, too
        "ids": [os.getuid(), os.getgid(), sorted(os.getgroups())],
        "cores": sorted(os.sched_getaffinity(0)),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "limits": {name: resource.getrlimit(number)[1] for name, number in names if number is not None},
        "cgroup": _read("/proc/self/cgroup"),
        "oom": _read("/proc/self/oom_score_adj"),
        "namespaces": {name: _link(f"/proc/self/ns/{name}") for name in NAMESPACES},
        "root": _link("/proc/self/root"),
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _umask() -> int:
    found = re.search(r"^Umask:\s*(\d+)", _read("/proc/self/status"), re.MULTILINE)
    return int(found[1], 8) if found else 0o022


def _soft_limits() -> dict[str, int]:
    names = ((name, getattr(resource, f"RLIMIT_{name}", None)) for name in HARD_LIMITS)
    return {name: resource.getrlimit(number)[0] for name, number in names if number is not None}
