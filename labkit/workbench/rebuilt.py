"""An environment made from a record: the lock that the run had, and the labkit that it carried."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.errors import BadInput
from labkit.record.files import read_json
from labkit.record.rundir import RunDir
from labkit.workbench import yamlfile

INSTALL_S = 3600.0
TOLD = 3  # last lines of pip's that a message repeats
LOCK = "requirements.lock"


def python(then: RunDir, say: Callable[[str], object]) -> Path:
    """Returns the Python of an environment with the recorded packages; one that was made before is used again.

    Raises:
        BadInput: The record does not say which packages, this machine has no such Python, or pip refuses.
    """
    about = read_json(then.source / "packages.json") or {}
    wanted = _requirements(then)
    wheel = then.source / str((read_json(then.source / "labkit.json") or {}).get("wheel") or "none")
    if not wheel.is_file():
        raise BadInput(
            "the record does not carry labkit, so its environment cannot be rebuilt; leave --env rebuild out"
        )
    interpreter = _interpreter(str(about.get("python") or ""))
    content = [wanted.encode(), wheel.read_bytes(), interpreter.encode()]
    name = hashlib.sha256(b"\0".join(content)).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "labkit" / "environments"
    made = cache / name / "bin" / "python"
    if not made.exists():
        say(f"building the recorded environment in {cache / name}; this takes minutes, once")
        _build(cache / name, interpreter, wanted, wheel)
    return made


def _requirements(then: RunDir) -> str:
    """Returns what to install: the lock where what was installed agrees with it, else all that was installed."""
    installed = dict(_pins(_read(then.requirements)))
    lock = _read(then.source / LOCK)
    locked = dict(_pins(lock))
    agrees = all(_same(installed.get(name, ""), version) for name, version in locked.items() if name in installed)
    if lock and agrees and locked.keys() >= {"torch"}:
        return lock
    if not installed:
        raise BadInput("the record does not say which packages were installed")
    about = (read_json(then.source / "packages.json") or {}).get("packages") or {}
    kept = [
        f"{name}=={_public(version)}"
        for name, version in installed.items()
        if name not in ("labkit", "pip", "setuptools", "wheel") and not (about.get(name) or {}).get("origin")
    ]
    return "\n".join(kept) + "\n"


def _pins(text: str) -> list[tuple[str, str]]:
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\#]+)", text, re.MULTILINE)
    return [(re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in found]


def _same(installed: str, locked: str) -> bool:
    return installed == locked or _public(installed) == locked


def _public(version: str) -> str:
    """Returns a version without its local part: `2.13.0+cpu` is on no index but PyTorch's own."""
    return version.partition("+")[0]


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError):
        return ""


def _interpreter(wanted: str) -> str:
    minor = ".".join(wanted.split(".")[:2])
    if not re.fullmatch(r"3\.\d+", minor):
        raise BadInput("the record does not say which Python it ran on")
    if minor == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return getattr(sys, "_base_executable", None) or sys.executable
    found = shutil.which(f"python{minor}")
    if found is None:
        raise BadInput(f"it ran on Python {wanted}, and there is no python{minor} on the path")
    return found


def _build(target: Path, interpreter: str, wanted: str, wheel: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=target.parent) as beside:
        lock = Path(beside) / "requirements.txt"
        lock.write_text(wanted)
        try:
            _call([interpreter, "-m", "venv", str(target)])
            python = str(target / "bin" / "python")
            _call([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(lock)])
            _call([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", str(wheel)])
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise


def _call(command: list[str]) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BadInput(f"the recorded environment could not be built: {error}") from error
    if done.returncode:
        said = " ".join(done.stderr.strip().splitlines()[-TOLD:])
        raise BadInput(f"the recorded environment could not be built: {said:.600}")


def run(python: Path, notebook: Path, values: dict[str, Any], runs: Path) -> None:
    """Executes a notebook in a rebuilt environment, by the labkit that is in there.

    Raises:
        BadInput: A value cannot be given on a command line.
    """
    given = runs.parent / ".params.yaml"
    given.write_text(yamlfile.yaml_text(values), "utf-8")
    command = [str(python), "-P", "-m", "labkit.cli", "run", str(notebook), "--runs", str(runs), "--no-report"]
    process = subprocess.Popen([*command, *(["-f", str(given)] if values else [])], stdout=subprocess.DEVNULL)
    try:
        process.wait()
    except KeyboardInterrupt:  # it got the interrupt too, and stops at its next step
        process.wait()
        raise
