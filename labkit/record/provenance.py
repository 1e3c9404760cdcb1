"""Where a run's code came from: git, installed packages, first-party modules.

Nothing here fails a run: what cannot be had is recorded as unknown, with the reason.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from labkit import __version__
from labkit.errors import FolderProblem
from labkit.record import lab, wheel
from labkit.record import packages as installed
from labkit.record.files import now, read_regular, write_atomic, write_json
from labkit.record.find import folder_of
from labkit.record.process import host
from labkit.record.rundir import RunDir

GIT_TIMEOUT_S = 2.0
PATCH_LIMIT_BYTES = 4 * 2**20
MODULE_LIMIT_BYTES = 2**20
LOCK = "requirements.lock"
LOCK_LIMIT_BYTES = 2**22
_TRACKED = ("--untracked-files=no", "--ignore-submodules=all")


def git_state(folder: Path) -> dict[str, Any]:
    """Returns the state of the repository that `folder` lies in.

    Returns:
        `commit`, `branch` (None when detached), `dirty` (tracked files differ from the commit), each None where it is
        unknown, and `problem`, which says why.
    """
    state: dict[str, Any] = {"commit": None, "branch": None, "dirty": None, "problem": ""}
    try:
        text = git(folder, "status", "--porcelain=v2", "--branch", *_TRACKED).decode(errors="replace")
    except OSError as error:
        return state | {"commit": _head(folder), "problem": str(error)}
    lines = text.splitlines()
    heads = dict(line[len("# branch.") :].split(" ", 1) for line in lines if line.startswith("# branch."))
    state["dirty"] = any(not line.startswith("#") for line in lines)
    state["branch"] = None if heads.get("head") == "(detached)" else heads.get("head")
    if heads.get("oid") == "(initial)":
        return state | {"problem": "there is no commit yet"}
    return state | {"commit": heads.get("oid")}


def _head(folder: Path) -> str | None:
    """Returns the commit where git has no time to look for changes; None where there is none."""
    try:
        return git(folder, "rev-parse", "--verify", "HEAD").decode(errors="replace").strip() or None
    except OSError:
        return None


def git_patch(folder: Path) -> tuple[bytes, str]:
    """Returns the changes of tracked files against the commit, and what is missing of them; over 4 MiB all is."""
    try:
        patch = git(folder, "diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=all")
    except OSError as error:
        return b"", str(error)
    if len(patch) > PATCH_LIMIT_BYTES:
        return b"", f"the changes have {len(patch)} bytes, more than the {PATCH_LIMIT_BYTES} that are kept"
    return patch, ""


def git(folder: Path, *arguments: str) -> bytes:
    """Returns what a git command that only looks prints; it takes no lock, and starts no hook or diff of a repository.

    Raises:
        OSError: git is not installed, failed, or took too long.
    """
    program = shutil.which("git")
    if program is None:
        raise OSError("git is not installed")
    command = [program, "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "diff.external="]
    env = os.environ | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            [*command, "-C", str(folder), *arguments],
            env=env,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=GIT_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"git {arguments[0]} took more than {GIT_TIMEOUT_S:g} s") from None
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip().splitlines()
        raise OSError(
            message[0].removeprefix("fatal: ") if message else f"git {arguments[0]} ended with status {done.returncode}"
        )
    return done.stdout


def author(folder: Path) -> str:
    """Returns the name that git knows the user by, else the login name."""
    try:
        return git(folder, "config", "user.name").decode().strip() or user()
    except OSError:
        return user()


def user() -> str:
    """Returns the login name; empty where the system has none for this user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def basics() -> dict[str, Any]:
    """Returns what can be said of this environment without loading PyTorch; a notebook's own check says more."""
    try:
        torch: str | None = metadata.version("torch")
    except metadata.PackageNotFoundError:
        torch = None
    return {
        "time": now(),
        "host": host(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch,
        "labkit": __version__,
    }


def packages() -> list[str]:
    """Returns every installed package as `name==version`, sorted."""
    return _pinned(installed.installed())


def _pinned(found: dict[str, Any]) -> list[str]:
    return [f"{name}=={facts['version']}" for name, facts in found["packages"].items()]


elsewhere: dict[str, Path] = {}  # modules in other processes of the same run, by name


def first_party(lab: Path) -> dict[str, Path]:
    """Returns the modules of this process whose source lies in the lab, or is labkit's own, by name."""
    found: dict[str, Path] = {}
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if not isinstance(path, str) or not path.endswith(".py") or name == "__main__":
            continue
        path = os.path.abspath(path)  # as `sys.path.append("../..")` leaves them, they seem to lie in the lab
        if _is_first_party(path, str(lab)):
            found[name] = Path(path)
    here = set(found.values())
    others = ((name, path) for name, path in elsewhere.items() if path not in here)
    return found | {name: path for name, path in others if _is_first_party(str(path), str(lab))}


def _is_first_party(path: str, lab: str) -> bool:
    return (
        path.startswith(lab + os.sep)
        and not path.startswith(_installed())
        and f"{os.sep}site-packages{os.sep}" not in path
    )


@cache
def _installed() -> tuple[str, ...]:
    """Returns the folders of installed packages and of Python itself."""
    folders = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")} | {sys.prefix}
    return tuple(folder + os.sep for folder in folders if folder)


def fingerprint_file(path: Path) -> str:
    """Returns the SHA-256 of a file's content; empty where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def record_source(run: RunDir, folder: Path) -> None:
    """Writes git state, changes, packages and labkit itself into the run; what cannot be written is left out."""
    try:
        found = installed.installed()
        write_atomic(run.requirements, "\n".join(_pinned(found)) + "\n", durable=False)
        write_json(run.source / "packages.json", found, durable=False)
        _record_lock(run, lab.root(folder))
        _record_labkit(run)
        state = git_state(folder)
        patch, missing = git_patch(folder) if state["dirty"] else (b"", "")
        write_json(run.source / "git.json", state | {"problem": state["problem"] or missing}, durable=False)
        if patch:
            write_atomic(run.source / "changes.patch", patch, durable=False)
        run.update_manifest(author=author(folder))
    except (OSError, FolderProblem) as error:
        print(f"labkit: the run's source state could not be recorded: {error}", file=sys.stderr)


def _record_lock(run: RunDir, root: Path) -> None:
    """Keeps the lab's lock as it is, where there is one."""
    data = read_regular(root / LOCK, LOCK_LIMIT_BYTES + 1)
    if data is not None and len(data) <= LOCK_LIMIT_BYTES:
        write_atomic(run.source / LOCK, data, durable=False)


def _record_labkit(run: RunDir) -> None:
    """Keeps labkit as a wheel, packed; runs in one folder share the file."""
    found = wheel.fingerprint()
    facts = {"version": __version__, "sha256": found, "wheel": wheel.name()}
    write_json(run.source / "labkit.json", facts, durable=False)
    shared = folder_of(run) / ".labkit" / found[:16] / wheel.name()
    target = run.source / wheel.name()
    if target.exists():
        return
    try:
        if not shared.exists():
            shared.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(shared, wheel.packed(), durable=False)
        os.link(shared, target)
    except OSError:  # the file system has no links
        write_atomic(target, wheel.packed(), durable=False)


def record_modules(source: Path, lab: Path) -> None:
    """Writes the lab's modules that this process imported, as they are on disk now, into a run's source folder."""
    record, contents = modules(lab)
    try:
        write_json(source / "modules.json", record)
        for inside, content in contents.items():
            target = source / "modules" / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(target, content, durable=False)
    except OSError as error:
        print(f"labkit: the lab's modules could not be recorded: {error}", file=sys.stderr)


def modules(lab: Path) -> tuple[dict[str, dict[str, str]], dict[str, bytes]]:
    """Returns the record of first-party modules, and the content of each by its path inside the lab.

    A file over 1 MiB is recorded by its fingerprint only.
    """
    record: dict[str, dict[str, str]] = {}
    contents: dict[str, bytes] = {}
    for name, path in sorted(first_party(lab).items()):
        try:
            content = path.read_bytes()
        except OSError:
            continue
        inside = os.path.relpath(path, lab)
        record[name] = {"path": inside, "sha256": hashlib.sha256(content).hexdigest()}
        if len(content) <= MODULE_LIMIT_BYTES:
            contents[inside] = content
    return record, contents
