"""The NVIDIA GPUs of this machine, asked of the driver's own library: neither PyTorch nor CUDA is started.

Source: NVML API reference, NVIDIA.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
TEXT_BYTES = 96
MOST_PROCESSES = 1024


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine.

    Attributes:
        index: Its number, as nvidia-smi shows it.
        uuid: Its name, which stays the same wherever it is plugged in.
        users: The processes that compute on it.
        model: What it is, as `NVIDIA H200`.
    """

    index: int
    uuid: str
    users: tuple[int, ...] = ()
    model: str = ""


class _Process(ctypes.Structure):
    """nvmlProcessInfo_t."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("memory", ctypes.c_ulonglong),
        ("instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


def every() -> list[Gpu]:
    """Returns the GPUs of this machine with who computes on them; none where there is no driver."""
    try:
        library: Any = ctypes.CDLL(LIBRARY)
        if library.nvmlInit_v2():
            return []
    except (OSError, AttributeError):
        return []
    try:
        count = ctypes.c_uint()
        library.nvmlDeviceGetCount_v2(ctypes.byref(count))
        return [gpu for index in range(count.value) if (gpu := _gpu(library, index)) is not None]
    finally:
        library.nvmlShutdown()


def visible(there: Sequence[Gpu], named: str | None) -> list[Gpu]:
    """Returns the GPUs that CUDA_VISIBLE_DEVICES leaves visible, in its order: by number or UUID."""
    if named is None:
        return list(there)
    found: list[Gpu] = []
    for part in filter(None, map(str.strip, named.split(","))):
        match = [gpu for gpu in there if part == str(gpu.index) or (part[:4] == "GPU-" and gpu.uuid.startswith(part))]
        if len(match) != 1 or match[0] in found:
            break  # as CUDA does: what comes behind a wrong one is not there either
        found += match
    return found


def _gpu(library: Any, index: int) -> Gpu | None:
    handle = ctypes.c_void_p()
    uuid, model = (ctypes.create_string_buffer(TEXT_BYTES) for _ in range(2))
    if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)):
        return None  # lost, or not this user's
    if library.nvmlDeviceGetUUID(handle, uuid, TEXT_BYTES):
        return None
    library.nvmlDeviceGetName(handle, model, TEXT_BYTES)
    users = _users(getattr(library, "nvmlDeviceGetComputeRunningProcesses_v3", None), handle)
    return Gpu(index, uuid.value.decode(), users, model.value.decode(errors="replace"))


def _users(ask: Callable[..., int] | None, handle: ctypes.c_void_p) -> tuple[int, ...]:
    """Returns the processes that compute on a GPU; none where the driver does not say."""
    if ask is None:
        return ()
    count, found = ctypes.c_uint(MOST_PROCESSES), (_Process * MOST_PROCESSES)()
    if ask(handle, ctypes.byref(count), found):
        return ()
    return tuple(found[place].pid for place in range(min(count.value, MOST_PROCESSES)))
