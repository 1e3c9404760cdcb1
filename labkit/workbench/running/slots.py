"""Where runs of a sweep have room on this machine: so many cores each, or one GPU each.

Without torch: what GPUs there are, and who uses them, NVML says. A GPU is claimed by a socket with a name of its own,
which no other user of this machine can have at the same time, and which is gone when its process is.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from labkit.errors import BadInput
from labkit.record import machine
from labkit.record.gpus import Gpu, every, is_order_unknown, usable

THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
WAIT_S = 5  # between two looks at GPUs that are in use


@dataclass
class Slots:
    """Room for runs; `close` gives GPUs back.

    Attributes:
        environments: For each slot the variables that its runs have set.
        claims: What holds the GPUs.
    """

    environments: list[dict[str, str]]
    claims: ExitStack = field(default_factory=ExitStack)

    def size(self) -> int:
        """Returns how many runs have room at once."""
        return len(self.environments)

    def __enter__(self) -> Slots:
        return self

    def __exit__(self, *_: object) -> None:
        self.claims.close()


def of_cores(jobs: int | None, cores: int, given: Mapping[str, str]) -> list[dict[str, str]]:
    """Returns the environments of slots on cores, with numbers of threads that do not fight; what is set stays.

    Args:
        jobs: How many runs at once; None for as many as the cores have room for.
        cores: How many there are.
        given: The environment, in which a user may have set the threads of a run.
    """
    own = next((int(given[name]) for name in THREADS if given.get(name, "").isdecimal() and int(given[name])), 0)
    jobs = jobs or max(1, cores // (own or 1))
    return [_threads(max(1, cores // jobs), given)] * jobs


def _threads(count: int, given: Mapping[str, str]) -> dict[str, str]:
    return {name: str(count) for name in THREADS if name not in given}


def slots(
    jobs: int | None = None,
    gpus: str | None = None,
    *,
    wait: bool = False,
    waiting: Callable[[str], object] = lambda problem: None,
) -> Slots:
    """Returns room for runs: one for each free GPU where this machine has any, else for so many cores.

    Args:
        jobs: How many runs at once; of GPUs, more than there are share them.
        gpus: `free` for all free ones, `2` for so many of them, `0,2` for these (`0,` for one), `none` for cores; None
            for `free` where there is any GPU.
        wait: Wait until there are as many as asked for.
        waiting: Called each second meanwhile, with what is waited for; it may raise.

    Raises:
        BadInput: No such GPU is there, or none is free.
    """
    cores, given = machine.cores(), os.environ
    if gpus == "none" or (gpus is None and not usable(every(), given.get(VISIBLE))):
        return Slots(of_cores(jobs, cores, given))
    wanted = gpus or "free"
    read_wanted(wanted)  # before anybody waits
    if is_order_unknown(every(), given.get(VISIBLE), given.get(ORDER)):
        raise BadInput(
            f"{VISIBLE}={given[VISIBLE]} numbers GPUs of several models, which CUDA counts from the fastest on; set "
            f"{ORDER}=PCI_BUS_ID, or name them as in {VISIBLE}={every()[0].uuid}"
        )
    while True:
        claims = ExitStack()
        there = usable(every(), given.get(VISIBLE))
        claimed, problem = take(there, wanted, claims)
        if claimed and not problem:
            count = jobs or len(claimed)
            threads = _threads(max(1, cores // count), given)
            return Slots([{VISIBLE: claimed[place % len(claimed)].uuid, **threads} for place in range(count)], claims)
        claims.close()
        if not wait:
            raise BadInput(f"{problem}; --wait waits, --gpus none runs on cores")
        refuse_missing(there, wanted)
        for _ in range(WAIT_S):
            waiting(problem)
            time.sleep(1.0)


def read_wanted(text: str) -> tuple[list[int] | None, int | None]:
    """Returns what `--gpus` asks for: the numbers of GPUs, or how many; neither for all that are free.

    >>> read_wanted("0,2"), read_wanted("0,"), read_wanted("2"), read_wanted("free")
    (([0, 2], None), ([0], None), (None, 2), (None, None))

    Raises:
        BadInput: It is nothing of that.
    """
    if text == "free":
        return None, None
    if re.fullmatch(r"\d{1,4}", text) and int(text):
        return None, int(text)
    parts = text.split(",")
    numbers = [part.strip() for part in parts if part.strip()]
    if len(parts) > 1 and numbers and all(re.fullmatch(r"\d{1,4}", one) for one in numbers):
        return list(dict.fromkeys(map(int, numbers))), None
    raise BadInput(f"--gpus {text!r:.60}: write free, a number of GPUs as in 2, GPUs as in 0,2 (0, for one), or none")


def take(there: Sequence[Gpu], wanted: str, claims: ExitStack) -> tuple[list[Gpu], str]:
    """Claims GPUs; returns them, and why they are not what was wanted, empty where they are.

    Args:
        there: The GPUs that may be used.
        wanted: As `read_wanted` reads it.
        claims: Takes what holds the claims.

    Raises:
        BadInput: A GPU that was named is not there.
    """
    numbers, count = read_wanted(wanted)
    by_index = {gpu.index: gpu for gpu in there}
    if missing := [number for number in numbers or () if number not in by_index]:
        known = ", ".join(map(str, by_index)) or "none"
        raise BadInput(f"--gpus {wanted}: there is no GPU {missing[0]} here; there are: {known}")
    candidates = there if numbers is None else [by_index[number] for number in numbers]
    claimed: list[Gpu] = []
    busy: list[str] = []
    for gpu in candidates:
        if count is not None and len(claimed) == count:
            break
        if gpu.users is None and numbers is None:  # who names it knows
            busy.append(f"GPU {gpu.index}: the driver does not say who uses it (--gpus {gpu.index}, takes it)")
        elif gpu.users:
            busy.append(f"GPU {gpu.index} is used by process {', '.join(map(str, gpu.users))}")
        elif not claim(gpu.uuid, claims):
            busy.append(f"GPU {gpu.index} is claimed by another sweep")
        else:
            claimed.append(gpu)
    needed = count or (len(numbers) if numbers is not None else 1)
    if len(claimed) >= needed:
        return claimed, ""
    said = "; ".join(busy) or f"there are {len(there)}"
    return claimed, f"{needed} GPU{'s' * (needed > 1)} wanted, {len(claimed)} free: {said}"


def refuse_missing(there: Sequence[Gpu], wanted: str) -> None:
    """Refuses to wait for more GPUs than there are.

    Raises:
        BadInput: There are not so many.
    """
    count = read_wanted(wanted)[1] or 1
    if count > len(there):
        raise BadInput(f"--gpus {wanted} --wait: there are {len(there)} GPUs here, so {count} will never be free")


def claim(uuid: str, claims: ExitStack) -> bool:
    """Claims a GPU for this process among all users of this machine; tells whether it was free."""
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        holder.bind(f"\0labkit-gpu-{uuid}")  # Linux: a name without a file, gone with its process
    except OSError:
        holder.close()
        return False
    claims.callback(holder.close)
    return True
