"""Sweeps that a cell starts and that go on without it: `labkit.sweep("x.ipynb", LEARNING_RATE=[0.1, 0.01])`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from labkit.errors import BadInput, FolderProblem, RunProblem
from labkit.kernel.submit import LOOK_S, ask, view
from labkit.launch.stopping import terminate
from labkit.record import sweepdir
from labkit.record.sweepdir import SweepDir
from labkit.record.sweepstate import COLUMNS, where_it_stands

if TYPE_CHECKING:
    import pandas as pd


def sweep(
    notebook: str | Path,
    /,
    *,
    zipped: bool = False,
    jobs: int | None = None,
    gpus: str | None = None,
    minimize: str | None = None,
    maximize: str | None = None,
    search: Literal["tpe", "random"] | None = None,
    trials: int | None = None,
    **parameters: Any,
) -> SubmittedSweep:
    """Runs a notebook once for each combination of parameters, in the background; it outlives this kernel.

    The same call goes on with a sweep that was stopped or killed.

    >>> tried = labkit.sweep("digits-cnn.ipynb", LEARNING_RATE=[0.1, 0.01], RANDOM_SEED=range(1, 6))
    >>> tried.view()
    >>> labkit.sweep("digits-cnn.ipynb", search="tpe", trials=9, minimize="val_loss", LEARNING_RATE="log:1e-4..1e-1")

    Args:
        notebook: As seen from the working directory.
        zipped: Take first values together, then second ones, not each with each.
        jobs: How many runs at once; by default as many as the machine has room for.
        gpus: Which GPUs, one a run: `free`, a number of them, or indices such as `0,2`; `none`.
        minimize: The metric of which the lowest is best.
        maximize: The metric of which the highest is best.
        search: Have points proposed by what earlier ones came to: `tpe` or `random`.
        trials: With search: how many points.
        **parameters: For each a list, a tuple or a range of values, or one value; of a search `"LOW..HIGH"` and
            `"log:LOW..HIGH"` too, and a list is a choice.

    Returns:
        The sweep, which can be looked at, waited for and stopped.

    Raises:
        RunProblem: It cannot be run so; the message says why.
    """
    if minimize and maximize:
        raise RunProblem("labkit.sweep: either minimize or maximize")
    if search and (zipped or not (minimize or maximize)):
        raise RunProblem("labkit.sweep: a search needs minimize or maximize, and takes nothing zipped")
    if (search is None) != (trials is None):
        raise RunProblem("labkit.sweep: a search needs trials, how many points; and only a search takes them")
    values = {name: list(one) if isinstance(one, (tuple, range)) else one for name, one in parameters.items()}
    asked = {"zipped": zipped, "jobs": jobs, "gpus": gpus, "minimize": minimize, "maximize": maximize}
    asked |= {"search": search, "trials": trials}
    try:
        path = ask({"notebook": os.path.abspath(notebook), "values": values, "sweep": asked})
    except RunProblem as error:
        raise RunProblem(f"labkit.sweep: {error}") from error
    return SubmittedSweep(SweepDir(path))


class SubmittedSweep:
    """A sweep in the background.

    Attributes:
        path: Its directory, with `report.html` in the end.
    """

    def __init__(self, directory: SweepDir) -> None:
        self.directory = directory
        self.path = directory.path

    @property
    def status(self) -> str:
        """`running`, `finished` when every point has a result, else `interrupted`: the same call goes on with it."""
        if sweepdir.holder(self.directory) is not None:
            return "running"
        return "finished" if self.directory.is_over() else "interrupted"

    def results(self) -> pd.DataFrame:
        """Returns a row for each point that has a result: parameters, last metrics, `status` and `run`."""
        import pandas as pd

        found = sweepdir.results(self.directory)  # first: a search may have proposed further points since
        listed = [*self.directory.read_manifest()["points"], *sweepdir.proposed(self.directory)]
        points = {one["point"]: one["given"] for one in listed}
        rows = {
            number: {**points[number], **result["metrics"], "status": result["status"], "run": result["run"]}
            for number, result in found.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("point")

    def wait(self, timeout_s: float | None = None) -> str:
        """Waits until it is over, or for so long, and returns its status."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while (found := self.status) == "running" and (end is None or time.monotonic() < end):
            time.sleep(LOOK_S)
        return found

    def stop(self) -> None:
        """Asks its runs to stop at their next step; the same call goes on with it.

        Raises:
            RunProblem: It is worked on on another host, or by somebody else.
        """
        other = sweepdir.holder(self.directory)
        if other is None:
            return
        if not other.is_here():
            raise RunProblem(f"{self.directory.name} is worked on on {other.host}; stop it there")
        try:
            terminate(other, self.directory.name)
        except BadInput as error:
            raise RunProblem(str(error)) from error

    def view(self) -> Any:
        """Returns a widget that follows it until it is over."""
        return view(self._repr_html_, lambda: self.status != "running")

    def _facts(self) -> dict[str, Any]:
        try:
            return where_it_stands(self.directory)
        except FolderProblem as error:  # it was deleted or damaged
            return {"head": str(error), "best": "", "rows": []}

    def _lines(self, facts: Mapping[str, Any]) -> list[str]:
        lines = [f"{self.directory.name}: {self.status}", facts["head"], facts["best"], str(self.path)]
        return list(filter(None, lines))

    def __repr__(self) -> str:
        return "\n".join(self._lines(self._facts()))

    def _repr_html_(self) -> str:
        facts = self._facts()
        lines = "<br>".join(map(escape, self._lines(facts)))
        if not facts["rows"]:
            return f"<p>{lines}</p>"
        head = "".join(f"<th style='text-align: left'>{name}</th>" for name in COLUMNS)
        body = "".join(f"<tr>{_cells(row)}</tr>" for row in facts["rows"])
        return f"<p>{lines}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(row: Mapping[str, Any]) -> str:
    return "".join(f"<td style='text-align: left'>{escape(row[name])}</td>" for name in COLUMNS)
