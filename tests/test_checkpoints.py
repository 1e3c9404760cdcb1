"""Checkpoints: what is saved, what is refused, what is kept, and what a damaged or hostile one does."""

from __future__ import annotations

import collections
import io
import logging
import os
import pickle
import random
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from records import made
from torch import nn

from labkit.errors import RunNotFound, RunProblem
from labkit.kernel import checkpoint, resume
from labkit.kernel.checkpoint import Saver, load
from labkit.kernel.claim import hardware
from labkit.kernel.logged import Logged
from labkit.kernel.parts import Copies, load_into, state_of
from labkit.kernel.randomness import random_state, set_random_state
from labkit.kernel.resume import Restored
from labkit.kernel.trainingstate import TrainingState
from labkit.record import checkpoints, metrics
from labkit.record.rundir import RunDir
from labkit.workbench.notebooks.yamlfile import read_yaml

LOGGER = logging.getLogger("checkpoints")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return made(tmp_path / "runs", end=None)


def parts():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    return {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": torch.amp.GradScaler("cpu")}


def step(made):
    loss = made["model"](torch.rand(8, 3)).square().sum()
    made["optimizer"].zero_grad()
    loss.backward()
    made["optimizer"].step()
    made["scheduler"].step()
    return loss.item()


def save(saver, made=None, *, score=None, keep=3, **state):
    saver.save(made or parts(), state, (0, 0), score, keep)
    saver.wait()


@pytest.mark.slow
def test_a_training_goes_on_with_the_same_bits_from_what_was_saved(run: RunDir):
    first, state = parts(), TrainingState(run, {}, run.path / "x.ipynb", LOGGER)
    for _ in range(3):
        step(first)
    state.save(first | {"nothing": None}, {"best": 0.5, "history": [1, 2.0, None]}, (0, 0), None, 3)
    state.wait()
    expected = [step(first) for _ in range(3)] + [random.random(), float(np.random.random())]

    again = parts()
    (saved,) = checkpoints.every(run)
    restored, _ = resume.of_parameter(str(saved.path), run.path / "x.ipynb", again)
    assert restored.state == {"best": 0.5, "history": [1, 2.0, None]}
    assert [step(again) for _ in range(3)] + [random.random(), float(np.random.random())] == expected


def test_every_generator_goes_on_where_it_was():
    own, other = torch.Generator().manual_seed(4), np.random.default_rng(4)
    state = Copies().of([random_state(), state_of(own, "g"), state_of(other, "n")], "all")

    def draw():
        return [
            random.gauss(0, 1),
            np.random.normal(),
            torch.randn(3).tolist(),
            torch.rand(2, generator=own).tolist(),
            other.random(),
        ]

    expected = draw()
    set_random_state(state[0])
    load_into(own, state[1], "g")
    load_into(other, state[2], "n")
    assert draw() == expected


NUMPY_KINDS = ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"]
GENERATORS = {
    **{kind: lambda seed, kind=kind: np.random.Generator(getattr(np.random, kind)(seed)) for kind in NUMPY_KINDS},
    **{f"RandomState of {kind}": lambda seed, kind=kind: np.random.RandomState(getattr(np.random, kind)(seed))
       for kind in NUMPY_KINDS},
    "Python": random.Random,
    "PyTorch": lambda seed: torch.Generator().manual_seed(seed),
}  # fmt: skip


def drawn(generator, count):
    if isinstance(generator, torch.Generator):
        return torch.randn(count, generator=generator).tolist()
    if isinstance(generator, random.Random):
        return [generator.gauss(0, 1) for _ in range(count)]
    whole = generator.integers if isinstance(generator, np.random.Generator) else generator.randint
    return [generator.normal(), generator.random(), *(int(whole(0, 99, dtype=np.int32)) for _ in range(count))]


@pytest.mark.parametrize("kind", GENERATORS)
@given(seed=st.integers(0, 2**32 - 1), other=st.integers(0, 2**32 - 1), before=st.integers(0, 700))
@settings(max_examples=15, deadline=None)
def test_a_generator_of_any_kind_goes_on_from_what_was_read_back(kind: str, seed: int, other: int, before: int):
    first, again, file = GENERATORS[kind](seed), GENERATORS[kind](other), io.BytesIO()
    drawn(first, before)
    torch.save(Copies().of(state_of(first, "g"), "g"), file)
    load_into(again, torch.load(io.BytesIO(file.getvalue()), weights_only=True), "g")
    assert drawn(again, 9) == drawn(first, 9)


def test_the_state_of_another_kind_of_generator_is_refused():
    philox, mersenne = GENERATORS["Philox"](1), GENERATORS["MT19937"](1)
    with pytest.raises(RunProblem, match="does not fit this Generator"):
        load_into(philox, state_of(mersenne, "g"), "g")


def test_a_generator_among_the_values_is_refused_with_the_way_to_save_it(run: RunDir):
    for generator in (GENERATORS["Philox"](1), GENERATORS["RandomState of MT19937"](1), random.Random(1)):
        with pytest.raises(RunProblem, match="give it as a part of its own"):
            Saver(run, LOGGER).save(parts(), {"x": generator}, (0, 0), None, 3)


def test_states_of_generators_are_read_as_older_checkpoints_have_them():
    np.random.seed(3)
    kind, keys, *rest = np.random.get_state()
    state = random_state()
    expected = np.random.normal()
    for older in ([kind, keys.tolist(), *rest], [kind, torch.from_numpy(keys.astype(np.int64)), *rest]):
        set_random_state(state | {"numpy": older})
        assert np.random.normal() == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(1), "state['x'] is a float64, which cannot be read back safely; store float64 as a plain number"),
        (
            [1, {"y": np.arange(2)}],
            "state['x'][1]['y'] is a ndarray, which cannot be read back safely; store",
        ),
        (Path("x"), "state['x'] is a PosixPath, which cannot be read back safely; store str(…)"),
        ({1, 2}, "is a set, which cannot be read back safely; store sorted"),
        (pd.DataFrame(), 'is a DataFrame, which cannot be read back safely; store .to_dict("list")'),
        ({(1, 2): 3}, "state['x'] has the key (1, 2), a tuple; use text or integers"),
        (nn.Linear(1, 1), "is a Linear, which cannot be read back safely; store numbers"),
        (collections.deque(), "is a deque"),
    ],
)
def test_what_is_not_plain_is_refused_when_it_is_saved_with_its_key(run: RunDir, value, expected: str):
    with pytest.raises(RunProblem) as raised:
        Saver(run, LOGGER).save(parts(), {"x": value}, (0, 0), None, 3)
    assert expected in str(raised.value)
    assert checkpoints.every(run) == []


def test_the_last_ones_and_the_best_are_kept(run: RunDir):
    saver = Saver(run, LOGGER)
    for score in (0.1, 0.9, None, float("nan"), 0.3, 0.2):
        save(saver, score=score, keep=2)
    assert [saved.number for saved in checkpoints.every(run)] == [2, 5, 6]
    assert os.readlink(run.checkpoints / "last.pt") == "000006.pt"
    assert os.readlink(run.checkpoints / "best.pt") == "000002.pt"
    assert {path.name for path in run.checkpoints.iterdir()} == {
        "last.pt", "best.pt", *(f"00000{n}.{ending}" for n in (2, 5, 6) for ending in ("pt", "json", "yaml"))
    }  # fmt: skip


def test_a_copy_is_taken_at_once_so_that_training_on_changes_nothing_that_is_saved(run: RunDir):
    training, saver = parts(), Saver(run, LOGGER)
    expected = {name: tensor.clone() for name, tensor in training["model"].state_dict().items()}
    saver.save(training, {}, (0, 0), None, 3)
    for tensor in training["model"].state_dict().values():
        tensor.fill_(0)
    saver.wait()
    content = load(checkpoints.every(run)[0].path)
    assert all(torch.equal(content["parts"]["model"][name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("how", ["one bit", "cut short", "gone", "a link"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_taken(run: RunDir, tmp_path: Path, how: str):
    saver = Saver(run, LOGGER)
    save(saver)
    save(saver)
    newest = checkpoints.every(run)[-1].path
    data = newest.read_bytes()
    newest.unlink()
    if how == "one bit":
        newest.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    elif how == "cut short":
        newest.write_bytes(data[:-1])
    elif how == "a link":
        (tmp_path / "elsewhere.pt").write_bytes(data)
        newest.symlink_to(tmp_path / "elsewhere.pt")
    saved, damaged = checkpoints.newest_whole(run)
    assert saved is not None and saved.number == 1 and list(damaged) == [newest.name]


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self):
        return open, ("executed", "w")


@pytest.mark.parametrize("as_archive", [True, False])
def test_a_hostile_checkpoint_executes_nothing_and_is_named(tmp_path: Path, monkeypatch, as_archive: bool):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    if as_archive:
        torch.save({"parts": {"model": Evil()}}, path)
    else:
        path.write_bytes(pickle.dumps(Evil()))
    for reads in (load, lambda path: resume.weights(str(path), tmp_path / "x.ipynb", parts())):
        with pytest.raises(RunProblem, match="evil"):
            reads(path)
    assert not (tmp_path / "executed").exists()


def test_an_archive_that_points_out_of_itself_writes_nothing_there(tmp_path: Path):
    path = tmp_path / "in" / "climbs.pt"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../out.txt", "out")
        archive.writestr("climbs/data.pkl", pickle.dumps({}))
    with pytest.raises(RunProblem, match="climbs"):
        load(path)
    assert [found.name for found in tmp_path.rglob("*")] == ["in", "climbs.pt"]


def test_what_does_not_fit_is_refused_with_every_difference(run: RunDir):
    save(Saver(run, LOGGER))
    manifest = checkpoints.every(run)[0].path.with_suffix(".json")
    manifest.write_text(manifest.read_text().replace(torch.__version__, "1.0"))
    others = parts()
    others["ema"] = others.pop("scaler")
    with pytest.raises(RunProblem) as raised:
        resume.of_parameter(str(run.checkpoints / "last.pt"), run.path / "x.ipynb", others)
    for line in ("ema is not in the checkpoint", "scaler is in the checkpoint", "PyTorch was 1.0, is"):
        assert line in str(raised.value)


def test_another_model_is_refused_by_name(run: RunDir):
    save(Saver(run, LOGGER))
    with pytest.raises(RunProblem, match=r"(?s)model: the saved state does not fit this Sequential.*size mismatch"):
        resume.of_parameter(
            str(run.checkpoints / "last.pt"), run.path / "x", parts() | {"model": nn.Sequential(nn.Linear(9, 4))}
        )


def test_weights_come_from_a_checkpoint_a_run_or_a_plain_state(run: RunDir, tmp_path: Path):
    trained = parts()
    step(trained)
    save(Saver(run, LOGGER), trained, score=1.0)
    torch.save(trained["model"].state_dict(), tmp_path / "plain.pt")
    for name in (str(run.checkpoints / "000001.pt"), str(run.path), "plain.pt"):
        model = parts()["model"]
        resume.weights(name, tmp_path / "x.ipynb", {"model": model})
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), trained["model"].parameters(), strict=True))
    with pytest.raises(RunNotFound, match="neither a file nor a run"):
        checkpoints.locate("nowhere.pt", tmp_path / "x.ipynb", "best")


def test_a_full_disk_loses_the_checkpoint_and_says_so_and_the_training_goes_on(run: RunDir, caplog):
    saver = Saver(run, LOGGER)
    save(saver)
    run.checkpoints.rename(run.path / "away")
    run.checkpoints.write_text("a file where the folder should be")
    save(saver)
    assert (saver.saved, saver.lost) == (1, 1)
    assert "checkpoint 000002 was not saved" in caplog.text


def test_versions_of_modules_are_kept(run: RunDir):
    save(Saver(run, LOGGER))
    assert load(checkpoints.every(run)[0].path)["parts"]["model"]._metadata["1"] == {"version": 2}


SCHEDULERS = {
    "MultiStepLR": lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 3]),
    "ReduceLROnPlateau": torch.optim.lr_scheduler.ReduceLROnPlateau,
    "LambdaLR": lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_of_every_kind_are_saved(run: RunDir, name: str):
    def made():
        torch.manual_seed(0)
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), 1.0)
        return {"optimizer": optimizer, "scheduler": SCHEDULERS[name](optimizer)}

    def rates(parts, count):
        more = (1.0,) if name == "ReduceLROnPlateau" else ()
        parts["optimizer"].step()
        return [(parts["scheduler"].step(*more), parts["optimizer"].param_groups[0]["lr"])[1] for _ in range(count)]

    first, again = made(), made()
    rates(first, 2)
    save(Saver(run, LOGGER), first)
    resume.of_parameter(str(run.checkpoints / "last.pt"), run.path / "x.ipynb", again)
    assert rates(again, 14) == rates(first, 14)


def test_a_checkpoint_of_some_parts_keeps_the_others(run: RunDir):
    state, training = TrainingState(run, {}, run.path / "x.ipynb", LOGGER), parts()
    state.restore(training)
    state.save({"model": training["model"]}, {}, (0, 0), None, 3)
    state.wait()
    assert checkpoints.every(run)[0].facts["parts"] == sorted(training)


def test_restoring_twice_in_a_run_is_refused(run: RunDir):
    state = TrainingState(run, {}, run.path / "x.ipynb", LOGGER)
    state.restore(parts())
    with pytest.raises(RunProblem, match=r"run\.restore was called before"):
        state.restore(parts())


@pytest.mark.parametrize("read", ["resume", "weights"])
def test_a_damaged_checkpoint_that_is_named_is_refused(run: RunDir, read: str):
    save(Saver(run, LOGGER))
    path = run.checkpoints / "000001.pt"
    data = path.read_bytes()
    path.write_bytes(data[:900] + bytes([data[900] ^ 1]) + data[901:])
    with pytest.raises(RunProblem, match=r"000001\.pt is damaged: its content is not what was saved"):
        if read == "resume":
            resume.of_parameter(str(run.checkpoints / "last.pt"), run.path / "x.ipynb", parts())
        else:
            resume.weights(str(path), run.path / "x.ipynb", parts())


def test_the_file_to_go_on_from_names_its_checkpoint_in_any_folder(tmp_path: Path):
    run = made(tmp_path / "CHECKPOINT #1: {x}" / "runs", end=None)
    state = TrainingState(run, {}, run.path / "x.ipynb", LOGGER)
    state.save(parts(), {}, (0, 0), None, 3)
    state.wait()
    assert read_yaml(run.checkpoints / "000001.yaml") == {"RESUME": str(run.checkpoints / "000001.pt")}


def test_a_folder_of_checkpoints_that_leads_out_of_the_run_is_refused(run: RunDir, tmp_path: Path):
    (tmp_path / "scratch").mkdir()
    run.checkpoints.symlink_to(tmp_path / "scratch")
    with pytest.raises(RunProblem, match="no link"):
        Saver(run, LOGGER)


def attempt(run: RunDir, number: int) -> RunDir:
    """Begin another attempt at a run."""
    (run.attempts / str(number)).mkdir()
    return RunDir(run.path).pinned()


def test_the_metrics_of_a_resumed_run_are_cut_back_by_size_so_that_a_torn_line_stays_one(run: RunDir):
    first = Logged(run)
    for step in range(4):
        first.writer.log(step, {"loss": step})
    lines, size = first.lines, first.bytes
    first.writer.log(4, {"loss": 4.0})
    first.writer.close()
    data = bytearray(run.metrics.read_bytes())
    data[3] = ord("}")
    run.metrics.write_bytes(data)
    second = Logged(attempt(run, 2))
    second.writer.log(-1, {"before": 1.0})
    second.go_on(Restored({}, lines, size), None)
    second.writer.log(4, {"loss": 4.0})
    second.writer.close()
    found = metrics.read(run.metrics)
    assert (found.rows, found.torn) == (4, 1) and list(found.columns["loss"].steps) == [1, 2, 3, 4]
    assert run.metrics.read_bytes().count(b"\n\n") == 0
    assert metrics.read(run.attempts / "1" / "metrics.jsonl").columns["loss"].steps[0] == 4


def test_lines_that_the_disk_never_took_are_counted_as_lost_when_the_run_goes_on(run: RunDir):
    first = Logged(run)
    first.writer.log(0, {"loss": 1.0})
    first.writer.close()
    second = Logged(attempt(run, 2))
    second.go_on(Restored({}, 3, None), None)
    second.writer.close()
    assert second.counts["lost"] == 2


def test_an_attempt_that_never_asked_what_to_go_on_from_has_its_own_metrics(run: RunDir):
    first = Logged(run)
    first.writer.log(0, {"loss": 1.0})
    first.writer.close()
    second = attempt(run, 2)
    logged = Logged(second)
    logged.writer.log(7, {"loss": 7.0})
    logged.writer.close()
    assert metrics.read(run.metrics).columns["loss"].steps[0] == 0
    checkpoints.begin_anew(second)
    assert metrics.read(run.metrics).columns["loss"].steps[0] == 7
    assert metrics.read(run.attempts / "1" / "metrics.jsonl").columns["loss"].steps[0] == 0


def test_what_a_killed_save_left_goes_and_what_somebody_else_put_there_stays(run: RunDir):
    save(Saver(run, LOGGER))
    left = ["000009.pt", ".000010.partial", ".000009.json.0a1b2c3d"]
    others = ["2nd-best.pt", ".notes.txt", "000009.unrelated", "last-week.pt"]
    for name in left + others:
        (run.checkpoints / name).write_text("x")
    Saver(run, LOGGER)
    there = {path.name for path in run.checkpoints.iterdir()}
    assert there.isdisjoint(left) and there >= {*others, "000001.pt", "000001.json", "last.pt"}


def test_a_checkpoint_is_on_the_disk_with_its_name_before_it_counts(run: RunDir, monkeypatch: pytest.MonkeyPatch):
    done: list[str] = []
    syncs, replaces = os.fsync, os.replace

    def sync(fd):
        done.append(f"sync {Path(os.readlink(f'/proc/self/fd/{fd}')).suffix or 'folder'}")
        syncs(fd)

    def replace(source, target):
        done.append(f"rename {Path(target).suffix}")
        replaces(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    save(Saver(run, LOGGER))
    upto = done.index("rename .json")
    important = [step for step in done[:upto] if step in ("sync .partial", "rename .pt", "sync folder")]
    assert important == ["sync .partial", "rename .pt", "sync folder"]
    assert done[upto + 1] == "sync folder"


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def test_a_training_goes_on_with_as_many_threads_as_it_had(run: RunDir, threads: int, caplog):
    torch.set_num_threads(3)
    save(Saver(run, LOGGER))
    torch.set_num_threads(1)
    state = TrainingState(run, {"RESUME": str(run.path)}, run.path / "x.ipynb", LOGGER)
    with caplog.at_level("INFO"):
        state.restore(parts())
    assert torch.get_num_threads() == 3
    assert "computes with 3 threads, as before, not with 1" in caplog.text


@pytest.mark.parametrize(
    ("name", "then", "now", "said"),
    [
        ("cpu", "Old 1", "New 2", "the processor was Old 1, is New 2"),
        ("isa", "AVX512", "AVX2", "the vector instruction set (ATEN_CPU_CAPABILITY) was AVX512, is AVX2"),
        ("gpus", ["A100"], ["H100", "L4"], "the GPU was A100, is H100, L4"),
        ("driver", "550.1", "560.2", "the driver of the GPU was 550.1, is 560.2"),
        ("mkl_cbwr", "COMPATIBLE", None, "MKL_CBWR was COMPATIBLE, is not set"),
        ("mkl_cbwr", None, "AVX2", "MKL_CBWR was not set, is AVX2"),
        ("cpu", None, "New 2", ""),
        ("gpus", ["A100"], [], ""),
    ],
)
def test_other_hardware_is_a_difference_where_it_is_known_and_in_use(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, name, then, now, said
):
    here = hardware()
    monkeypatch.setattr(checkpoint, "hardware", lambda: here | {name: then})
    save(Saver(run, LOGGER))
    monkeypatch.setattr(resume, "hardware", lambda: here | {name: now})
    content = load(checkpoints.every(run)[0].path)
    assert resume._differences(content, {}, parts()) == [said] * bool(said)
    if said:
        with pytest.raises(RunProblem, match=re.escape(said)):
            resume.of_parameter(str(run.path), run.path / "x.ipynb", parts())


def test_a_checkpoint_of_an_earlier_labkit_knows_no_hardware(run: RunDir):
    save(Saver(run, LOGGER))
    content = load(checkpoints.every(run)[0].path)
    del content["hardware"]
    assert resume._differences(content, {}, parts()) == []
