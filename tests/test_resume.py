"""A training that was killed, stopped or damaged goes on, and ends with the bits of one that never stopped."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from running import LABKIT, Ended, fixture, labkit, make_lab, run, started, wait_for
from tiny import plain_environment

from labkit.record import checkpoints
from labkit.record.find import every
from labkit.record.metrics import canonical, read
from labkit.record.rundir import RunDir
from labkit.record.status import status

pytestmark = pytest.mark.slow

PHASES = {  # where the first attempt is killed, and the options of the run
    "before the first checkpoint": (),
    "save": (),
    "before the rename": (),
    "after the rename": (),
    "step": ("-p", "WORKERS=2"),
    "evaluation": (),
    "edge": ("-p", "WORKERS=2"),
}


@dataclass(frozen=True)
class Resumed:
    """A run that was killed and then resumed until it ended."""

    killed: Ended
    command: subprocess.CompletedProcess[str]

    @property
    def run(self) -> RunDir:
        return self.killed.run


def resume(of: RunDir, *options: str) -> subprocess.CompletedProcess[str]:
    return labkit("resume", str(of.path), "--no-report", *options)


def restored(of: RunDir) -> dict:
    return json.loads((of.attempt / "restored.json").read_bytes())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Resumed]:
    """The run that was never stopped, as `whole`, and one for each phase, killed there and resumed; two at a time."""
    lab = make_lab(tmp_path_factory.mktemp("resume") / "Ada's lab")

    def one(phase: str) -> Resumed:
        options = ("-p", f"KILL={phase}", *PHASES[phase]) if phase in PHASES else ()
        killed = run(fixture(lab, "learns", phase), *options)
        return Resumed(killed, resume(killed.run) if phase in PHASES else labkit("show", str(killed.run.path)))

    with ThreadPoolExecutor(2) as pool:
        names = ["whole", *PHASES]
        return dict(zip(names, pool.map(one, names), strict=True))


@pytest.mark.parametrize("phase", PHASES)
def test_a_run_killed_in_any_phase_ends_as_one_that_was_never_killed(trained: dict[str, Resumed], phase: str) -> None:
    resumed, whole = trained[phase], trained["whole"]
    assert "SIGKILL" in (resumed.run.attempts / "1" / "exit.json").read_text()
    assert resumed.command.returncode == 0, resumed.command.stderr + resumed.run.log.read_text()
    assert status(resumed.run).state == "finished"
    assert canonical(resumed.run.metrics) == canonical(whole.run.metrics)


def test_what_the_killed_attempt_logged_and_printed_is_kept(trained: dict[str, Resumed]) -> None:
    made = trained["edge"].run
    first = made.attempts / "1"
    assert {path.name for path in first.iterdir()} >= {"output.log", "notebook.ipynb", "metrics.jsonl", "exit.json"}
    cut = read(first / "metrics.jsonl")
    assert cut.torn == 0 and cut.rows + checkpoints.every(made)[0].lines >= 0
    assert not (made.attempts / "2" / "begun.jsonl").exists()


def test_the_record_says_what_a_run_went_on_from(trained: dict[str, Resumed]) -> None:
    found = restored(trained["step"].run)
    assert found["checkpoint"].endswith(".pt") and len(found["sha256"]) == 64 and found["damaged"] == {}
    assert restored(trained["before the first checkpoint"].run)["checkpoint"] is None


def test_what_a_kill_in_the_middle_of_a_save_left_is_removed(trained: dict[str, Resumed]) -> None:
    folder = trained["save"].run.checkpoints
    assert not list(folder.glob(".*"))
    assert {path.suffix for path in folder.iterdir()} <= {".pt", ".json", ".yaml"}


def test_a_kill_while_the_metrics_are_cut_back_loses_none(tmp_path: Path, trained: dict[str, Resumed]) -> None:
    lab = make_lab(tmp_path / "lab")
    killed = run(fixture(lab, "learns"), "-p", "KILL=cut@2", "--timeout", "60", "-p", "EVERY_S=0.05")
    # the first attempt ends well; make it one that was stopped before its last lines
    assert killed.exit_status == 0
    facts = json.loads(killed.run.exit.read_bytes())
    killed.run.exit.write_text(json.dumps(facts | {"status": "killed"}))
    assert resume(killed.run).returncode == 1 and "SIGKILL" in status(killed.run).reason
    last = resume(killed.run)
    assert last.returncode == 0, last.stderr
    assert killed.run.attempt.name == "3"
    assert canonical(killed.run.metrics) == canonical(trained["whole"].run.metrics)


def test_a_stop_saves_the_step_under_way_and_the_run_goes_on_from_there(
    tmp_path: Path, trained: dict[str, Resumed]
) -> None:
    lab = make_lab(tmp_path / "lab")
    with started(fixture(lab, "learns"), "-p", "PAUSE_S=0.1", "-p", "EVERY_S=1000") as under_way:
        under_way.logs(8)
        under_way.process.send_signal(signal.SIGTERM)
        ended = under_way.ended()
    assert (ended.exit_status, ended.status.state) == (143, "interrupted")
    assert "go on with: labkit resume" in ended.err
    logged = read(ended.run.metrics).rows
    assert checkpoints.every(ended.run)[-1].lines == logged, "the last step was not saved"
    assert resume(ended.run).returncode == 0
    assert canonical(ended.run.metrics) == canonical(trained["whole"].run.metrics)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(
    tmp_path: Path, trained: dict[str, Resumed]
) -> None:
    lab = make_lab(tmp_path / "lab")
    killed = run(fixture(lab, "learns"), "-p", "KILL=edge")
    newest = checkpoints.every(killed.run)[-1].path
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    assert resume(killed.run).returncode == 0
    assert restored(killed.run)["damaged"] == {newest.name: "its content is not what was saved"}
    assert f"checkpoint {newest.name} is not used" in killed.run.log.read_text()
    assert canonical(killed.run.metrics) == canonical(trained["whole"].run.metrics)


def test_of_two_that_resume_one_run_one_wins_and_the_other_is_told(tmp_path: Path) -> None:
    lab = make_lab(tmp_path / "lab")
    killed = run(fixture(lab, "learns"), "-p", "KILL=edge", "-p", "EPOCHS=2")
    command = [*LABKIT, "resume", str(killed.run.path), "--no-report"]
    both = [
        subprocess.Popen(command, env=plain_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate()[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], said
    (loser,) = [text for text, process in zip(said, both, strict=True) if process.returncode == 2]
    assert "somebody else" in loser or "is running" in loser or "is queued" in loser
    assert killed.run.attempt.name == "2"


def kill_and_resume(lab: Path, number: int, victim: str, draw: random.Random, kills: int) -> tuple[RunDir, int]:
    """Run a training, kill it and resume it so many times at random moments, and then to its end."""
    runs = lab / "runs" / f"{victim} {number}"
    notebook = fixture(lab, "learns", f"{victim} {number}")
    options = ["-p", f"WORKERS={2 * (number % 2)}", "-p", "PAUSE_S=0.01", "-p", "EVERY_S=0.03", "--runs", str(runs)]
    command, done = [*LABKIT, "run", str(notebook), *options], 0
    for _ in range(kills + 1):
        with subprocess.Popen(
            [*command, "--no-report"], env=plain_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            if done < kills:
                time.sleep(draw.uniform(0, 6))
                done += kill_one(runs, process, victim)
            process.wait()
        (made,) = every(runs)
        wait_for(lambda made=made: status(made).is_over, 30)
        if status(made).state == "finished":
            break
        command = [*LABKIT, "resume", str(made.path)]
    return made, done


def kill_one(runs: Path, process: subprocess.Popen[bytes], victim: str) -> int:
    """Kill the kernel or the runner of a run; tells whether there was one to kill."""
    found = [made for made in every(runs) if made.process.exists()]
    if not found or process.poll() is not None:
        return 0  # not before there is a run that could be resumed
    facts = json.loads(found[0].process.read_bytes())
    try:
        os.kill(process.pid if victim == "runner" else facts["kernel"]["pid"], signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1


def compare_killed(lab: Path, victim: str, count: int, kills: int, whole: bytes) -> int:
    """Kill and resume so many trainings, two at a time; returns how many kills there were in all."""
    seed = random.SystemRandom().randrange(2**32)
    draws = [random.Random(f"{seed} {number}") for number in range(count)]
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda number: kill_and_resume(lab, number, victim, draws[number], kills), range(count)))
    for made, _ in ended:
        assert status(made).state == "finished", f"seed {seed}: {made.path}: {made.log.read_text()}"
        assert canonical(made.metrics) == whole, f"seed {seed}: {made.path}"
    return sum(done for _, done in ended)


@pytest.mark.faults
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("victim", ["kernel", "runner"])
def test_many_trainings_killed_at_random_moments_end_as_one_that_was_never_killed(
    tmp_path: Path, trained: dict[str, Resumed], victim: str
) -> None:
    done = compare_killed(make_lab(tmp_path / "lab"), victim, 50, 3, canonical(trained["whole"].run.metrics))
    print(f"{done} kills of the {victim}: all 50 trainings ended with the same metrics and weights")
    assert done >= 100
