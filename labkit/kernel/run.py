"""The run that a notebook belongs to: `run = labkit.start()`, and what a cell does with it."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.errors import RunProblem
from labkit.kernel import cells, keep, ranks
from labkit.kernel.byhand import ByHand, parameters_now, record
from labkit.kernel.claim import watch
from labkit.kernel.logged import Logged
from labkit.kernel.noting import Noting
from labkit.kernel.saved import read_saved
from labkit.kernel.torchrun import Lent
from labkit.launch import capture, channel, signals
from labkit.record import claims
from labkit.record.expectations import parse
from labkit.record.files import read_json, write_json
from labkit.record.metrics import RESERVED, as_number
from labkit.record.process import Process
from labkit.record.rundir import RunDir, create
from labkit.record.stated import Stated, truth
from labkit.record.summary import verdicts

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from labkit.kernel.trainingstate import TrainingState

_current: Run | None = None


def start() -> Run:
    """Joins the run that this notebook is executed in, or opens a new one when it is worked on by hand.

    Under `labkit run` the directory has been made already. By hand, in JupyterLab or as a script, a run is opened under
    `runs/.scratch/`; calling it again there closes the run and opens the next.

    Under torchrun rank 0 has the run; the other processes have one that leaves nothing behind, so that all of them may
    call everything. What `labkit.torchrun` starts goes on with the run of the notebook.

    Returns:
        The run, with the parameters as they are now.

    Raises:
        RunProblem: The run that should be joined is gone.
        FolderProblem: No run can be made here.
    """
    global _current
    joined, lent = _run_of_this_process(), Lent.told()
    if (joined or lent) and _current is not None:
        return _current
    if _current is not None:
        _current.finish()
    if lent or not ranks.is_main():
        _current = Run.borrow(lent) if lent and ranks.is_main() else Run.beside(lent)
    else:
        _current = Run.join(joined) if joined else Run.open()
    signals.promise_boundaries()
    if ranks.world_size() > 1:
        signals.act_together()
    elif lent:
        signals.install()
    return _current


def _run_of_this_process() -> Path | None:
    """Returns the run whose kernel this process is; a program that the kernel starts inherits the variable only."""
    named = os.environ.get(channel.RUN)
    if not named:
        return None
    kernel = Process.read((read_json(RunDir(Path(named)).process) or {}).get("kernel"))
    return Path(named) if kernel is None or kernel.pid == os.getpid() else None


def current() -> Run | None:
    """Returns the run of this process, or None before `start`."""
    return _current


class Run:
    """One run, from inside.

    Attributes:
        path: Its directory.
        parameters: The notebook's parameters by name, as they were at the start.
        logger: A standard logger whose lines go to the log and to the notebook.
    """

    def __init__(
        self,
        directory: RunDir,
        parameters: dict[str, Any],
        notebook: str,
        by_hand: ByHand | None = None,
        lent: Lent | None = None,
    ) -> None:
        from labkit.kernel.logs import run_logger

        self.directory = directory
        self.path = directory.path
        self.parameters = parameters
        self._by_hand = by_hand
        self._lent = lent  # the run is that of the notebook which started this process
        self._logged = Logged(directory, is_borrowed=lent is not None)
        self._write = self._logged.log
        self._notebook = Path.cwd() / Path(notebook).name  # a cell may change the working directory
        self._training: TrainingState | None = None  # made on first use: it loads PyTorch
        self._pid = os.getpid()
        self._stated = Stated(directory.stated)
        if lent is not None:
            self._stated.read()
        self._checkpoints: list[dict[str, int]] = []  # saved and lost before, or by other processes
        self._nowhere: tempfile.TemporaryDirectory[str] | None = None  # where a run is that leaves nothing behind
        self._figures_lost = 0
        self._refused: set[str] = set()  # names that have been warned about
        self._finished = False
        watch.keep_in(directory)
        # Under `labkit run` whatever is printed is in the log already; by hand the run keeps its own lines.
        write_log = by_hand.log.write if by_hand else None
        self.logger: logging.Logger = run_logger(Path(notebook).name, cells.current_cell, write_log=write_log)
        if not ranks.is_main():
            self.logger.setLevel(logging.WARNING)  # what all of them say is said once
        self._notes = Noting(directory, self.logger, lambda: self._logged.lines)
        atexit.register(self.finish)

    @classmethod
    def join(cls, path: Path) -> Run:
        """Returns the run whose directory labkit has made for this process."""
        directory = RunDir(path).pinned()
        facts = read_json(directory.manifest)
        if facts is None:
            raise RunProblem(f"{directory.manifest} cannot be read; start the run again with `labkit run`")
        values = cells.values()
        declared = [name for name in facts.get("declared", []) if isinstance(name, str)]
        parameters = {name: values[name] for name in declared if name in values}
        return cls(directory, parameters, facts.get("notebook", ""))

    @classmethod
    def open(cls) -> Run:
        """Returns a new run of this process under `runs/.scratch/`."""
        hand = ByHand()
        run = cls(hand.directory, hand.parameters, hand.notebook.name, hand)
        run.logger.info("recording in %s", run.path)
        trackers = run.parameters.get("TRACKERS")
        for name in trackers if isinstance(trackers, list) else []:
            run.logger.info("by hand no tracker is fed; afterwards: labkit export %s --to %s", run.path.name[-6:], name)
        return run

    @classmethod
    def borrow(cls, lent: Lent) -> Run:
        """Returns the run of the notebook that has started this process and waits for it."""
        run = cls(RunDir(lent.run), lent.given(cells.values()), cells.notebook_path().name, lent=lent)
        run._notebook = cells.notebook_path()
        return run

    @classmethod
    def beside(cls, lent: Lent | None) -> Run:
        """Returns a run that leaves nothing behind, for a process beside the one that writes the record."""
        nowhere, notebook = tempfile.TemporaryDirectory(prefix="labkit-"), cells.notebook_path()
        parameters = lent.given(cells.values()) if lent else parameters_now(read_saved(notebook))
        manifest = {"declared": list(parameters), "labels": ["debug"] if parameters.get("DEBUG") is True else []}
        run = cls(create(Path(nowhere.name), notebook.stem, manifest), parameters, notebook.name)
        run._nowhere, run._notebook, run._notes.active = nowhere, notebook, False
        return run

    @contextmanager
    def lend(self) -> Iterator[Lent]:
        """Leaves the record to another process: two never write it at once."""
        self._refuse_when_closed("labkit.torchrun")
        if self._training is not None:
            self._training.wait()
        self._stated.write()
        self._logged.lend()
        self._write = self._refuse_lent
        lent = Lent(self.path, self.parameters)
        try:
            yield lent
        finally:
            counts = lent.counts()
            self._logged.add(counts.get("metrics", {}))
            self._figures_lost += counts.get("figures", {}).get("lost", 0)
            self._checkpoints = [self._checkpoints_counted(), counts.get("checkpoints", {})]
            if (claim := claims.read(counts.get("claim"))) is not None:
                watch.add(claim)
            self._logged.take_back()
            self._write = self._logged.log
            self._stated.read()
            self._training = None  # the numbers of checkpoints have gone on

    def _refuse_lent(self, step: int, values: dict[str, Any]) -> bool:
        raise RunProblem("run.log: the record is with the processes that labkit.torchrun has started")

    def log(self, step: int, /, **metrics: float) -> None:
        """Records the metrics of one step.

        They are safe from the death of this process when this returns. Values on a CUDA GPU are not waited for: their
        line is written once they have arrived, at the latest with the next line that has none.

        Accepted are numbers, NumPy scalars and 0-d tensors, NaN and infinities too; anything else is left out, counted,
        and said once. Steps may repeat and go back.

        Args:
            step: What the metrics belong to: a batch, an epoch.
            **metrics: Values by name; `t` is taken by the time.

        Raises:
            StopRequested: Somebody asked the run to stop. The metrics have been recorded.
        """
        if not self._write(step, metrics):
            self._say_refused(step, metrics)
        if self._training is not None:
            self._training.habits.logs()
        signals.check()

    def _say_refused(self, step: Any, metrics: dict[str, Any]) -> None:
        """Says what was left out, once for each name; values whose step is no integer are kept under step -1."""
        bad = {name: value for name, value in metrics.items() if name in RESERVED or as_number(value) is None}
        if not isinstance(as_number(step), int):
            bad["step"] = step
        for name in bad.keys() - self._refused:
            self._refused.add(name)
            problem = "is no integer: -1 is recorded" if name == "step" else "is no number and is left out"
            self.logger.warning("run.log: %s=%.60r %s (said once)", name, bad[name], problem, stacklevel=3)

    def restore(self, *, state: dict[str, Any] | None = None, **parts: Any) -> dict[str, Any]:
        """Puts a training back to where it was saved, in a run that is resumed; else changes nothing.

        >>> state = run.restore(model=model, optimizer=optimizer, batches=train_batches, state={"epoch": 1})

        Called once, before the loop, with everything that changes in it. A run started by `labkit resume` goes on from
        its newest whole checkpoint, with every random generator and the metrics as they were then. In a notebook worked
        on by hand, RESUME may name a checkpoint to go on from. MODEL_PATH names weights for `model` to begin with.

        Args:
            state: The loop's own plain values at the start of a training.
            **parts: What has `state_dict()` and `load_state_dict()`, or is a random generator; None is left out.

        Returns:
            The loop's own values as they were saved; those of `state` where nothing was.

        Raises:
            RunProblem: The checkpoint does not fit; the message lists every difference.

        Under torchrun every process calls it, and `checkpoint` as well: each gets back its own random states and
        `state`. Another number of processes is such a difference.
        """
        self._refuse_when_closed("run.restore")
        restored, foreign = self._training_state().restore(parts)
        self._notes.note(parts, restored)
        watch.generator_was_restored()
        self._logged.go_on(restored, foreign)
        return (state or {}) | (restored.state or {})

    def checkpoint(
        self,
        *,
        state: dict[str, Any] | None = None,
        score: float | None = None,
        every_s: float | None = None,
        keep: int = 3,
        **parts: Any,
    ) -> None:
        """Saves everything that the training needs to go on, at the end of a step or of an epoch.

        >>> run.checkpoint(state={"epoch": epoch, "step": step}, every_s=60)

        The loop waits while the state is copied, not while it is written. With `every_s` it may be called in each step:
        it saves when so much time has passed, and when the run is asked to stop, which then waits for this step.

        Args:
            state: The loop's own plain values, such as the step or the best value so far.
            score: What to judge the checkpoint by, higher is better; the best one is kept.
            every_s: Save at most once in so many seconds; without it, always.
            keep: How many of the newest to keep.
            **parts: As for `restore`; by default those that were given there.

        Raises:
            RunProblem: Something in it is not plain, so that it could not be read back.
            StopRequested: Somebody asked the run to stop. The checkpoint is on the disk.
        """
        training = self._training_state()
        self._notes.note_new(parts)
        if every_s is not None:
            signals.promise_saves()
        is_due = training.is_due(every_s)
        stopping = signals.is_stopping()
        if not is_due and not stopping:
            if training.may_hold():
                self._refuse_when_closed("run.checkpoint")
                self._logged.settle()
                training.hold(parts, state or {}, (self._logged.lines, self._logged.bytes), keep)
            return
        self._refuse_when_closed("run.checkpoint")
        watch.look()
        self._logged.settle()
        training.save(parts, state or {}, (self._logged.lines, self._logged.bytes), score, keep)
        if stopping:
            training.wait_for_all()
            signals.check(saved=True)

    def fingerprint(self, name: str, value: Any) -> str:
        """Records what a value is, bit for bit, and returns 16 hexadecimal digits of it.

        >>> run.fingerprint("initial weights", model)

        Who reproduces the run learns whether it is the same there. Data and models that go through `restore`,
        `checkpoint`, `train_one_epoch` or labkit's batches are recorded without it.

        Args:
            name: What it is called in the record.
            value: As for `labkit.fingerprint`.

        Raises:
            RunProblem: It has no bytes to count, or the run is closed.
        """
        self._refuse_when_closed("run.fingerprint")
        return self._notes.value(name, value)

    def _training_state(self) -> TrainingState:
        if self._training is None:
            from labkit.kernel.trainingstate import TrainingState

            notebook = self._by_hand.notebook if self._by_hand is not None else self._notebook
            self._training = TrainingState(
                self.directory, self.parameters, notebook, self.logger, self._notes.note_saved
            )
        return self._training

    def figure(
        self, name: str, data: Any, draw: Callable[[Any, Figure], object], *, size: tuple[float, float] | None = None
    ) -> Any:
        """Saves raw data, draws a figure from what was saved, keeps the picture beside it, and shows it.

        Args:
            name: The figure's name, which becomes the files'.
            data: A DataFrame or a mapping from names to arrays: `figures/NAME.csv` for columns of one length, else
                `NAME.npz`.
            draw: Called with the data as read back and an empty matplotlib figure to draw on.
            size: Width and height of the picture in inches; by default those of all figures.

        Returns:
            The picture, for the notebook to show.

        Raises:
            RunProblem: The name is no file name, the data is of another kind, or the run is closed.

        The pictures of a debug run, and those drawn after a run was labelled `stand-in`, say so in a band at the top.
        """
        from labkit.kernel.style import shown

        self._refuse_when_closed("run.figure")
        mark = keep.mark(self._labels())
        png = self._kept(name, lambda folder: keep.keep_figure(folder, name, data, draw, size, mark))
        return shown(name, png)

    def table(self, name: str, data: Any) -> Any:
        """Saves a table among the figures, and returns it as read back, for the notebook to show.

        Args:
            name: The table's name, which becomes the file's.
            data: As in `figure`.

        Raises:
            RunProblem: The name is no file name, the data is of another kind, or the run is closed.
        """
        self._refuse_when_closed("run.table")
        return self._kept(name, lambda folder: keep.keep_table(folder, name, data))

    def _kept(self, name: str, keep_in: Callable[[Path | None], Any]) -> Any:
        keep.check_name(name)
        try:
            return keep_in(self.directory.figures)
        except OSError as error:  # a full disk stops no notebook
            self._figures_lost += 1
            self.logger.error("figure %s was not saved: %s", name, error.strerror or error, stacklevel=3)
            return keep_in(None)

    def _labels(self) -> list[str]:
        """Returns the labels that the run has by now."""
        facts = read_json(self.directory.manifest) or {}
        return [*facts.get("labels", []), *self._stated.labels]

    def progress(self, iterable: Iterable[Any], description: str = "", total: int | None = None) -> Any:
        """Goes through `iterable` with a progress bar: live in notebook and shell, one final line in the log.

        Every item is also a step boundary, at which a stop request is acted on.
        """
        from labkit.kernel import livebar
        from labkit.kernel.progress import length, progress

        if not ranks.is_main():
            return _Boundaries(iterable)
        return progress(
            _Boundaries(iterable),
            description,
            total=length(iterable) if total is None else total,
            write_live=livebar.writer(),
            write_final=self._write_final,
            on_update=self._write_progress,
        )

    def _write_final(self, text: str) -> None:
        """Writes a bar's last state to the log, whose reader does not see the live ones."""
        if capture.current is not None:
            capture.current.write(capture.HIDDEN, text)
        elif self._by_hand is not None and not self._finished:
            self._by_hand.log.write(text)
        elif self._lent is not None:
            sys.stdout.write(text)

    def _write_progress(self, facts: dict[str, Any]) -> None:
        try:
            write_json(self.directory.progress, facts, durable=False)
        except OSError:
            pass  # only the shell's live line looks at it

    def expect(self, text: str, condition: str, *, by_epoch: int | None = None) -> None:
        """States a hypothesis, to be judged when the run is over: held, not held, or undecided.

        >>> run.expect("exceeds 70 %", "test_accuracy > 0.70", by_epoch=20)

        Said after the first metric it is marked so. Whatever the verdict, nothing is raised for it.

        Args:
            text: The hypothesis in words.
            condition: Metric, comparison (`>`, `>=`, `<`, `<=`, `==`, `!=`) and number, of the metric's last value.
            by_epoch: The metric must have met the condition at least once up to this epoch; epochs are the values
                logged as `epoch`, else the steps.

        Raises:
            RunProblem: The condition is none.
        """
        self._refuse_when_closed("run.expect")
        try:
            expected = parse(text, condition, by_epoch, late=self._logged.lines > 0)
        except ValueError as error:
            raise RunProblem(f"run.expect({text!r:.80}): {error}") from error
        self._stated.expect(expected)

    def conclude(self, text: str, condition: object, **evidence: object) -> None:
        """States whether something holds that the last value of a metric cannot say.

        >>> run.conclude("the gradients do not vanish", smallest > 1e-6, smallest=smallest)

        Args:
            text: The statement in words.
            condition: Whether it holds; None where that cannot be said.
            **evidence: What the answer was drawn from.
        """
        self._refuse_when_closed("run.conclude")
        held = truth(condition)
        if held is None and condition is not None:
            self.logger.warning("run.conclude(%.60r): %.60r is neither true nor false", text, condition, stacklevel=2)
        self._stated.conclude(text, held, evidence)

    def label(self, label: str) -> None:
        """Marks the run, such as `stand-in` for data that stands in for the real one.

        Raises:
            RunProblem: The run is closed.
        """
        self._refuse_when_closed("run.label")
        self._stated.label(label)

    def verdicts(self) -> pd.DataFrame:
        """Returns a table of what was expected and concluded, judged as if the run ended now."""
        import pandas as pd

        rows = [one.facts() for one in verdicts(self.directory, state="finished")]
        for row in rows:
            shown = {name: f"{one:.4g}" if isinstance(one, float) else one for name, one in row["evidence"].items()}
            evidence = ", ".join(f"{name} {one}" for name, one in shown.items())
            row["reason"] = row["reason"] or evidence
            row["value"] = "" if row["value"] is None else row["value"]
        columns = ["text", "condition", "verdict", "value", "reason"]
        return pd.DataFrame([{name: row[name] for name in columns} for row in rows], columns=columns)

    def promote(self) -> str | None:
        """Runs the saved notebook cleanly, in the background, and returns the name of that run.

        What was tried by hand becomes a result only so: a fresh kernel, every cell once, in order. The run goes on when
        this notebook is closed. In a run that is clean already nothing happens, so the call may stay in the notebook.

        Returns:
            The name; None where nothing was started, as with cells that ran in a form which the notebook has not saved.
            The log says why, and what to do.
        """
        from labkit.kernel.promote import promote

        if self._by_hand is None:
            return self.directory.name
        return promote(self._by_hand, self.logger)

    def finish(self) -> None:
        """Closes the run: what waits is written and what was lost is counted. The kernel's end calls it too."""
        if self._finished or os.getpid() != self._pid:  # a forked child's end is not the run's
            return
        self._finished = True
        self._write = self._refuse_late
        atexit.unregister(self.finish)
        if self._training is not None:
            self._training.end()
        self._logged.close()
        self._notes.end(leaves_nothing=self._nowhere is not None)
        self._stated.write()
        claim = watch.claim()
        watch.end()
        counts = {"metrics": self._logged.counts, "figures": {"lost": self._figures_lost}} | self._lost()
        if self._lent is not None:
            return self._lent.give_back(counts | ({"claim": claim.facts()} if claim is not None else {}))
        if self._by_hand is not None:
            counts["log"] = {"lost": self._by_hand.log.lost}
        elif self._nowhere is None:
            channel.counts.update(counts)
        is_counted = record(self.directory.kernel, counts)
        if self._nowhere is not None:
            self._nowhere.cleanup()
        if self._by_hand is not None:  # else what surrounds the kernel does the rest
            self._by_hand.close(is_counted)

    def _refuse_late(self, step: int, values: dict[str, Any]) -> bool:
        if "log" not in self._refused:
            self._refused.add("log")
            name = self.directory.name
            self.logger.warning("run.log: %s is closed, nothing is recorded (said once)", name, stacklevel=3)
        return True

    def _refuse_when_closed(self, what: str) -> None:
        if self._finished:
            raise RunProblem(f"{what}: {self.directory.name} is closed; use the run that labkit.start() opened")

    def _lost(self) -> dict[str, Any]:
        counts: dict[str, Any] = {"statements": {"lost": 1}} if self._stated.lost else {}
        checkpoints = self._checkpoints_counted()
        return counts | ({"checkpoints": checkpoints} if checkpoints else {})

    def _checkpoints_counted(self) -> dict[str, int]:
        """Returns how many checkpoints were saved and lost, by other processes too; nothing where there were none."""
        saver = self._training.saver if self._training is not None else None
        found = [*self._checkpoints, {"saved": saver.saved, "lost": saver.lost} if saver is not None else {}]
        return {name: sum(one.get(name, 0) for one in found) for name in ("saved", "lost")} if any(found) else {}

    def __repr__(self) -> str:
        reasons = self._by_hand.explored() if self._by_hand is not None else []
        return f"<Run {self.directory.name}" + (f", explored: {'; '.join(reasons)}>" if reasons else ">")


class _Boundaries:
    """The items of an iterable, each of them a step boundary."""

    def __init__(self, iterable: Iterable[Any]) -> None:
        self._iterable = iterable
        self.position = getattr(iterable, "position", None)  # of batches, for who trains on them

    def __iter__(self) -> Iterator[Any]:
        for item in self._iterable:
            signals.check()
            yield item
