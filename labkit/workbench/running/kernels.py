"""Jupyter kernels for this environment: one for each GPU and one for the CPU, which start warm."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import FolderProblem
from labkit.launch import warm
from labkit.record import gpus
from labkit.record.files import read_json, write_json
from labkit.record.gpus import Gpu
from labkit.record.process import host
from labkit.workbench.running.job import kernel_specs

PREFIX = "labkit"
CPU = "labkit-cpu"


@dataclass(frozen=True)
class Kernel:
    """One kernel.

    Attributes:
        name: What `papermill -k` and `--kernel` call it.
        shown: What JupyterLab calls it.
        gpu: The GPU that it sees; None for the CPU's.
    """

    name: str
    shown: str
    gpu: Gpu | None = None

    def spec(self) -> dict[str, Any]:
        """Returns the content of its kernel.json."""
        return {
            "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": self.shown,
            "language": "python",
            "env": {
                # A CPU kernel sees no GPU, so that code which asks for one does not take a neighbour's.
                "CUDA_VISIBLE_DEVICES": self.gpu.uuid if self.gpu is not None else "",
                "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
                "PYTHONHASHSEED": "0",
            },
            "metadata": {
                "debugger": True,
                "kernel_provisioner": {"provisioner_name": "labkit", "config": {"starts_server": True}},
                "labkit": {"python": sys.executable, "host": host(), "gpu": self.gpu.uuid if self.gpu else None},
            },
        }


def wanted() -> list[Kernel]:
    """Returns a kernel for each GPU that is visible, and one for the CPU."""
    found = [Kernel(CPU, "labkit (CPU)")]
    for gpu in gpus.visible(gpus.every(), os.environ.get("CUDA_VISIBLE_DEVICES")):
        model = re.sub(r"[^a-z0-9]+", "-", gpu.model.lower().removeprefix("nvidia ")).strip("-")
        found.append(Kernel(f"labkit-gpu{gpu.index}-{model}", f"labkit (GPU {gpu.index}: {gpu.model})", gpu))
    return found


def install() -> list[Kernel]:
    """Writes the kernels of this machine into this environment, and removes those of its GPUs that are gone.

    Other machines may share the environment: a kernel for one of their GPUs stays, and where ours would have its name,
    ours has the machine's as well.

    Raises:
        FolderProblem: The environment's folder cannot be written.
    """
    folder = _folder()
    there = {gpu.uuid for gpu in gpus.every()}  # hidden ones as well
    taken = {name for name, facts in _own(folder).items() if _is_elsewhere(facts, there)}
    kernels = [_named_apart(kernel) if kernel.name in taken else kernel for kernel in wanted()]
    try:
        for kernel in kernels:
            (folder / kernel.name).mkdir(parents=True, exist_ok=True)
            write_json(folder / kernel.name / "kernel.json", kernel.spec(), durable=False)
        for name, facts in _own(folder).items():
            if facts.get("host") == host() and facts.get("gpu") and facts["gpu"] not in there:
                shutil.rmtree(folder / name)
    except OSError as error:
        raise FolderProblem(f"{folder} cannot be written: {error.strerror or error}") from error
    return kernels


def _is_elsewhere(facts: dict[str, Any], there: set[str]) -> bool:
    """Tells whether a kernel is for a GPU of another machine; the name of this one may be new, as a container's is."""
    return bool(facts.get("gpu")) and facts.get("host") != host() and facts["gpu"] not in there


def _named_apart(kernel: Kernel) -> Kernel:
    name = re.sub(r"[^a-z0-9]+", "-", host().lower()).strip("-")
    return Kernel(f"{kernel.name}-{name}", f"{kernel.shown.removesuffix(')')}, {host()})", kernel.gpu)


def remove() -> tuple[list[str], int]:
    """Removes this environment's kernels and ends all servers of this user that keep kernels warm.

    Returns:
        The kernels' names, and how many servers there were.
    """
    folder = _folder()
    names = list(_own(folder))
    for name in names:
        shutil.rmtree(folder / name, ignore_errors=True)
    return names, warm.stop_all()


def installed() -> Iterator[tuple[str, str, str]]:
    """Yields name, shown name and Python of each of labkit's kernels that Jupyter finds, of other environments too."""
    for name, folder in sorted(kernel_specs().find_kernel_specs().items()):
        if not name.startswith(PREFIX):
            continue
        facts = read_json(Path(folder) / "kernel.json") or {}
        argv = facts.get("argv") or [""]
        yield name, str(facts.get("display_name") or ""), str(argv[0])


def _folder() -> Path:
    return Path(sys.prefix) / "share" / "jupyter" / "kernels"


def _own(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns labkit's kernels in a folder, by name, with what it keeps of each."""
    found = {}
    for path in sorted(folder.glob(f"{PREFIX}-*")):
        try:
            facts = json.loads((path / "kernel.json").read_bytes())
        except (OSError, ValueError):
            continue
        kept = (facts.get("metadata") or {}).get("labkit") if isinstance(facts, dict) else None
        if isinstance(kept, dict):
            found[path.name] = kept
    return found
