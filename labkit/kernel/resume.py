"""What a training goes on from: a checkpoint of its own run, another one that a parameter names, or nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from labkit.errors import BadInput, RunProblem
from labkit.kernel import checkpoint, ranks
from labkit.kernel.claim import hardware
from labkit.kernel.parts import load_into, unwrapped
from labkit.kernel.randomness import set_random_state
from labkit.record import checkpoints
from labkit.record.checkpoints import Saved
from labkit.record.files import read_json
from labkit.record.rundir import RunDir

HARDWARE = {  # what the bits depend on, in the words of a message
    "cpu": "the processor",
    "isa": "the vector instruction set (ATEN_CPU_CAPABILITY)",
    "gpus": "the GPU",
    "driver": "the driver of the GPU",
    "mkl_cbwr": "MKL_CBWR",
}


@dataclass(frozen=True)
class Restored:
    """What was put back.

    Attributes:
        state: The notebook's own values as they were saved; None where only weights were loaded, or nothing.
        lines: Lines of metrics that belong to it.
        bytes: Their size; None where it is not known.
        facts: What the record says of it.
        path: The checkpoint, or the file with weights.
        is_forced: Differences were accepted.
    """

    state: dict[str, Any] | None = None
    lines: int = 0
    bytes: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    is_forced: bool = False


def of_attempt(run: RunDir, parts: Mapping[str, Any], logger: logging.Logger) -> Restored:
    """Goes on with a run that `labkit resume` has started again, from its newest whole checkpoint.

    Raises:
        RunProblem: The checkpoint does not fit what this process has.
    """
    order = read_json(run.resumption) or {}
    upto = order.get("checkpoint")
    saved, damaged = checkpoints.newest_whole(run, upto if isinstance(upto, int) else None)
    for name, problem in damaged.items():
        logger.warning("checkpoint %s is not used: %s", name, problem)
    facts: dict[str, Any] = {"checkpoint": None, "damaged": damaged}
    if saved is None and isinstance(upto, int) and checkpoints.every(run):
        raise RunProblem(
            f"no checkpoint up to {upto:06} is whole; without RESUME, labkit resume takes the newest whole one"
        )
    is_forced, differences = order.get("forced") is True, list[str]()
    if saved is not None:
        state, differences = _put_back(saved.path, saved.facts, parts, is_forced)
    for other in checkpoints.every(run):
        if saved is None or other.number > saved.number:
            why = damaged.get(other.path.name, "an earlier one was taken")
            checkpoints.set_aside(other, int(run.attempt.name), why)
    if saved is None:
        logger.warning("no checkpoint can be used: the training begins anew")
        return Restored(facts=facts)
    for line in differences:
        logger.warning("went on although something is not what it was: %s", line)
    facts["differences"] = differences
    logger.info("resumed from checkpoint %s, saved %s", saved.path.name, saved.facts.get("created"))
    facts |= {"checkpoint": saved.path.name, "sha256": saved.sha256}
    return Restored(state, saved.lines, saved.metrics_bytes, facts, saved.path, is_forced)


def of_parameter(
    text: str, notebook: Path, parts: Mapping[str, Any], runs: Path | None = None
) -> tuple[Restored, Saved | None]:
    """Goes on from the checkpoint that RESUME names, in a run of its own; a run is looked for in `runs`.

    Raises:
        RunProblem: There is no such checkpoint, or it does not fit.
    """
    path = _path(text, notebook, "last", runs)
    saved = checkpoints.read(path.with_suffix(".json"))
    state, _ = _put_back(path, saved.facts if saved is not None else {}, parts, is_forced=False)
    facts = {"resumed_from": str(path), "sha256": saved.sha256 if saved is not None else None}
    lines, size = (saved.lines, saved.metrics_bytes) if saved is not None else (0, None)
    return Restored(state, lines, size, facts, path), saved


def weights(text: str, notebook: Path, parts: Mapping[str, Any], runs: Path | None = None) -> Restored:
    """Loads the model that MODEL_PATH names: one of labkit's checkpoints, or a file with a model's state.

    A run is looked for in `runs`, by default the lab's.

    Raises:
        RunProblem: There is none, or it does not fit.
    """
    if "model" not in parts:
        raise RunProblem("MODEL_PATH names weights; give the model to load them into: run.restore(model=model, …)")
    path = _path(text, notebook, "best", runs)
    _load_weights(path, parts)
    return Restored(facts={"model_from": str(path), "sha256": checkpoint.fingerprint_of(path)["sha256"]}, path=path)


def _load_weights(path: Path, parts: Mapping[str, Any]) -> None:
    try:
        content = torch.load(str(path), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file makes of the reader
        raise RunProblem(f"MODEL_PATH: {path} cannot be read: {str(error).splitlines()[0]:.200}") from error
    found = content.get("parts", {}).get("model") if isinstance(content, dict) and "parts" in content else content
    load_into(parts["model"], found, f"MODEL_PATH {path}: model")


def as_main(restored: Restored, parts: Mapping[str, Any]) -> Restored:
    """Goes on, in another process of the same training, from what the main one has gone on from.

    Raises:
        RunProblem: It does not fit what this process has.
    """
    if restored.path is None:
        return restored
    if restored.state is None:
        _load_weights(restored.path, parts)
        return restored
    return Restored(_put_back(restored.path, {}, parts, restored.is_forced)[0])


def _path(text: str, notebook: Path, prefer: str, runs: Path | None) -> Path:
    try:
        path = checkpoints.locate(text, notebook, prefer, runs).resolve()
    except BadInput as error:
        raise RunProblem(str(error)) from error
    saved = checkpoints.read(path.with_suffix(".json"))
    if saved is not None and (problem := checkpoints.damage(saved)):
        raise RunProblem(f"{path} is damaged: {problem}; name another one, or labkit resume takes the newest whole one")
    return path


def _put_back(
    path: Path, facts: Mapping[str, Any], parts: Mapping[str, Any], is_forced: bool
) -> tuple[dict[str, Any], list[str]]:
    """Puts the content of a checkpoint back into the parts, the generators last.

    Returns:
        The notebook's own values, and the differences that were accepted.
    """
    content = checkpoint.load(path)
    _set_threads(content)
    found = _differences(content, facts, parts)
    if found and not is_forced:
        listed = "\n".join(f"- {line}" for line in found)
        raise RunProblem(
            f"{path.name} was saved under other conditions, so the run would not end as it would have:\n{listed}\n"
            "Make them what they were, begin a new run, or take the differences with `labkit resume RUN --force`"
        )
    content = checkpoint.of_process(content, ranks.rank())
    for name, part in parts.items():
        if name in content["parts"]:
            load_into(part, content["parts"][name], name)
    set_random_state(content["random"])
    return dict(content.get("state") or {}), found


def _set_threads(content: Mapping[str, Any]) -> None:
    """Computes with as many threads as when the checkpoint was saved: sums over several depend on how they are cut."""
    threads = (content.get("hardware") or {}).get("threads")
    if isinstance(threads, int) and 0 < threads != torch.get_num_threads():
        torch.set_num_threads(threads)


def _other_hardware(content: Mapping[str, Any]) -> list[str]:
    """Returns what of the machine the bits depend on and is not what it was, as far as it is known and in use."""
    then, now = content.get("hardware") or {}, hardware()
    found = [name for name in HARDWARE if then.get(name) and now[name] and then[name] != now[name]]
    if "mkl_cbwr" in then and then["mkl_cbwr"] != now["mkl_cbwr"]:
        found.append("mkl_cbwr")
    return [f"{HARDWARE[name]} was {_listed(then[name])}, is {_listed(now[name])}" for name in found]


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "not set" if value is None else str(value)


def _differences(content: Mapping[str, Any], facts: Mapping[str, Any], parts: Mapping[str, Any]) -> list[str]:
    saved = content["parts"]
    found = [f"{name} is not in the checkpoint" for name in parts if name not in saved]
    found += [f"{name} is in the checkpoint, and not given to run.restore" for name in saved if name not in parts]
    then, now = 1 + len(content.get("others") or []), ranks.world_size()
    if then != now:
        found.append(f"there were {then} processes, are {now}" if then > 1 else f"there was 1 process, are {now}")
    if facts.get("torch", torch.__version__) != torch.__version__:
        found.append(f"PyTorch was {facts['torch']}, is {torch.__version__}")
    found += _other_hardware(content)
    for name, part in parts.items():
        ask = getattr(unwrapped(part), "differences", None)
        if name in saved and callable(ask):
            found += [f"{name}: {line}" for line in ask(saved[name])]
    return found
