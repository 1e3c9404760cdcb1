"""Fingerprints say the same of the same training, however fast the machine was and wherever its files lie."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from records import apart
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset
from twins import drift, recorded, reprint, twin

from labkit.kernel.known import known_by
from labkit.record.files import dumps
from labkit.record.rundir import RunDir
from labkit.workbench.reproducing.compare import Comparison, compare

SCRIPT = """\
import sys
import labkit
import torch
from torch import nn

run = labkit.start()
model = nn.Linear(2, 1)
nn.init.ones_(model.weight)
nn.init.ones_(model.bias)
batches = labkit.batches(torch.ones(4, 2), batch_size=2)
for step in range(2):
    run.log(step, loss=1.0)
    run.checkpoint(model=model, batches=batches, every_s=float(sys.argv[1]))
run.fingerprint("ones", torch.ones(2))
print(run.directory.path)
"""


def noted(folder: Path, every_s: float) -> list[dict[str, Any]]:
    """What is noted by a loop that saves so often."""
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    (folder / "runs").mkdir()
    before = os.getcwd()
    os.chdir(folder)
    try:
        said = apart("train.py", str(every_s))
    finally:
        os.chdir(before)
    path = Path(said.strip().splitlines()[-1])
    return [json.loads(line) for line in (path / "fingerprints.jsonl").read_bytes().splitlines()]


@pytest.mark.slow
def test_what_is_noted_does_not_depend_on_when_a_checkpoint_was_due(tmp_path: Path) -> None:
    often, never = (noted(tmp_path / name, every_s) for name, every_s in (("often", 0.0), ("never", 1000.0)))
    assert [one for one in often if one.get("at") != "checkpoint"] == never
    assert [(one["kind"], one.get("at")) for one in never] == [("data", None), ("value", "given"), ("weights", "end")]


class Files(Dataset[Any]):
    """A data set that lists its files."""

    def __init__(self, folder: Path) -> None:
        self.samples = [(str(path), 0) for path in sorted(folder.iterdir())]

    def __len__(self) -> int:
        return len(self.samples)


@pytest.mark.parametrize("wrap", [lambda one: one, lambda one: Subset(one, [0]), lambda one: ConcatDataset([one, one])])
def test_a_copy_of_the_files_elsewhere_is_the_same_data(tmp_path: Path, wrap: Any) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.bin").write_bytes(b"123")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    os.utime(tmp_path / "b" / "x.bin", (1e9, 1e9))
    first, copy = (wrap(Files(tmp_path / name)) for name in "ab")
    assert known_by(first, with_times=False) == known_by(copy, with_times=False)
    assert known_by(first) != known_by(copy)
    (tmp_path / "b" / "x.bin").write_bytes(b"1234")
    assert known_by(first, with_times=False) != known_by(copy, with_times=False)


def given(run: RunDir, *lines: dict[str, Any]) -> None:
    """Notes values that the notebook gave."""
    with (run.path / "fingerprints.jsonl").open("ab") as file:
        file.write(b"".join(dumps({"kind": "value", "at": "given"} | line) + b"\n" for line in lines))


def states(found: Comparison) -> dict[str, str]:
    return {one.name: one.state for one in found.chain if one.state != "equal"}


def test_a_value_that_the_notebook_had_fingerprinted_is_compared(tmp_path: Path) -> None:
    then = recorded(tmp_path / "runs")
    given(then, {"name": "embeddings", "lines": 21, "fingerprint": "a" * 16})
    same, other, none = twin(then), twin(then), twin(then)
    assert (compare(then, same).verdict, states(compare(then, same))) == ("identical", {})
    reprint(other, 4, fingerprint="b" * 16)
    found = compare(then, other)
    assert (found.verdict, states(found)) == ("diverged", {"steps": "differs"})
    assert found.facts()["first_difference"]["text"] == "the value embeddings differs after 21 lines of metrics"
    lines = (none.path / "fingerprints.jsonl").read_bytes().splitlines()
    (none.path / "fingerprints.jsonl").write_bytes(b"\n".join(lines[:4]) + b"\n")
    assert compare(then, none).verdict == "diverged"


def test_a_value_from_before_the_training_is_a_sign_of_other_data(tmp_path: Path) -> None:
    then = recorded(tmp_path / "runs")
    given(then, {"name": "split", "lines": 0, "fingerprint": "a" * 16})
    other = twin(then, drift)
    reprint(other, 4, fingerprint="b" * 16)
    found = compare(then, other)
    assert found.first is not None and found.first.name == "data"
    assert "the value split differs" in found.cause


def test_tensors_in_memory_are_known_by_their_bytes() -> None:
    assert known_by(TensorDataset(torch.ones(3)), with_times=False) == known_by(TensorDataset(torch.ones(3)))
