"""What the bits of a result depend on beside code and data: hardware, libraries, settings, variables."""

from __future__ import annotations

import os
import platform
import re
from contextlib import suppress
from typing import Any

import torch

from labkit.kernel import claim, determinism
from labkit.kernel.environment import cpu_model, memory_gib, wheel_tag
from labkit.record.files import write_json
from labkit.record.rundir import RunDir
from labkit.record.secret import FORM

# What libraries that compute listen to. Nothing else of the environment enters the record.
VARIABLE = re.compile(
    r"(?:OMP|MKL|KMP|GOMP|OPENBLAS|BLIS|VECLIB|NUMEXPR|ONEDNN|DNNL|ATEN|CUBLAS|CUDA|CUDNN|NVIDIA|NCCL|PYTORCH|TORCH|AT|GLOO)_"
    r"[A-Z0-9_]+|PYTHONHASHSEED|TZ|LANG|LC_[A-Z]+"
)
LONGEST = 200


def facts() -> dict[str, Any]:
    """Returns what holds in this process now, for machine.json."""
    return {
        "hardware": _hardware(),
        "libraries": _libraries(),
        "settings": _settings(),
        "variables": variables(),
    }


def record(run: RunDir) -> None:
    """Writes machine.json; what cannot be written is unknown to who reproduces the run."""
    with suppress(OSError):
        write_json(run.machine, facts(), durable=False)


def variables() -> dict[str, str]:
    """Returns the environment variables that numbers may depend on, as far as they are set."""
    found = {name: value for name, value in sorted(os.environ.items()) if VARIABLE.fullmatch(name)}
    return {name: value for name, value in found.items() if len(value) <= LONGEST and not FORM.search(value)}


def _hardware() -> dict[str, Any]:
    own = claim.hardware()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {name: own[name] for name in ("isa", "gpus", "driver")}
    return {"cpu": cpu_model(), "cores": cores, "memory_gib": memory_gib(), **found}


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
