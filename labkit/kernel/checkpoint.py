"""Writes checkpoints beside the training, and reads them back.

The training waits only while its state is copied. A thread writes the copy beside its final name, makes it durable,
reads it back once as anybody would who trusts nobody (`weights_only=True`), and only then lets it count.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from labkit.errors import RunProblem
from labkit.kernel.claim import hardware
from labkit.kernel.parts import Copies, state_of, unwrapped
from labkit.kernel.randomness import random_state
from labkit.record import checkpoints
from labkit.record.checkpoints import Saved
from labkit.record.files import now, sync_folder, write_atomic, write_json
from labkit.record.rundir import RunDir

FORMAT = 1


class Saver:
    """Saves the checkpoints of one run, one at a time.

    Attributes:
        on_saved: Called for each module of a checkpoint that counts: name, state, lines of metrics so far.
        saved: Checkpoints that count.
        lost: Those that the disk did not take.
    """

    def __init__(self, run: RunDir, logger: logging.Logger, recipe: str = "") -> None:
        self._run, self._logger, self._recipe = run, logger, recipe
        self._copies = Copies()
        self.on_saved: Callable[[str, Any, int], object] = lambda name, weights, lines: None
        self._writing: threading.Thread | None = None
        # A copy that is not written yet: content, facts, how many to keep, names of the modules.
        self._held: tuple[dict[str, Any], dict[str, Any], int, list[str]] | None = None
        self.saved = self.lost = 0
        if run.checkpoints.is_symlink() or (run.checkpoints.exists() and not run.checkpoints.is_dir()):
            raise RunProblem(
                f"{run.checkpoints} must be a folder of the run, no link; put the folder of runs elsewhere"
            )
        with suppress(OSError):  # each checkpoint tries again
            run.checkpoints.mkdir(exist_ok=True)
            checkpoints.remove_unfinished(run)
        self._number = checkpoints.next_number(run)

    @property
    def is_busy(self) -> bool:
        """Tells whether a checkpoint is still being written."""
        return self._writing is not None and self._writing.is_alive()

    def save(
        self,
        parts: Mapping[str, Any],
        state: dict[str, Any],
        logged: tuple[int, int | None],
        score: float | None,
        keep: int,
        others: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Copies the state of everything; the rest happens in a thread.

        Args:
            parts: What has a state, by name.
            state: The notebook's own values.
            logged: Lines of metrics so far, and their size; None where it is not known.
            score: What the checkpoint is judged by; higher is better.
            keep: How many of the newest to keep, beside the best.
            others: What the other processes of the training have of their own, in the order of their numbers.

        Raises:
            RunProblem: Something in it is not plain.
        """
        self._start(*self._copied(parts, state, logged, score, others), keep, _modules(parts))

    def hold(self, parts: Mapping[str, Any], state: dict[str, Any], logged: tuple[int, int | None], keep: int) -> None:
        """Copies the state of everything, as `save` does, and writes nothing until `write_held` is called.

        Raises:
            RunProblem: Something in it is not plain.
        """
        self._held = (*self._copied(parts, state, logged, None, ()), keep, _modules(parts))

    def write_held(self) -> None:
        """Writes what is held, unless something was saved since; returns when it is on the disk."""
        held, self._held = self._held, None
        if held is not None:
            self._start(*held)
        self.wait()

    def _copied(
        self,
        parts: Mapping[str, Any],
        state: dict[str, Any],
        logged: tuple[int, int | None],
        score: float | None,
        others: Sequence[dict[str, Any]],
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns a copy of everything, and what its manifest says of it."""
        self.wait()  # the memory of the last copy is used again
        self._held = None
        content = {
            "format": FORMAT,
            "parts": {name: self._copies.of(state_of(part, name), name) for name, part in parts.items()},
            "state": self._copies.of(state, "state"),
            "random": random_state(),
            "others": list(others),
            "hardware": hardware(),
        }
        facts = {
            "format": FORMAT,
            "created": now(),
            "attempt": int(self._run.attempt.name),
            "lines": logged[0],
            "metrics_bytes": logged[1],
            "parts": sorted(parts),
            "processes": 1 + len(others),
            "torch": torch.__version__,
            "score": score,
        }
        return content, facts

    def _start(self, content: dict[str, Any], facts: dict[str, Any], keep: int, modules: list[str]) -> None:
        number, self._number = self._number, self._number + 1
        self._writing = threading.Thread(
            target=self._write, args=(number, content, facts, keep, modules), name="labkit-checkpoint", daemon=True
        )
        self._writing.start()

    def wait(self) -> None:
        """Returns when what was saved is on the disk, or is known to be lost."""
        if self._writing is not None:
            self._writing.join()

    def _write(
        self, number: int, content: dict[str, Any], facts: dict[str, Any], keep: int, modules: list[str]
    ) -> None:
        name = self._run.checkpoints / f"{number:06}"
        beside = name.with_name(f".{name.name}.partial")
        try:
            self._run.checkpoints.mkdir(exist_ok=True)
            began = time.perf_counter()
            torch.save(content, str(beside))
            _make_durable(beside)
            facts |= fingerprint_of(beside)
            load(beside)
            os.replace(beside, name.with_suffix(".pt"))
            sync_folder(self._run.checkpoints)  # the name is on the disk before what makes it count
            recipe = f"{self._recipe}RESUME: {json.dumps(str(name.with_suffix('.pt').absolute()))}\n"
            write_atomic(name.with_suffix(".yaml"), recipe, durable=False)
            facts["seconds"] = round(time.perf_counter() - began, 3)
            write_json(name.with_suffix(".json"), facts)  # and makes its own name durable
        except Exception as error:  # a full disk stops no training; torch raises RuntimeError for it
            self.lost += 1
            self._logger.error("checkpoint %s was not saved: %s", name.name, _in_words(error, name.parent))
            with suppress(OSError):
                beside.unlink(missing_ok=True)
                checkpoints.remove_files(name.with_suffix(".pt"))  # what there is of it takes room, and never counts
            return
        self.saved += 1
        for module in modules:
            self.on_saved(module, content["parts"][module], facts["lines"])
        try:
            self._tidy(keep)
        except Exception as error:  # more are kept than asked for
            self._logger.error("earlier checkpoints were not removed: %s", error)

    def _tidy(self, keep: int) -> None:
        """Deletes what need not be kept, and lets the links lead to the last and the best."""
        found = checkpoints.every(self._run)
        for saved in list(checkpoints.superfluous(found, keep)):
            checkpoints.remove(saved)
        _link(self._run.checkpoints / "last.pt", found[-1])
        best = checkpoints.best_of(found)
        if best is not None:
            _link(self._run.checkpoints / "best.pt", best)


def _modules(parts: Mapping[str, Any]) -> list[str]:
    return [name for name, part in parts.items() if isinstance(unwrapped(part), nn.Module)]


def own_state(parts: Mapping[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Returns what one process of several has of its own: all but the modules and optimizers, which are equal in all.

    Raises:
        RunProblem: Something in it is not plain.
    """
    copies = Copies()
    own = {name: part for name, part in parts.items() if not isinstance(part, nn.Module | torch.optim.Optimizer)}
    return {
        "parts": {name: copies.of(state_of(part, name), name) for name, part in own.items()},
        "state": copies.of(state, "state"),
        "random": random_state(),
    }


def of_process(content: dict[str, Any], number: int) -> dict[str, Any]:
    """Returns the content of a checkpoint for one of the processes that saved it; for any other, that of the first."""
    others = content.get("others") or []
    if not 1 <= number <= len(others):
        return content
    own = others[number - 1]
    return content | own | {"parts": content["parts"] | own["parts"]}


def _in_words(error: Exception, folder: Path) -> str:
    """Returns why a checkpoint was not saved; PyTorch's own words for a full disk name a line of its source."""
    if isinstance(error, RuntimeError) and "inline_container" in str(error):
        with suppress(OSError):
            return f"the disk did not take it, {shutil.disk_usage(folder).free / 2**20:,.0f} MiB are free in {folder}"
    return str(error)


def _make_durable(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fingerprint_of(path: Path) -> dict[str, Any]:
    """Returns the size and the SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(checkpoints.PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _link(link: Path, saved: Saved) -> None:
    beside = link.with_name(f".{link.name}")
    try:
        beside.unlink(missing_ok=True)
        os.symlink(saved.path.name, beside)
        os.replace(beside, link)
    except OSError:  # a convenience; some file systems have no links
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """Returns the content of a checkpoint, its tensors on the CPU, as far as they are used read from the file.

    Nothing in it is executed.

    Raises:
        RunProblem: It is no checkpoint of labkit.
    """
    try:
        content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever a damaged or hostile file makes of the reader
        raise RunProblem(f"{path} cannot be read as a checkpoint: {str(error).splitlines()[0]:.200}") from error
    if not isinstance(content, dict) or not isinstance(content.get("parts"), dict):
        raise RunProblem(f"{path} is no checkpoint of labkit; labkit saves them with run.checkpoint(…)")
    return content
