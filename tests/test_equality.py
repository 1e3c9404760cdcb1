"""Loops of many shapes, killed in the process after their steps: each ends as if it had not been, or says so."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from records import made
from torch import nn
from torch.utils.data import TensorDataset

from labkit.errors import RunProblem
from labkit.kernel import trainingstate
from labkit.kernel.checkpoint import Saver
from labkit.kernel.data import batches
from labkit.kernel.habits import LEAVES_AFTER, LOGS_AFTER
from labkit.kernel.loading import loader
from labkit.kernel.run import Run
from labkit.kernel.training import evaluate
from labkit.launch import signals
from labkit.record import checkpoints
from labkit.record.metrics import canonical
from labkit.record.rundir import RunDir

DATA = TensorDataset(torch.linspace(-1, 1, 22).view(11, 2), torch.linspace(0, 1, 11).view(11, 1))
EPOCHS = 3


class Killed(BaseException):
    """Ends a training where a kill would."""


def by_slicing():
    return batches(*DATA.tensors, batch_size=3, shuffle=True, seed=5)


def by_loading():
    return loader(DATA, 3, shuffle=True, seed=5, augment=lambda sample, generator: (sample[0] * 1.5, sample[1]))


class Training:
    """A model and its loop in one process; `kill` counts the boundaries until it ends."""

    def __init__(self, run: Run, kill: int | None, data: Callable[[], object] = by_slicing) -> None:
        self.run, self.kill, self.steps_here = run, kill, 0
        torch.manual_seed(1)
        self.model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.2), nn.Linear(3, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.05)
        self.train = data()
        self.state = {"epoch": 0, "step": 0}

    def restore(self) -> None:
        parts = {"model": self.model, "optimizer": self.optimizer, "train": self.train}
        self.state = self.run.restore(state=self.state, **parts)

    def step(self, batch) -> float:
        inputs, targets = batch
        loss = (self.model(inputs) - targets).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.state["step"] += 1
        self.steps_here += 1
        return loss.item()

    def checkpoint(self, **more) -> None:
        self.run.checkpoint(state=self.state, **more)
        self.ends_here()

    def ends_here(self) -> None:
        if self.kill is not None:
            self.kill -= 1
            if self.kill < 0:
                raise Killed


def plain(training: Training) -> None:
    training.restore()
    for epoch in range(training.state["epoch"], EPOCHS):
        for batch in training.train:
            training.run.log(training.state["step"], loss=training.step(batch))
            training.checkpoint()
        training.run.log(training.state["step"] - 1, epoch=epoch, noise=torch.rand(()))
        training.state["epoch"] = epoch + 1
        training.checkpoint()


def looks_twice_before_the_loop(training: Training) -> None:
    training.restore()
    for _ in range(2):
        next(iter(training.train))
    training.restore = lambda: None
    plain(training)


def leaves_before_the_checkpoint(training: Training) -> None:
    training.restore()
    for epoch in range(training.state["epoch"], EPOCHS):
        for batch in training.train:
            training.run.log(training.state["step"], loss=training.step(batch))
            if training.state["step"] % 2 == 0:
                break
            training.checkpoint()
        training.state["epoch"] = epoch + 1
        training.checkpoint()


def walks_inside_of_a_walk(training: Training) -> None:
    training.restore()
    for epoch in range(training.state["epoch"], EPOCHS):
        for batch in training.train:
            loss = training.step(batch)
            whole = sum(targets.sum().item() for _, targets in training.train)
            training.run.log(training.state["step"], loss=loss, whole=whole)
            training.checkpoint()
        training.state["epoch"] = epoch + 1
        training.checkpoint()


def evaluates(training: Training, measured: Callable[[], None] = lambda: None) -> None:
    """Measures the model after each epoch; `measured` is called after each batch of that."""

    def squared(outputs, targets):
        measured()
        return (outputs - targets).square().mean()

    training.restore()
    for epoch in range(training.state["epoch"], EPOCHS):
        for batch in training.train:
            training.run.log(training.state["step"], loss=training.step(batch))
            training.checkpoint(every_s=1000)
        training.state["epoch"] = epoch + 1
        result = evaluate(training.model, batches(*DATA.tensors, batch_size=3), squared, device="cpu")
        training.run.log(training.state["step"] - 1, epoch=epoch, held_out=result.loss, noise=torch.rand(()))


@pytest.fixture(autouse=True)
def no_stop():
    """Leaves no request behind, and none that waits."""
    yield
    signals._requested, signals._saves, signals._kept = "", False, None


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Callable[[str], RunDir]]:
    yield lambda name: made(tmp_path / "runs", name, end=None)


def run_of(directory: RunDir) -> Run:
    run = Run(directory.pinned(), {}, "x.ipynb")
    atexit.unregister(run.finish)
    return run


def train(directory: RunDir, loop: Callable[[Training], None], kill: int | None, data=by_slicing) -> bool:
    """Trains as far as that goes; tells whether it came to its end."""
    run = run_of(directory)
    try:
        loop(Training(run, kill, data))
    except Killed:
        run._training.wait()
        return False
    finally:
        run._logged.close()
    run.finish()
    return True


def go_on(directory: RunDir) -> RunDir:
    """Begins the next attempt at a run."""
    (directory.attempts / str(int(directory.attempt.name) + 1)).mkdir()
    return RunDir(directory.path)


@pytest.mark.slow
@pytest.mark.parametrize("data", [by_slicing, by_loading])
@pytest.mark.parametrize(
    "loop",
    [
        plain,
        looks_twice_before_the_loop,
        leaves_before_the_checkpoint,
        walks_inside_of_a_walk,
    ],
)
def test_a_loop_killed_after_any_checkpoint_ends_as_if_it_had_not_been(directory, loop, data, capfd):
    whole = directory("whole")
    assert train(whole, loop, None, data)
    for kill in range(0, 100, 3):
        killed = directory(f"killed{kill}")
        if train(killed, loop, kill, data):
            break
        if loop is looks_twice_before_the_loop and kill % 5 == 3:  # no batch is left in that epoch
            with pytest.raises(StopIteration):
                train(go_on(killed), loop, None, data)
            continue
        assert train(go_on(killed), loop, None, data)
        assert canonical(killed.metrics) == canonical(whole.metrics), f"killed at checkpoint {kill}"
    assert kill > 2
    assert "said once" not in "".join(capfd.readouterr())


def logs_after(training: Training) -> None:
    training.restore()
    for epoch in range(training.state["epoch"], EPOCHS):
        for batch in training.train:
            loss = training.step(batch)
            training.checkpoint(every_s=1000)
            training.run.log(training.state["step"], loss=loss)
        training.state["epoch"] = epoch + 1


def logs_after_the_epoch(training: Training) -> None:
    training.restore()
    for epoch in range(training.state["epoch"], EPOCHS):
        for batch in training.train:
            training.step(batch)
        training.state["epoch"] = epoch + 1
        training.checkpoint()
        training.run.log(epoch, done=1.0)


def logs_when_all_is_done(training: Training) -> None:
    plain(training)
    training.run.log(99, done=1.0)


def leaves_after(training: Training) -> None:
    training.restore()
    for epoch in range(training.state["epoch"], EPOCHS):
        for batch in training.train:
            training.step(batch)
            training.checkpoint(every_s=1000)
            if training.state["step"] % 3 == 0:
                break
        training.state["epoch"] = epoch + 1


def leaves_after_the_last_batch(training: Training) -> None:
    training.restore()
    for epoch in range(training.state["epoch"], EPOCHS):
        for number, batch in enumerate(training.train, 1):
            training.step(batch)
            training.checkpoint(every_s=1000)
            if number == len(training.train):
                break
        training.state["epoch"] = epoch + 1


@pytest.mark.parametrize(
    ("loop", "said"),
    [
        (logs_after, LOGS_AFTER),
        (logs_after_the_epoch, LOGS_AFTER),
        (leaves_after, LEAVES_AFTER),
        (logs_when_all_is_done, None),
        (leaves_after_the_last_batch, None),
    ],
)
def test_what_would_be_lost_after_a_checkpoint_is_said_once(directory, loop, said, capfd):
    assert train(directory("says"), loop, None)
    printed = "".join(capfd.readouterr())
    assert [printed.count(text) for text in (LOGS_AFTER, LEAVES_AFTER)] == [said == LOGS_AFTER, said == LEAVES_AFTER]


def test_values_logged_after_a_checkpoint_are_not_recorded_twice(directory):
    killed = directory("killed")
    train(killed, logs_after_the_epoch, 1)
    assert train(go_on(killed), logs_after_the_epoch, None)
    assert canonical(killed.metrics).count(b'"done"') <= EPOCHS


def test_batches_that_are_walked_through_twice_at_once_are_refused(directory):
    def twice(training: Training) -> None:
        training.restore()
        for batch, _ in zip(training.train, training.train, strict=False):
            training.step(batch)
            training.checkpoint(every_s=1000)

    with pytest.raises(RunProblem, match=r"walked through twice at once, as zip\(batches, batches\) does"):
        train(directory("twice"), twice, None)


def test_two_loaders_side_by_side_go_on_each_from_its_place(directory):
    def side_by_side(training: Training) -> None:
        other = batches(*DATA.tensors, batch_size=2, shuffle=True, seed=6)
        state = training.run.restore(model=training.model, optimizer=training.optimizer, a=training.train, b=other)
        training.state |= state
        for (inputs, targets), (more, _) in zip(training.train, other, strict=False):
            loss = training.step((inputs, targets))
            training.run.log(training.state["step"], loss=loss, more=more.sum())
            training.checkpoint()

    whole, killed = directory("whole"), directory("killed")
    train(whole, side_by_side, None)
    train(killed, side_by_side, 1)
    train(go_on(killed), side_by_side, None)
    assert canonical(killed.metrics) == canonical(whole.metrics)


class Stopped:
    """Asks for a stop after so many batches of evaluation, and counts those that came after it."""

    def __init__(self, after: int, interrupts: bool = False) -> None:
        self.left, self.interrupts, self.late = after, interrupts, 0

    def __call__(self) -> None:
        self.left -= 1
        self.late += bool(signals.requested())
        if self.left == 0:
            signals._requested = "SIGTERM"
            if self.interrupts:
                raise KeyboardInterrupt


@pytest.mark.parametrize("interrupts", [False, True])
@pytest.mark.parametrize("after", [1, 6, 11])
def test_a_stop_in_an_evaluation_ends_at_once_and_only_that_is_repeated(directory, after, interrupts, monkeypatch):
    monkeypatch.setattr(trainingstate, "HOLDING", 1.0)
    whole, stopped = directory("whole"), directory("stopped")
    assert train(whole, evaluates, None)
    run, measured = run_of(stopped), Stopped(after, interrupts)
    with pytest.raises(KeyboardInterrupt):
        evaluates(Training(run, None), measured)
    assert measured.late == 0
    steps = 4 * -(-after // 4)
    if not interrupts:
        assert [saved.facts["lines"] for saved in checkpoints.every(stopped)] == [steps + (steps - 1) // 4]
    run.finish()
    assert len(checkpoints.every(stopped)) == 1
    signals._requested = ""
    again = run_of(go_on(stopped))
    training = Training(again, None)
    evaluates(training)
    assert training.steps_here == 4 * EPOCHS - steps
    again.finish()
    assert canonical(stopped.metrics) == canonical(whole.metrics)


def test_a_stop_in_a_step_waits_for_its_end_after_an_epoch_too(directory):
    run = run_of(directory("stopped"))
    training, seen = Training(run, None), []

    def asked_in_the_sixth_step(module, inputs):
        if module.training:
            seen.append(1)
            if len(seen) == 6:
                signals._requested = "SIGTERM"

    training.model.register_forward_pre_hook(asked_in_the_sixth_step)
    with pytest.raises(signals.StopRequested):
        evaluates(training)
    assert training.state["step"] == 6
    (saved,) = checkpoints.every(run.directory)
    assert saved.lines == 6 + 1
    run.finish()


def test_a_run_that_is_not_stopped_writes_no_copy_that_it_held(directory):
    run = directory("whole")
    assert train(run, evaluates, None)
    assert checkpoints.every(run) == []


def test_a_copy_at_the_end_of_an_epoch_is_taken_seldom_where_it_takes_long(directory, monkeypatch):
    held = []
    monkeypatch.setattr(Saver, "hold", lambda self, *given: (held.append(1), time.sleep(0.05)))
    assert train(directory("slow"), evaluates, None)
    assert len(held) == 1


def test_after_a_checkpoint_a_stop_need_not_wait_until_the_training_goes_on(directory):
    run = run_of(directory("saved"))
    training = Training(run, None)
    training.restore()
    walk = iter(training.train)
    training.step(next(walk))
    run.checkpoint(state={}, every_s=1000)
    signals._requested = "SIGTERM"
    signals.check()  # the step after the last saved one would be lost
    signals._requested = ""
    run.checkpoint(state={})
    signals._requested = "SIGTERM"
    with pytest.raises(signals.StopRequested):
        signals.check()
    next(walk)
    signals.check()
    run.finish()
