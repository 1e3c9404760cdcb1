"""A run that is under way somewhere else: looked at, and stopped, from any shell."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from labkit.errors import WorkFailed
from labkit.launch import stopping
from labkit.record.files import read_json
from labkit.record.process import Process
from labkit.record.rundir import RunDir
from labkit.record.status import Status, status
from labkit.workbench.dask import daskcluster
from labkit.workbench.running.execute import Progress
from labkit.workbench.slurm import slurmqueue
from labkit.workbench.terminal import live_line

LOOK_S = 0.25
ASK_S = 3.0  # between two questions to a cluster
AFTER_S = 15.0  # beyond the grace: for the record to be closed


def watch(run: RunDir, *, quiet: bool = False) -> Status:
    """Shows a run until it is over, and returns how it ended; leaving it changes nothing about the run."""
    began = (read_json(run.process) or {}).get("started_s")
    progress = Progress(began=began if isinstance(began, float) else time.time())
    with live_line(run, progress, quiet=quiet):
        while not (found := slurmqueue.status_of(run)).is_over:
            time.sleep(ASK_S if slurmqueue.number_of(run) else LOOK_S)
    return found


def stop(run: RunDir, *, wait: bool = True) -> Status:
    """Asks a run to stop at its next step boundary, as SIGTERM does, and waits until it is over.

    Raises:
        BadInput: It is over, runs on another host, or is somebody else's.
        WorkFailed: It did not end within its grace.
    """
    if slurmqueue.stop(run):
        return _ended(run) if wait else status(run)
    found = stopping.when_started(run)
    owner = Process.read((read_json(run.process) or {}).get("process"))
    is_elsewhere = found.state == "running" and owner is not None and not owner.is_here()
    if not (is_elsewhere and daskcluster.stop(run, signal.SIGTERM)):
        stopping.ask_to_stop(run)
    return _ended(run) if wait else found


def _ended(run: RunDir) -> Status:
    """Waits for the end of a run that was asked to stop."""
    end = time.monotonic() + _grace_s(run) + AFTER_S
    while not (found := slurmqueue.status_of(run)).is_over:
        if time.monotonic() > end:
            raise WorkFailed(f"{run.name} was asked to stop and still runs; see {run.path}")
        time.sleep(ASK_S if slurmqueue.number_of(run) else LOOK_S)
    return found


def _grace_s(run: RunDir) -> float:
    from labkit.record import config, lab

    root = lab.root(Path(str((read_json(run.manifest) or {}).get("lab") or run.path)))
    return float(config.settings(root)["grace_s"].value)
