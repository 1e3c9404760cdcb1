"""One run of many: the function that an executor is given, and the small result that it returns.

Both can be pickled, and neither knows who asks: a worker here, or a cluster's.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.errors import LabkitError
from labkit.launch import warm
from labkit.record import checkpoints, metrics
from labkit.record.files import read_json, write_json
from labkit.record.process import Process
from labkit.record.rundir import NO_RESULT, RunDir
from labkit.record.status import Status, exit_record, status
from labkit.record.summary import labels_of, summarise
from labkit.workbench.running.job import Job

SERVER_IDLE_S = 600.0  # after which a sweep's server of warm kernels leaves; runs may take long
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM)  # signals that no notebook gets for what its cells did


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        run: Its directory.
        state: How it ended, or where it stands.
        reason: Why, in a sentence.
        duration_s: How long its newest attempt took.
        metrics: The last value of each metric.
        is_mishap: It ended for something that is not the notebook's doing, so that it may be tried again.
        problem: Why its report could not be written; empty where it was.
        pruned: Why its sweep stopped it as not worth its time: `metric`, `value`, `after` how many; None where not.
        began: A kernel was started for it.
        labels: Those for which its numbers stand for nothing.
    """

    run: str
    state: str
    reason: str = ""
    duration_s: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    is_mishap: bool = False
    problem: str = ""
    pruned: dict[str, Any] | None = None
    began: bool = True
    labels: tuple[str, ...] = ()

    @property
    def directory(self) -> RunDir:
        """The run's directory."""
        return RunDir(Path(self.run))

    def facts(self) -> dict[str, Any]:
        """Returns what a sweep keeps of it."""
        return {
            "run": self.directory.name,
            "status": self.state,
            "reason": self.reason,
            "duration_s": self.duration_s,
            "metrics": self.metrics,
            **({"pruned": self.pruned} if self.pruned else {}),
            **({"labels": list(self.labels)} if self.labels else {}),
        }


def carry_out(job: Job, report: bool = True, warm_s: float = 0.0) -> Outcome:
    """Executes a prepared run to its end, writes its report, and returns what came of it.

    Args:
        job: The run.
        report: Write its report.
        warm_s: Seconds to wait, once in a process, for a server of warm kernels: many runs will have one from it.
    """
    from labkit.workbench.running import execute

    if warm_s and not _waited:
        _waited.append(True)
        begin_server(warm_s)
    try:
        ended = execute.execute(job)
    except LabkitError as error:  # its directory was deleted
        return Outcome(job.run, "failed", str(error))
    return of_run(job.directory, ended, write_report(job.directory) if report else "")


_waited: list[bool] = []


def begin_server(within_s: float = 0.0) -> None:
    """Starts a server of warm kernels for this process's environment, where there can be one.

    Args:
        within_s: Seconds to wait until it is ready.
    """
    from labkit.workbench.running.execute import kernel_environment

    if os.environ.get(warm.SWITCH) == "0" or not sys.platform.startswith("linux"):
        return
    environment = kernel_environment(RunDir(Path("none")))
    if within_s:
        warm.wait_for(environment, within_s, SERVER_IDLE_S)
        return
    try:
        warm.start_server(warm.address(environment), environment, SERVER_IDLE_S)
    except (warm.Cold, OSError):
        pass  # kernels are cold then


def complete(run: RunDir, report: bool = True) -> None:
    """Does for a run that is over what its runner did not come to: summary and report."""
    if status(run).state == "finished":
        checkpoints.begin_anew(run)
    if not _summed_up(run):
        summarise(run)
    if report and not run.report.exists():
        write_report(run)


def write_report(run: RunDir) -> str:
    """Writes a run's report; returns why that failed, which changes nothing about the run."""
    from labkit.workbench.pages import reports

    try:
        reports.write_of_run(run)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def of_run(run: RunDir, found: Status | None = None, problem: str = "") -> Outcome:
    """Returns what has come of a run so far; one that its sweep has stopped for good is `pruned`."""
    found = found or status(run)
    state, reason, mishap = found.state, found.reason, is_mishap(found)
    asked = (read_json(run.stop) or {}) if mishap and found.is_over else {}
    if (pruned := asked.get("pruned")) is not None:
        state, reason, mishap = "pruned", str(asked.get("reason")), False
    elif asked.get("by_hand") and state == "interrupted":  # somebody wanted no more of this point
        reason, mishap = str(asked.get("reason")), False
    began, values = run.process.exists(), last_values(run)
    labels = tuple(label for label in labels_of(run) if label in NO_RESULT)
    return Outcome(str(run.path), state, reason, found.duration_s, values, mishap, problem, pruned, began, labels)


def is_mishap(ended: Status) -> bool:
    """Tells whether a run ended for something that is not its notebook's doing.

    So it is where kernel, supervisor or runner were killed, where the run was stopped, and where no kernel started.
    """
    if ended.state != "failed":
        return ended.state not in ("finished", "timeout")
    record = ended.exit or {}
    if record.get("error"):
        return False
    kernel_exit = record.get("kernel_exit")
    number = kernel_exit.get("signal") if isinstance(kernel_exit, dict) else None
    not_started = record.get("written_by") == "runner" or ended.reason.startswith("the kernel did not start")
    return not_started or number in FROM_OUTSIDE


def last_values(run: RunDir) -> dict[str, float]:
    """Returns the last value of each metric: as the run's summary has them, else from what it logged.

    A run whose summary could not be written, on a full disk, has its numbers all the same.
    """
    return _summed_up(run) or {name: column.values[-1] for name, column in metrics.read(run.metrics).columns.items()}


def _summed_up(run: RunDir) -> dict[str, float]:
    """Returns the last value of each metric that the run's summary has."""
    try:
        summary = run.read_manifest()["summary"].get("metrics")
    except LabkitError:
        return {}
    found = {}
    for name, entry in summary.items() if isinstance(summary, dict) else ():
        try:
            found[str(name)] = float(entry["last"])  # text is one of NaN, Infinity, -Infinity
        except (TypeError, KeyError, ValueError):
            continue
    return found


def stop(run: RunDir, number: int, why: Mapping[str, Any] | None = None) -> bool:
    """Asks a run on this host to stop at its next step boundary; tells whether there was somebody to ask.

    Args:
        run: The run.
        number: The signal.
        why: What stands in its record before it is asked: the `reason`, and what else whoever asks wants to find there.
    """
    supervisor = Process.read((read_json(run.process) or {}).get("process"))
    if supervisor is None or not supervisor.is_alive():
        return False
    try:
        if why is not None:
            write_json(run.stop, why)
        os.kill(supervisor.pid, number)
    except OSError:
        return False
    return True


def call_off(run: RunDir, state: str, reason: str) -> None:
    """Writes how a run ended that never started: nobody else will."""
    try:
        write_json(run.exit, exit_record(state, reason, None, written_by="runner"))
    except OSError:
        pass  # its status stays what the evidence says
