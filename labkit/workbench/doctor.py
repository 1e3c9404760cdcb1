"""What `labkit doctor` looks at beside the environment check: settings, kernels, git filter, disk, versions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from labkit.errors import ConfigProblem
from labkit.record import config, lab
from labkit.record.find import every
from labkit.record.text import counted
from labkit.workbench.git import gitsetup
from labkit.workbench.prune import scratch_runs

FREE_GIB = 5.0
# Versions below which a package has a published hole that labkit's users would meet.
FLOORS = {
    "jupyter-server": ("2.20.0", "CVE-2026-44727: a page made by nbconvert can take over the server"),
    "jupyterlab": ("4.6.2", "CVE-2026-73415, CVE-2026-73417, CVE-2026-73627"),
    "nbconvert": ("7.17.1", "CVE-2026-39377, CVE-2026-39378: files outside of the output folder"),
    "torch": ("2.10.0", "CVE-2026-24747: loading a checkpoint can corrupt memory"),
}


def examine(folder: Path) -> dict[str, Any]:
    """Returns what was found in and around the lab of a folder.

    Returns:
        `facts` (the environment check), `settings` (value and origin by name), `kernels` (folder by name), `disk`
        (`free_gib`, `runs`, `runs_gib`, `scratch_runs`), and `findings`: `problem`, `remedy` and `wrong` each.
    """
    root = lab.root(folder)
    checked = _environment(folder)
    findings = list(checked["findings"])
    try:
        settings = config.settings(root)
        runs = lab.runs_folder(folder)
    except ConfigProblem as error:
        settings, runs = {}, root / "runs"
        findings.append(_finding(str(error), "mend that line"))
    kernels, disk = _kernels(), _disk(runs)
    findings += [*_floors(), *_disk_findings(disk, runs)]
    if problem := gitsetup.problem(root):
        what, _, remedy = problem.partition("; remedy: ")
        findings.append(_finding(what, remedy, wrong=False))
    if not kernels:
        findings.append(_finding("no Jupyter kernel is installed", "python -m ipykernel install --sys-prefix"))
    return {
        "facts": checked["facts"],
        "settings": {name: {"value": one.value, "origin": one.origin} for name, one in settings.items()},
        "kernels": kernels,
        "disk": disk,
        "findings": findings,
        "shown": checked["shown"],
    }


def _finding(problem: str, remedy: str, *, wrong: bool = True) -> dict[str, Any]:
    return {"problem": problem, "remedy": remedy, "wrong": wrong}


def _environment(folder: Path) -> dict[str, Any]:
    """Returns the environment check, made in a process of its own since it loads torch."""
    command = [sys.executable, "-P", "-m", "labkit.kernel.environment"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        problem = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        failed = _finding(f"the environment check failed: {problem[0]:.300}", "make env")
        return {"facts": {}, "findings": [failed], "shown": []}


def _kernels() -> dict[str, str]:
    from labkit.workbench.running.job import kernel_specs

    return dict(sorted(kernel_specs().find_kernel_specs().items()))


def _disk(runs: Path) -> dict[str, Any]:
    place = next((folder for folder in (runs, *runs.parents) if folder.exists()), Path("/"))
    scratch = scratch_runs(runs)
    return {
        "free_gib": round(shutil.disk_usage(place).free / 2**30, 1),
        "writable": os.access(place, os.W_OK),
        "runs": len(every(runs)),
        "scratch_runs": len(scratch),
        "scratch_mib": round(sum(one.size_bytes for one in scratch) / 2**20, 1),
    }


def _floors() -> Iterator[dict[str, Any]]:
    from packaging.version import Version

    for name, (floor, hole) in FLOORS.items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if Version(installed) < Version(floor):
            yield _finding(f"{name} {installed} has a known hole ({hole})", f"pip install '{name}>={floor}'")


def _disk_findings(disk: dict[str, Any], runs: Path) -> Iterator[dict[str, Any]]:
    if disk["free_gib"] < FREE_GIB:
        yield _finding(f"{disk['free_gib']} GiB are free for {runs}", "make room, or set `runs` to another disk")
    if not disk["writable"]:
        yield _finding(f"{runs} cannot be written", "set `runs` in pyproject.toml, or $LABKIT_RUNS, to another folder")


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Yields the examination for a shell, findings last."""
    width = 13
    for name, text in found["shown"]:
        yield f"{name:<{width}}{text}"
    disk = found["disk"]
    yield f"{'Kernels':<{width}}{', '.join(found['kernels']) or 'none'}"
    yield f"{'Disk':<{width}}{disk['free_gib']} GiB free; {counted(disk['runs'], 'run')}"
    if disk["scratch_runs"]:
        scratch = f"{counted(disk['scratch_runs'], 'run')} by hand, {disk['scratch_mib']} MiB"
        yield f"{'Scratch':<{width}}{scratch} (labkit prune --scratch)"
    for name, setting in found["settings"].items():
        if "." in name and setting["origin"] == "default":
            continue  # of a table that this lab has nothing in
        yield f"{'Setting':<{width}}{name} = {setting['value']!r} ({setting['origin']})"
    for finding in found["findings"]:
        yield f"{'✗' if finding['wrong'] else '·'} {finding['problem']}"
        yield f"  {finding['remedy']}"
    yield _conclusion(found)


def _conclusion(found: dict[str, Any]) -> str:
    """Returns the last line: whether all is fine, else how much is not and what to do about it."""
    wrong = sum(bool(finding["wrong"]) for finding in found["findings"])
    noted = len(found["findings"]) - wrong
    remarks = f"; {counted(noted, 'remark')} marked ·" if noted else ""
    if not wrong:
        return f"All fine{remarks}"
    return f"{counted(wrong, 'problem')}{remarks}: do what stands below each ✗, then `labkit doctor` again"


def status(found: dict[str, Any]) -> int:
    """Returns 1 where something is wrong, else 0."""
    return int(any(finding["wrong"] for finding in found["findings"]))
