"""The NVIDIA GPUs of this machine, asked of the driver's own library: neither PyTorch nor CUDA is started."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
TEXT_BYTES = 96


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        index: Its number on this machine.
        uuid: What it is called wherever it is plugged in: `GPU-…`.
        name: The model.
        memory_bytes: Its memory.
    """

    index: int
    uuid: str
    name: str
    memory_bytes: int


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def visible() -> list[Gpu]:
    """Returns the GPUs that CUDA would show to this process, in its order; none where there is no driver."""
    found = installed()
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return found
    chosen: list[Gpu] = []
    for word in (word.strip() for word in allowed.split(",")):
        match = [gpu for gpu in found if word and (word == str(gpu.index) or gpu.uuid.startswith(word))]
        if len(match) != 1 or match[0] in chosen:
            break  # CUDA shows none from the first one on that it does not know
        chosen += match
    return chosen


def installed() -> list[Gpu]:
    """Returns all GPUs that the driver knows, by their bus; none where there is no driver."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return []
    if library.nvmlInit_v2():
        return []
    try:
        count = ctypes.c_uint()
        if library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            return []
        found = (_gpu(library, index) for index in range(count.value))
        return [gpu for gpu in found if gpu is not None]
    finally:
        library.nvmlShutdown()


def _gpu(library: Any, index: int) -> Gpu | None:
    handle = ctypes.c_void_p()
    if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)):
        return None  # lost, or not this user's
    uuid, name = (ctypes.create_string_buffer(TEXT_BYTES) for _ in range(2))
    memory = _Memory()
    if library.nvmlDeviceGetUUID(handle, uuid, TEXT_BYTES) or library.nvmlDeviceGetName(handle, name, TEXT_BYTES):
        return None
    library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
    return Gpu(index, uuid.value.decode(), name.value.decode(), memory.total)
