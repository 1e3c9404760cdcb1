"""An environment made from a record: the packages that the run had, and the labkit that it carried."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labkit.errors import BadInput, LabkitError
from labkit.record import wheel
from labkit.record.files import read_json, write_atomic
from labkit.record.rundir import RunDir
from labkit.workbench.notebooks import notebook, params, yamlfile
from labkit.workbench.reproducing import installable
from labkit.workbench.running import child

INSTALL_S = 3600.0
TOLD_S = 10.0  # between two lines about how far pip is
WHOLE = ".labkit-whole"  # the last file that an environment gets
# What an outer environment says of itself. Which index pip uses is the user's affair, and stays.
FOREIGN = re.compile(
    r"(?:JUPYTER|CONDA|LABKIT|IPY|JPY)_?.*|_CE_.*|VIRTUAL_ENV.*|__PYVENV_LAUNCHER__|PIXI_.*|UV_.*|POETRY_.*"
    r"|PYTHON(?:PATH|HOME|STARTUP|USERBASE|EXECUTABLE|SAFEPATH|PLATLIBDIR|WARNINGS|INSPECT|BREAKPOINT|PYCACHEPREFIX)"
    r"|PIP_(?:TARGET|PREFIX|ROOT|USER|CONSTRAINT|REQUIREMENT|EDITABLE|REQUIRE_HASHES|NO_DEPS|DRY_RUN|PYTHON|QUIET|VERBOSE)"
)
Say = Callable[[str], object]


def python(then: RunDir, say: Say) -> Path:
    """Returns the Python of an environment with the recorded packages; one that was made before is used again.

    Raises:
        BadInput: The record does not say which packages, this machine has no such Python, or pip refuses.
    """
    wanted = installable.requirements(then)
    carried = _carried(then)
    interpreter = _interpreter(str((read_json(then.source / "packages.json") or {}).get("python") or ""))
    content = [installable.lines(wanted).encode(), carried[1], interpreter.encode()]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "labkit" / "environments"
    target = cache / hashlib.sha256(b"\0".join(content)).hexdigest()[:16]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _alone(target, say) as lock:
            if not _is_whole(target):
                say(f"building the recorded environment in {target}; this takes minutes, once")
                _build(target, interpreter, wanted, carried, lock, say)
    except OSError as error:
        raise BadInput(f"the recorded environment could not be built: {error}") from error
    return target / "bin" / "python"


def _carried(then: RunDir) -> tuple[str, bytes]:
    """Returns labkit's wheel out of a record, with its file name."""
    name = str((read_json(then.source / "labkit.json") or {}).get("wheel") or "")
    content = wheel.read(then.source / name) if wheel.NAMED.fullmatch(name) else None
    if content is None:
        raise BadInput(
            "the record does not carry labkit, so its environment cannot be rebuilt; leave --env rebuild out"
        )
    return name.removesuffix(".bz2"), content


def _interpreter(wanted: str) -> str:
    minor = ".".join(wanted.split(".")[:2])
    if not re.fullmatch(r"3\.\d{1,3}", minor):
        raise BadInput("the record does not say which Python it ran on")
    if minor == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return getattr(sys, "_base_executable", None) or sys.executable
    found = shutil.which(f"python{minor}")
    if found is None:
        raise BadInput(f"it ran on Python {wanted}, and there is no python{minor} on the path")
    return found


@contextmanager
def _alone(target: Path, say: Say) -> Iterator[int]:
    """Waits until no other process builds an environment; pip holds the lock too, also when its labkit was killed."""
    with open(f"{target}.lock", "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another labkit is building the recorded environment; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _is_whole(target: Path) -> bool:
    """Tells whether an environment was made to the end, and its Python has not been removed since."""
    return (target / WHOLE).is_file() and os.access(target / "bin" / "python", os.X_OK)


def _build(
    target: Path, interpreter: str, wanted: dict[str, str], carried: tuple[str, bytes], lock: int, say: Say
) -> None:
    shutil.rmtree(target, ignore_errors=True)
    pip = [str(target / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    with tempfile.TemporaryDirectory(prefix=".building-", dir=target.parent, ignore_cleanup_errors=True) as beside:
        asked = Path(beside, "requirements.txt")
        made = Path(beside, carried[0])
        made.write_bytes(carried[1])

        def call(*command: str, said: Callable[[str], object] = lambda line: None) -> list[str]:
            status, last = child.run(
                list(command), environment(target), on_line=said, timeout_s=INSTALL_S, keep_open=(lock,)
            )
            return last or [f"{command[0]} ended with status {status}"] if status else []

        try:
            _must(call(interpreter, "-m", "venv", "--clear", str(target)))
            while True:
                asked.write_text(installable.lines(wanted))
                problem = call(*pip, "--requirement", str(asked), said=_told(say, len(wanted)))
                other = installable.without(wanted, problem) if problem else None
                if other is None:
                    break
                wanted, line = other
                say(line)
            _must(problem)
            _must(call(*pip, "--no-deps", str(made)))
            write_atomic(target / WHOLE, b"")
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise


def _must(problem: list[str]) -> None:
    if problem:
        errors = [line for line in problem if line.startswith("ERROR")] or problem[-3:]
        raise BadInput(f"the recorded environment could not be built: {' '.join(errors):.600}")


def _told(say: Say, packages: int) -> Callable[[str], object]:
    """Returns what takes pip's lines and tells now and then how far it is."""
    seen, told_s = 0, time.monotonic()

    def take(line: str) -> None:
        nonlocal seen, told_s
        seen += line.startswith("Collecting ")
        last = line.startswith("Installing collected packages")
        if last:
            say(f"installing {packages} packages")
        elif time.monotonic() - told_s > TOLD_S and line.startswith("Collecting "):
            name = line[len("Collecting ") :].partition(" (from ")[0]
            say(f"{seen} of {packages} packages: {name:.80}")
            told_s = time.monotonic()

    return take


def environment(home: Path) -> dict[str, str]:
    """Returns this process's environment without what says where another Python has its things."""
    env = {name: value for name, value in os.environ.items() if not FOREIGN.fullmatch(name)}
    path = os.pathsep.join([str(home / "bin"), env.get("PATH") or os.defpath])
    own = {"VIRTUAL_ENV": str(home), "PATH": path, "PYTHONNOUSERSITE": "1", "JUPYTER_PREFER_ENV_PATH": "1"}
    return env | own | {"PIP_USER": "0"}


def refuse(path: Path, values: dict[str, Any]) -> None:
    """Refuses a notebook that no rebuilt environment could run, before one is built.

    Raises:
        BadInput: Its language is another, or a value cannot be given by a file.
    """
    found = notebook.read(path)
    if found.language != "python":
        raise BadInput(f"it is written in {found.language}; an environment is rebuilt for Python only")
    declared = {one.name: one for one in found.parameters()} if values else {}
    lost = [name for name, value in values.items() if name in declared and not params.comes_back(declared[name], value)]
    if lost:
        raise BadInput(f"{', '.join(lost)} cannot be given by a file as they were; leave --env rebuild out")


def run(python: Path, path: Path, values: dict[str, Any], runs: Path, modules: list[str]) -> None:
    """Executes a notebook in a rebuilt environment, by the labkit and the kernel that are in there.

    Args:
        python: The environment's.
        path: The notebook.
        values: Its parameters.
        runs: The folder for the run.
        modules: Folders in which the recorded modules are found.

    Raises:
        LabkitError: The environment's Python cannot be started.
        SystemExit: A signal asked for a stop; the run has ended.
    """
    given = runs.parent / ".params.yaml"
    given.write_text(yamlfile.yaml_text(values), "utf-8")
    command = [str(python), "-P", "-m", "labkit.cli", "run", str(path), "--runs", str(runs), "--no-report"]
    env = environment(python.parent.parent) | ({"PYTHONPATH": os.pathsep.join(modules)} if modules else {})
    try:
        child.run([*command, "--kernel", "python3", *(["-f", str(given)] if values else [])], env)
    except OSError as error:
        raise LabkitError(f"{python} cannot be started: {error}") from error
