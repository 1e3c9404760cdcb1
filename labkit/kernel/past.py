"""An earlier run, looked at from a notebook: what its cells logged is there after the tab or the server has gone."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.errors import RunNotFound
from labkit.kernel import cells
from labkit.record import find, lab, metrics
from labkit.record.files import open_record, read_json
from labkit.record.rundir import RunDir
from labkit.record.status import Status, status

if TYPE_CHECKING:
    import pandas as pd

TAIL_BYTES = 64 * 2**20
SHOWN_LINES = 30


def last_run(notebook: str | Path | None = None) -> PastRun:
    """Returns the newest run of this notebook before the present one, by hand or not.

    Args:
        notebook: Another notebook.

    Raises:
        RunNotFound: There is none.
    """
    from labkit.kernel.run import current

    path = Path(os.path.abspath(notebook)) if notebook is not None else cells.notebook_path()
    root, present = lab.root(path.parent), current()
    runs = lab.runs_folder(path.parent)
    inside, here = os.path.relpath(path, root), find.whereabouts(root, runs)
    for run in reversed(find.every(runs)):
        if present is not None and run.id >= present.path.name:
            continue
        manifest = read_json(run.manifest) or {}
        if manifest.get("notebook") == inside and find.is_of(manifest, here):
            return PastRun(run)
    raise RunNotFound(f"there is no earlier run of {inside} in {runs}")


class PastRun:
    """A run that another kernel, or an earlier `labkit.start()`, made.

    Attributes:
        path: Its directory.
        parameters: Its parameters by name.
    """

    def __init__(self, directory: RunDir) -> None:
        self.directory = directory
        self.path = directory.path
        self.parameters: dict[str, Any] = dict(directory.read_manifest()["parameters"])

    @property
    def name(self) -> str:
        """The notebook's name and the run's id."""
        return self.directory.name

    @property
    def status(self) -> Status:
        """What became of it."""
        return status(self.directory)

    def metrics(self) -> pd.DataFrame:
        """Returns what it logged: a row for each step in the order of steps, a column for each metric.

        Of a step that was logged several times it is the last value.
        """
        import pandas as pd

        columns = metrics.read(self.directory.metrics).columns
        series = {name: pd.Series(column.values, index=column.steps) for name, column in columns.items()}
        newest = {name: one[~one.index.duplicated(keep="last")] for name, one in series.items()}  # NaN is a value too
        return pd.DataFrame(newest).sort_index().rename_axis("step")

    def log(self, lines: int | None = None) -> str:
        """Returns what it printed, or the last lines of that; of a very long log the end."""
        text = _tail(self.directory.log)
        if lines is None:
            return text
        return "\n".join(text.splitlines()[-lines:]) if lines > 0 else ""

    def _facts(self) -> list[str]:
        found = self.status
        last = metrics.last(self.directory.metrics)
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in last.items() if name not in ("step", "t"))
        step = [f"step {last['step']}: {numbers}"] if last else []
        return [f"{self.name}: {found.state}" + (f", {found.reason}" if found.reason else ""), *step, str(self.path)]

    def __repr__(self) -> str:
        return "\n".join([*self._facts(), "", self.log(SHOWN_LINES)])

    def _repr_html_(self) -> str:
        facts = "<br>".join(map(escape, self._facts()))
        return f"<p>{facts}</p><pre>{escape(self.log(SHOWN_LINES))}</pre>"


def _tail(path: Path, limit_bytes: int = TAIL_BYTES) -> str:
    """Returns the last whole lines of a run's file; empty where it is missing or no regular file."""
    file = open_record(path)
    if file is None:
        return ""
    with file:
        try:
            begin = max(0, file.seek(0, os.SEEK_END) - limit_bytes)
            file.seek(begin)
            if begin:
                file.readline()  # it began before
            return file.read(limit_bytes).decode("utf-8", "replace")
        except OSError:
            return ""
