"""What a run may claim of its numbers: the settings that decide over bits, and a watch over them."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from labkit.kernel import cells
from labkit.record.claims import Claim, Reason
from labkit.record.files import write_json
from labkit.record.machine import cpu_model
from labkit.record.rundir import RunDir

CUBLAS_WORKSPACES = (":4096:8", ":16:8")  # those with which cuBLAS gives the same bits
LARGEST_CHOSEN = 2**32  # torch.seed() draws a larger seed, but once in two million times
NOT_DETERMINISTIC = re.compile(
    r"(?P<name>\S+) does not have a deterministic implementation"
    r"|not deterministic because it uses (?P<library>CuBLAS)"
    r"|(?P<attention>.+? attention) defaults to a non-deterministic algorithm",
    re.IGNORECASE,
)
DRIVER = ("/sys/module/nvidia/version", "/proc/driver/nvidia/version")

Mode = Literal["off", "warns", "on"]


@dataclass(frozen=True)
class Settings:
    """What holds in a process, as far as it decides over bits.

    TF32 is not among it: it rounds more coarsely, but always alike on the same kind of GPU.

    Attributes:
        seed: What `labkit.seed` was given; None where it was not called.
        mode: PyTorch's deterministic algorithms: off, warning of an operation without one, or refusing it.
        was_on: They were on after `labkit.seed`.
        operations: Those without a deterministic form that were met.
        hash_seed: PYTHONHASHSEED of this interpreter, "random" or "unknown".
        seeded_by: The seed of PyTorch's generator, where somebody else seeded it.
        uses_cuda: CUDA was started.
        benchmark: cuDNN picks the algorithm by time.
        cublas_workspace: CUBLAS_WORKSPACE_CONFIG.
        uses_metal: A GPU of Apple's has held tensors.
        compiled: `torch.compile` has made code.
        processes: How many train together.
    """

    seed: int | None
    mode: Mode = "on"
    was_on: bool = True
    operations: tuple[str, ...] = ()
    hash_seed: str = "0"
    seeded_by: int | None = None
    uses_cuda: bool = False
    benchmark: bool = False
    cublas_workspace: str | None = CUBLAS_WORKSPACES[0]
    uses_metal: bool = False
    compiled: bool = False
    processes: int = 1


def reasons(now: Settings) -> Iterator[Reason]:
    """Yields what keeps a run with these settings from being `bitwise`."""
    if now.seed is None:
        yield Reason("approximate", "no seed was set", "call labkit.seed(RANDOM_SEED) first")
        return  # which sets the rest too
    for name in now.operations:
        problem = f"{name} has no deterministic form, and was used"
        yield Reason("approximate", problem, "use another operation")
    if now.seeded_by is not None:
        is_drawn = now.seeded_by >= LARGEST_CHOSEN
        how = "seeded again at random, as torch.seed() does" if is_drawn else "seeded again by something else"
        remedy = "leave it to labkit.seed()"
        yield Reason("approximate" if is_drawn else "deterministic", f"PyTorch's generator was {how}", remedy)
    if now.mode == "off":
        how = "were switched off after labkit.seed()" if now.was_on else "are off"
        remedy = "call labkit.seed(RANDOM_SEED, deterministic=True)" if not now.was_on else "leave them on"
        yield Reason("seeded", f"deterministic algorithms {how}", remedy)
    if now.mode == "warns":
        problem = "PyTorch only warns of operations without a deterministic form, which may go unnoticed"
        yield Reason("deterministic", problem, "leave warn_only off")
    if not now.hash_seed.isdecimal():
        problem = f"the seed that text is hashed with is {now.hash_seed}, so sets of text may change their order"
        yield Reason("deterministic", problem, "set PYTHONHASHSEED=0 before Python starts, as `labkit run` does")
    if now.uses_cuda and now.benchmark:
        remedy = "leave torch.backends.cudnn.benchmark off"
        yield Reason("deterministic", "cuDNN picks algorithms by time", remedy)
    if now.uses_cuda and now.cublas_workspace not in CUBLAS_WORKSPACES:
        remedy = f"set CUBLAS_WORKSPACE_CONFIG={CUBLAS_WORKSPACES[0]} before Python starts, as `labkit run` does"
        yield Reason("deterministic", "cuBLAS may add in another order", remedy)
    if now.uses_metal:
        problem = "which operations on Metal give the same bits is not documented"
        yield Reason("deterministic", problem, "use the CPU or CUDA")
    if now.compiled:
        problem = "torch.compile was used, whose code depends on the machine's compiler and on timings"
        yield Reason("deterministic", problem, "run without it")
    if now.processes > 1:
        problem = f"{now.processes} processes trained together, whose sums may be added in another order"
        yield Reason("deterministic", problem, "use one process")


class Watch:
    """Collects what keeps a run from being `bitwise`, from `labkit.seed` to its end: what was met once stays met.

    An operation that PyTorch warns of is noticed when it is met. Settings are looked at by `labkit.seed`, at the end of
    each cell, at each checkpoint, at the begin of `train_one_epoch` and `evaluate`, by the environment check and at the
    end of the run; nothing is done in a step.

    Not noticed are settings changed and put back between two looks; warnings that a filter hides which was set since
    the last look, and those of other processes, such as a loader's workers; new seeds for NumPy's, Python's and CUDA's
    generators; and what a notebook takes from the clock, the network or threads of its own.
    """

    def __init__(self) -> None:
        self._begun: Settings | None = None
        self._found: dict[Reason, None] = {}
        self._generator = 0
        self._run: RunDir | None = None
        self._saved: dict[str, Any] = {}
        self._hears_cells = False

    def keep_in(self, run: RunDir) -> None:
        """Writes into a run from now on."""
        self._run, self._saved = run, {}
        self.look()

    def begin(self, seed: int, hash_seed: str) -> None:
        """Watches from now on; called when everything has been seeded and set."""
        shell = cells.shell()
        if shell is not None and not self._hears_cells:
            shell.events.register("post_run_cell", lambda _: self.look())
            self._hears_cells = True
        if self._begun is None:
            _operations.clear()
            _listen(anew=True)
        self._generator = seed
        self._begun = Settings(seed, mode=_mode(sys.modules["torch"]), hash_seed=hash_seed)
        self.look()

    def generator_was_restored(self) -> None:
        """Takes the state that PyTorch's generator has for the right one: a checkpoint brought it."""
        if self._begun is not None:
            self._generator = sys.modules["torch"].initial_seed()
            self.look()  # with the threads that the checkpoint brought

    def look(self) -> None:
        """Notices what holds now; writes it where that is news."""
        if self._begun is not None:
            self._write(final=False)

    def add(self, others: Claim) -> None:
        """Takes over what was met in another process of the run."""
        self._found |= dict.fromkeys(others.reasons)

    def claim(self) -> Claim | None:
        """Returns what may be claimed as of now; None where there is nothing to say: PyTorch was not loaded."""
        if self._begun is None:
            return Claim.of(reasons(Settings(None))) if "torch" in sys.modules else None
        self._notice(self._begun)
        return Claim.of(self._found)

    def end(self) -> None:
        """Writes what the run claims, and watches no more."""
        self._write(final=True)
        self._begun, self._found, self._run = None, {}, None

    def _notice(self, begun: Settings) -> None:
        _listen()
        torch = sys.modules["torch"]
        generator = torch.initial_seed()
        now = replace(
            begun,
            mode=_mode(torch),
            was_on=begun.mode != "off",
            operations=tuple(_operations),
            seeded_by=generator if generator != self._generator else None,
            uses_cuda=torch.cuda.is_initialized(),
            benchmark=torch.backends.cudnn.benchmark,
            cublas_workspace=os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
            uses_metal=torch.backends.mps.is_available() and torch.mps.driver_allocated_memory() > 0,
            compiled=_has_compiled(),
            processes=_processes(torch),
        )
        self._found |= dict.fromkeys(reasons(now))

    def _write(self, final: bool) -> None:
        claim = self.claim()
        if self._run is None or claim is None:
            return
        facts = claim.facts() | {"operations": list(_operations), "hardware": hardware(), "final": final}
        if facts == self._saved:
            return
        try:
            write_json(self._run.claim, facts, durable=final)
            self._saved = facts
        except OSError:
            pass  # the next look tries again; at the end of a run the record then makes no claim


watch = Watch()
_operations: dict[str, None] = {}  # without a deterministic form, as PyTorch warned of them


class _Listener:
    """Stands as the text of a warning filter: is asked about each warning, and says of none that it is meant.

    So it hears them all, also those that are shown once or ignored, and changes nothing about what is shown.
    """

    def match(self, text: str) -> None:
        found = NOT_DETERMINISTIC.search(text) if "deterministic" in text else None
        if found is not None:
            _operations[found["name"] or found["library"] or found["attention"]] = None


_FILTER: Any = ("default", _Listener(), Warning, None, 0)


def _listen(anew: bool = False) -> None:
    """Puts the listener before all other filters; `anew`, it also hears again of what was warned of before."""
    if warnings.filters and warnings.filters[0] is _FILTER and not anew:
        return
    filters: Any = warnings.filters
    filters[:] = [_FILTER, *(entry for entry in filters if entry is not _FILTER)]
    with warnings.catch_warnings():  # has Python forget which warnings the old filters have decided on
        pass


def hardware() -> dict[str, Any]:
    """Returns what of this machine the bits depend on, as far as it is in use."""
    torch = sys.modules["torch"]
    gpus = torch.cuda.device_count() if torch.cuda.is_initialized() else 0
    return {
        "cpu": cpu_model(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "mkl_cbwr": os.environ.get("MKL_CBWR"),
        "threads": torch.get_num_threads(),
        "gpus": sorted({torch.cuda.get_device_name(index) for index in range(gpus)}),
        "driver": _driver() if gpus else None,
    }


@cache
def _driver() -> str | None:
    for name in DRIVER:
        with contextlib.suppress(OSError):
            found = re.search(r"\d+\.\d+(?:\.\d+)?", Path(name).read_text())
            if found:
                return found[0]
    return None


def _mode(torch: Any) -> Mode:
    if not torch.are_deterministic_algorithms_enabled():
        return "off"
    return "warns" if torch.is_deterministic_algorithms_warn_only_enabled() else "on"


def _has_compiled() -> bool:
    counters = getattr(sys.modules.get("torch._dynamo.utils"), "counters", {})
    return bool(counters.get("stats", {}).get("unique_graphs"))


def _processes(torch: Any) -> int:
    together = torch.distributed
    is_one = not together.is_available() or not together.is_initialized()
    return 1 if is_one else int(together.get_world_size())
