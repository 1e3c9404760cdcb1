"""What a kernel starts with: whose Python it is, what its place has set, which folder its sockets have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running import make_lab, wait_for
from tiny import plain_environment, write

from labkit.launch import scratch
from labkit.launch.provisioner import own_kernel
from labkit.record.given import GIVEN, noted, restored
from labkit.workbench.running import job, outcome
from labkit.workbench.running.workers import Workers

KEEPS = """
import sys
from labkit.launch import scratch
print(scratch.make().path, flush=True)
sys.stdin.read()
"""
TELLS = """
import os
from labkit.record.given import restored
names = ("CUDA_VISIBLE_DEVICES", "OWN", "OMP_NUM_THREADS", "LABKIT_SLOT")
print("SEES", [os.environ.get(name) for name in names])
print("BEFORE", [restored(os.environ).get(name) for name in (*names, "MPLBACKEND", "LABKIT_WARM_IDLE_S")])
"""


def test_another_python_in_the_same_folder_is_another_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python3.11").symlink_to(os.path.realpath(sys.executable))
    (tmp_path / "python").symlink_to("python3.11")
    shutil.copy("/bin/sh", tmp_path / "python3.12")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3.11"))
    stock = ["-m", "ipykernel_launcher", "-f", "c.json"]
    ours = [own_kernel([str(tmp_path / name), *stock])[2] for name in ("python3.11", "python", "python3.12")]
    assert ours == ["labkit.launch.kernel", "labkit.launch.kernel", "ipykernel_launcher"]


def test_the_folder_of_a_killed_kernel_goes_with_the_next_and_that_of_a_living_one_stays(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path_factory.mktemp("t", numbered=False) if len(str(tmp_path_factory.getbasetemp())) < 50 else None
    if base is None:
        pytest.skip("the folder of temporary files has too long a name for sockets")
    monkeypatch.setattr(scratch.tempfile, "tempdir", str(base))
    environment = plain_environment(TMPDIR=str(base))
    command = [sys.executable, "-c", KEEPS]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(command, **pipes) as killed, subprocess.Popen(command, **pipes) as living:
        folders = [Path(one.stdout.readline().strip()) for one in (killed, living)]
        assert all(one.stat().st_mode & 0o077 == 0 for one in (*folders, folders[0].parent))
        killed.kill()
        killed.wait()
        for folder in folders:
            os.utime(folder, (0, 0))
        mine = scratch.make()
        assert [folder.exists() for folder in folders] == [False, True]
        mine.remove()
        assert not mine.path.exists()


def test_what_was_given_comes_back_and_what_a_user_has_changed_since_then_stays() -> None:
    before = {"A": "1", "B": "2", "HOME": "/h"}
    now = {"A": "x", "B": "y", "C": "z", "HOME": "/h", "LABKIT_RUN": "r"}
    kernel = {**now, GIVEN: noted(before, now)}
    assert restored(kernel) == before | {"LABKIT_RUN": "r"}
    assert restored(kernel | {"A": "mine"}) == before | {"A": "mine", "LABKIT_RUN": "r"}
    assert restored({"A": "1", GIVEN: "no JSON"}) == {"A": "1"}


@pytest.mark.slow
def test_what_a_slot_sets_wins_over_the_kernels_specification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = make_lab(tmp_path / "lab")
    spec = tmp_path / "jupyter" / "kernels" / "mine" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    own = {"CUDA_VISIBLE_DEVICES": "GPU-of-the-notebook", "OWN": "1"}
    spec.write_text(json.dumps({"argv": argv, "display_name": "mine", "language": "python", "env": own}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    for name in ("CUDA_VISIBLE_DEVICES", "MPLBACKEND"):
        monkeypatch.delenv(name, raising=False)
    made = job.prepare(write(lab / "notebooks" / "n.ipynb", TELLS), [], kernel="mine")
    with Workers([{"CUDA_VISIBLE_DEVICES": "GPU-of-the-slot", "OMP_NUM_THREADS": "1"}]) as workers:
        ended = workers.submit(outcome.carry_out, made, False).result(120)
    assert ended.state == "finished", ended
    said = wait_for(lambda: made.directory.log.read_text())
    assert "SEES ['GPU-of-the-slot', '1', '1', None]" in said
    assert "BEFORE [None, None, '3', None, None, None]" in said
