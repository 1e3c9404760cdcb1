"""A lab on a cluster that this machine pretends to be."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import slurm_stand_in
from running import LABKIT, make_lab, wait_for
from tiny import parameters, plain_environment, write

from labkit.record.rundir import RunDir

OWN = """
[tool.labkit.slurm]
account = "physics"
partition = "gpu"
time = "2:00:00"
gpus = 1
memory = "8G"
lines = ["#SBATCH --qos=long", "export READY=yes"]
"""
LOOP = """
import time
for step in run.progress(range(STEPS), 'step'):
    run.log(step, loss=1.0 / (step + 1))
    time.sleep(0.05)
"""


@dataclass
class Cluster:
    """The lab, and where the cluster has its files."""

    lab: Path
    folder: Path
    environment: dict[str, str]

    def labkit(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*LABKIT, *arguments], cwd=self.lab, env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def submit(self, name: str, *options: str) -> RunDir:
        return RunDir(Path(self.labkit("run", f"notebooks/{name}.ipynb", "--on", "slurm", *options).stdout.strip()))

    def row(self, run: RunDir) -> dict:
        return next(row for row in json.loads(self.labkit("list", "--json").stdout) if row["id"] == run.id)

    def is_gone(self, number: str) -> bool:
        return not (self.folder / f"{number}.state").exists()

    def said(self, run: RunDir) -> str:
        return (run.attempts / "1" / "slurm.log").read_text()


@pytest.fixture(name="cluster")
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    monkeypatch.setenv("SLURM_STAND_IN", str(jobs))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    slurm_stand_in.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    lab = make_lab(tmp_path / "a lab")
    (lab / "pyproject.toml").write_text(OWN)
    write(
        lab / "notebooks" / "n.ipynb",
        parameters("STEPS: int = 5  # to do"),
        "import labkit\nrun = labkit.start()",
        LOOP,
    )
    made = Cluster(lab, jobs, plain_environment(SLURM_STAND_IN=str(jobs)))
    yield made
    for path in jobs.glob("*.state"):
        (jobs / f"{path.stem}.cancel").touch()
    wait_for(lambda: not list(jobs.glob("*.state")), what="the end of all jobs")
