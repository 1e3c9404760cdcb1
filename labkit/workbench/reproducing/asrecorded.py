"""Makes this machine compute like the one of then, as far as variables can: threads, vector instructions, libraries.

On a CPU the bits of a sum depend on how many threads share it and on how wide the instructions are. A newer machine has
more of both, and can be told to use less.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from labkit.record import machine
from labkit.workbench.reproducing.chain import mapping

NARROWER = {  # what PyTorch, MKL and oneDNN listen to, so that they use no wider instructions
    "AVX512": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "DEFAULT": {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}
ORDER = list(NARROWER)  # the widest first


@dataclass(frozen=True)
class AsRecorded:
    """What is set for a run that is made again.

    Attributes:
        variables: Of the environment; None for one that must not be set.
        said: What was set that the run did not set itself, for a reader.
        doubts: Why the bits may be others all the same.
    """

    variables: Mapping[str, str | None] = field(default_factory=dict)
    said: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Sets the variables in this process, whose kernels inherit them, and puts them back."""
        before = {name: os.environ.get(name) for name in self.variables}
        _set(self.variables)
        try:
            yield
        finally:
            _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def settings(recorded: dict[str, Any] | None) -> AsRecorded:
    """Returns what to set so that this machine computes as the one of the record did.

    Args:
        recorded: What `machine.json` says; None where a run has none.
    """
    if not recorded:
        return AsRecorded(doubts=("the run did not record its machine",))
    then = _recorded(recorded)
    names = {*then, *machine.variables()}
    wanted = {name: then.get(name) for name in names if not machine.OF_ONE_MACHINE.fullmatch(name)}
    hardware, held = mapping(recorded.get("hardware")), mapping(recorded.get("settings"))
    wanted |= _narrower(str(hardware.get("isa") or ""), then) | _threads(hardware, held, then)
    here = machine.SET_BY_LABKIT | os.environ  # what the kernel would have
    changed = {name: value for name, value in sorted(wanted.items()) if here.get(name) != value}
    said = tuple(f"{name}={value}" if value is not None else f"{name} not set" for name, value in changed.items())
    return AsRecorded(changed, said, tuple(_doubts(hardware)))


def _recorded(recorded: dict[str, Any]) -> dict[str, str]:
    """Returns the variables of a record; none that leads to a file, for a record may come from a stranger."""
    found = mapping(recorded.get("variables")).items()
    return {name: value for name, value in found if machine.VARIABLE.fullmatch(name) and _is_plain(name, value)}


def _is_plain(name: str, value: object) -> TypeGuard[str]:
    if not isinstance(value, str) or not value.isprintable() or len(value) > machine.LONGEST:
        return False
    return "/" not in value or (name == "TZ" and re.fullmatch(r"\w+(/[\w+-]+)+", value) is not None)


def _narrower(isa: str, then: Mapping[str, str]) -> dict[str, str]:
    here = machine.vectors()
    if isa not in ORDER or here not in ORDER or ORDER.index(isa) <= ORDER.index(here):
        return {}
    return {name: value for name, value in NARROWER[isa].items() if name not in then}


def _threads(hardware: dict[str, Any], held: dict[str, Any], then: Mapping[str, str]) -> dict[str, str]:
    threads, cores = held.get("threads"), hardware.get("cores")
    if type(threads) is not int or cores == machine.cores() or "OMP_NUM_THREADS" in then:
        return {}
    return {"OMP_NUM_THREADS": str(threads)}


def _doubts(hardware: dict[str, Any]) -> Iterator[str]:
    """Yields what no variable can make as it was."""
    isa, here = str(hardware.get("isa") or ""), machine.vectors()
    if isa in ORDER and ORDER.index(isa) < ORDER.index(here):
        yield f"this processor has no {isa}, only {here}"
    model = hardware.get("cpu")
    if model and model != machine.cpu_model():
        yield f"the processor was {model}, is {machine.cpu_model()}"
    if hardware.get("gpus"):
        yield "it computed on a GPU"
