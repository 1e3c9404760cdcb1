"""The kernels that labkit installs: one for each GPU that is visible, one for the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from labkit.cli import main
from labkit.launch import warm
from labkit.record import gpus
from labkit.record.gpus import Gpu
from labkit.workbench.running import kernels

GPUS = [Gpu(0, "GPU-aa", (), "NVIDIA H200"), Gpu(1, "GPU-bb", (), "NVIDIA GeForce RTX 4090")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where kernels are installed."""
    monkeypatch.setattr(kernels, "_folder", lambda: tmp_path)
    monkeypatch.setattr(warm, "stop_all", lambda: 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def spec(folder: Path, name: str) -> dict:
    return json.loads((folder / name / "kernel.json").read_bytes())


def test_each_gpu_that_is_visible_has_a_kernel_that_sees_it_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "every", lambda: GPUS)
    names = [kernel.name for kernel in kernels.install()]
    assert names == ["labkit-cpu", "labkit-gpu0-h200", "labkit-gpu1-geforce-rtx-4090"]
    assert spec(folder, names[1])["env"]["CUDA_VISIBLE_DEVICES"] == "GPU-aa"
    assert "H200" in spec(folder, names[1])["display_name"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [kernel.name for kernel in kernels.install()] == ["labkit-cpu", names[2]]
    assert sorted(path.name for path in folder.iterdir()) == names, "a GPU that is only hidden lost its kernel"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(gpus, "every", lambda: GPUS[1:])
    kernels.install()
    assert sorted(path.name for path in folder.iterdir()) == ["labkit-cpu", names[2]], "a GPU that is gone kept its own"


def test_a_machine_that_shares_the_environment_leaves_the_kernels_of_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "every", lambda: GPUS)
    names = [kernel.name for kernel in kernels.install()]
    monkeypatch.setattr(kernels, "host", lambda: "Node-2.example")
    monkeypatch.setattr(gpus, "every", list)
    assert [kernel.name for kernel in kernels.install()] == ["labkit-cpu"]
    assert sorted(path.name for path in folder.iterdir()) == names
    other = Gpu(0, "GPU-cc", (), "NVIDIA H200")
    monkeypatch.setattr(gpus, "every", lambda: [other])
    own = kernels.install()[1].name
    assert own == f"{names[1]}-node-2-example"
    assert spec(folder, names[1])["env"]["CUDA_VISIBLE_DEVICES"] == "GPU-aa"
    assert spec(folder, own)["env"]["CUDA_VISIBLE_DEVICES"] == "GPU-cc"
    assert spec(folder, own)["display_name"] == "labkit (GPU 0: NVIDIA H200, Node-2.example)"
    assert [kernel.name for kernel in kernels.install()] == ["labkit-cpu", own], "it is its own the second time, too"


def test_a_cpu_kernel_sees_no_gpu_and_has_what_must_be_set_before_python_starts(folder: Path) -> None:
    kernels.install()
    env = spec(folder, "labkit-cpu")["env"]
    assert env == {"CUDA_VISIBLE_DEVICES": "", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTHONHASHSEED": "0"}


def test_only_labkits_own_kernels_are_removed(folder: Path) -> None:
    kernels.install()
    (folder / "labkit-mine").mkdir()
    (folder / "labkit-mine" / "kernel.json").write_text("{}")
    assert kernels.remove() == (["labkit-cpu"], 0)
    assert [path.name for path in folder.iterdir()] == ["labkit-mine"]


def test_it_is_said_how_many_servers_were_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels.install()
    for count, said in ((2, "2 servers"), (1, "1 server"), (0, "no server")):
        monkeypatch.setattr(warm, "stop_all", lambda count=count: count)
        done = CliRunner().invoke(main, ["kernels", "remove"])
        assert done.stdout.endswith(f"; {said} of warm kernels ended\n")
