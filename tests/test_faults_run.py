"""The n-th system call of a whole run fails, for every n: the training is unharmed, files are old or new, losses told.

In the kernel's process a training is lived through by a forked child for each n, by hand and under `labkit run`; in the
runner and the supervisor, and with PyTorch's own writes, real runs have the faults (tests/faulty.py).
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from faulty import SHORT, TESTS, name_of, startup
from running import LABKIT, labkit, make_lab
from tiny import plain_environment, write

from labkit import cli
from labkit.launch.verdict import End, verdict
from labkit.record import checkpoints
from labkit.record.files import read_json, write_json
from labkit.record.find import every
from labkit.record.metrics import canonical, read
from labkit.record.rundir import RunDir, create
from labkit.record.status import exit_record, status
from labkit.record.summary import summarise

pytestmark = pytest.mark.slow

BEGIN = """\
import torch
from torch.utils.data import TensorDataset

import labkit

run = labkit.start()
labkit.seed(3, deterministic=False)
run.expect("it learns", "loss < 100")
run.label("small")
inputs = torch.randn(24, 8)
batches = labkit.loader(TensorDataset(inputs, inputs.sum(1, keepdim=True)), 8, shuffle=True, seed=1)
layers = torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(16, 1)
model = torch.nn.Sequential(*layers)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
state = {"epoch": 1, "step": 0}
state = run.restore(model=model, optimizer=optimizer, batches=batches, state=state)
"""
TRAIN = """\
for epoch in run.progress(range(state["epoch"], 4), "epoch"):
    for some, targets in batches:
        loss = (model(some) - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log(state["step"], loss=loss.detach())
        state["step"] += 1
    state["epoch"] = epoch + 1
    run.checkpoint(state=state, score=-loss.item(), keep=2)
    if epoch == 2:
        on_second()
"""
END = """\
table = run.table("seen", {"epoch": [1, 2, 3]})
assert list(table["epoch"]) == [1, 2, 3]
drawn = lambda data, figure: figure.subplots().plot(data["epoch"], data["loss"])
run.figure("curve", {"epoch": [1, 2, 3], "loss": [3.0, 2.0, 1.0]}, drawn, size=(1, 1))
run.conclude("it came to its end", True)
RESULT = labkit.fingerprint(model)
run.log(state["step"], weights=int(RESULT[:12], 16))
print("weights", RESULT)
"""
TRAINING = ("import os, resource, signal\n\n\ndef on_second():\n    {}\n\n\n", BEGIN, TRAIN, END)
LINES, SAVES = 10, 3
FIGURES = {"seen": ("seen.csv",), "curve": ("curve.csv", "curve.png")}
ERRORS = (errno.ENOSPC, errno.EIO)
CALLS = ("open", "write", "fsync", "replace", "rename", "mkdir", "symlink")
SWEEPS = [
    (call, fault, lasting)
    for call in CALLS
    for fault in (*ERRORS, *((SHORT,) if call == "write" else ()))
    for lasting in (False, True)
]


class Server:
    """The process that has PyTorch loaded, and forks a child for each case."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder, self.scratch, self.cases = folder, scratch, 0
        self._process = subprocess.Popen(
            [sys.executable, str(TESTS / "faulty.py")],
            env=plain_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def live(
        self, is_joined: bool, call: str, number: int, fault: int, lasting: bool, on_second: str = "pass"
    ) -> Lived:
        """Lives one training with the n-th call failing; `on_second` is what it does after its second epoch."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self.cases += 1
        runs, said = self.scratch / str(self.cases), self.folder / f"said {self.cases}"
        runs.mkdir()
        script = self.folder / "training.py"
        script.write_text(TRAINING[0].format(on_second) + BEGIN + TRAIN + END)
        joined = create(runs, "training", {"notebook": "training.py"}) if is_joined else None
        order = {
            "script": str(script),
            "runs": str(runs),
            "said": str(said),
            "joined": str(joined.path) if joined is not None else "",
            "call": call,
            "number": number,
            "fault": fault,
            "lasting": lasting,
        }
        print(json.dumps(order), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        assert "broken" not in answer, answer["broken"]
        lived = Lived(runs, joined, said.read_text(), answer["trained"], answer["error"], answer["count"], number)
        said.unlink()
        if joined is not None:
            lived.end_as_supervisor(joined)
        return lived

    def end(self) -> None:
        self._process.communicate()


@dataclass(frozen=True)
class Lived:
    """A training that is over: what it came to, and what it left.

    Attributes:
        runs: The folder of runs.
        joined: The run that was made for it; None where it was by hand.
        said: What it printed.
        trained: The fingerprint of its weights; None where it did not come to its end.
        error: Whether what it raised is labkit's own, its name and its text; None where nothing was raised.
        count: How often the call came.
        number: The call that was to fail first.
    """

    runs: Path
    joined: RunDir | None
    said: str
    trained: str | None
    error: tuple[bool, str, str] | None
    count: int
    number: int

    @property
    def fired(self) -> bool:
        return self.count >= self.number

    def end_as_supervisor(self, run: RunDir) -> None:
        """Writes what the supervisor and the runner would, from the same evidence."""
        outcome = {"status": "finished"} if self.error is None else {"status": "failed", "reason": self.error[2]}
        end = End({"code": 0, "signal": None}, outcome, counted=run.kernel.exists())
        write_json(run.exit, exit_record(*verdict(end), 0.0, written_by="supervisor"))
        summarise(run)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as scratch:
        made = Server(tmp_path_factory.mktemp("faults"), Path(scratch))
        yield made
        made.end()


@pytest.fixture(scope="module")
def weights(server: Server) -> str:
    """The fingerprint of the weights of a training without faults."""
    lived = server.live(False, "write", 10**9, errno.EIO, False)
    assert lived.trained is not None, lived.said
    check(lived, lived.trained, lasting=False)
    return lived.trained


def check(lived: Lived, weights: str, lasting: bool) -> None:
    """Checks everything that holds for a run whatever failed in it."""
    found = every(lived.runs)
    if lived.error is not None:
        assert lived.error[0], f"not an error that labkit raises on purpose: {lived.said}"
        assert lived.fired
        if lived.joined is None:
            assert found == [], "a run that could not be opened was left half made"
            return
        (run,) = found
        assert status(run).state == "failed"
        whole_files(run)
        return
    assert lived.trained == weights
    (run,) = found
    whole_files(run)
    whole_checkpoints(run)
    told(run, lived.said, lasting, is_joined=lived.joined is not None)


def whole_files(run: RunDir) -> None:
    """Each file that is written as a whole can be read, and nothing unfinished lies beside."""
    assert run.read_manifest()["id"] == run.id
    for path in run.path.rglob("*.json"):
        assert read_json(path) is not None, path
    for path in run.path.rglob("*.csv"):
        assert path.read_bytes().endswith(b"\n"), path
    for path in run.path.rglob("*.png"):
        assert path.read_bytes().endswith(b"IEND\xaeB`\x82"), path
    left = [str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.name.startswith(".")]
    assert left == []


def whole_checkpoints(run: RunDir) -> None:
    """Each checkpoint that counts is what was saved, and can be loaded by anybody."""
    import torch

    for saved in checkpoints.every(run):
        assert checkpoints.damage(saved) == "", saved.path
        content = torch.load(saved.path, weights_only=True)
        assert content["state"]["epoch"] == saved.number + 1
        assert content["state"]["step"] == 3 * saved.number
    newest, damaged = checkpoints.newest_whole(run)
    assert damaged == {} and (newest is None) == (not checkpoints.every(run))


def told(run: RunDir, said: str, lasting: bool, is_joined: bool) -> None:
    """What is not there was counted as lost, and whoever looks at the run is told."""
    shown = CliRunner().invoke(cli.main, ["show", str(run.path)], catch_exceptions=False).output
    counts, ended = read_json(run.kernel), status(run)
    metrics, saved = read(run.metrics), checkpoints.every(run)
    figures = [name for name, files in FIGURES.items() if not all((run.figures / file).exists() for file in files)]
    stated = read_json(run.stated) or {}
    missing = {
        "metrics": metrics.rows < LINES,
        "checkpoints": not saved or saved[-1].number < SAVES,
        "figures": bool(figures),
        "statements": not (stated.get("expectations") and stated.get("conclusions") and stated.get("labels")),
        "log": "epoch: 3 of 3 in" not in run.log.read_text(),
    }
    assert ended.state in ("finished", "killed", "unknown")
    if ended.state != "finished":
        assert read_json(run.exit) is None and "disk was full" in ended.reason, "what ended it is not said"
    if counts is None:
        assert ended.state != "finished" or "kernel.json" in ended.reason
        assert ended.reason in shown
        return
    for what, is_missing in missing.items():
        lost = counts.get(what, {}).get("lost", 0)
        assert not is_missing or lost > 0, f"{what} are missing, and nothing says so: {counts}"
        assert lost == 0 or f"{what} lost: {lost}" in shown
    assert counts["metrics"] == {"written": metrics.rows, "refused": 0, "lost": LINES - metrics.rows}
    assert metrics.torn <= (1 if lasting else 0)
    assert counts["checkpoints"]["saved"] + counts["checkpoints"]["lost"] == SAVES
    assert len(saved) >= min(2, counts["checkpoints"]["saved"])
    assert counts["figures"]["lost"] >= len(figures)  # one that was saved and could not be read again counts as well
    assert (run.source / "modules.json").exists() or "modules could not be recorded" in said
    assert (run.source / "git.json").exists() or "source state could not be recorded" in said or is_joined


def sweep(server: Server, weights: str, is_joined: bool, call: str, fault: int, lasting: bool) -> int:
    """Lives a training for each n until no call fails any more; returns how many did."""
    number = 0
    while True:
        number += 1
        if not tried(server, weights, is_joined, call, number, fault, lasting).fired:
            return number - 1


def tried(server: Server, weights: str, is_joined: bool, call: str, number: int, fault: int, lasting: bool) -> Lived:
    lived = server.live(is_joined, call, number, fault, lasting)
    try:
        check(lived, weights, lasting)
    except BaseException:
        print(f"{call} number {number}: {name_of(fault)}, {name_of(lasting)}\n{lived.said}\n{lived.error}")
        raise
    shutil.rmtree(lived.runs)
    return lived


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("call", "fault", "lasting"), SWEEPS, ids=name_of)
@pytest.mark.parametrize("is_joined", [False, True], ids=["by hand", "joined"])
def test_whichever_call_fails_a_training_is_unharmed_and_its_losses_are_told(
    server: Server, weights: str, is_joined: bool, call: str, fault: int, lasting: bool
) -> None:
    count = sweep(server, weights, is_joined, call, fault, lasting)
    print(f"{count} calls failed")
    assert count >= (0 if is_joined and call in ("rename", "mkdir", "symlink") else 1)


SAMPLED = [  # some of each call, early and late
    *(("write", number, fault, lasting) for number, fault, lasting in (
        (1, errno.ENOSPC, True), (4, errno.EIO, False), (15, errno.ENOSPC, True), (30, SHORT, True),
        (30, errno.ENOSPC, False), (40, errno.EIO, True), (45, errno.ENOSPC, True),
    )),
    *(("open", number, errno.EIO, lasting) for number, lasting in ((1, True), (7, False), (25, True), (60, False))),
    *(("fsync", number, errno.EIO, lasting) for number, lasting in ((2, True), (13, False), (30, True))),
    *(("replace", number, errno.EIO, lasting) for number, lasting in ((1, True), (9, False), (20, False), (25, True))),
    *(("mkdir", number, errno.ENOSPC, True) for number in (1, 3)),
]  # fmt: skip


@pytest.mark.parametrize("is_joined", [False, True], ids=["by hand", "joined"])
def test_a_call_that_fails_leaves_a_training_unharmed_and_its_losses_are_told(
    server: Server, weights: str, is_joined: bool
) -> None:
    for call, number, fault, lasting in SAMPLED[is_joined::2]:
        tried(server, weights, is_joined, call, number, fault, lasting)


@pytest.mark.parametrize("is_joined", [False, True], ids=["by hand", "joined"])
def test_a_checkpoint_that_pytorch_itself_cannot_write_is_counted_and_told(
    server: Server, weights: str, is_joined: bool
) -> None:
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (8000, resource.RLIM_INFINITY))"
    lived = server.live(is_joined, "symlink", 10**9, errno.EIO, False, limit)
    check(lived, weights, lasting=False)
    (run,) = every(lived.runs)
    saved = len(checkpoints.every(run))
    assert saved in (1, 2)  # the second one may still be under way
    assert (read_json(run.kernel) or {})["checkpoints"] == {"saved": saved, "lost": SAVES - saved}
    assert "checkpoint 000003 was not saved" in lived.said


# real runs, with the faults in one of their processes


@dataclass(frozen=True)
class Ran:
    """A `labkit run` that is over, with faults in one of its processes."""

    exit_status: int
    out: str
    err: str
    runs: Path
    count: int

    @property
    def run(self) -> RunDir:
        (found,) = every(self.runs)
        return found


LIGHT = (  # without PyTorch, where the runner and the supervisor alone are of interest
    "import labkit\n\nrun = labkit.start()\nrun.label('small')",
    "for step in run.progress(range(20), 'step'):\n    run.log(step, loss=1 / (step + 1))",
    "print('weights', 'are', 'none')",
)


def real(
    lab: Path, process: str, call: str, number: int, fault: int, lasting: bool, on_second: str = "pass", *prefix: str
) -> Ran:
    """Executes the training by `labkit run`, with the faults in its runner, supervisor or kernel.

    Args:
        lab: A lab.
        process: Where the faults are; `light` before it for a notebook that trains nothing.
        call: The call that fails.
        number: Which of them is the first that fails.
        fault: How it fails.
        lasting: All later ones fail too.
        on_second: What the notebook does after its second epoch.
        *prefix: A command that starts it.
    """
    case = "-".join([process, call, str(number), name_of(fault), name_of(lasting), *prefix[:1]]).replace(" ", "-")
    *light, process = process.split()
    runs, count = lab / "runs" / case, lab / f"{case}.count"
    cells = LIGHT if light else (TRAINING[0].format(on_second), *TRAINING[1:])
    path = write(lab / "notebooks" / f"{case}.ipynb", *cells)
    order = {"process": process, "folder": str(runs), "call": call, "number": number, "fault": fault}
    order |= {"lasting": lasting, "count": str(count)}
    env = plain_environment(PYTHONPATH=startup(lab / f"{case}.path"), FAULTS=json.dumps(order))
    command = [*prefix, *LABKIT, "run", str(path), "--no-report", "--runs", str(runs)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    made = int(count.read_text()) if count.exists() else 0
    return Ran(done.returncode, done.stdout, done.stderr, runs, made)


@pytest.fixture(scope="module")
def real_lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lab(tmp_path_factory.mktemp("real") / "Ada's lab")


def check_real(ran: Ran, metrics: bytes, lasting: bool = False) -> None:
    """Checks everything that holds for a real run, whatever failed in its runner or its supervisor."""
    assert "Traceback" not in ran.err, ran.err
    found = every(ran.runs)
    hidden = [str(path) for path in ran.runs.rglob(".*") if path.is_file()]
    if not found:
        assert ran.exit_status == 2, "no run, and no clear error"
        assert ran.err.startswith("labkit: ")
        return
    (run,) = found
    assert hidden == []
    whole_files(run)
    whole_checkpoints(run)
    ended = status(run)
    assert ended.is_over, ended
    assert (ran.exit_status == 0) == (ended.state == "finished"), ran.err
    if ended.state != "finished":
        assert ended.reason
        return
    assert canonical(run.metrics) == metrics, "faults around the kernel changed what it measured"
    if b'"weights ' not in run.notebook.read_bytes():
        assert "could not be saved" in ran.err, "its outputs are not saved, and nothing says so"
        lost = (read_json(run.kernel) or {}).get("notebook", {}).get("lost", 0)
        assert lost == 1 or lasting


REAL = [  # the runner makes the run's files and saves the notebook; the supervisor says what runs, and how it ended
    ("light runner", "write", 3, errno.ENOSPC, True),
    ("light runner", "replace", 9, errno.EIO, False),
    ("light runner", "replace", 9, errno.EIO, True),
    ("light supervisor", "write", 2, errno.ENOSPC, True),
    ("light supervisor", "replace", 1, errno.EIO, False),
]


@pytest.fixture(scope="module")
def light(real_lab: Path) -> bytes:
    """The metrics of the notebook that trains nothing."""
    ran = real(real_lab, "light runner", "write", 10**9, errno.EIO, False)
    assert (ran.exit_status, status(ran.run).state) == (0, "finished"), ran.err
    check_real(ran, canonical(ran.run.metrics))
    return canonical(ran.run.metrics)


def test_a_call_that_fails_in_runner_or_supervisor_leaves_a_whole_record_or_a_clear_error(
    real_lab: Path, light: bytes
) -> None:
    with ThreadPoolExecutor(2) as pool:
        for case, ran in zip(REAL, pool.map(lambda case: real(real_lab, *case), REAL), strict=True):
            assert ran.count >= case[2], f"{case}: it did not fail"
            check_real(ran, light, lasting=case[-1])


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("lasting", [False, True], ids=name_of)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("process", ["runner", "supervisor"])
def test_whichever_call_fails_in_runner_or_supervisor_the_record_is_whole_or_the_error_clear(
    real_lab: Path, light: bytes, process: str, call: str, lasting: bool
) -> None:
    number, fault = 1, errno.ENOSPC if lasting else errno.EIO
    while (ran := real(real_lab, f"light {process}", call, number, fault, lasting)).count >= number:
        check_real(ran, light, lasting)
        number += 1
    print(f"{number - 1} calls failed")


@pytest.fixture(scope="module")
def whole(real_lab: Path) -> bytes:
    """The metrics of a training without faults."""
    ran = real(real_lab, "kernel", "write", 10**9, errno.EIO, False)
    assert status(ran.run).state == "finished", ran.err
    check_real(ran, canonical(ran.run.metrics))
    return canonical(ran.run.metrics)


DIE = "run.directory.attempt.name == '1' and os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.faults
@pytest.mark.parametrize(
    ("process", "call", "number", "fault"),
    [
        ("kernel", "write metrics", 2, errno.EIO),
        ("kernel", "write metrics", 3, SHORT),
        ("kernel", "replace checkpoints", 2, errno.ENOSPC),
        ("runner", "replace", 8, errno.EIO),
        ("supervisor", "fsync", 1, errno.EIO),
    ],
)
def test_a_run_with_faults_that_was_killed_goes_on_to_the_same_end(
    real_lab: Path, whole: bytes, process: str, call: str, number: int, fault: int
) -> None:
    ran = real(real_lab, process, call, number, fault, False, DIE)
    assert status(ran.run).state == "failed" and ran.count >= number, ran.err
    resumed = labkit("resume", str(ran.run.path), "--no-report")
    assert (resumed.returncode, status(ran.run).state) == (0, "finished"), resumed.stderr
    assert canonical(ran.run.metrics) == whole
    whole_files(ran.run)
    whole_checkpoints(ran.run)
