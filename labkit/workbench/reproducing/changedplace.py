"""Whether two runs had the same packages, hardware and settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from labkit.errors import FolderProblem
from labkit.record.allowed import shown
from labkit.record.files import read_json, read_regular
from labkit.record.machine import SET_BY_PACKAGES
from labkit.record.rundir import RunDir
from labkit.record.version import VERSION
from labkit.workbench.reproducing.began import ORIGINS, began_with
from labkit.workbench.reproducing.chain import ABSENT, Difference, Link, Weight, here_then, lacking, link, mapping
from labkit.workbench.wording import short

Facts = dict[str, Any]
IMPORTED_AS = {  # the import's name, where it is not the package's
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "cv2": "opencv-python",
    "yaml": "pyyaml",
    "skimage": "scikit-image",
}
ALWAYS = {"torch", "numpy"}  # they compute what labkit and the notebook do
NO_BITS = {"cores", "memory_gib"}  # of the hardware: they decide nothing once the threads are set
SELDOM = {"os", "interop_threads", "warn_only"}
GPU_ONLY = {"cudnn_benchmark", "cudnn_deterministic", "tf32", "cudnn", "cuda"}
SELDOM_VARIABLES = re.compile(
    r"LANG|LANGUAGE|LC_\w+|TZ|CUDA_VISIBLE_DEVICES|CUDA_DEVICE_ORDER|CUDA_CACHE\w*|TORCH_HOME"
)
OF_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
NAMES = {
    "cpu": "the CPU is",
    "isa": "vector instructions",
    "gpus": "GPUs",
    "driver": "the GPU's driver",
    "memory_gib": "memory (GiB)",
    "deterministic": "deterministic algorithms",
    "warn_only": "warnings in place of errors for operations without a deterministic form",
    "hash_seed": "the seed that text is hashed with (PYTHONHASHSEED)",
    "seed": "the seed",
    "interop_threads": "threads between operations",
    "default_dtype": "the default dtype",
    "matmul_precision": "the precision of matrix products",
    "tf32": "TF32",
    "blas": "BLAS",
    "mkl": "MKL",
    "onednn": "oneDNN",
    "cuda": "CUDA",
    "cudnn": "cuDNN",
    "cudnn_benchmark": "cuDNN's choice by time",
    "cudnn_deterministic": "cuDNN's deterministic mode",
    "wheel": "PyTorch's build",
    "torch": "PyTorch",
    "libc": "the C library is",
    "os": "the operating system is",
}


def packages(then: RunDir, now: RunDir, imported: set[str]) -> Link:
    """Returns the link of Python, the installed packages, and the libraries within them.

    Args:
        then: The recorded run.
        now: The run made again.
        imported: What the source imports: a package that it does not import seldom matters.
    """
    old, new = _installed(then), _installed(now)
    named = {_normal(IMPORTED_AS.get(name, name)) for name in imported} | ALWAYS
    differences: list[Difference] = []
    notes: list[str] = []
    if old is None or new is None:
        notes.append(lacking("the packages", old, new))
    else:
        differences += sorted(_packages(old, new, named), key=lambda one: one.weight != "cause")
    before, after = (mapping(_machine(run).get("libraries")) for run in (then, now))
    known = {one.text.partition(" ")[0] for one in differences}
    if "torch" not in known:  # else all that comes with it says the same again
        differences += _compared(before, after, "packages", _weigh)
    return link("packages", differences, notes)


def hardware(then: RunDir, now: RunDir) -> Link:
    """Returns the link of the CPU and the GPUs."""
    old, new = (mapping(_machine(run).get("hardware")) for run in (then, now))
    notes = [] if old and new else [lacking("the hardware", old or None, new or None)]
    return link("hardware", list(_compared(old, new, "hardware", _weigh)), notes)


def settings(then: RunDir, now: RunDir) -> Link:
    """Returns the link of parameters, seed, threads, determinism and environment variables."""
    differences: list[Difference] = []
    notes: list[str] = []
    old, new = _parameters(then), _parameters(now)
    if old is None or new is None:
        notes.append(lacking("the parameters", old, new))
    else:
        differences += _differing_parameters(old, new, _named_otherwise(then, now))
    has_seed = any(one.topic == "seed" for one in differences)
    machines = _machine(then), _machine(now)
    set_then, set_now = (mapping(machine.get("settings")) for machine in machines)
    had_none = not set_then and not set_now and all("variables" in machine for machine in machines)  # nor PyTorch
    if (not set_then or not set_now) and not had_none:
        notes.append(lacking("threads and determinism", set_then or None, set_now or None))
    has_gpu = any(mapping(machine.get("hardware")).get("gpus") for machine in machines)

    def weigh(name: str) -> Weight:
        if name == "seed" and has_seed:
            return "result"  # of the parameter
        return "doubt" if name in GPU_ONLY and not has_gpu else _weigh(name)

    differences += _compared(set_then, set_now, "settings", weigh)
    variables = [machine.get("variables") for machine in machines]
    if not isinstance(variables[0], dict) or not isinstance(variables[1], dict):
        notes.append(lacking("environment variables", *(one if isinstance(one, dict) else None for one in variables)))
    else:
        differences += _variables(variables[0], variables[1], {one.topic for one in differences})
    return link("settings", differences, notes)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed(run: RunDir) -> dict[str, Facts] | None:
    """Returns every package by its normal name, Python among them; None where that is not recorded."""
    found = read_json(run.source / "packages.json")
    listed = (found or {}).get("packages")
    if isinstance(listed, dict):
        kept = {_normal(name): mapping(facts) for name, facts in listed.items()}
        python = (found or {}).get("python")
    else:
        data = read_regular(run.requirements, 2**24)
        if data is None:
            return None
        lines = [line.partition("==") for line in data.decode("utf-8", "replace").split() if "==" in line]
        kept = {_normal(name): {"version": version} for name, _, version in lines}
        python = (read_json(run.environment) or {}).get("python")
    kept.pop("labkit", None)  # of the source
    return kept | ({"Python": {"version": python}} if isinstance(python, str) else {})


def _packages(old: dict[str, Facts], new: dict[str, Facts], imported: set[str]) -> Iterator[Difference]:
    for name in sorted(old | new):
        if name == "Python" and not (name in old and name in new):
            continue
        before, after = old.get(name), new.get(name)
        weight: Weight = "cause" if name in imported or name == "Python" else "doubt"
        if before is None or after is None:
            versions = [short(one.get("version")) if one is not None else "not installed" for one in (before, after)]
            yield Difference(here_then(name, *versions), "packages", weight)
            continue
        for what in ("version", "build", "tag", "origin"):
            if what in before and what in after and before[what] != after[what]:
                words = name if what == "version" else f"{name} {short(after.get('version'))}, {what}"
                yield Difference(here_then(words, short(before[what]), short(after[what])), "packages", weight)
                break


def _machine(run: RunDir) -> Facts:
    """Returns what machine.json says; for what it does not say, what the claim and the environment check do."""
    found = {name: facts for name, facts in (read_json(run.machine) or {}).items() if facts or name == "variables"}
    checked, claimed = read_json(run.environment) or {}, mapping((read_json(run.claim) or {}).get("hardware"))
    known = checked | claimed
    determinism = mapping(checked.get("determinism"))
    gpus = known.get("gpus")
    names = [mapping(gpu).get("name", gpu) for gpu in gpus] if isinstance(gpus, list) else ABSENT
    kept = {
        "hardware": {"gpus": names} | {name: known.get(name, ABSENT) for name in ("cpu", "isa", "cores", "driver")},
        "libraries": {name: checked.get(name, ABSENT) for name in ("torch", "wheel", "cuda", "blas")},
        "settings": {"threads": known.get("threads", ABSENT)}
        | {name: determinism.get(name, ABSENT) for name in ("seed", "deterministic", "hash_seed")},
    }
    for section, facts in kept.items():
        facts = {name: value for name, value in facts.items() if value is not ABSENT}
        if facts:
            found.setdefault(section, facts)
    return found


def _compared(then: Facts, now: Facts, topic: str, weigh: Callable[[str], Weight]) -> Iterator[Difference]:
    """Yields what differs of the names that both records have."""
    for name in then:
        if name in now and not _same(then[name], now[name]):
            words = NAMES.get(name, name)
            about = name if name in ("seed", "threads") else topic
            yield Difference(here_then(words, _value(then[name]), _value(now[name])), about, weigh(name))


def _weigh(name: str) -> Weight:
    return "harmless" if name in NO_BITS else "doubt" if name in SELDOM else "cause"


def _same(then: Any, now: Any) -> bool:
    if isinstance(then, list) and isinstance(now, list):
        return sorted(map(repr, then)) == sorted(map(repr, now))
    return bool(then == now) and isinstance(then, bool) == isinstance(now, bool)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ", ".join(map(str, value))[:200] or "none"
    return "none" if value is None else short(str(value))


def _parameters(run: RunDir) -> Facts | None:
    try:
        return mapping(run.read_manifest()["parameters"])
    except FolderProblem:
        return None


def _named_otherwise(then: RunDir, now: RunDir) -> set[str]:
    """Returns the parameters that decide nothing, or name the same checkpoint in other words."""
    began = {name: [began_with(run, name) for run in (then, now)] for name in ORIGINS}
    return {VERSION} | {name for name, (old, new) in began.items() if old and new and old[1] == new[1]}


def _differing_parameters(old: Facts, new: Facts, harmless: set[str]) -> Iterator[Difference]:
    for name in old | new:
        then, now = old.get(name, ABSENT), new.get(name, ABSENT)
        if repr(then) == repr(now):
            continue
        texts = ["undeclared" if value is ABSENT else shown(value) for value in (then, now)]
        topic = "seed" if "SEED" in name.upper() else "parameters"
        text = here_then(f"{short(name)} =", *texts)
        yield Difference(text, topic, "harmless" if name in harmless else "cause")


def _variables(then: Facts, now: Facts, topics: set[str]) -> Iterator[Difference]:
    for name in sorted(then | now):
        if then.get(name) == now.get(name):
            continue
        texts = [shown(one[name]) if one.get(name) is not None else "not set" for one in (then, now)]
        is_thread = name in OF_THREADS
        weight: Weight = "doubt" if SELDOM_VARIABLES.fullmatch(name) else "cause"
        if name in SET_BY_PACKAGES:
            weight = "harmless"
        if is_thread and "threads" in topics:
            weight = "result"  # the threads that there were say more
        yield Difference(here_then(short(name), *texts), "threads" if is_thread else "variables", weight)
