"""Seeds, deterministic mode, and fingerprints of tensors and models."""

from __future__ import annotations

import importlib
import os
import random
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor, nn

from labkit.errors import RunProblem
from labkit.kernel import claim, ranks

CUBLAS_WORKSPACE = ":4096:8"  # one of the two deterministic settings; the other, :16:8, is slower
SEED_LIMIT = 2**32  # NumPy's global generator takes no larger seed
PATIENCE_S = 10.0  # with an interpreter that prints a number


@dataclass(frozen=True)
class Determinism:
    """What was done for reproducible numbers in this process.

    Attributes:
        seed: The seed of all generators; None before `seed()` was called.
        deterministic: Whether PyTorch refuses operations that may give other bits in another run.
        cublas_workspace: CUBLAS_WORKSPACE_CONFIG, which cuBLAS needs for equal bits; None when unset.
        hash_seed: PYTHONHASHSEED as this interpreter started with it, "random" when unset, "unknown" where nothing
            says so. It sets the order in which sets of strings are walked through, and cannot be changed after
            the start.
    """

    seed: int | None
    deterministic: bool
    cublas_workspace: str | None
    hash_seed: str

    def as_dict(self) -> dict[str, Any]:
        """Returns the facts under the names that environment.json uses."""
        return asdict(self)

    def __str__(self) -> str:
        mode = "deterministic algorithms" if self.deterministic else "algorithms not deterministic"
        return f"seed {self.seed}, {mode}, PYTHONHASHSEED {self.hash_seed}"


_seeded: int | None = None  # the generators cannot be asked whether somebody seeded them


def seed(seed: int, deterministic: bool = True) -> Determinism:
    """Seeds Python, NumPy and PyTorch on every device, and switches deterministic mode on or off.

    From here on it is watched what the run may claim of its numbers: `bitwise`, `deterministic`, `seeded` or
    `approximate` (labkit/kernel/claim.py says what is noticed, and what is not).

    Args:
        seed: From 0 to 2**32 - 1.
        deterministic: PyTorch then raises a RuntimeError in operations that have no deterministic form,
            instead of giving other bits in another run
            (https://docs.pytorch.org/docs/stable/notes/randomness.html).

    Returns:
        What holds from now on; its text says it in a line.

    Raises:
        RunProblem: The seed is out of range, or CUDA is already in use without the workspace setting of
            cuBLAS.
    """
    global _seeded
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < SEED_LIMIT:
        raise RunProblem(f"seed {seed!r} is not an integer from 0 to {SEED_LIMIT - 1}")
    _set_deterministic(deterministic)
    importlib.import_module("rich.progress")  # which draws from Python's generator, also when scikit-learn imports it
    seed_generators(seed)
    _seeded = seed
    now = current()
    claim.watch.begin(seed, now.hash_seed)
    return now


def seed_generators(seed: int) -> None:
    """Seeds the global generators of Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # the CPU, every CUDA device, MPS


def current() -> Determinism:
    """Returns what holds in this process now."""
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled() and not only_warns
    return Determinism(_seeded, deterministic, os.environ.get("CUBLAS_WORKSPACE_CONFIG"), _hash_seed())


def seed_worker(worker: int) -> None:
    """Seeds Python and NumPy in a DataLoader worker (`worker_init_fn`) from the seed that PyTorch gave it."""
    worker_seed = torch.initial_seed() % SEED_LIMIT
    random.seed(worker_seed)
    np.random.seed(worker_seed)


def device(name: str | None = None) -> torch.device:
    """Returns the device asked for, by default the best one here: CUDA, then MPS, then the CPU.

    Under torchrun each process has a GPU of its own.

    Raises:
        RunProblem: `name` is no device, or not one that this machine and this build of PyTorch offer.
    """
    if name is None:
        own = ranks.local_rank()
        cuda = "cuda" if own is None else f"cuda:{own}"
        name = cuda if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(name)
    except RuntimeError as problem:
        raise RunProblem(f"{name!r} is no device; known: cpu, cuda, cuda:0, mps") from problem
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise RunProblem(f"no device {name!r} here: PyTorch {torch.__version__} sees {torch.cuda.device_count()} GPUs")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise RunProblem(f"no device {name!r} here: PyTorch {torch.__version__} has no Metal device")
    return chosen


def fingerprint(value: Any) -> str:
    """Returns 16 hexadecimal digits that two values share only when they are the same, bit for bit.

    Counted are the bytes, type and shape of every tensor and the order and names of what holds them, whatever
    device or memory layout they have.

    Args:
        value: A tensor, a module (its state dict), or a state dict: mappings, lists and tuples of tensors,
            arrays, numbers, strings and None, nested as an optimizer's state is.

    Raises:
        RunProblem: Something inside has no bytes to count: a sparse or meta tensor, or another kind of
            object.
    """
    digest = blake3(max_threads=blake3.AUTO)
    _feed(digest, value.state_dict() if isinstance(value, nn.Module) else value, "value")
    return digest.hexdigest(length=8)


def _set_deterministic(deterministic: bool) -> None:
    if deterministic and "CUBLAS_WORKSPACE_CONFIG" not in os.environ:
        if torch.cuda.is_initialized():
            raise RunProblem(
                "CUDA is in use already, and cuBLAS took its workspace without CUBLAS_WORKSPACE_CONFIG: "
                "restart the kernel and call labkit.seed() before the first tensor goes to the GPU, "
                "or pass deterministic=False"
            )
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = CUBLAS_WORKSPACE
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    if deterministic:
        torch.backends.cudnn.benchmark = False  # it picks the algorithm by time, which no seed can fix


def _hash_seed() -> str:
    """Returns the seed that this interpreter hashes text with, "random", or "unknown".

    The variable may have been set or deleted since the start, and the options -E, -I and -R ignore it: a seed counts
    when another interpreter that starts with it hashes alike.
    """
    if not sys.flags.hash_randomization:  # true only where the interpreter started with PYTHONHASHSEED=0
        return "0"
    at_start = _environment_at_start()
    values = [environment.get("PYTHONHASHSEED", "") for environment in (at_start or {}, os.environ)]
    found = next(filter(_hashes_alike, values), None)
    return found or ("unknown" if at_start is None else "random")


def _environment_at_start() -> dict[str, str] | None:
    """Returns the environment that this interpreter was started with; None where the system does not say."""
    try:
        entries = os.fsdecode(Path("/proc/self/environ").read_bytes()).split("\0")
    except OSError:
        return None
    return {name: value for name, _, value in (entry.partition("=") for entry in entries)}


@cache
def _hashes_alike(seed: str) -> bool:
    """Tells whether an interpreter started with a seed hashes text as this one does."""
    if not seed.isdecimal():
        return False
    command, env = [sys.executable, "-S", "-c", "print(hash('labkit'))"], os.environ | {"PYTHONHASHSEED": seed}
    try:
        done = subprocess.run(command, env=env, capture_output=True, timeout=PATIENCE_S)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.stdout.strip() == str(hash("labkit")).encode()


def _feed(digest: Any, value: Any, where: str) -> None:
    """Feeds one value; each part is led by its kind and length, so that no two values give the same bytes."""
    if isinstance(value, nn.Parameter | Tensor):
        _feed_bytes(digest, f"tensor {value.dtype} {tuple(value.shape)}".encode(), _tensor_bytes(value, where))
    elif isinstance(value, np.ndarray | np.generic):
        if value.dtype.hasobject:
            raise RunProblem(f"no fingerprint of {where}: an array of Python objects has no bytes of its own")
        _feed_bytes(digest, f"array {value.dtype.str} {value.shape}".encode(), np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        _feed_bytes(digest, b"mapping", struct.pack("<q", len(value)))
        for key, item in value.items():
            _feed(digest, key, f"a key of {where}")
            _feed(digest, item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        _feed_bytes(digest, type(value).__name__.encode(), struct.pack("<q", len(value)))
        for index, item in enumerate(value):
            _feed(digest, item, f"{where}[{index}]")
    elif isinstance(value, float):
        _feed_bytes(digest, b"float", struct.pack("<d", value))
    elif value is None or isinstance(value, bool | int):
        _feed_bytes(digest, type(value).__name__.encode(), repr(value).encode())
    elif isinstance(value, str | bytes):
        data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        _feed_bytes(digest, type(value).__name__.encode(), data)
    else:
        raise RunProblem(f"no fingerprint of {where}: a {type(value).__name__} is neither tensor, number nor text")


def _feed_bytes(digest: Any, kind: bytes, data: Any) -> None:
    digest.update(struct.pack("<qq", len(kind), len(data)))
    digest.update(kind)
    digest.update(data)


def _tensor_bytes(tensor: Tensor, where: str) -> Any:
    if tensor.layout is not torch.strided or tensor.device.type == "meta":
        kind = "a tensor on the meta device" if tensor.device.type == "meta" else f"a {tensor.layout} tensor"
        raise RunProblem(f"no fingerprint of {where}: {kind} has no bytes to count")
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().data
