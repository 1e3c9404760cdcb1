"""Servers of warm kernels for tests: in a folder of their own, and nothing of them left afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from running import wait_for
from tiny import plain_environment

from labkit.workbench.running.kernels import Kernel

READY_S = 90.0
WAIT = f"""
from pathlib import Path
from labkit.launch import warm
from labkit.record.rundir import RunDir
from labkit.workbench.running.execute import kernel_environment
print(warm.wait_for(kernel_environment(RunDir(Path("x"))), {READY_S}))
"""


@contextmanager
def sockets() -> Iterator[Path]:
    """A folder for sockets, whose names must be short; every server in it is ended with the block."""
    place = Path(tempfile.mkdtemp(prefix="warm-"))
    try:
        yield place
        stop = "from labkit.launch import warm; warm.stop_all()"
        subprocess.run([sys.executable, "-c", stop], env=plain_environment(XDG_RUNTIME_DIR=str(place)), check=True)
        wait_for(lambda: not naming(place), what="the end of every process")
        assert not [path for path in place.rglob("*") if path.is_socket()]
    finally:
        shutil.rmtree(place)


def served(place: Path, **more: str) -> dict[str, str]:
    """The environment of programs whose runs have warm kernels, once the server is ready."""
    usual = {"XDG_RUNTIME_DIR": str(place), "LABKIT_WARM_IDLE_S": "600", "PYTHONHASHSEED": "0"}
    found = plain_environment(**usual | more)
    done = subprocess.run([sys.executable, "-c", WAIT], env=found, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr + "".join(path.read_text() for path in place.rglob("*.log"))
    return found


def naming(place: Path) -> list[int]:
    """The processes that have a folder in their command or their environment."""
    found = []
    for entry in [entry for entry in Path("/proc").iterdir() if entry.name.isdecimal()]:
        try:
            said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if os.fsencode(place) in said and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def install(folder: Path) -> dict[str, str]:
    """Lays the specification of labkit's kernel into a folder; returns the variables with which Jupyter finds it."""
    spec = folder / "kernels" / "labkit-cpu"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(json.dumps(Kernel("labkit-cpu", "labkit (CPU)").spec()))
    return {"JUPYTER_PATH": str(folder)}
