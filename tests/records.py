"""Runs made for one test: whole ones through the record, and what lies in them changed afterwards."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import settings

from labkit.record.files import write_json
from labkit.record.metrics import MetricsWriter
from labkit.record.process import Process
from labkit.record.rundir import RunDir, create
from labkit.record.summary import summarise

quick = settings(max_examples=60)


def made(runs: Path, name: str = "tiny", *, end: str | None = "finished", steps: int = 0, **manifest: Any) -> RunDir:
    """A run that logged `loss` and `accuracy` for some steps and then ended; with `end=None` it has not started."""
    run = create(runs, name, manifest, {"params.yaml": "N: 1\n"})
    if steps:
        writer = MetricsWriter(run.metrics)
        for step in range(steps):
            writer.log(step, {"loss": 1 / (step + 1), "accuracy": step / steps})
        writer.close()
        summarise(run)
    if end is not None:
        write_json(run.exit, {"status": end, "reason": "", "duration_s": 1.5})
    return run


def started(run: RunDir, process: Process, **more: Any) -> RunDir:
    """Says in the record that `process` is the one that the run's life hangs on."""
    write_json(run.process, {"process": process.facts(), **more})
    return run


def dead_process() -> Process:
    """A process of this host and boot that has ended."""
    child = subprocess.Popen(["true"])  # a fork of this process, with torch loaded, would take long
    ended = Process.of(child.pid)
    child.wait()
    return ended


def apart(*arguments: str) -> str:
    """Run Python in a process namespace of its own, as in a container, and return what it says."""
    command = ["unshare", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    command = command if os.geteuid() else [command[0], *command[2:]]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("this system gives out no process namespaces")
    return subprocess.run([*command, sys.executable, *arguments], capture_output=True, text=True, check=True).stdout


def lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file, each of which must be whole."""
    return [orjson.loads(line) for line in path.read_bytes().splitlines() if line]


def tree(folder: Path) -> dict[str, tuple[int, bytes | str]]:
    """Everything below a folder: kind and content by name; equal for two looks between which nothing was touched."""
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in sorted(folder.rglob("*")):
        kind = stat.S_IFMT(path.lstat().st_mode)
        if path.is_symlink():
            content: bytes | str = os.readlink(path)
        else:
            content = path.read_bytes() if stat.S_ISREG(kind) else b""
        found[str(path.relative_to(folder))] = (kind, content)
    return found
