"""Fingerprints of data and weights in the record of a run: which data was trained on, what the weights were and became.

They say at which point two runs part: where the data and the initial weights are equal and the steps are not, it is the
training that differs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from labkit.errors import RunProblem
from labkit.kernel.determinism import fingerprint
from labkit.kernel.known import files_of, known_by
from labkit.kernel.parts import unwrapped
from labkit.kernel.position import length
from labkit.launch import inputs
from labkit.record import prints
from labkit.record.files import dumps, write_atomic
from labkit.record.rundir import RunDir


class Prints:
    """Writes the fingerprints of one run.

    Data and weights are noted by `Run.restore`, `Run.checkpoint`, `train_one_epoch`, and by walking through batches;
    `Run.fingerprint` notes anything else.
    """

    def __init__(self, run: RunDir, logger: logging.Logger) -> None:
        self._run, self._logger = run, logger
        self._models: dict[str, nn.Module] = {}
        self._noted: set[str] = set()
        self._lock = threading.Lock()

    def begin(self, parts: Mapping[str, Any], lines: int, is_start: bool) -> None:
        """Notes the parts of a training: data by what it is known by, models by their weights.

        Args:
            parts: By name.
            lines: Lines of metrics so far.
            is_start: The weights are those that the training begins with.
        """
        for name, part in parts.items():
            part = unwrapped(part)
            if isinstance(part, nn.Module):
                is_new = name not in self._models and not any(part is other for other in self._models.values())
                self._models[name] = part
                if is_new and is_start:
                    self.weights(name, part, "start", lines)
            else:
                self._data(name, part, lines)

    def _data(self, name: str, part: Any, lines: int) -> None:
        """Notes data that is walked through, once."""
        is_loader = isinstance(part, DataLoader)
        dataset = getattr(part, "source", part.dataset) if is_loader else None
        files = files_of(dataset) if dataset is not None else []
        found = None if files else getattr(part, "fingerprint", None)
        if dataset is not None and not found:
            found = known_by(dataset, with_times=False)
        if isinstance(found, str) and found not in self._noted:
            self._noted.add(found)
            size = length(dataset) if dataset is not None else getattr(part, "samples", None)
            self._write({"kind": "data", "name": name, "lines": lines, "samples": size, "fingerprint": found})
        inputs.add(files)  # its workers read them, out of sight

    def weights(self, name: str, value: Any, at: str, lines: int) -> None:
        """Notes the weights of a model, or a copy of its state."""
        try:
            found = fingerprint(value)
        except RunProblem as problem:
            self._logger.warning("the weights of %s have no fingerprint: %s", name, problem)
            return
        self._write({"kind": "weights", "name": name, "at": at, "lines": lines, "fingerprint": found})

    def value(self, name: str, value: Any, lines: int) -> str:
        """Notes anything that has bytes."""
        found = fingerprint(value)
        kind = "weights" if isinstance(value, nn.Module) else "value"
        self._write({"kind": kind, "name": name, "at": "given", "lines": lines, "fingerprint": found})
        return found

    def end(self, lines: int) -> None:
        """Notes what the weights have become."""
        for name, model in self._models.items():
            self.weights(name, model, "end", lines)
        self._models = {}

    def go_on(self, lines: int) -> None:
        """Takes back what was noted after the checkpoint that the training goes on from."""
        kept = [one for one in prints.read(self._run) if one.get("at") != "end" and one.get("lines", 0) <= lines]
        self._noted = {one["fingerprint"] for one in kept if one.get("kind") == "data"}
        try:
            write_atomic(self._run.fingerprints, b"".join(dumps(one) + b"\n" for one in kept), durable=False)
        except OSError as error:
            self._logger.error("fingerprints could not be written: %s", error.strerror or error)

    def _write(self, facts: dict[str, Any]) -> None:
        try:
            with self._lock, open(self._run.fingerprints, "ab", buffering=0) as file:
                file.write(dumps(facts) + b"\n")
        except OSError as error:  # a full disk stops no training; who reproduces the run finds it unknown
            self._logger.error("a fingerprint could not be written: %s", error.strerror or error)


def noted(**parts: Any) -> None:
    """Notes what is trained, and on what, in the run of this process, where there is one."""
    from labkit.kernel.run import current

    run = current()
    if run is not None:
        run._notes.note(parts)
