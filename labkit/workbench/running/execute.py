"""Executes a prepared run: starts a supervised kernel in its directory, drives papermill, closes the run."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from labkit.errors import BadInput, WorkFailed
from labkit.launch import channel, processes
from labkit.record import checkpoints
from labkit.record.files import plain_json, read_json, remove_unfinished, write_json
from labkit.record.machine import SET_BY_LABKIT
from labkit.record.process import descendants
from labkit.record.provenance import record_source
from labkit.record.rundir import RunDir
from labkit.record.status import Status, exit_record, status
from labkit.record.summary import summarise
from labkit.workbench.running import trackers
from labkit.workbench.running.job import Job, kernel_specs
from labkit.workbench.running.stops import Stops

CLOSE_S = 600.0  # for exit hooks and threads of a kernel whose cells have all run


@dataclass
class Progress:
    """Where an execution stands, for whoever shows it."""

    cell: int = 0
    cells: int = 0
    cell_id: str = ""
    began: float = field(default_factory=time.time)
    stops: Stops = field(default_factory=Stops)

    @property
    def stopping(self) -> str:
        """The name of the signal that asked for a stop; empty where none did."""
        return self.stops.stopping


def execute(job: Job, progress: Progress | None = None) -> Status:
    """Executes a prepared run to its end, whatever that is, and returns its status.

    Blocks. SIGTERM, SIGINT, SIGHUP and SIGUSR1 to this process stop the run at its next step boundary; a second SIGINT
    at once.

    Raises:
        WorkFailed: The run's directory was deleted meanwhile.
    """
    progress = progress or Progress()
    run = job.directory
    processes.adopt_orphans()  # of a supervisor that is killed
    before = set(descendants(os.getpid()))
    with progress.stops as stops:
        if stops.stopping:
            _write_exit(run, "interrupted", f"{stops.stopping}: stopped before its kernel was started", stops.stopping)
            return status(run)
        try:
            manager, provisioner = _start_kernel(job)
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            _write_exit(run, "failed", f"no kernel could be started: {error}")
            return status(run)
        stops.reach(provisioner)
        recorder = threading.Thread(target=_record_source, args=(run, Path(job.notebook).parent), daemon=True)
        recorder.start()
        parameters = (read_json(run.manifest) or {}).get("parameters") or {}
        feeding = trackers.Feeding(run, trackers.asked(parameters))
        try:
            try:
                outcome = _run_cells(job, manager, progress)
            except Exception as error:  # whatever it is, the run must say so
                outcome = {"status": "failed", "reason": f"the notebook could not be executed: {error!r:.300}"}
            if outcome:
                provisioner.send({"outcome": outcome})
            _close_kernel(manager, provisioner)
            _save_again(run)
        finally:
            stops.reach(None)
            provisioner.let_go()  # after an error here, the supervisor ends what is left
            recorder.join()
            feeding.end()
        if read_json(run.exit) is None:
            _write_exit_for_supervisor(run, outcome, before)
    if not run.path.exists():
        raise WorkFailed(f"the run's directory {run.path} is gone: something deleted it while it ran, maybe a cell")
    for folder in (run.attempt, run.path):
        remove_unfinished(folder)
    if status(run).state == "finished":
        checkpoints.begin_anew(run)
    summarise(run)
    return status(run)


def _record_source(run: RunDir, folder: Path) -> None:
    """Records where the code came from; a run that goes on keeps what it began with, unless it was forced to."""
    order = read_json(run.resumption)
    if order is None or order.get("forced"):
        record_source(run, folder)


def _start_kernel(job: Job) -> tuple[Any, Any]:
    """Has a supervisor start the kernel; the kernel boots while this process goes on to import papermill."""
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_client.provisioning import KernelProvisionerFactory
    from jupyter_core.utils import run_sync

    from labkit.launch.provisioner import RunProvisioner

    run = job.directory
    manager = AsyncKernelManager(kernel_name=job.kernel, kernel_spec_manager=kernel_specs())
    factory = KernelProvisionerFactory.instance(parent=manager.parent)
    factory.provisioners["labkit"] = _EntryPoint()
    factory.default_provisioner_name = "labkit"
    run_sync(manager.start_kernel)(
        env=kernel_environment(run),
        cwd=str(Path(job.notebook).parent),
        attempt=run.attempt,
        log=run.log,
        grace_s=job.grace_s,
        timeout_s=job.timeout_s,
        fixed={name: os.environ[name] for name in os.environ.get(channel.SLOT, "").split() if name in os.environ},
    )
    provisioner = manager.provisioner
    assert isinstance(provisioner, RunProvisioner)
    return manager, provisioner


class _EntryPoint(metadata.EntryPoint):
    """The provisioner, also where labkit is on the path without being installed."""

    def __new__(cls) -> _EntryPoint:
        return super().__new__(cls)

    def __init__(self) -> None:
        super().__init__("labkit", "labkit.launch.provisioner:RunProvisioner", "jupyter_client.kernel_provisioners")


def kernel_environment(run: RunDir) -> dict[str, str]:
    """Returns the environment of a run's kernel: this process's, with what must be set before Python starts."""
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in ("JPY_PARENT_PID", "JPY_SESSION_NAME", channel.CHANNEL, channel.SLOT)
    }
    env = SET_BY_LABKIT | env
    env.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a debugger's warning would head every log
    return env | {channel.RUN: str(run.path)}


def _run_cells(job: Job, manager: Any, progress: Progress) -> dict[str, Any]:
    """Drives papermill over the notebook and returns the outcome; empty where the kernel's end will tell."""
    from papermill.engines import papermill_engines
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    from labkit.workbench.running import engine

    if manager.provisioner.refused:
        return {"status": "failed", "reason": f"the kernel did not start: {manager.provisioner.refused}"}
    run = job.directory
    document = load_notebook_node(engine.address(run.source / "notebook.ipynb"))
    if job.values:
        language = job.language
        document = parameterize_notebook(
            document, job.values, kernel_name=job.kernel, language=language, engine_name="labkit"
        )
        document.metadata.papermill["parameters"] = plain_json(job.values)  # NaN would make the file no JSON
        _name_injected_cell(document)
    progress.cells = len(document.cells)

    def on_cell(index: int, cell: Any) -> None:
        progress.cell, progress.cell_id = index + 1, cell.get("id", "")

    outcome: dict[str, Any] = {}
    papermill_engines.execute_notebook_with_engine(
        "labkit",
        document,
        kernel_name=job.kernel,
        output_path=engine.address(run.notebook),
        km=manager,
        on_cell=on_cell,
        outcome=outcome,
    )
    return outcome


def _name_injected_cell(document: Any) -> None:
    """Gives the cell that papermill adds a fixed id, so that two runs of one notebook compare."""
    taken = {cell.get("id") for cell in document.cells}
    for cell in document.cells:
        if "injected-parameters" in cell.metadata.get("tags", []) and "injected-parameters" not in taken:
            cell["id"] = "injected-parameters"


def _save_again(run: RunDir) -> None:
    """Saves the notebook where a full disk refused it: there may be room by now. Where there is none, that is told."""
    from labkit.workbench.running import engine

    engine.files.write_again()
    if not engine.files.unsaved:
        return
    engine.files.unsaved.clear()
    print(f"labkit: {run.notebook} could not be saved; what its cells printed is in {run.log}", file=sys.stderr)
    counts = read_json(run.kernel)
    try:
        if counts is not None:  # without them it is said already that data may be missing
            write_json(run.kernel, counts | {"notebook": {"lost": 1}})
    except OSError:
        pass


def _close_kernel(manager: Any, provisioner: Any) -> None:
    """Asks the kernel to leave and waits until it and all below it are gone."""
    from jupyter_core.utils import run_sync

    if run_sync(provisioner.poll)() is None:
        client = manager.client()
        client.control_channel.start()
        client.shutdown()
        killer = threading.Timer(CLOSE_S, lambda: provisioner.send({"signal": int(signal.SIGKILL)}))
        killer.daemon = True
        killer.start()
        run_sync(provisioner.wait)()
        killer.cancel()
        client.stop_channels()
    run_sync(manager.cleanup_resources)()


def _write_exit_for_supervisor(run: RunDir, outcome: dict[str, Any], before: set[int]) -> None:
    """Ends what a killed supervisor left behind, and writes the exit record in its place."""
    left = processes.end_processes(lambda: [pid for pid in descendants(os.getpid()) if pid not in before])
    if outcome.get("status") == "finished":
        _write_exit(run, "finished", "its supervisor was killed after the last cell", left=left)
    else:
        _write_exit(run, "killed", "its supervisor was killed", left=left, error=outcome.get("error"))


def _write_exit(run: RunDir, state: str, reason: str, stop: str = "", left: Any = (), error: Any = None) -> None:
    """Writes an exit record where no supervisor does."""
    began = (read_json(run.process) or {}).get("started_s")
    record = exit_record(
        state, reason, began if isinstance(began, float) else None, written_by="runner", error=error, left=left
    ) | {"stop": stop or None}
    try:
        write_json(run.exit, record)
    except OSError:
        pass  # the status is then derived from the processes


def detach(job: Job) -> int:
    """Hands a prepared run to a supervisor that lives on its own; returns the supervisor's process id."""
    run = job.directory
    order = run.attempt / "job.json"
    write_json(order, job.facts())
    return channel.launch_detached(
        [sys.executable, "-P", "-m", "labkit.workbench.running.execute", str(order)], output=run.attempt / "runner.log"
    )


def main(order: Path) -> int:
    """Executes the job in a file, writes its report, and returns the exit status: the runner of a detached run."""
    from labkit.workbench.pages import reports
    from labkit.workbench.running import notice

    facts = read_json(order)
    if facts is None:
        raise BadInput(f"{order} is no job")
    job = Job.of(facts)
    ended = execute(job)
    reports.write_of_run(job.directory)
    notice.tell(job.directory, ended, Path(job.notebook))
    return 0 if ended.state == "finished" else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
