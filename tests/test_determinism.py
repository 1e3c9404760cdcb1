"""Seeds, deterministic mode, devices, fingerprints."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny import plain_environment
from torch import nn

from labkit.errors import RunProblem
from labkit.kernel import determinism
from labkit.kernel.determinism import fingerprint


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


def draw():
    return random.random(), np.random.random(), torch.rand(3).tolist()


def test_one_seed_sets_python_numpy_and_torch():
    determinism.seed(7)
    first = draw()
    determinism.seed(7)
    assert draw() == first
    determinism.seed(8)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


@pytest.mark.parametrize("bad", [-1, 2**32, 1.0, True, "1", None])
def test_a_seed_that_a_generator_would_refuse_is_refused_before_any_is_changed(bad):
    random.seed(3)
    expected = random.random()
    random.seed(3)
    with pytest.raises(RunProblem, match="is not an integer from 0 to 4294967295"):
        determinism.seed(bad)
    assert random.random() == expected


def test_deterministic_mode_refuses_an_operation_without_deterministic_form():
    determinism.seed(0)
    assert determinism.current().deterministic
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    with pytest.raises(RuntimeError, match="deterministic"):
        torch.use_deterministic_algorithms(True)
        torch.zeros(4).put_(torch.tensor([0, 0]), torch.ones(2), accumulate=False)
    determinism.seed(0, deterministic=False)
    assert not determinism.current().deterministic


def test_the_facts_say_what_was_set():
    facts = determinism.seed(5).as_dict()
    assert facts["seed"] == 5 and facts["deterministic"] and facts["cublas_workspace"] == ":4096:8"
    assert str(determinism.current()).startswith("seed 5, deterministic algorithms, PYTHONHASHSEED ")


def test_the_workspace_of_cublas_is_set_before_cuda_starts(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    determinism.seed(0)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.gpu
def test_cuda_in_use_without_the_workspace_is_an_error(monkeypatch):
    torch.zeros(1, device="cuda")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    with pytest.raises(RunProblem, match="restart the kernel"):
        determinism.seed(0)


def test_the_best_device_is_taken_and_a_missing_one_refused():
    assert determinism.device() == torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert determinism.device("cpu") == torch.device("cpu")
    with pytest.raises(RunProblem, match=r"no device 'cuda:99'"):
        determinism.device("cuda:99")
    with pytest.raises(RunProblem, match="known: cpu, cuda"):
        determinism.device("gpu")


def test_a_fingerprint_ignores_layout_but_sees_type_shape_sign_and_last_bit():
    tensor = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    same = [tensor.clone(), tensor.t().contiguous().t(), nn.Parameter(tensor), tensor.requires_grad_()]
    assert {fingerprint(value) for value in same} == {fingerprint(tensor)}
    tensor = tensor.detach()
    nearly = tensor.clone()
    nearly[0, 0] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    negative = tensor.clone()
    negative[1, 1] = -0.0
    others = [tensor.double(), tensor.reshape(4), tensor.reshape(1, 4), tensor.view(torch.int32), nearly, negative]
    assert len({fingerprint(value) for value in [tensor, *others]}) == 7


def test_a_fingerprint_of_a_state_sees_names_order_and_structure():
    a, b = torch.zeros(2), torch.ones(2)
    states = [
        {"a": a, "b": b},
        {"b": b, "a": a},
        {"a": b, "b": a},
        {"a": {"b": b}},
        [a, b],
        (a, b),
        [[a], b],
        [a, [b]],
        {"1": a},
        {1: a},
        {1.0: a},
        {True: a},
        {"a": None},
        {"a": "None"},
    ]
    assert len({fingerprint(state) for state in states}) == len(states)


def test_an_optimizer_state_has_a_fingerprint_and_one_step_changes_it():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    before = fingerprint(optimizer.state_dict())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert fingerprint(optimizer.state_dict()) != before


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(1.5),
        torch.zeros(0, 3),
        torch.ones(2, dtype=torch.bfloat16),
        torch.ones(2, dtype=torch.bool),
        torch.tensor([1 + 2j]).conj(),
    ],
)
def test_every_kind_of_dense_tensor_has_a_fingerprint(tensor):
    assert fingerprint(tensor) == fingerprint(tensor.clone())


@pytest.mark.parametrize(
    "value", [torch.zeros(2, device="meta"), torch.eye(2).to_sparse(), {"a": object()}, np.array([object()])]
)
def test_what_has_no_bytes_has_no_fingerprint_and_the_error_says_where(value):
    with pytest.raises(RunProblem, match="no fingerprint of value"):
        fingerprint(value)


IN_ANOTHER_PROCESS = """\
import json, os, torch
from labkit.kernel import determinism
said = [determinism.current().hash_seed]
for late in ("0", "12", "random", ""):
    os.environ["PYTHONHASHSEED"] = late  # too late to mean anything
    said.append(determinism.current().hash_seed)
del os.environ["PYTHONHASHSEED"]
said.append(determinism.current().hash_seed)
torch.manual_seed(0)
values = torch.nn.Linear(3, 2), torch.arange(6).reshape(2, 3)
print(json.dumps(["; ".join(dict.fromkeys(said)), *map(determinism.fingerprint, values)]))
"""


STARTED = {  # options and hash seed of an interpreter, and the seed that then counts
    "0": ([], "0", "0"),
    "12": ([], "12", "12"),
    "012": ([], "012", "012"),
    "random": ([], "random", "random"),
    "none": ([], "", "random"),
    "ignored": (["-E"], "12", "random"),
    "overridden": (["-R"], "0", "random"),
}


@pytest.fixture(scope="module")
def elsewhere():
    """What other processes say of themselves, by how each was started."""
    started = {
        how: subprocess.Popen(
            [sys.executable, *options, "-c", IN_ANOTHER_PROCESS],
            env=plain_environment(**({"PYTHONHASHSEED": seed} if seed else {})),
            stdout=subprocess.PIPE,
        )
        for how, (options, seed, _) in STARTED.items()
    }
    return {how: json.loads(process.communicate(timeout=120)[0]) for how, process in started.items()}


@pytest.mark.slow
@pytest.mark.parametrize("how", STARTED)
def test_the_hash_seed_is_the_one_python_started_with_whatever_the_environment_says_later(elsewhere, how):
    assert elsewhere[how][0] == STARTED[how][2]


@pytest.mark.slow
def test_a_fingerprint_is_the_same_in_another_process_whatever_its_hash_seed(elsewhere):
    torch.manual_seed(0)
    here = [fingerprint(nn.Linear(3, 2)), fingerprint(torch.arange(6).reshape(2, 3))]
    assert [found[1:] for found in elsewhere.values()] == [here] * len(STARTED)
