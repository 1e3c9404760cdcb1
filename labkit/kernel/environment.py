"""The environment check: what this process runs on, and what is off about it.

`python -m labkit.kernel.environment [--json]` prints it in a shell. GPUs are found through nvidia-smi, not
through PyTorch: asking that would start CUDA, after which the workspace of cuBLAS can no longer be set.
"""

from __future__ import annotations

import contextlib
import html
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import labkit
from labkit.record import claims, provenance
from labkit.record.claims import Claim
from labkit.record.files import dumps, now, write_json
from labkit.record.machine import cores, cpu_model
from labkit.record.text import counted

if TYPE_CHECKING:
    from labkit.kernel.run import Run

LOCK = "requirements.lock"
SMI_S = 5.0
GIB = 2**30
BITS = ("ATEN_CPU_CAPABILITY", "MKL_CBWR")  # variables that choose among algorithms whose bits differ

Facts = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """Something off, and what to do about it; not `wrong` where it is usual while one works."""

    problem: str
    remedy: str
    wrong: bool = True


@dataclass(frozen=True)
class Environment:
    """The facts, as environment.json keeps them, and what is off. Shows itself as a table in a notebook."""

    facts: Facts
    findings: tuple[Finding, ...]

    def __repr__(self) -> str:
        lines = [f"{name:<12} {text}" for name, text in _rows(self.facts)]
        lines += [f"✗ {finding.problem}\n  {finding.remedy}" for finding in self.findings]
        return "\n".join([*lines, "" if self.findings else "✓ nothing is off"]).rstrip()

    def _repr_html_(self) -> str:
        cell = 'style="text-align: left; padding: 2px 12px 2px 0; vertical-align: top"'
        rows = "".join(
            f"<tr><th {cell}>{html.escape(name)}</th><td {cell}>{html.escape(text)}</td></tr>"
            for name, text in _rows(self.facts)
        )
        red, green = 'style="color: #c62828; margin: 4px 0"', 'style="color: #2e7d32; margin: 4px 0"'
        marks = "".join(
            f"<p {red}><strong>✗ {html.escape(finding.problem)}</strong><br>{html.escape(finding.remedy)}</p>"
            for finding in self.findings
        )
        return f"<table>{rows}</table>{marks or f'<p {green}>✓ nothing is off</p>'}"


def environment(run: Run | None = None) -> Environment:
    """Returns what this process runs on and what is off about it.

    Args:
        run: Whose environment.json to write; by default none.
    """
    from labkit.kernel import claim, determinism

    facts = gather(determinism.current().as_dict(), claim=claim.watch.claim())
    if run is not None:
        try:
            write_json(run.directory.environment, facts)
        except OSError as error:  # a full disk stops no notebook
            run.logger.error("environment.json was not saved: %s", error.strerror or error)
    return Environment(facts, tuple(findings(facts)))


def gather(
    determinism: Mapping[str, Any] | None = None, folder: Path | None = None, claim: Claim | None = None
) -> Facts:
    """Returns the facts for environment.json.

    Args:
        determinism: What was seeded and set; None where the check stands before any experiment.
        folder: Where to look for the repository and the lock; by default the working directory.
        claim: How far the run would give the same numbers again, as of now.
    """
    folder = Path.cwd() if folder is None else folder
    driver, gpus = nvidia()
    return {
        "time": now(),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **_torch_facts(),
        "driver": driver,
        "gpus": gpus,
        "cpu": cpu_model(),
        "cores": cores(),
        "memory_gib": memory_gib(),
        "labkit": labkit.__version__,
        "git": provenance.git_state(folder),
        "determinism": dict(determinism) if determinism is not None else None,
        "claim": claim.facts() if claim is not None else None,
        "lock": lock_state(folder),
    }


def findings(facts: Facts) -> Iterator[Finding]:
    """Yields what is off in the facts, the gravest first."""
    if facts["torch"] is None:
        yield Finding("PyTorch is not installed", "run `make setup`, or `pip install torch`")
    elif facts["driver"] is not None and facts["cuda"] is None:
        yield Finding(
            f"there is an NVIDIA driver ({facts['driver']}), but PyTorch {facts['torch']} is a CPU build",
            "install a CUDA build: https://pytorch.org/get-started/locally",
        )
    elif facts["driver"] is not None and facts["cuda"] is not None and not facts["cuda_usable"]:
        yield Finding(
            f"PyTorch {facts['torch']} cannot use the GPU with driver {facts['driver']}",
            "update the driver, or install a PyTorch build for its CUDA version",
        )
    claim = claims.read(facts["claim"])
    for reason in claim.reasons if claim is not None else ():
        yield Finding(f"at most {reason.most}: {reason.problem}", reason.remedy)
    git, lock = facts["git"], facts["lock"]
    if git["dirty"]:
        remedy = "commit them; the run keeps them as a patch"
        yield Finding("tracked files have changes that are in no commit", remedy, wrong=False)
    if lock["differences"]:
        shown = "; ".join(lock["differences"][:5]) + (" …" if len(lock["differences"]) > 5 else "")
        verb = "differs" if len(lock["differences"]) == 1 else "differ"
        yield Finding(
            f"{counted(len(lock['differences']), 'installed package')} {verb} from {lock['file']}: {shown}",
            f"install the versions of the lock: `pip install -r {lock['file']}`",
        )


def _torch_facts() -> Facts:
    try:
        import torch
    except ImportError:
        return dict.fromkeys(("torch", "wheel", "cuda", "cuda_usable", "isa", "blas", "threads", *BITS))
    blas = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    return {
        "torch": torch.__version__,
        "wheel": wheel_tag("torch"),
        "cuda": torch.version.cuda,
        "cuda_usable": torch.cuda.is_available(),  # through the driver's library, without starting CUDA
        "isa": torch.backends.cpu.get_cpu_capability(),
        "blas": blas[1] if blas else None,
        "threads": torch.get_num_threads(),
        **{name: os.environ.get(name) for name in BITS},
    }


def wheel_tag(package: str) -> str | None:
    """Returns the tag of a package's wheel, such as cp311-cp311-manylinux_2_28_x86_64."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        text = metadata.distribution(package).read_text("WHEEL") or ""
        tags = re.findall(r"^Tag: (.+)$", text, re.MULTILINE)
        return tags[0] if tags else None
    return None


def nvidia() -> tuple[str | None, list[Facts]]:
    """Returns the NVIDIA driver's version, None where there is none, and the GPUs this process may use."""
    smi = shutil.which("nvidia-smi")
    query = ["--query-gpu=name,memory.total,driver_version,index,uuid", "--format=csv,noheader,nounits"]
    text = _output([smi, *query], SMI_S) if smi else None
    if text is None:
        return None, []
    rows = [[field.strip() for field in line.split(",")] for line in text.splitlines() if line.count(",") == 4]
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = None if allowed is None else [name.strip() for name in allowed.split(",") if name.strip()]
    gpus = [
        {"name": name, "memory_gib": _gib(memory)}
        for name, memory, _, index, uuid in rows
        if chosen is None or index in chosen or any(uuid.startswith(word) for word in chosen if "GPU" in word)
    ]
    return (rows[0][2] if rows else None), gpus


def _gib(mib: str) -> float | None:
    return round(int(mib) / 1024, 1) if mib.isdigit() else None  # unified memory reads "[N/A]"


def memory_gib() -> float | None:
    """Returns how much memory this process may use: the machine's, or less where a container sets a limit."""
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            size = min(size, int(Path(limit).read_text()))
    return round(size / GIB, 1)


def lock_state(folder: Path) -> Facts:
    """Returns the nearest lock in `folder` or above, and how the installed packages differ from it."""
    lock = next((where / LOCK for where in (folder, *folder.parents) if (where / LOCK).is_file()), None)
    if lock is None:
        return {"file": None, "differences": []}
    return {
        "file": os.path.relpath(lock, folder),
        "differences": list(lock_differences(lock.read_text("utf-8"))),
    }


def lock_differences(lock: str) -> Iterator[str]:
    """Yields a line for each package that is not as the lock's text says: `numpy 2.4.6, lock says 2.4.5`."""
    from packaging.requirements import InvalidRequirement, Requirement

    for line in lock.splitlines():
        try:
            wanted = Requirement(re.sub(r"(^|\s)#.*$|\s+--hash=.*$|\\$", "", line).strip())
        except InvalidRequirement:
            continue  # comments, options, blank lines
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        versions = str(wanted.specifier).replace("==", "")
        try:
            installed = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            yield f"{wanted.name} is missing, lock says {versions}"
            continue
        if not wanted.specifier.contains(installed, prereleases=True):
            yield f"{wanted.name} {installed}, lock says {versions}"


def _output(command: list[str], timeout_s: float) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout


def _rows(facts: Facts) -> Iterator[tuple[str, str]]:
    """Yields what a reader wants to know, as name and text."""
    git, lock, determinism = facts["git"], facts["lock"], facts["determinism"]
    yield "Python", f"{facts['python']} on {facts['platform']}"
    build = f"CUDA {facts['cuda']}" if facts["cuda"] else "CPU build"
    yield (
        "PyTorch",
        f"{facts['torch']} ({build}, {facts['blas']}, {facts['isa']})" if facts["torch"] else "missing",
    )
    gpus = ", ".join(f"{gpu['name']} ({gpu['memory_gib']} GiB)" for gpu in facts["gpus"])
    yield "GPU", f"{gpus or 'none visible'}, driver {facts['driver']}" if facts["driver"] else "none"
    used = [counted(facts[what], what[:-1]) for what in ("cores", "threads") if facts[what]]
    yield "CPU", ", ".join([str(facts["cpu"]), *used]) + (" used" if facts["threads"] else "")
    yield "Memory", f"{facts['memory_gib']} GiB"
    yield "Host", f"{facts['host']}, {facts['time']}"
    where = f" on {git['branch']}" if git["branch"] else ""
    yield "Commit", f"{git['commit'][:12]}{where}" if git["commit"] else f"unknown: {git['problem']}"
    if determinism is not None:
        mode = "deterministic" if determinism["deterministic"] else "not deterministic"
        yield "Seed", f"{determinism['seed']}, {mode}, PYTHONHASHSEED {determinism['hash_seed']}"
    if facts["claim"] is not None:
        yield "Claim", f"{facts['claim']['label']}, as of now"
    if lock["file"] is None:
        yield "Lock", f"no {LOCK} here or above: nothing says which versions belong here"
    else:
        count = len(lock["differences"])
        differ = f"{counted(count, 'package')} differ{'s' if count == 1 else ''}"
        yield "Lock", f"{lock['file']}: {differ if count else 'all packages as locked'}"


def main() -> None:
    """Prints the check as JSON: facts, the rows that a reader sees, and findings."""
    facts = gather()
    listed = [asdict(finding) for finding in findings(facts)]
    found = {"facts": facts, "shown": list(_rows(facts)), "findings": listed}
    sys.stdout.write(dumps(found).decode() + "\n")


if __name__ == "__main__":
    main()
