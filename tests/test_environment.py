"""The environment check: facts, what is off, and how it is shown."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from labkit.kernel import environment as env
from labkit.record.claims import Claim, Reason
from labkit.record.files import dumps

SEEDED = {"seed": 1, "deterministic": True, "cublas_workspace": ":4096:8", "hash_seed": "0"}


def claimed(most, problem):
    return Claim((Reason(most, problem, "call labkit.seed()"),)).facts()


def git(folder, *arguments):
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def facts(tmp_path):
    """Facts with nothing off, of a repository with a lock."""
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "requirements.lock").write_text(f"torch=={metadata.version('torch').partition('+')[0]}\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "lock")
    made = env.gather(SEEDED, tmp_path, Claim())
    return made | {"driver": None, "gpus": []}


def problems(facts):
    return [finding.problem for finding in env.findings(facts)]


def test_the_facts_are_those_of_the_contract_and_are_plain(facts):
    expected = (
        "time host python platform torch wheel cuda driver gpus cpu cores memory_gib isa blas threads labkit git "
        "determinism claim lock ATEN_CPU_CAPABILITY MKL_CBWR"
    )
    assert set(expected.split()) <= set(facts)
    assert json.loads(dumps(facts)) == facts
    assert facts["torch"] == torch.__version__ and facts["threads"] == torch.get_num_threads()
    assert facts["wheel"].startswith(f"cp3{sys.version_info.minor}-")
    assert facts["isa"] == torch.backends.cpu.get_cpu_capability() and facts["cores"] >= 1
    assert facts["blas"] and facts["cpu"] and facts["memory_gib"] > 0
    assert len(facts["git"]["commit"]) == 40 and facts["git"]["branch"] == "main"
    assert facts["determinism"] == SEEDED and facts["lock"] == {"file": "requirements.lock", "differences": []}


def test_nothing_off_is_said_in_words(facts):
    assert problems(facts) == []
    shown = env.Environment(facts, ())
    assert repr(shown).endswith("✓ nothing is off") and "✓" in shown._repr_html_()


def test_asking_does_not_start_cuda(facts):
    assert not torch.cuda.is_initialized() or torch.cuda.is_available()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"torch": None}, "not installed"),
        ({"driver": "550.1", "cuda": None}, "is a CPU build"),
        ({"driver": "550.1", "cuda": "13.0", "cuda_usable": False}, "cannot use the GPU"),
        ({"claim": claimed("approximate", "no seed was set")}, "at most approximate: no seed was set"),
        ({"claim": claimed("seeded", "deterministic algorithms are off")}, "deterministic algorithms are off"),
        ({"git": {"commit": "a" * 40, "branch": "main", "dirty": True}}, "changes that are in no commit"),
        ({"lock": {"file": "requirements.lock", "differences": ["a 1, lock says 2"]}}, "a 1, lock says 2"),
    ],
)
def test_what_is_off_is_said_with_a_remedy(facts, change, said):
    found = list(env.findings(facts | change))
    assert len(found) == 1 and said in found[0].problem and found[0].remedy
    shown = env.Environment(facts | change, tuple(found))
    assert found[0].remedy in repr(shown) and "✗" in shown._repr_html_()


def test_a_usable_gpu_is_nothing_to_complain_about(facts):
    gpu = {"driver": "580.1", "cuda": "13.0", "cuda_usable": True, "gpus": [{"name": "H200", "memory_gib": 139.8}]}
    assert problems(facts | gpu) == []
    assert "H200 (139.8 GiB), driver 580.1" in repr(env.Environment(facts | gpu, ()))


def test_text_from_outside_is_escaped_on_the_page(facts):
    named = facts | {"host": "<script>alert(1)</script>"}
    assert "<script>" not in env.Environment(named, ())._repr_html_()


def test_the_lock_is_found_above_and_read_as_pip_reads_it(tmp_path):
    version = metadata.version("numpy")
    lock = f"""\
# a comment
--extra-index-url https://example.org
numpy=={version}  # via torch
torch=={metadata.version("torch").partition("+")[0]}
pandas==0.1
no-such-package==1.0
no-such-package-either==1.0 ; sys_platform == "win32"
"""
    (tmp_path / "requirements.lock").write_text(lock)
    (tmp_path / "notebooks").mkdir()
    state = env.lock_state(tmp_path / "notebooks")
    assert state["file"] == "../requirements.lock"
    assert state["differences"] == [
        f"pandas {metadata.version('pandas')}, lock says 0.1",
        "no-such-package is missing, lock says 1.0",
    ]
    assert env.lock_state(Path("/")) == {"file": None, "differences": []}


SMI = """#!/bin/sh
echo "NVIDIA H200, 143771, 580.95.05, 0, GPU-aaaa"
echo "NVIDIA GB10, [N/A], 580.95.05, 1, GPU-bbbb"
"""


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["NVIDIA H200", "NVIDIA GB10"]),
        ("1", ["NVIDIA GB10"]),
        ("GPU-aa", ["NVIDIA H200"]),
        ("", []),
        ("-1", []),
    ],
)
def test_gpus_are_those_that_the_process_may_use(tmp_path, monkeypatch, visible, names):
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    driver, gpus = env.nvidia()
    assert driver == "580.95.05" and [gpu["name"] for gpu in gpus] == names
    assert {"name": "NVIDIA GB10", "memory_gib": None} in gpus or "NVIDIA GB10" not in names


def test_a_broken_nvidia_smi_is_no_driver(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert env.nvidia() == (None, [])
