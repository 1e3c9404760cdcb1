"""A recorded run with all that a record may hold, and copies of it in which something is not as it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.record.claims import Claim, Reason
from labkit.record.files import dumps, write_json
from labkit.record.metrics import MetricsWriter
from labkit.record.rundir import RunDir, create
from labkit.record.summary import summarise

MODULE = "def scale(x):\n    # to one\n    return x / 16\n"
CELLS = {
    "goal": "# Digits\n\nHow well?",
    "parameters": "LR: float = 0.1  # of the optimizer\nRANDOM_SEED: int = 0",
    "data": "import sklearn.datasets\nimport scaling\n\nx = scaling.scale(load())",
    "training": "%matplotlib inline\nfor step in range(20):\n    loss = train(x, LR)  # one step\n",
}
PACKAGES = {"torch": "2.13.0", "numpy": "2.4.6", "scikit-learn": "1.9.0", "tornado": "6.5"}
PROMISED = Claim()
SEEDED = Claim.of([Reason("seeded", "deterministic algorithms are off", "call labkit.seed(0, deterministic=True)")])


def recorded(runs: Path, claim: Claim = PROMISED) -> RunDir:
    """A run of twenty steps that finished, with every file that a comparison reads."""
    manifest = {"parameters": {"LR": 0.1, "RANDOM_SEED": 0, "VERSION": "1.0"}, "source_sha256": "5" * 64}
    run = create(runs, "digits", manifest, {"params.yaml": "LR: 0.1\n", "requirements.txt": "numpy==2.4.6\n"})
    write_notebook(run, CELLS)
    write_module(run, MODULE)
    write_json(run.source / "labkit.json", {"version": "0.1.0", "sha256": "a" * 64, "wheel": "labkit.whl"})
    packages = {name: {"version": version, "tag": "py3-none-any"} for name, version in PACKAGES.items()}
    write_json(run.source / "packages.json", {"python": "3.11.7", "implementation": "CPython", "packages": packages})
    write_json(run.path / "machine.json", MACHINE)
    files = {"data/x.csv": {"blake3": "1" * 64, "bytes": 120}, "data/y.csv": {"blake3": "2" * 64, "bytes": 99}}
    write_json(run.path / "inputs.json", {"files": files, "left_out": {}})
    (run.path / "fingerprints.jsonl").write_bytes(b"".join(dumps(line) + b"\n" for line in PRINTS))
    writer = MetricsWriter(run.metrics)
    for step in range(20):
        writer.log(step, {"loss": 1 / (step + 1)})
    writer.log(20, {"test_accuracy": 0.95})
    writer.close()
    write_json(run.stated, STATED)
    write_json(run.claim, claim.facts() | {"operations": [], "final": True})
    write_json(run.exit, {"status": "finished", "reason": "", "duration_s": 1.5})
    summarise(run)
    return run


MACHINE = {
    "hardware": {"cpu": "Xeon", "isa": "AVX512", "cores": 8, "gpus": [], "driver": None, "memory_gib": 32.0},
    "libraries": {"torch": "2.13.0+cpu", "blas": "mkl", "mkl": "2024.2", "libc": "glibc 2.36", "os": "Linux-6.1"},
    "settings": {
        "threads": 4,
        "interop_threads": 2,
        "seed": 0,
        "hash_seed": "0",
        "deterministic": True,
        "warn_only": False,
        "cudnn_benchmark": False,
        "default_dtype": "torch.float32",
    },
    "variables": {"LANG": "C.UTF-8", "PYTHONHASHSEED": "0"},
}
PRINTS: list[dict[str, Any]] = [
    {"kind": "data", "name": "training data", "lines": 0, "samples": 1000, "fingerprint": "d" * 16},
    {"kind": "weights", "name": "model", "at": "start", "lines": 0, "fingerprint": "a" * 16},
    {"kind": "weights", "name": "model", "at": "checkpoint", "lines": 10, "fingerprint": "b" * 16},
    {"kind": "weights", "name": "model", "at": "end", "lines": 21, "fingerprint": "c" * 16},
]
STATED = {
    "expectations": [
        {"text": "good", "metric": "test_accuracy", "comparison": ">=", "number": 0.9, "by_epoch": None, "late": False}
    ],
    "conclusions": [],
    "labels": [],
}


def write_notebook(run: RunDir, cells: dict[str, str]) -> None:
    """Writes the notebook that a run was made from; the first cell is text."""
    made = [
        {
            "id": name,
            "cell_type": "markdown" if name == "goal" else "code",
            "source": source,
            "metadata": {"tags": ["parameters"]} if name == "parameters" else {},
        }
        for name, source in cells.items()
    ]
    write_json(run.source / "notebook.ipynb", {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": made})


def write_module(run: RunDir, source: str, name: str = "scaling") -> None:
    """Writes a module that a run imported, and into the record of modules."""
    path = run.source / "modules" / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(source)
    listed = run.source / "modules.json"
    record = json.loads(listed.read_bytes()) if listed.exists() else {}
    sha256 = hashlib.sha256(source.encode()).hexdigest()
    write_json(listed, record | {name: {"path": f"{name}.py", "sha256": sha256}})


def change(path: Path, *keys: str, to: Any) -> None:
    """Sets one value deep in a JSON file; None takes it out."""
    content = json.loads(path.read_bytes())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    if to is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = to
    write_json(path, content)


def reprint(run: RunDir, place: int, **changes: Any) -> None:
    """Changes one fingerprint."""
    path = run.path / "fingerprints.jsonl"
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    lines[place] |= changes
    path.write_bytes(b"".join(dumps(line) + b"\n" for line in lines))


def drift(run: RunDir, step: int = 3, by: float = 1e-9, final: float | None = None) -> None:
    """Lets the numbers go another way from a step on, and the weights with them."""
    lines = [json.loads(line) for line in run.metrics.read_bytes().splitlines()]
    for line in lines[step:]:
        line |= {"loss": line["loss"] + by} if "loss" in line else {}
        line |= {"test_accuracy": final} if final is not None and "test_accuracy" in line else {}
    run.metrics.write_bytes(b"".join(dumps(line) + b"\n" for line in lines))
    if (run.path / "fingerprints.jsonl").exists():
        reprint(run, 3, fingerprint="e" * 16)
    summarise(run)


def twin(run: RunDir, *changes: Callable[[RunDir], object]) -> RunDir:
    """A copy of a run, made after it, with these changes."""
    folder = run.path.with_name(f"{run.path.name[:-6]}{len(list(run.path.parent.iterdir())):06x}")
    shutil.copytree(run.path, folder, symlinks=True)
    copy = RunDir(folder)
    for one in changes:
        one(copy)
    return copy
