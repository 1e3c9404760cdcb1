"""labkit's extension points for papermill: an engine, a client, an I/O handler and a translator of parameters.

Stock papermill truncates the file that it overwrites, counts `sys.exit(0)` as success, adds cells on an error, fills
braces in paths, and lets a finished cell time out under much output. Here a save goes beside and is renamed, a cell's
end decides, the notebook keeps its cells, and output is limited where it is made, in the kernel.
"""

from __future__ import annotations

import time
from pathlib import Path
from queue import Empty
from typing import Any
from urllib.parse import quote, unquote

from jupyter_core.utils import run_sync
from nbclient.exceptions import CellExecutionError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, NotebookExecutionManager, papermill_engines
from papermill.iorw import papermill_io
from papermill.translators import PythonTranslator, papermill_translators

from labkit.launch.provisioner import RunProvisioner
from labkit.record.files import write_atomic
from labkit.workbench.notebooks import literals
from labkit.workbench.running.streamed import joined
from labkit.workbench.wording import cell_name

SCHEME = "labkit-run:"
SAVE_EVERY_S = 2.0
ANSWER_S = 0.5  # for a kernel to answer before it is asked whether it still lives
STOPPED = ("StopRequested", "KeyboardInterrupt")


def address(path: Path) -> str:
    """Returns how papermill is given a path: quoted, so that no brace in it is a format field."""
    return SCHEME + quote(str(path))


class RunFiles:
    """Reads and writes notebooks of a run.

    Attributes:
        unsaved: By path, the newest content that a full disk refused.
    """

    def __init__(self) -> None:
        self.unsaved: dict[str, str] = {}

    def read(self, path: str) -> str:
        """Returns the notebook's text."""
        return _path(path).read_text(encoding="utf-8")

    def write(self, buf: str, path: str) -> None:
        """Replaces the notebook in one step; a full disk keeps the old one and stops nothing."""
        try:
            write_atomic(_path(path), buf, durable=False)
            self.unsaved.pop(path, None)
        except OSError:
            self.unsaved[path] = buf

    def write_again(self) -> None:
        """Tries once more to write what was refused: there may be room by now."""
        for path, content in list(self.unsaved.items()):
            self.write(content, path)

    def pretty_path(self, path: str) -> str:
        """Returns the path as a person reads it."""
        return str(_path(path))


def _path(text: str) -> Path:
    return Path(unquote(text.removeprefix(SCHEME)))


class Manager(NotebookExecutionManager):
    """Papermill's book-keeping, saving at most every two seconds: a notebook full of figures takes long to write."""

    def save(self, **kwargs: Any) -> None:
        """Saves now if the last save is long enough ago."""
        age_s = (self.now() - self.last_save_time).total_seconds()
        if age_s >= SAVE_EVERY_S:
            super().save(**kwargs)

    def save_last(self) -> None:
        """Saves whatever the time."""
        super().save()


class RunEngine(Engine):
    """Executes a notebook against the kernel of a run that has been started already."""

    @classmethod
    def execute_notebook(cls, nb: Any, kernel_name: str, output_path: str | None = None, **kwargs: Any) -> Any:
        """Executes a notebook, saving it as it goes, and returns it."""
        manager = Manager(nb, output_path=output_path, progress_bar=False, autosave_cell_every=SAVE_EVERY_S)
        manager.notebook_start()
        try:
            cls.execute_managed_notebook(manager, kernel_name, **kwargs)
        finally:
            manager.notebook_complete()
            manager.save_last()
        return manager.nb

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, *, km: Any, on_cell: Any, outcome: dict[str, Any], **_: Any
    ) -> None:
        """Executes the cells; what came of it is put into `outcome`."""
        client = RunClient(
            nb_man,
            km=km,
            raise_on_iopub_timeout=False,
            iopub_timeout=60,
            timeout=None,
            kernel_name=kernel_name,
        )
        client.on_cell = on_cell
        outcome |= client.run()


class RunClient(PapermillNotebookClient):
    """An nbclient that says how it went instead of raising."""

    on_cell: Any = None

    def run(self) -> dict[str, Any]:
        """Executes all cells and returns the outcome: empty where the kernel's own end tells more."""
        self.reset_execution_trackers()
        try:
            return self._run_cells() if run_sync(self._connect)() else {}
        finally:
            self.kc.stop_channels()  # what is unsent would keep this process from ending

    def _run_cells(self) -> dict[str, Any]:
        for index, cell in enumerate(self.nb.cells):
            self._provisioner.hear_now()
            if self._provisioner.stopping:
                return {"status": "interrupted", "reason": self._provisioner.stopping}
            if cell.cell_type == "code" and (outcome := self._run_cell(cell, index)) is not None:
                return outcome
        self.set_widgets_metadata()
        return {"status": "finished"}

    async def _connect(self) -> bool:
        """Connects to the kernel and waits until it answers; returns False where it has ended instead.

        `wait_for_ready` of jupyter_client does the same, but takes 0.2 s at least, and seconds to notice an end.
        """
        self.kc = self.km.client()
        self.kc.start_channels(hb=False)
        self.kc.allow_stdin = False
        while await self.km.is_alive():
            self.kc.kernel_info()
            if await self._answers():
                return True
        return False

    async def _answers(self) -> bool:
        """Tells whether both the shell channel and the output channel bring something soon."""
        try:
            answer = await self.kc.shell_channel.get_msg(timeout=ANSWER_S)
            await self.kc.iopub_channel.get_msg(timeout=ANSWER_S)
        except Empty:
            return False
        self.kc._handle_kernel_info_reply(answer)  # adapts to an older protocol
        return True

    @property
    def _provisioner(self) -> RunProvisioner:
        return self.km.provisioner

    def _run_cell(self, cell: Any, index: int) -> dict[str, Any] | None:
        self.kc.session.metadata = {"cellId": cell.get("id", "")}  # by which the kernel names the cell in its log
        if self.on_cell is not None:
            self.on_cell(index, cell)
        self.nb_man.cell_start(cell, index)
        try:
            self.execute_cell(cell, index)
        except CellExecutionError as error:
            self.nb_man.cell_exception(cell, cell_index=index, exception=error)
            return self._failure(cell, index, error)
        except DeadKernelError:
            self.nb_man.cell_exception(cell, cell_index=index)
            return {}
        finally:
            cell.outputs = joined(cell.outputs)
            self.nb_man.cell_complete(cell, cell_index=index)
        return None

    def _failure(self, cell: Any, index: int, error: CellExecutionError) -> dict[str, Any]:
        time.sleep(0.01)  # lets a stop that ended the cell arrive before it is judged
        self.km.provisioner.hear_now()
        stopping = self._provisioner.stopping
        if error.ename in STOPPED and (stopping or error.ename == "StopRequested"):
            return {"status": "interrupted", "reason": stopping or error.evalue.partition(":")[0]}
        facts = {"cell": index + 1, "cell_id": cell.get("id", ""), "ename": error.ename, "evalue": error.evalue[:2000]}
        name = cell_name(index + 1, cell.get("id"))
        if error.ename == "SystemExit":
            return {
                "status": "failed",
                "reason": f"{name} called sys.exit({error.evalue})",
                "error": facts,
            }
        text = " ".join(f"{error.ename}: {error.evalue}".split())
        return {"status": "failed", "reason": f"{name} raised {text:.300}", "error": facts}


class Parameters(PythonTranslator):
    """Writes the cell of given parameters so that they arrive equal."""

    @classmethod
    def codify(cls, parameters: dict[str, Any], comment: str = "Parameters") -> str:
        """Returns the source of the cell."""
        return literals.cell(parameters, comment)


papermill_engines.register("labkit", RunEngine)
papermill_translators.register("python", Parameters)
files = RunFiles()
papermill_io.register(SCHEME, files)
