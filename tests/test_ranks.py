"""One training in two processes under torchrun: one record, one stop, and the same bits after a resume."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from running import alive, labkit, make_lab, started, wait_for
from tiny import parameters, plain_environment, write
from torch import nn

import labkit as lab
from labkit.errors import RunProblem
from labkit.kernel import checkpoint, resume
from labkit.kernel.position import order
from labkit.record import checkpoints
from labkit.record.find import every
from labkit.record.metrics import canonical
from labkit.record.process import descendants
from labkit.record.rundir import RunDir
from labkit.record.status import status

SAMPLES, BATCH = 207, 20
PARAMETERS = """\
EPOCHS: int = 3  # passes over the data
RESUME: str = ""  # a checkpoint to go on from
WORKERS: int = 0  # processes that load
PAUSE_S: float = 0.0  # between two steps
"""
START = """\
import os
import signal
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

import labkit

run = labkit.start()
torch.set_num_threads(1)
labkit.seed(3)
device = labkit.device()
out, wanted = Path(os.environ["TOGETHER"]), os.environ.get("SIGNAL", "").split()
"""
DATA = f"""\
digits = labkit.digits()
images, labels = (tensor[:{SAMPLES}] for tensor in digits.train)


def noisy(sample, generator):
    image, label, number = sample
    return image + 0.1 * torch.randn(image.shape, generator=generator), label, number


class Pairs:
    \"\"\"Batches less the numbers of the samples, which are noted.\"\"\"

    def __init__(self, batches):
        self.batches, self.position, self.shard, self.seen = batches, batches.position, batches.shard, []

    def __iter__(self):
        for inputs, targets, numbers in self.batches:
            self.seen += numbers.tolist()
            yield inputs, targets


numbers = torch.arange({SAMPLES})
dataset = TensorDataset(images, labels, numbers)
train = labkit.loader(dataset, {BATCH}, shuffle=True, seed=1, workers=WORKERS, augment=noisy)
test = Pairs(labkit.batches(images, labels, numbers, batch_size=50, device=device))
"""
PROBE = f"""\
first = next(iter(labkit.batches(images, labels, batch_size={BATCH}, shuffle=True, seed=1)))
linear = labkit.parallel(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
nn.functional.cross_entropy(linear(first[0]), first[1]).backward()
gradients = [parameter.grad.clone() for parameter in linear.parameters()]
before = [parameter.detach().clone() for parameter in linear.parameters()]
"""
TRAINING = """\
net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 10))
model = labkit.parallel(net.to(device))
torch.manual_seed(5 + labkit.rank())
loss = nn.CrossEntropyLoss()
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
sums, seen = labkit.EpochSums(), Pairs(train)
state = run.restore(
    model=model, optimizer=optimizer, batches=train, sums=sums, state={"epoch": 0, "step": 0, "rank": labkit.rank()}
)
begun = state["step"]


def after_step(step, step_loss):
    state["step"] += 1
    run.log(state["step"], loss=step_loss)
    time.sleep(PAUSE_S)
    if wanted[:2] == [str(labkit.rank()), str(state["step"])]:
        os.kill(os.getpid(), getattr(signal, wanted[2]))
    (out / f"pid-{labkit.rank()}").write_text(f"{os.getpid()} {state['step']}")
    run.checkpoint(state=state, every_s=3600)


for epoch in run.progress(range(state["epoch"], EPOCHS), "epoch"):
    trained = labkit.train_one_epoch(model, seen, loss, optimizer, device=device, sums=sums, on_step=after_step)
    tested = labkit.evaluate(model, test, loss, device=device)
    run.logger.info("epoch %d is over", epoch)
    state["epoch"] = epoch + 1
    run.log(state["step"], epoch=epoch, train_loss=trained.loss, test_loss=tested.loss, accuracy=tested.accuracy)
    run.checkpoint(state=state)
"""
END = """\
outputs, _ = labkit.predict(model, labkit.batches(images, labels, batch_size=50, device=device), device=device)
run.expect("learns", "accuracy > 0.1")
torch.save(
    {
        "path": str(run.path), "parameters": run.parameters, "state": state, "begun": begun, "outputs": outputs,
        "gradients": gradients, "before": before, "seen": seen.seen, "tested": test.seen,
        "last": [tested.loss, tested.accuracy, tested.samples], "trained": trained.samples,
        "weights": net.state_dict(), "random": torch.rand(3),
    },
    out / f"{labkit.rank()}.pt",
)
"""


@dataclass(frozen=True)
class Ended:
    """A training that is over: what torchrun said, the runs that it recorded, and what each process had."""

    exit_status: int
    printed: str
    runs: list[RunDir]
    of: list[dict[str, Any]]
    out: Path


def script(folder: Path, **values: Any) -> Path:
    """Write the training as a notebook and make a script of it, as a user would."""
    notebook = write(folder / "notebooks" / "train.ipynb", parameters(PARAMETERS), START, DATA, PROBE, TRAINING, END)
    done = subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", "python", str(notebook), "--log-level", "ERROR"],
        env=plain_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    made = notebook.with_suffix(".py")
    text = made.read_text()
    for name, value in values.items():
        line = next(line for line in text.splitlines() if line.startswith(f"{name}:"))
        text = text.replace(line, f"{line.partition('=')[0]}= {value!r}")
    made.write_text(text)
    return made


def train(folder: Path, wanted: str = "", **values: Any) -> Ended:
    """Train in two processes, as a user starts it in a shell."""
    file, out = script(make_lab(folder), **values), folder / "out"
    out.mkdir()
    environment = plain_environment(TOGETHER=str(out), SIGNAL=wanted, OMP_NUM_THREADS="1")
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(file)],
        env=environment,
        cwd=folder / "notebooks",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        printed, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    found = [torch.load(file) for file in sorted(out.glob("*.pt"))]
    return Ended(process.returncode, printed, every(folder / "runs" / ".scratch"), found, out)


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A training that nobody stopped."""
    ended = train(tmp_path_factory.mktemp("whole"))
    assert ended.exit_status == 0, ended.printed
    return ended


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The same training, of which the second process got a SIGTERM in its eighth step, in the second epoch."""
    return train(tmp_path_factory.mktemp("stopped"), "1 8 SIGTERM", PAUSE_S=0.05)


@pytest.fixture(scope="module")
def resumed(stopped: Ended, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """It goes on from where it was stopped."""
    newest = checkpoints.every(stopped.runs[0])[-1]
    ended = train(tmp_path_factory.mktemp("resumed"), RESUME=str(newest.path))
    assert ended.exit_status == 0, ended.printed
    return ended


@pytest.mark.slow
def test_the_record_is_written_once(whole: Ended):
    (run,) = whole.runs
    assert status(run).state == "finished"
    assert run.metrics.read_bytes().count(b"\n") == 3 * 6 + 3
    assert whole.printed.count("epoch 2 is over") == 1
    assert whole.of[0]["path"] == str(run.path)
    assert whole.of[1]["path"] != str(run.path) and not Path(whole.of[1]["path"]).exists()
    assert whole.of[0]["parameters"] == whole.of[1]["parameters"]


@pytest.mark.slow
def test_each_process_has_samples_of_its_own_and_together_they_have_all(whole: Ended):
    for name, size in (("seen", SAMPLES - SAMPLES % 2), ("tested", SAMPLES)):
        first, second = (process[name][: len(process[name]) // 3] for process in whole.of)
        assert not set(first) & set(second)
        assert len(set(first) | set(second)) == len(first) + len(second) == size
    assert [process["trained"] for process in whole.of] == [SAMPLES - 1] * 2


@pytest.mark.slow
def test_the_mean_gradients_are_those_of_one_process_with_the_double_batch(whole: Ended):
    digits = lab.digits()
    batch = order(SAMPLES, 1, 0)[: 2 * BATCH]
    images, labels = (tensor[:SAMPLES][batch] for tensor in digits.train)
    weight, bias = (tensor.requires_grad_() for tensor in whole.of[0]["before"])
    nn.functional.cross_entropy(images.flatten(1) @ weight.T + bias, labels).backward()
    for process in whole.of:
        for gradient, alone in zip(process["gradients"], (weight.grad, bias.grad), strict=True):
            torch.testing.assert_close(gradient, alone)


@pytest.mark.slow
def test_an_evaluation_counts_each_sample_once_and_is_the_same_in_all_processes(whole: Ended):
    digits = lab.digits()
    images, labels = (tensor[:SAMPLES] for tensor in digits.train)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 10)
    )
    net.load_state_dict(whole.of[0]["weights"])
    alone = lab.evaluate(net, lab.batches(images, labels, batch_size=50), nn.CrossEntropyLoss(), device="cpu")
    assert whole.of[0]["last"] == whole.of[1]["last"]
    assert whole.of[0]["last"] == pytest.approx([alone.loss, alone.accuracy, SAMPLES])
    outputs, _ = lab.predict(net, lab.batches(images, labels, batch_size=50), device="cpu")
    for process in whole.of:
        torch.testing.assert_close(process["outputs"], outputs)


@pytest.mark.slow
def test_a_stop_request_to_one_process_stops_all_at_the_same_step(stopped: Ended):
    assert stopped.exit_status != 0
    (run,) = stopped.runs
    assert status(run).state == "interrupted"
    pids, steps = zip(*((stopped.out / f"pid-{n}").read_text().split() for n in (0, 1)), strict=True)
    assert len(set(steps)) == 1 and 8 <= int(steps[0]) < 18, "every quarter of a second they ask each other"
    assert not alive(*map(int, pids))
    newest = checkpoints.every(run)[-1]
    assert newest.facts["processes"] == 2 and newest.lines == run.metrics.read_bytes().count(b"\n")


@pytest.mark.slow
def test_two_processes_go_on_and_end_with_the_bits_of_those_that_never_stopped(whole: Ended, resumed: Ended):
    assert resumed.of[0]["begun"] == resumed.of[1]["begun"] >= 8
    for process, (before, after) in enumerate(zip(whole.of, resumed.of, strict=True)):
        assert same(before["weights"], after["weights"])
        assert torch.equal(before["random"], after["random"])
        assert after["state"] == before["state"] and after["state"]["rank"] == process
    assert not torch.equal(resumed.of[0]["random"], resumed.of[1]["random"])
    assert canonical(resumed.runs[0].metrics) == canonical(whole.runs[0].metrics)


@pytest.mark.slow
def test_another_number_of_processes_is_refused(stopped: Ended):
    newest = checkpoints.every(stopped.runs[0])[-1]
    content = checkpoint.load(newest.path)
    assert "there were 2 processes, are 1" in resume._differences(content, newest.facts, {})
    with pytest.raises(RunProblem, match="there were 2 processes, are 1"):
        resume.of_parameter(str(newest.path), newest.path, {})


# what needs no second process


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process takes itself for one that torchrun has started."""
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "3")  # as a queue may set it for purposes of its own
    assert (lab.rank(), lab.world_size()) == (0, 1)
    model = nn.Linear(2, 2)
    assert lab.parallel(model) is model
    assert lab.batches(torch.arange(5), batch_size=2).shard is None


@pytest.mark.usefixtures("second_of_two")
def test_a_shuffled_epoch_leaves_out_what_cannot_be_shared_and_another_one_nothing():
    assert (lab.rank(), lab.world_size()) == (1, 2)
    whole = order(7, 0, 0)
    (shuffled,) = zip(*lab.batches(torch.arange(7), batch_size=2, shuffle=True), strict=True)
    assert torch.equal(torch.cat(shuffled), whole[:6][1::2])
    (plain,) = zip(*lab.batches(torch.arange(7), batch_size=2), strict=True)
    assert torch.cat(plain).tolist() == [1, 3, 5]
    for shuffle in (True, False):
        loaded = lab.loader(list(range(7)), 2, shuffle=shuffle, seed=0, drop_last=False)
        expected = whole[:6][1::2].tolist() if shuffle else [1, 3, 5]
        assert torch.cat(list(loaded)).tolist() == expected and len(loaded) == 2


@pytest.mark.usefixtures("second_of_two")
def test_an_epoch_goes_on_inside_of_what_is_the_processes_own():
    batches = lab.batches(torch.arange(20), batch_size=2, shuffle=True)
    walk = iter(batches)
    first = [next(walk)[0] for _ in range(2)]
    again = lab.batches(torch.arange(20), batch_size=2, shuffle=True)
    again.load_state_dict(batches.state_dict())
    rest = [batch for (batch,) in again]
    assert torch.equal(torch.cat([*first, *rest]), order(20, 0, 0)[1::2])


@pytest.mark.usefixtures("second_of_two")
def test_training_on_shares_of_different_size_is_refused():
    uneven = lab.batches(torch.rand(5, 2), torch.zeros(5), batch_size=2)
    model = nn.Linear(2, 1)
    with pytest.raises(RunProblem, match="5 samples are not shared out evenly among 2 processes"):
        lab.train_one_epoch(model, uneven, nn.MSELoss(), torch.optim.SGD(model.parameters()), device="cpu")
    with pytest.raises(RunProblem, match="1 samples are too few for 2 processes"):
        lab.batches(torch.arange(1), batch_size=1)


# from a notebook

LAUNCH = """\
import labkit

run = labkit.start()
run.expect("falls", "loss < 2")
run.log(0, before=1)
labkit.torchrun("train.py", processes=2)
"""
AFTER = """\
run.log(1000, after=1)
print("weights of", len(list(run.path.glob("checkpoints/*.pt"))), "checkpoints; lines:", run._logged.lines)
"""


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    """A notebook that trains in two processes."""
    script(make_lab(tmp_path))
    (tmp_path / "out").mkdir()
    return write(tmp_path / "notebooks" / "launch.ipynb", parameters(PARAMETERS), LAUNCH, AFTER)


def launched(notebook: Path, *options: str, wanted: str = "") -> Any:
    return started(notebook, *options, TOGETHER=str(notebook.parent.parent / "out"), SIGNAL=wanted)


@pytest.mark.slow
def test_a_notebook_that_trains_in_two_processes_is_stopped_and_resumed_as_any_other(whole: Ended, notebook: Path):
    with launched(notebook, "-p", "PAUSE_S=0.05", "-p", "WORKERS=1") as under_way:
        run = under_way.logs(9)
        below = descendants(under_way.process.pid)
        under_way.process.send_signal(signal.SIGTERM)
        first = under_way.ended()
    assert first.exit_status == 143 and first.status.state == "interrupted", first.log
    wait_for(lambda: not alive(*below), what="the end of all processes")
    newest = checkpoints.every(run)[-1]
    assert newest.lines == canonical(run.metrics).count(b"\n") and newest.facts["processes"] == 2

    second = labkit("resume", str(run.path), "--no-report", TOGETHER=str(notebook.parent.parent / "out"))
    log = run.log.read_text()
    assert second.returncode == 0, second.stderr + log
    of = [torch.load(notebook.parent.parent / "out" / f"{number}.pt") for number in (0, 1)]
    assert of[0]["begun"] == of[1]["begun"] >= 8
    for before, after in zip(whole.of, of, strict=True):
        assert same(before["weights"], after["weights"])
        assert torch.equal(before["random"], after["random"])
    assert of[1]["parameters"] == of[0]["parameters"] and of[0]["parameters"]["PAUSE_S"] == 0.05
    assert of[0]["path"] == str(run.path) and not Path(of[1]["path"]).exists()

    first_line, *lines, last_line = canonical(run.metrics).splitlines()
    assert (b"before" in first_line, b"after" in last_line) == (True, True)
    assert lines == canonical(whole.runs[0].metrics).splitlines()
    assert f"lines: {len(lines) + 2}" in log and log.count("epoch 2 is over") == 1
    assert json.loads(run.kernel.read_bytes())["metrics"]["lost"] == 0
    assert [one["text"] for one in run.read_manifest()["verdicts"]] == ["falls", "learns"]
    claim = json.loads(run.claim.read_bytes())
    assert claim["label"] == "deterministic" and "2 processes" in str(claim["reasons"])
    assert "train" in json.loads((run.source / "modules.json").read_bytes())
    assert not every(notebook.parent.parent / "runs" / ".scratch")


@pytest.mark.slow
def test_a_process_that_is_killed_fails_the_cell_and_leaves_none_behind(notebook: Path):
    with launched(notebook, wanted="1 4 SIGKILL") as under_way:
        under_way.logs(4)
        below = descendants(under_way.process.pid)
        ended = under_way.ended()
    assert ended.exit_status == 1 and ended.status.state == "failed"
    assert "train.py: process 1 was ended by signal 9 first" in ended.exit["error"]["evalue"]
    assert not alive(*below)
