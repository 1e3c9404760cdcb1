"""Makes a recorded run again, from its record alone, and judges whether it came to the same.

The record is laid out as a lab of its own in a scratch folder: notebook and modules from the record's copies, so that
neither git nor the repository is needed. What the bits depend on is set as it was, the notebook is executed with the
same parameters, and the two runs are compared.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.errors import BadInput, LabkitError
from labkit.record import lab, spread
from labkit.record.capsule import Capsule
from labkit.record.carried import is_safe
from labkit.record.files import read_json
from labkit.record.find import every
from labkit.record.fingerprints import Known
from labkit.record.rundir import RunDir
from labkit.record.status import status
from labkit.record.text import counted
from labkit.workbench.notebooks import literals, params
from labkit.workbench.reproducing import asrecorded, began, compare, placed, rebuilt, unpack
from labkit.workbench.reproducing.asrecorded import AsRecorded
from labkit.workbench.reproducing.chain import mapping
from labkit.workbench.reproducing.compare import Comparison
from labkit.workbench.reproducing.tolerance import Tolerance
from labkit.workbench.reproducing.unpack import LaidOut
from labkit.workbench.running import job
from labkit.workbench.running.job import Job

Say = Callable[[str], object]


@dataclass(frozen=True)
class Wanted:
    """How to make a run again.

    Attributes:
        as_now: Run the lab's notebook as it is now, with what is set now, in the place of the record's copy.
        rebuild: In an environment built from the recorded packages; else in this one.
        data: A folder in which data files are looked for.
        tolerance: How far final values may lie apart; None for equal bits, or the noise band where hardware differs.
        runs: The folder of runs of this lab.
        keep: A folder for the second run; None to remove it.
    """

    as_now: bool = False
    rebuild: bool = False
    data: Path | None = None
    tolerance: Tolerance | None = None
    runs: Path = field(default_factory=lambda: lab.runs_folder(Path.cwd()))
    keep: Path | None = None


@contextmanager
def reproduced(packed: Capsule, wanted: Wanted, execute: Callable[[Job], object], say: Say) -> Iterator[Comparison]:
    """Makes a run again and compares; the second run is there until the context is left.

    Args:
        packed: The record of the run.
        wanted: How to.
        execute: Executes a prepared run in this environment.
        say: Takes a line about what is being done.

    Yields:
        The verdict.

    Raises:
        BadInput: The record is not that of a run that can be made again; nothing was executed.
    """
    _refuse(packed)
    with _scratch(wanted.keep) as folder:
        laid = unpack.lay_out(packed, folder)
        machine = read_json(laid.record.machine)
        setting = AsRecorded() if wanted.as_now else asrecorded.settings(machine)
        try:
            python = _ready(laid, wanted, say)
        except LabkitError as error:
            yield compare.could_not_run(laid.record, str(error), 2)
            return
        for line in setting.said:
            say(f"set as recorded: {line}")
        try:
            if wanted.as_now:
                _run_as_now(laid, wanted, execute)
            else:
                with setting.in_place():
                    _run(laid, python, wanted, execute)
        except LabkitError as error:
            yield compare.could_not_run(laid.record, str(error), error.exit_status, as_recorded=setting.said)
            return
        yield _judged(laid, setting, wanted)


def _refuse(packed: Capsule) -> None:
    """Refuses what is no run that came to an end in order."""
    manifest = packed.json("run.json")
    name = str(manifest.get("id") or "this record")
    if manifest.get("kind") != "run":
        raise BadInput(f"{name} was worked on by hand; run.promote() makes a run of it that can be made again")
    ends = [path for path in packed.files if path.startswith("attempts/") and path.endswith("/exit.json")]
    if not any(packed.json(path).get("status") == "finished" for path in ends):
        raise BadInput(f"{name} did not finish, so there is no result to make again")


@contextmanager
def _scratch(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="labkit-again-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _ready(laid: LaidOut, wanted: Wanted, say: Say) -> Path | None:
    """Puts data and environment in place; returns the Python of a rebuilt one.

    Raises:
        BadInput: Source, data or environment cannot be had.
    """
    if laid.notebook is None:
        raise BadInput("the record has no notebook")
    (laid.folder / "runs").mkdir(exist_ok=True)  # it marks the lab
    if wanted.as_now:
        return None
    known = Known(wanted.runs)
    found = placed.place(laid.record, laid.folder, wanted.data, _labs(laid.record), known)
    known.save()
    for path in found.changed:
        say(f"{path} is not what it was; it is used as it is")
    if found.missing:
        raise BadInput(f"data are missing: {'; '.join(found.missing)}; name a folder that has them with --data")
    if not wanted.rebuild:
        return None
    rebuilt.refuse(laid.notebook, _values(laid))
    return rebuilt.python(laid.record, say)


def _labs(then: RunDir) -> list[Path]:
    """Returns where the data files of a run may lie: in the lab that it names, and in that of the working directory."""
    was = str((read_json(then.manifest) or {}).get("lab") or "")
    return [*([Path(was)] if os.path.isabs(was) else []), lab.root(Path.cwd())]


def _module_paths(laid: LaidOut) -> list[str]:
    """Returns the folders in which the recorded copies of modules are found; none that a record names elsewhere."""
    found = dict[str, None]()
    for name, module in (read_json(laid.record.source / "modules.json") or {}).items():
        inside = str(mapping(module).get("path") or "")
        parts = name.split(".")
        ends = ["/".join(parts) + ".py", "/".join([*parts, "__init__.py"])]
        end = next((end for end in ends if f"/{inside}".endswith(f"/{end}")), None)
        if end is not None and parts[0] != "labkit" and is_safe(inside) and (laid.folder / inside).is_file():
            found[str(laid.folder / inside[: -len(end)])] = None
    return [folder for folder in found if os.pathsep not in folder]


@contextmanager
def _found_first(folders: list[str]) -> Iterator[None]:
    """Lets modules be found in these folders first, before those of a package that is installed in place."""
    before = os.environ.get("PYTHONPATH")
    if not folders:
        yield
        return
    os.environ["PYTHONPATH"] = os.pathsep.join([*folders, *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _values(laid: LaidOut) -> dict[str, Any]:
    """Returns the parameters that the run was given.

    Raises:
        BadInput: The record has something else in their place.
    """
    values = mapping((read_json(laid.record.manifest) or {}).get("values"))
    try:
        return {name: literals.read_literal(text) for name, text in values.items()}
    except ValueError as error:
        raise BadInput(f"the record's parameters are damaged: {error}") from error


def _run(laid: LaidOut, python: Path | None, wanted: Wanted, execute: Callable[[Job], object]) -> None:
    assert laid.notebook is not None
    values = began.with_checkpoints(_values(laid), laid.record, laid.notebook, laid.folder, wanted.data)
    modules, runs = _module_paths(laid), laid.folder / "runs"
    if python is not None:
        return rebuilt.run(python, laid.notebook, values, runs, modules)
    asked = [params.Source("the record", tuple(values.items()))] if values else []
    kernel = str((read_json(laid.record.manifest) or {}).get("kernel") or "")
    known = job.kernel_specs().find_kernel_specs()
    with _found_first(modules):
        execute(job.prepare(laid.notebook, asked, kernel=kernel if kernel in known else None, runs=runs))


def _run_as_now(laid: LaidOut, wanted: Wanted, execute: Callable[[Job], object]) -> None:
    """Executes the lab's own notebook, with the parameters that the run was given."""
    manifest = read_json(laid.record.manifest) or {}
    inside = str(manifest.get("notebook") or "")
    found = next((root / inside for root in _labs(laid.record) if inside and (root / inside).is_file()), None)
    if found is None:
        raise BadInput(
            f"the notebook {inside} is in none of {', '.join(map(str, _labs(laid.record)))}; leave --as-now out"
        )
    values = began.with_checkpoints(_values(laid), laid.record, found, lab.root(found.parent), wanted.data)
    given = tuple((name, value) for name, value in values.items() if name in mapping(manifest.get("given")))
    execute(job.prepare(found, [params.Source("the record", given)] if given else [], runs=laid.folder / "runs"))


def _judged(laid: LaidOut, setting: AsRecorded, wanted: Wanted) -> Comparison:
    made = [run for run in every(laid.folder / "runs") if run.path != laid.record.path]
    if not made:
        return compare.could_not_run(laid.record, "no run came about", 1, as_recorded=setting.said)
    ended = status(made[-1])
    if ended.state != "finished":
        why = f"the notebook {ended.state}: {ended.reason}"
        return compare.could_not_run(laid.record, why, 1, as_recorded=setting.said)
    doubts = f"equal bits are not to be expected: {'; '.join(setting.doubts)}" if setting.doubts else ""
    tolerance = wanted.tolerance or (_noise(laid.record) if setting.doubts else None)
    return compare.compare(laid.record, made[-1], tolerance=tolerance, expected=doubts, as_recorded=setting.said)


def _noise(then: RunDir) -> Tolerance | None:
    """Returns what the seeds of a run say of how far two results may lie apart; None where it was never repeated."""
    found = spread.read(then)
    if found is None or not found.deviations:
        return None
    return Tolerance.of_noise(found.deviations, counted(len(found.seeds), "seed"))
