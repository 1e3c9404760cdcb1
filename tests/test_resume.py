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
from typing import Any

import pytest
from running import LABKIT, fixture, labkit, make_lab, run, started, wait_for
from tiny import plain_environment

from labkit.record import checkpoints
from labkit.record.find import every
from labkit.record.metrics import canonical, read
from labkit.record.rundir import RunDir
from labkit.record.status import status

pytestmark = pytest.mark.slow

PHASES = {  # where attempts are killed, and the options of the run
    "before the first checkpoint": ("before the first checkpoint@1", ()),
    "save": ("save@1", ()),
    "rename": ("before the rename@1,cut@2", ()),
    "evaluation": ("evaluation@1", ("-p", "WORKERS=2")),
    "edge": ("edge@1", ("-p", "WORKERS=2")),
}
MORE_PHASES = {
    "after the rename": ("after the rename@1", ()),
    "step": ("step@1,before the rename@2", ("-p", "WORKERS=2")),
    "cut": ("edge@1,cut@2,cut@3", ()),
}


@dataclass(frozen=True)
class Resumed:
    """A run that was killed, and what each command said that resumed it, one of them to its end."""

    run: RunDir
    commands: list[subprocess.CompletedProcess[str]]

    @property
    def restored(self) -> dict[str, Any]:
        """What the last attempt went on from."""
        return json.loads(self.run.restored.read_bytes())


def resume(of: RunDir) -> subprocess.CompletedProcess[str]:
    return labkit("resume", str(of.path), "--no-report")


def damage_newest(of: RunDir) -> None:
    """Change one bit of the newest checkpoint."""
    newest = checkpoints.every(of)[-1].path
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)


def killed_and_resumed(lab: Path, phase: str, kill: str, options: tuple[str, ...]) -> Resumed:
    """Kill a run in some phase and resume it until it has ended.

    That of `evaluation` has its newest checkpoint damaged in between; that of `edge` is resumed by two at once; that of
    `save` by the command that a queue repeats.
    """
    notebook, options = fixture(lab, "learns", phase), ("-p", f"KILL={kill}", *options)
    made = run(notebook, *options).run
    if phase == "save":
        repeated = ["run", str(notebook), "--no-report", "--runs", str(made.path.parent.parent), *options]
        return Resumed(made, [labkit(*repeated, "-p", "RESUME=auto")])
    if phase == "evaluation":
        damage_newest(made)
    at_once = 2 if phase == "edge" else 1
    commands = []
    for _ in range(kill.count("@")):
        with ThreadPoolExecutor(at_once) as pool:
            commands += pool.map(resume, [made] * at_once)
    return Resumed(made, commands)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Resumed]:
    """The run that was never stopped, as `whole`, and one for each phase, killed there and resumed; two at a time."""
    lab = make_lab(tmp_path_factory.mktemp("resume") / "Ada's lab")

    def one(phase: str) -> Resumed:
        return killed_and_resumed(lab, phase, *PHASES.get(phase, ("", ())))

    with ThreadPoolExecutor(2) as pool:
        names = ["whole", *PHASES]
        return dict(zip(names, pool.map(one, names), strict=True))


@pytest.mark.parametrize("phase", PHASES)
def test_a_run_killed_in_any_phase_ends_as_one_that_was_never_killed(trained: dict[str, Resumed], phase: str) -> None:
    check_same(trained[phase], trained["whole"])


def check_same(resumed: Resumed, whole: Resumed) -> None:
    made = resumed.run
    attempts = sorted(made.attempts.iterdir(), key=lambda folder: int(folder.name))
    for earlier in attempts[:-1]:
        assert "SIGKILL" in (earlier / "exit.json").read_text()
    assert status(made).state == "finished", resumed.commands[-1].stderr + made.log.read_text()
    assert canonical(made.metrics) == canonical(whole.run.metrics)


def test_what_the_killed_attempt_logged_and_printed_is_kept(trained: dict[str, Resumed]) -> None:
    made = trained["edge"].run
    assert {path.name for path in (made.attempts / "1").iterdir()} >= {
        "output.log", "notebook.ipynb", "metrics.jsonl", "exit.json"
    }  # fmt: skip
    assert read(made.attempts / "1" / "metrics.jsonl").torn == 0
    assert not (made.attempts / "2" / "begun.jsonl").exists()


def test_the_record_says_what_a_run_went_on_from(trained: dict[str, Resumed]) -> None:
    found = trained["edge"].restored
    assert found["checkpoint"].endswith(".pt") and len(found["sha256"]) == 64 and found["damaged"] == {}
    assert trained["before the first checkpoint"].restored["checkpoint"] is None


def test_what_a_kill_in_the_middle_of_a_save_left_is_removed(trained: dict[str, Resumed]) -> None:
    folder = trained["save"].run.checkpoints
    assert not list(folder.glob(".*"))
    assert {path.suffix for path in folder.iterdir()} <= {".pt", ".json", ".yaml"}


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(trained: dict[str, Resumed]) -> None:
    ((name, problem),) = trained["evaluation"].restored["damaged"].items()
    assert problem == "its content is not what was saved"
    assert f"checkpoint {name} is not used: {problem}" in trained["evaluation"].run.log.read_text()
    assert trained["evaluation"].restored["checkpoint"] < name


def test_of_two_that_resume_one_run_one_wins_and_the_other_is_told(trained: dict[str, Resumed]) -> None:
    won, lost = sorted(trained["edge"].commands, key=lambda command: command.returncode)
    assert (won.returncode, lost.returncode) == (0, 2), won.stderr + lost.stderr
    assert any(text in lost.stderr for text in ("somebody else", "is running", "is queued"))
    assert trained["edge"].run.attempt.name == "2"


def test_a_command_that_a_queue_repeats_goes_on_with_the_run(trained: dict[str, Resumed]) -> None:
    assert f"labkit: {trained['save'].run.name} goes on" in trained["save"].commands[0].stderr
    assert trained["save"].run.attempt.name == "2"


def test_a_run_that_has_finished_is_not_resumed(trained: dict[str, Resumed]) -> None:
    again = resume(trained["whole"].run)
    assert again.returncode == 2 and "has finished; nothing to resume" in again.stderr


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
    assert checkpoints.every(ended.run)[-1].lines == read(ended.run.metrics).rows, "the last step was not saved"
    assert resume(ended.run).returncode == 0
    assert canonical(ended.run.metrics) == canonical(trained["whole"].run.metrics)


@pytest.mark.faults
@pytest.mark.parametrize("phase", MORE_PHASES)
def test_a_run_killed_in_further_phases_ends_as_one_that_was_never_killed(
    tmp_path: Path, trained: dict[str, Resumed], phase: str
) -> None:
    check_same(killed_and_resumed(make_lab(tmp_path / "lab"), phase, *MORE_PHASES[phase]), trained["whole"])


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
