"""The table of settings and the table of epochs."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from labkit.kernel.tables import epoch_table, training_settings
from labkit.record.metrics import MetricsWriter
from labkit.record.rundir import RunDir


@pytest.fixture
def run(tmp_path):
    """As much of a run as a table needs, with the problems that it was told."""
    said = []
    logger = SimpleNamespace(error=lambda *text: said.append(text[0] % text[1:]))
    return SimpleNamespace(directory=RunDir(tmp_path), logger=logger, said=said)


def test_the_settings_are_recorded_whole_and_shown_without_what_is_off(run):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.5)
    table = training_settings(run, optimizer, scheduler, loss="CrossEntropyLoss", clip_norm=1.0, warmup=None)
    shown = table["value"].to_dict()
    assert shown["optimizer"] == "AdamW" and shown["lr"] == "0.003" and shown["betas"] == "0.9, 0.999"
    assert (
        shown["scheduler"] == "StepLR" and shown["schedule: step_size"] == "7" and shown["loss"] == "CrossEntropyLoss"
    )
    assert "amsgrad" not in shown and "warmup" not in shown
    recorded = json.loads((run.directory.path / "training.json").read_bytes())
    assert recorded["groups"][0]["amsgrad"] is False and recorded["groups"][0]["lr"] == 3e-3
    assert recorded["clip_norm"] == 1.0 and recorded["warmup"] is None


def test_groups_are_told_apart(run):
    optimizer = torch.optim.SGD([{"params": nn.Linear(1, 1).parameters(), "lr": 0.5}, {"params": [torch.ones(1)]}], 0.1)
    shown = training_settings(run, optimizer)["value"].to_dict()
    assert (shown["group 1: lr"], shown["group 2: lr"]) == ("0.5", "0.1") and "scheduler" not in shown


def test_a_setting_that_is_no_plain_value_is_refused_and_a_full_disk_is_told(run):
    optimizer = torch.optim.SGD([torch.ones(1)], 0.1)
    with pytest.raises(TypeError):
        training_settings(run, optimizer, loss=nn.MSELoss())
    (run.directory.path / "training.json").mkdir()
    assert len(training_settings(run, optimizer)) and "training.json was not saved" in run.said[0]


def write(path, *lines):
    writer = MetricsWriter(path)
    for step, values in lines:
        writer.log(step, values)
    writer.close()
    return path


def test_an_epoch_is_what_was_logged_up_to_its_line(tmp_path):
    path = write(
        tmp_path / "metrics.jsonl",
        (0, {"loss": 3.0}),
        (1, {"loss": 1.0}),
        (1, {"epoch": 1, "val_loss": 0.5}),
        (1, {"val_accuracy": 0.5}),  # of the same step, after the line that ends the epoch
        (2, {"loss": math.inf}),
        (2, {"epoch": 2, "val_loss": 0.4, "lr": 0.1}),
        (3, {"test_accuracy": 0.9}),
    )
    table = epoch_table(path)
    assert list(table.columns) == ["epoch", "step", "loss", "val_loss", "val_accuracy", "lr"]
    assert table["epoch"].tolist() == [1, 2] and table["step"].tolist() == [1, 2]
    assert table["loss"].tolist() == [2.0, math.inf] and table["val_loss"].tolist() == [0.5, 0.4]
    assert math.isnan(table["lr"][0]) and table["val_accuracy"][0] == 0.5


def test_epochs_counted_from_zero_and_logged_with_each_batch_are_rows_of_their_own(tmp_path):
    lines = [(step, {"epoch": step // 3, "loss": float(step)}) for step in range(6)]
    table = epoch_table(write(tmp_path / "metrics.jsonl", *lines))
    assert table.to_dict("list") == {"epoch": [0, 1], "step": [2, 5], "loss": [1.0, 4.0]}


def test_without_epochs_each_step_is_a_row_and_nothing_logged_is_no_row(tmp_path):
    table = epoch_table(write(tmp_path / "steps.jsonl", (1, {"loss": 2.0}), (2, {"loss": 1.0})))
    assert table.to_dict("list") == {"step": [1, 2], "loss": [2.0, 1.0]}
    empty = epoch_table(tmp_path / "nothing.jsonl")
    assert len(empty) == 0 and "step" in empty
