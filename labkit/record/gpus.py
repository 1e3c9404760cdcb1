"""The NVIDIA GPUs of this machine, asked of the driver's own library: neither PyTorch nor CUDA is started.

Source: NVML API reference, NVIDIA.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
TEXT_BYTES = 96
MOST_PROCESSES = 1024
ASK_USERS = ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2")  # of older drivers


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine.

    Attributes:
        index: Its number, as nvidia-smi shows it.
        uuid: Its name, which stays the same wherever it is plugged in.
        users: The processes that compute on it; None where the driver does not say.
        model: What it is, as `NVIDIA H200`.
    """

    index: int
    uuid: str
    users: tuple[int, ...] | None = ()
    model: str = ""


class _Process(ctypes.Structure):
    """nvmlProcessInfo_t, as both functions below fill it in."""

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


def usable(there: Sequence[Gpu], named: str | None) -> list[Gpu]:
    """Returns what CUDA_VISIBLE_DEVICES leaves visible, also where this library does not know what it names.

    Such are the parts of a GPU (`MIG-…`), each of which counts as a GPU with its place as number, and everything where
    there is no NVIDIA driver.
    """
    names = dict.fromkeys(filter(None, map(str.strip, (named or "").split(","))))
    if any(name.startswith("MIG-") for name in names) or not there:
        known = [name for name in names if re.fullmatch(r"\d+|(?:GPU|MIG)-.+", name)]
        return [Gpu(place, name) for place, name in enumerate(known)]
    return visible(there, named)


def is_order_unknown(there: Sequence[Gpu], named: str | None, order: str | None) -> bool:
    """Tells whether numbers in CUDA_VISIBLE_DEVICES may mean other GPUs than here.

    Here they are in the order of the bus; CUDA puts the fastest first, unless CUDA_DEVICE_ORDER says otherwise.
    """
    has_numbers = any(part.strip().isdecimal() for part in (named or "").split(","))
    return has_numbers and order != "PCI_BUS_ID" and len({gpu.model for gpu in there}) > 1


def _gpu(library: Any, index: int) -> Gpu | None:
    handle = ctypes.c_void_p()
    uuid, model = (ctypes.create_string_buffer(TEXT_BYTES) for _ in range(2))
    if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)):
        return None  # lost, or not this user's
    if library.nvmlDeviceGetUUID(handle, uuid, TEXT_BYTES):
        return None
    library.nvmlDeviceGetName(handle, model, TEXT_BYTES)
    ask = next((found for name in ASK_USERS if (found := getattr(library, name, None)) is not None), None)
    users = _users(ask, handle)
    return Gpu(index, uuid.value.decode(), users, model.value.decode(errors="replace"))


def _users(ask: Callable[..., int] | None, handle: ctypes.c_void_p) -> tuple[int, ...] | None:
    """Returns the processes that compute on a GPU; None where the driver does not say."""
    if ask is None:
        return None
    count, found = ctypes.c_uint(MOST_PROCESSES), (_Process * MOST_PROCESSES)()
    if ask(handle, ctypes.byref(count), found):
        return None
    return tuple(found[place].pid for place in range(min(count.value, MOST_PROCESSES)))
