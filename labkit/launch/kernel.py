"""The kernel's process: `python -m labkit.launch.kernel -f CONNECTION`, in place of `ipykernel_launcher`.

It differs from the stock kernel in what surrounds the cells: output is captured in a log before the first line of user
code, SIGTERM is a request, and closing runs every exit hook but skips the interpreter's teardown.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from labkit.launch import capture, channel, inputs, leaving, signals
from labkit.launch.channel import LOG, RECORD_RETRY_S
from labkit.record import lab, machine, provenance
from labkit.record.files import read_json, write_json
from labkit.record.find import folder_of
from labkit.record.rundir import RunDir


def main() -> None:
    """Runs a kernel until it is told to shut down, then leaves at once."""
    if sys.path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]  # put there by -m; IPython adds its own
    log, lab_root = os.environ.get(LOG), lab.root(Path.cwd())  # a cell may change both
    run = RunDir(Path(log).parent).pinned() if log else None
    if log:
        capture.begin(log)
    inputs.watch()
    data = inputs.Inputs(run, lab_root, folder_of(run)) if run is not None else None
    signals.install()
    app = _application()
    app.initialize(sys.argv[1:])
    if log:
        capture.attach(app.shell)
    app.shell.events.register("pre_run_cell", lambda _: signals.cell_begins())
    app.start()
    capture.end()
    leaving.spare_sockets(app)
    leaving.leave(0, last=lambda: record_end(run, lab_root, data) if run is not None else None)


def _application() -> Any:
    sys.modules["debugpy"] = None  # type: ignore[assignment]  # nobody debugs a run; it takes a tenth of the start
    from ipykernel.ipkernel import IPythonKernel
    from ipykernel.kernelapp import IPKernelApp
    from traitlets import Type
    from traitlets.config import Config

    del sys.modules["debugpy"]

    class RunKernel(IPythonKernel):
        shell_class = Type(capture.RunShell)

        async def _progressively_terminate_all_children(self) -> None:
            """Leaves them to the supervisor, which also finds those that went their own way."""

    settings = Config()
    settings.IPKernelApp.kernel_class = RunKernel
    settings.IPKernelApp.parent_handle = os.getppid()
    settings.IPKernelApp.capture_fd_output = False
    settings.IPKernelApp.outstream_class = "labkit.launch.capture.RunStream"
    settings.HistoryManager.enabled = False  # its database hangs on some network file systems
    app = IPKernelApp.instance()
    app.update_config(settings)
    return app


def record_end(run: RunDir, lab_root: Path, data: inputs.Inputs | None = None) -> None:
    """Records what only this process knows: data and modules that it read, and what the log and the view lost."""
    if data is not None:
        data.end()
    if not run.machine.exists():  # else the run's end in the notebook wrote it, which knows more
        with suppress(OSError):
            write_json(run.machine, machine.facts(), durable=False)
    provenance.elsewhere.update(inputs.scripts(lab_root))
    provenance.record_modules(run.source, lab_root)
    counts = channel.counts | (capture.current.counts() if capture.current is not None else {})
    end = time.monotonic() + RECORD_RETRY_S
    while True:
        try:
            return write_json(run.kernel, (read_json(run.kernel) or {}) | counts)
        except OSError as error:  # a full disk may have room again soon
            if not run.path.exists() or time.monotonic() > end:
                print(f"labkit: {run.kernel} could not be written: {error}", file=sys.stderr)
                return None
            time.sleep(0.2)


if __name__ == "__main__":
    main()
