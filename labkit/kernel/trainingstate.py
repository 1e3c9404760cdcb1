"""What the checkpoints of a run save and restore, and when: the part of `Run` that knows PyTorch."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import Any

import torch

from labkit.errors import RunProblem
from labkit.kernel import ranks, resume
from labkit.kernel.checkpoint import Saver, own_state
from labkit.kernel.habits import Habits
from labkit.kernel.parts import changes_of_weights
from labkit.kernel.position import Position, Walk
from labkit.kernel.resume import Restored
from labkit.launch import signals
from labkit.record import lab, provenance
from labkit.record.checkpoints import Saved
from labkit.record.files import read_json, write_json
from labkit.record.find import folder_of
from labkit.record.rundir import RunDir

RECIPE = """\
# Goes on from this checkpoint, where the notebook declares RESUME: labkit run NOTEBOOK -f THIS_FILE
# To train on from its weights as a new run, put MODEL_PATH in the place of RESUME.
"""
HOLDING = 0.02  # the most of the time that copies at the ends of epochs may take


class TrainingState:
    """The parts of a training, and their checkpoints.

    Attributes:
        habits: Hears of what the loop does after a checkpoint.
        saver: Writes the checkpoints; None before the first was asked for.
    """

    def __init__(
        self,
        run: RunDir,
        parameters: dict[str, Any],
        notebook: Path,
        logger: logging.Logger,
        on_saved: Callable[[str, Any, int], object] = lambda name, weights, lines: None,
    ) -> None:
        self._on_saved = on_saved
        self._run, self._parameters, self._notebook, self._logger = run, parameters, notebook, logger
        self._parts: dict[str, Any] = {}
        self._positions: list[tuple[Sized, Position]] = []  # where the walks through the batches stand
        self.habits = Habits(logger)
        self._is_restored = False
        self._due = 0.0
        self._held_at, self._holding_s = -math.inf, 0.0
        self._boundary = ranks.Boundary()
        self.saver: Saver | None = None

    def restore(self, parts: Mapping[str, Any]) -> tuple[Restored, Saved | None]:
        """Puts back what there is to go on from, and records what it was.

        Of several processes the main one decides what it is.

        Returns:
            What was put back, and the checkpoint of another run that it came from.
        """
        if self._is_restored and (not self._run.is_scratch or self._parameters.get("RESUME")):
            raise RunProblem(
                "run.restore was called before: call it once in a run, with everything that changes, and keep the "
                "place in an outer loop in `state`; by hand, labkit.start() opens a new run"
            )
        self._parts = {}
        self._take(parts)
        self._is_restored = True
        for part in self._parts.values():
            getattr(part, "fingerprint", None)  # of its data, reckoned now and not in the first checkpoint
        if not ranks.is_main():
            told = ranks.from_main()
            if isinstance(told, str):
                raise RunProblem(told)
            return resume.as_main(told, self._parts), None
        try:
            restored, foreign = self._restore()
        except Exception as error:
            ranks.from_main(str(error))
            raise
        ranks.from_main(restored)
        return restored, foreign

    def _take(self, parts: Mapping[str, Any]) -> None:
        """Makes these parts of the training."""
        self._parts |= {name: part for name, part in parts.items() if part is not None}
        found = ((part, getattr(part, "position", None)) for part in self._parts.values())
        self._positions = [(part, position) for part, position in found if isinstance(position, Position)]
        for _, position in self._positions:
            position.habits, position.trained = self.habits, self._changes

    def _under_way(self) -> list[Walk[Any]]:
        """Returns the walks that have batches left."""
        walks = ((position.walk, len(part)) for part, position in self._positions)
        return [walk for walk, batches in walks if walk is not None and walk.batch < batches]

    def _changes(self) -> int | None:
        return changes_of_weights(self._parts)

    def _restore(self) -> tuple[Restored, Saved | None]:
        self._prepare()
        # Again at the end; but a run that is killed has none, and who resumes it wants to know what changed.
        provenance.record_modules(self._run.source, lab.root(self._notebook.parent))
        restored, foreign, threads = Restored(), None, torch.get_num_threads()
        number = int(self._run.attempt.name)
        if number > 1:
            restored = resume.of_attempt(self._run, self._parts, self._logger)
        if restored.state is None and (wanted := self._parameters.get("RESUME")):
            restored, foreign = resume.of_parameter(str(wanted), self._notebook, self._parts, folder_of(self._run))
        if restored.state is None and (wanted := self._parameters.get("MODEL_PATH")):
            loaded = resume.weights(self._weights_meant(str(wanted)), self._notebook, self._parts, folder_of(self._run))
            self._logger.info("the weights are those of %s", loaded.path)
            restored = Restored(facts=restored.facts | loaded.facts, path=loaded.path)
        if torch.get_num_threads() != threads:
            self._logger.info("computes with %d threads, as before, not with %d", torch.get_num_threads(), threads)
        if restored.facts:
            write_json(self._run.restored, restored.facts)
        return restored, foreign

    def _weights_meant(self, wanted: str) -> str:
        """Returns the file that MODEL_PATH stood for when the run was made, as long as it is there."""
        manifest = read_json(self._run.manifest) or {}
        meant, asked = manifest.get("model_path"), manifest.get("given")
        is_asked = isinstance(asked, dict) and asked.get("MODEL_PATH") == wanted
        return meant if is_asked and isinstance(meant, str) and Path(meant).is_file() else wanted

    def _prepare(self) -> Saver:
        if self.saver is None:
            self.saver = Saver(self._run, self._logger, RECIPE)
            self.saver.on_saved = self._on_saved
        return self.saver

    def is_due(self, every_s: float | None) -> bool:
        """Marks a step boundary; tells whether it is time to save. Of several processes, all get the same answer.

        Raises:
            RunProblem: The batches are walked through in a way that no checkpoint can hold.
        """
        for _, position in self._positions:
            position.mark()
        self.habits.saves(self._under_way())
        return self._boundary.reached(lambda: every_s is not None and self._is_time(every_s)) or every_s is None

    def _is_time(self, every_s: float) -> bool:
        """Tells whether so much time has passed since the last checkpoint, and that is on the disk."""
        moment = time.monotonic()
        if not self._due:
            self._due = moment + every_s
        if moment < self._due or (self.saver is not None and self.saver.is_busy):
            return False
        self._due = moment + every_s
        return True

    def save(
        self,
        parts: Mapping[str, Any],
        state: dict[str, Any],
        logged: tuple[int, int | None],
        score: float | None,
        keep: int,
    ) -> None:
        """Saves a checkpoint, of the parts given to `restore` where none are given.

        Raises:
            RunProblem: There is nothing to save, or something that cannot be saved.
        """
        self._take(parts)
        if not self._parts:
            raise RunProblem("run.checkpoint: nothing to save; give model=model, optimizer=optimizer, …")
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise RunProblem(f"run.checkpoint: keep={keep!r} is no number of checkpoints from 1 up")
        if score is not None:
            score = float(score)
        own = None if ranks.is_main() else own_state(self._parts, state)
        told = ranks.gathered_on_main(own)
        if ranks.is_main():
            self._prepare().save(self._parts, state, logged, score, keep, others=told[1:])
        self._say_kept()

    def may_hold(self) -> bool:
        """Tells whether the last step of an epoch is done, and a copy takes little time and waits for no disk."""
        is_end = bool(self._positions) and not self._under_way()
        if not is_end or ranks.world_size() > 1 or (self.saver is not None and self.saver.is_busy):
            return False
        return time.monotonic() - self._held_at >= self._holding_s / HOLDING

    def hold(self, parts: Mapping[str, Any], state: dict[str, Any], logged: tuple[int, int | None], keep: int) -> None:
        """Keeps a copy in memory, to be written where a stop comes before the next step, as in an evaluation."""
        self._held_at = time.monotonic()
        self._take(parts)
        self._prepare().hold(self._parts, state, logged, keep)
        self._holding_s = time.monotonic() - self._held_at
        self._say_kept()

    def _say_kept(self) -> None:
        if self._positions and ranks.world_size() == 1:  # else nothing tells that the training goes on
            signals.keep(self.write_held)

    def write_held(self) -> None:
        """Returns when all that was saved or held is on the disk."""
        if self.saver is not None:
            self.saver.write_held()

    def end(self) -> None:
        """Returns when all that is to be saved is on the disk: of a run that was asked to stop, what is held too."""
        if signals.requested():
            self.write_held()
        self.wait()

    def wait(self) -> None:
        """Returns when the last checkpoint is on the disk."""
        if self.saver is not None:
            self.saver.wait()

    def wait_for_all(self) -> None:
        """Returns in all processes when the last checkpoint is on the disk."""
        self.wait()
        ranks.wait_for_all()
