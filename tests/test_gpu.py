"""What a CUDA GPU must show: a slot is one GPU, a killed run frees its memory, a warm kernel computes on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sweeps
from running import LABKIT, make_lab, wait_for
from tiny import parameters, plain_environment, write
from warmth import served, sockets

from labkit.record import sweepdir
from labkit.record.find import every
from labkit.record.gpus import every as every_gpu
from labkit.record.gpus import visible
from labkit.record.status import status

pytestmark = [pytest.mark.slow, pytest.mark.gpu]

START = "import labkit, torch\nrun = labkit.start()"
HOLDS = """
import time
held = torch.zeros(2**28, device='cuda')
torch.cuda.synchronize()
print('holds', flush=True)
time.sleep(1000)
"""
SEES = """
import os
named = torch.cuda.get_device_properties(0).uuid
run.log(0, loss=float(X), devices=torch.cuda.device_count())
print('SEES', os.environ['CUDA_VISIBLE_DEVICES'], named)
"""
TRAINS = """
layer = torch.nn.Conv2d(3, 16, 3).cuda()
optimizer = torch.optim.AdamW(layer.parameters())
for step in range(20):
    optimizer.zero_grad()
    loss = layer(torch.rand(16, 3, 40, 40, device='cuda')).square().mean()
    loss.backward()
    optimizer.step()
    run.log(step, loss=loss.detach())
"""
TOLERANCE_BYTES = 2**28  # of memory that the driver itself takes and gives back


def free_bytes() -> int:
    """The free memory of the first GPU, asked by a process that is gone again."""
    code = "import torch; print(torch.cuda.mem_get_info()[0])"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("killed", ["runner", "process", "kernel"])
def test_the_memory_of_a_gpu_is_free_after_kill_9(tmp_path: Path, killed: str) -> None:
    lab = make_lab(tmp_path / "lab")
    notebook = write(lab / "notebooks" / "n.ipynb", START, HOLDS)
    before = free_bytes()
    command = [*LABKIT, "run", str(notebook), "--no-report"]
    with subprocess.Popen(command, cwd=lab, env=plain_environment(), stderr=subprocess.PIPE) as process:
        (made,) = wait_for(lambda: [one for one in every(lab / "runs") if one.process.exists()])
        wait_for(lambda: made.log.exists() and "holds" in made.log.read_text(), 120, "a gigabyte on the GPU")
        assert free_bytes() < before - 2**30 + TOLERANCE_BYTES
        os.kill(json.loads(made.process.read_bytes())[killed]["pid"], signal.SIGKILL)
        process.communicate(timeout=60)
    wait_for(lambda: status(made).is_over, 60)
    wait_for(lambda: free_bytes() > before - TOLERANCE_BYTES, 60, "the memory")


def test_each_slot_of_a_sweep_is_one_gpu(tmp_path: Path) -> None:
    lab = make_lab(tmp_path / "lab")
    there = visible(every_gpu(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    notebook = write(lab / "notebooks" / "n.ipynb", parameters("X: int = 0  # a number"), START, SEES)
    done = sweeps.run(str(notebook), "-p", f"X=1..{2 * len(there)}", "--gpus", str(len(there)), cwd=lab)
    assert done.exit_status == 0, done.err
    assert {result["metrics"]["devices"] for result in sweepdir.results(done.sweep).values()} == {1.0}
    printed = "".join(run.log.read_text() for run in every(lab / "runs"))
    said = [line.split()[1:] for line in printed.splitlines() if line.startswith("SEES")]
    assert all(uuid == f"GPU-{named}" for uuid, named in said)
    assert {uuid for uuid, _ in said} == {gpu.uuid for gpu in there}


def test_a_warm_kernel_trains_on_a_gpu_and_its_metrics_arrive(tmp_path: Path) -> None:
    lab = make_lab(tmp_path / "lab")
    notebook = write(lab / "notebooks" / "n.ipynb", START, TRAINS)
    with sockets() as place:
        command = [*LABKIT, "run", str(notebook), "--no-report"]
        done = subprocess.run(command, cwd=lab, env=served(place), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (made,) = every(lab / "runs")
    assert json.loads(made.process.read_bytes())["warm"]
    assert made.metrics.read_bytes().count(b"\n") == 20
