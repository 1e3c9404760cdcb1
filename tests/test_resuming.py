"""What RESUME stands for, and which runs can go on."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
import torch
from records import dead_process, started
from tiny import parameters, write
from torch import nn

from labkit.errors import BadInput, RunNotFound
from labkit.kernel.trainingstate import TrainingState
from labkit.record.files import write_json
from labkit.record.process import Process
from labkit.record.rundir import MIXED, RunDir
from labkit.workbench.notebooks import notebook
from labkit.workbench.running import job, resume

CELL = 'EPOCHS: int = 3\nRESUME: str = ""\nMODEL_PATH: str = ""'
LOOP = "state = run.restore(model=model)"


@pytest.fixture
def source(lab: Path) -> notebook.Notebook:
    return notebook.read(write(lab / "notebooks" / "n.ipynb", parameters(CELL), LOOP))


def made(source: notebook.Notebook, end: str | None = "killed", **given: int) -> RunDir:
    run = job.prepare(source, given).directory
    if end is not None:
        started(run, dead_process())
        write_json(run.exit, {"status": end, "reason": ""})
    return RunDir(run.path)


def named(source: notebook.Notebook, **asked: object):
    return resume.named(source, asked, source.path.parent.parent / "runs")


def test_without_resume_nothing_is_named(source: notebook.Notebook):
    made(source)
    assert named(source, EPOCHS=3) == (None, None, {"EPOCHS": 3})


@pytest.mark.parametrize(
    ("ends", "given", "goes_on"),
    [
        ([], {}, False),
        (["killed"], {}, True),
        (["killed"], {"EPOCHS": 3}, True),
        (["killed"], {"EPOCHS": 4}, False),
        (["killed", "finished"], {}, False),
        (["finished", "interrupted"], {}, True),
        (["failed"], {}, True),
    ],
)
def test_auto_is_the_newest_run_with_these_parameters_unless_it_has_finished(source, ends, given, goes_on):
    runs = [made(source, end) for end in ends]
    found, _, others = named(source, RESUME="auto", **given)
    assert found == (runs[-1] if goes_on else None)
    assert {name: value for one in others for name, value in one.pairs} == given


def test_a_path_with_other_parameters_is_refused_with_the_difference(source: notebook.Notebook):
    run = made(source)
    run.checkpoints.mkdir()
    (run.checkpoints / "000002.pt").write_text("")
    assert named(source, RESUME=str(run.checkpoints / "000002.pt"))[:2] == (run, 2)
    with pytest.raises(BadInput, match="EPOCHS was 3, is 4"):
        named(source, RESUME=str(run.checkpoints / "000002.pt"), EPOCHS=4)
    with pytest.raises(RunNotFound, match="neither a file nor a run"):
        named(source, RESUME="nothing")


def saved(run: RunDir, value: float) -> Path:
    """Let a run have one checkpoint, whose model is one number."""
    run.checkpoints.mkdir()
    path = run.checkpoints / "000001.pt"
    torch.save({"parts": {"model": {"weight": torch.tensor([[value]])}}}, path)
    (run.checkpoints / "last.pt").symlink_to(path.name)
    return path


@pytest.mark.parametrize("named", ["last", "n@last", "{id}", "{path}", "{relative}"])
def test_runner_and_kernel_mean_the_same_weights_where_the_runs_are_elsewhere(
    source: notebook.Notebook, tmp_path: Path, named: str, monkeypatch: pytest.MonkeyPatch
):
    runs = tmp_path / "elsewhere"
    trained = job.prepare(source, {}, runs=runs).directory
    path = saved(trained, 7.0)
    lure = job.prepare(source, {}).directory  # of the lab's own folder, which is not meant
    saved(lure, 3.0)
    text = named.format(id=trained.id, path=trained.path, relative=os.path.relpath(path, source.path.parent))
    run = job.prepare(source, {"MODEL_PATH": text}, runs=runs).directory
    monkeypatch.chdir(source.path.parent)
    model = nn.Linear(1, 1, bias=False)
    TrainingState(run, {"MODEL_PATH": text}, source.path, logging.getLogger("x")).restore({"model": model})
    assert model.weight.item() == 7.0
    assert json.loads(run.restored.read_bytes())["model_from"] == str(path.resolve())


def test_weights_that_a_cell_names_are_looked_for_where_the_run_lies(source: notebook.Notebook, tmp_path: Path):
    runs = tmp_path / "elsewhere"
    trained = job.prepare(source, {}, runs=runs).directory
    saved(trained, 7.0)
    run = job.prepare(source, {}, runs=runs).directory
    model = nn.Linear(1, 1, bias=False)
    TrainingState(run, {"MODEL_PATH": trained.id}, source.path, logging.getLogger("x")).restore({"model": model})
    assert model.weight.item() == 7.0


def test_weights_that_are_not_there_are_refused_before_a_run_is_made(source: notebook.Notebook):
    with pytest.raises(RunNotFound, match="neither a file nor a run"):
        job.prepare(source, {"MODEL_PATH": "nothing.pt"})
    assert not list((source.path.parent.parent / "runs").glob("n/*"))


def test_a_run_goes_on_as_its_next_attempt_with_its_own_notebook_and_values(source: notebook.Notebook):
    run = made(source, EPOCHS=5)
    run.log.write_text("before")
    prepared = resume.prepare(run)
    assert (prepared.attempt, prepared.values, prepared.directory.number) == (2, {"EPOCHS": 5}, 2)
    assert (run.attempts / "1" / "output.log").read_text() == "before" and run.log.read_text() == ""
    order = json.loads((run.attempts / "2" / "resume.json").read_bytes())
    assert order["differences"] == [] and order["forced"] is False


@pytest.mark.parametrize(("end", "said"), [("finished", "has finished"), (None, "is queued")])
def test_what_is_not_over_or_is_done_does_not_go_on(source: notebook.Notebook, end: str | None, said: str):
    with pytest.raises(BadInput, match=said):
        resume.prepare(made(source, end))


def test_a_notebook_that_restores_nothing_does_not_go_on(lab: Path):
    plain = notebook.read(write(lab / "notebooks" / "plain.ipynb", "1 + 1"))
    with pytest.raises(BadInput, match="begins anew"):
        resume.prepare(made(plain))


def test_a_changed_notebook_is_a_difference_that_can_be_accepted_and_marks_the_run(source: notebook.Notebook):
    run = made(source)
    write(source.path, parameters(CELL), LOOP, "print(1)")
    with pytest.raises(BadInput, match="the notebook changed; the run goes on with the copy"):
        resume.prepare(run)
    assert run.attempt.name == "1"
    resume.prepare(run, force=True)
    assert run.read_manifest()["labels"] == [MIXED] and (run.attempts / "1" / "source" / "notebook.ipynb").exists()


def test_a_claim_of_somebody_else_is_told(source: notebook.Notebook, monkeypatch: pytest.MonkeyPatch):
    run = made(source)
    resume.prepare(run)
    with pytest.raises(BadInput, match="queued"):
        resume.prepare(run)
    monkeypatch.setattr(RunDir, "attempt", property(lambda run: run.attempts / "1"))  # it looked a moment too early
    with pytest.raises(BadInput, match="being resumed by somebody else"):
        resume.prepare(run)


def test_a_claim_whose_process_is_gone_can_be_taken_up_again(source: notebook.Notebook):
    run = made(source)
    resume.prepare(run)
    order = json.loads(run.resumption.read_bytes())
    write_json(run.resumption, order | {"creator": dead_process().facts()})
    assert resume.prepare(run).attempt == 3


def test_a_queue_takes_a_silent_run_of_another_machine_for_one_that_is_over(source: notebook.Notebook):
    run = made(source, None)
    started(run, Process(1, 1, "elsewhere", "another host"))
    with pytest.raises(BadInput, match="is not known"):
        resume.prepare(run)
    assert resume.prepare(run, trust_silence=True).attempt == 2


def test_attempts_that_lead_elsewhere_are_refused(source: notebook.Notebook, tmp_path: Path):
    run = made(source)
    run.attempts.rename(tmp_path / "away")
    run.attempts.symlink_to(tmp_path / "away")
    with pytest.raises(BadInput, match="is a link"):
        resume.prepare(run)
