"""What can be said of this machine without loading PyTorch, and which variables numbers may depend on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from labkit.record.secret import FORM

# What libraries that compute listen to. Nothing else of the environment enters a record.
VARIABLE = re.compile(
    r"(?:AT|ATEN|BLIS|CUBLAS|CUDA|CUDNN|DNNL|GLOO|GOMP|KMP|MKL|NCCL|NUMEXPR|NVIDIA|OMP|ONEDNN|OPENBLAS|PYTORCH|TORCH|VECLIB)"
    r"_[A-Z0-9_]+|PYTHONHASHSEED|TZ|LANG|LC_[A-Z]+"
)
SET_BY_PACKAGES = ("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK")  # by scikit-learn, when it is imported
SET_BY_LABKIT = {"PYTHONHASHSEED": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # for a kernel, where nothing else is set
OF_ONE_MACHINE = re.compile(r"CUDA_VISIBLE_DEVICES|CUDA_HOME|CUDA_PATH|NVIDIA_.*|.*_(?:DIR|HOME|PATH|CACHE)")
LONGEST = 200
SYSCTL_S = 2.0
VECTORS = (  # PyTorch's name, and what a processor has that can do it; the widest first
    ("AVX512", {"avx512f", "avx512bw", "avx512dq", "avx512vl", "fma"}),
    ("AVX2", {"avx2", "fma"}),
)


def variables() -> dict[str, str]:
    """Returns the environment variables that numbers may depend on, as far as they are set."""
    found = {name: os.environ[name] for name in sorted(os.environ) if VARIABLE.fullmatch(name)}
    return {
        name: value
        for name, value in found.items()
        if name not in SET_BY_PACKAGES and len(value) <= LONGEST and not FORM.search(value)
    }


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def cpu_model() -> str | None:
    """Returns the processor's name as the system gives it."""
    match = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    if match:
        return match[1]
    if sys.platform == "darwin":
        with suppress(OSError, subprocess.SubprocessError):
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, timeout=SYSCTL_S, check=True).stdout.strip()
    return platform.processor() or platform.machine() or None


def vectors() -> str:
    """Returns the widest vector instructions that this processor has, as PyTorch calls them; `DEFAULT` for others."""
    match = re.search(r"^flags\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    flags = set(match[1].split()) if match else set()
    return next((name for name, needed in VECTORS if needed <= flags), "DEFAULT")


def facts() -> dict[str, Any]:
    """Returns what machine.json says of a run that never loaded PyTorch."""
    return {"hardware": {"cpu": cpu_model(), "cores": cores(), "isa": vectors()}, "variables": variables()}


@cache
def _cpuinfo() -> str:
    with suppress(OSError):
        return Path("/proc/cpuinfo").read_text()
    return ""
