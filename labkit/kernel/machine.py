"""What the bits of a result depend on beside code and data: hardware, libraries, settings, variables."""

from __future__ import annotations

import platform
import re
from contextlib import suppress
from typing import Any

import torch

from labkit.kernel import claim, determinism
from labkit.kernel.environment import memory_gib, wheel_tag
from labkit.record import machine
from labkit.record.files import write_json
from labkit.record.rundir import RunDir


def facts() -> dict[str, Any]:
    """Returns what holds in this process now, for machine.json."""
    return {
        "hardware": _hardware(),
        "libraries": _libraries(),
        "settings": _settings(),
        "variables": machine.variables(),
    }


def record(run: RunDir) -> None:
    """Writes machine.json; what cannot be written is unknown to who reproduces the run."""
    with suppress(OSError):
        write_json(run.machine, facts(), durable=False)


def _hardware() -> dict[str, Any]:
    own = claim.hardware()
    found = {name: own[name] for name in ("isa", "gpus", "driver")}
    return {"cpu": machine.cpu_model(), "cores": machine.cores(), "memory_gib": memory_gib(), **found}


def _libraries() -> dict[str, Any]:
    built = torch.__config__.show()

    def version(name: str) -> str | None:
        found = re.search(rf"{name}[^\n]*?v?(\d+\.\d+(?:\.\d+)?)", built)
        return found[1] if found else None

    blas = re.search(r"BLAS_INFO=(\w+)", built)
    return {
        "torch": torch.__version__,
        "wheel": wheel_tag("torch"),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_initialized() else None,
        "blas": blas[1] if blas else None,
        "mkl": version(r"(?:Math Kernel Library|MKL) Version"),
        "onednn": version(r"MKL-DNN"),
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "os": platform.platform(),
    }


def _settings() -> dict[str, Any]:
    current = determinism.current().as_dict()
    return {
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "seed": current["seed"],
        "hash_seed": current["hash_seed"],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "tf32": torch.backends.cudnn.allow_tf32,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "default_dtype": str(torch.get_default_dtype()),
    }
