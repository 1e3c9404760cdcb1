"""What `labkit sweep` does around a sweep: begin or find it, work on it, tell what came of it."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from labkit.errors import BadInput, FolderProblem
from labkit.record import lab, provenance, sweepdir
from labkit.record.files import dumps, read_json
from labkit.record.find import is_of, whereabouts
from labkit.record.process import Process
from labkit.record.rundir import RunDir
from labkit.record.status import Status
from labkit.record.sweepdir import Session, SweepDir
from labkit.workbench.dask.daskworkers import DaskWorkers
from labkit.workbench.notebooks import notebook
from labkit.workbench.notebooks.notebook import Notebook
from labkit.workbench.notebooks.params import Source
from labkit.workbench.running import job, outcome, resume, slots
from labkit.workbench.running.job import Job
from labkit.workbench.running.slots import Slots
from labkit.workbench.running.stops import Stops
from labkit.workbench.running.workers import Workers
from labkit.workbench.sweeps import ranking, search, sweepreport, sweeptable
from labkit.workbench.sweeps.points import Point, proposed
from labkit.workbench.sweeps.ranking import Goal
from labkit.workbench.sweeps.search import Plan, Search
from labkit.workbench.sweeps.sweep import Sweeper
from labkit.workbench.sweeps.sweepreport import Summary
from labkit.workbench.terminal import print_json, printable

EXIT_BY_SIGNAL = {"SIGINT": 130}
SIGTERM_STATUS = 143
WARM_S = 15.0  # to wait at most for a server of warm kernels, whose start takes as long as that of two cold ones


@dataclass(frozen=True)
class Settings:
    """How the runs of a sweep are made, whoever works on it; kept in its record.

    Attributes:
        kernel: The kernel; None for the one that the notebook names.
        timeout_s: Seconds that a run may take; None for no limit.
        grace_s: Seconds from a stop to the kill; None for the lab's.
        metric: What decides which point is best; None for a main metric whose name says which way is better.
        lowest: The lowest is best; None for what the name says.
        report: Each run gets its report.
    """

    kernel: str | None = None
    timeout_s: float | None = None
    grace_s: float | None = None
    metric: str | None = None
    lowest: bool | None = None
    report: bool = True

    def facts(self) -> dict[str, Any]:
        """Returns what a record keeps."""
        return dict(vars(self))


@dataclass(frozen=True)
class Opened:
    """A sweep that can be worked on.

    Attributes:
        sweep: Its directory.
        source: Its notebook.
        points: What was listed; nothing where a search proposes them.
        plan: What the search is; None where all points are listed.
        settings: How its runs are made.
        manifest: Its record.
        is_new: It has been begun just now.
    """

    sweep: SweepDir
    source: Notebook
    points: list[Point]
    plan: Plan | None
    settings: Settings
    manifest: dict[str, Any]
    is_new: bool


def place(
    source: Notebook,
    settings: Settings,
    runs: Path | None = None,
    *,
    cluster: str | None = None,
    jobs: int | None = None,
    gpus: str | None = None,
    wait: bool = False,
    waiting: Callable[[str], object] = lambda problem: None,
) -> Slots | DaskWorkers:
    """Returns where the runs of a sweep have room: on this machine, or on the workers of a cluster.

    Args:
        source: The notebook.
        settings: How the runs are made.
        runs: The folder of runs; by default the lab's.
        cluster: `dask://host:port`; None for this machine.
        jobs: How many runs at once.
        gpus: Which GPUs of this machine.
        wait: Wait for GPUs that are in use.
        waiting: Called all the while, with what is waited for; it may raise.

    Raises:
        BadInput: There is no room, or a worker of the cluster does not suit.
    """
    if cluster is None:
        return slots.slots(jobs, gpus, wait=wait, waiting=waiting)
    return DaskWorkers(cluster, source, lab.runs_folder(source.path.parent, runs), settings.kernel, jobs)


def begin(
    source: Notebook,
    wanted: list[Point] | Plan,
    settings: Settings,
    runs: Path | None = None,
    command: list[str] | None = None,
    place: Path | None = None,
) -> Opened:
    """Returns the unfinished sweep of the same notebook and points, else a new one.

    Args:
        source: The notebook.
        wanted: The points, or the search that proposes them.
        settings: How the runs are made.
        runs: The folder of runs; by default the lab's.
        command: The command line, for the record.
        place: Where to make a new sweep that is only to be looked at; by default the folder of runs.

    Raises:
        BadInput: The kernel or the folder cannot be used, or the search cannot be; nothing was started.
    """
    plan, listed = (wanted, []) if isinstance(wanted, Plan) else (None, wanted)
    if plan is not None:
        search.check(plan)
    root, folder = lab.root(source.path.parent), lab.runs_folder(source.path.parent, runs)
    kernel = settings.kernel or source.kernel
    job.check_kernel(kernel)
    here = whereabouts(root, folder)
    inside = os.path.relpath(source.path, root)
    asked = [point.key for point in listed] if plan is None else [plan.facts(), settings.metric, settings.lowest]
    key = hashlib.sha256(dumps([inside, source.sha256, kernel, asked])).hexdigest()
    if (known := _unfinished(folder, key, here)) is not None:
        record = _with_settings(known, settings) if place is None else known.read_manifest()
        return Opened(known, source, listed, plan, settings, record, is_new=False)
    manifest: dict[str, Any] = {
        "notebook": inside,
        "title": source.title,
        "source_sha256": source.sha256,
        **here,
        "settings": settings.facts(),
        "key": key,
        "user": provenance.user(),
        "host": Process.of(os.getpid()).host,
        "command": command or [],
        "creator": Process.of(os.getpid()).facts(),
        "points": [point.facts() for point in listed],
        **({} if plan is None else {"search": plan.facts()}),
    }
    sweep = sweepdir.create(place or folder, manifest)
    known = _unfinished(folder, key, here)
    if known is not None and known != sweep:  # the same command was given twice at once: both mean the older one
        shutil.rmtree(sweep.path)
        return Opened(known, source, listed, plan, settings, _with_settings(known, settings), is_new=False)
    return Opened(sweep, source, listed, plan, settings, sweep.read_manifest(), is_new=True)


def _with_settings(sweep: SweepDir, settings: Settings) -> dict[str, Any]:
    """Returns the record of a sweep that goes on, with the settings that are asked for now, and says which changed."""
    manifest = sweep.read_manifest()
    before, wanted = manifest.get("settings") or {}, settings.facts()
    changed = {name: value for name, value in wanted.items() if before.get(name) != value}
    if not changed or sweepdir.holder(sweep) is not None:
        return manifest
    manifest["settings"] = wanted
    sweep.write_manifest(manifest)
    said = ", ".join(f"{name} {value}, not {before.get(name)}" for name, value in changed.items())
    print(f"labkit: {sweep.name} goes on with other settings: {said}", file=sys.stderr)
    return manifest


def _unfinished(folder: Path, key: str, here: dict[str, str]) -> SweepDir | None:
    """Returns the oldest sweep of this notebook and these points that is not over."""
    for sweep in sweepdir.every(folder):
        found = None if sweep.is_over() else read_json(sweep.manifest)
        if found is not None and found.get("key") == key and is_of(found, here):
            return sweep
    return None


def reopen(name: str, runs: Path | None = None) -> Opened:
    """Returns the sweep that goes by a name, to go on with.

    Raises:
        BadInput: There is none, or its notebook is gone or has changed.
    """
    sweep = sweepdir.find(name, lab.runs_folder(Path.cwd(), runs))
    manifest = sweep.read_manifest()
    inside = str(manifest.get("notebook"))
    beside = sweep.runs / str(manifest.get("lab_from_runs") or ".")  # first: the lab may be a copy
    roots = (beside, lab.root(sweep.path), lab.root(Path.cwd()), Path(str(manifest.get("lab") or "/")))
    path = next((Path(os.path.realpath(root)) / inside for root in roots if (root / inside).is_file()), None)
    if path is None:
        raise BadInput(f"{inside}, the notebook of {sweep.name}, is not there; go to its lab and try again")
    source = notebook.read(path)
    if sweep.notebook.exists():
        if source.sha256 != manifest.get("source_sha256"):
            print(
                f"labkit: {inside} has changed; {sweep.name} goes on with the copy that it began with", file=sys.stderr
            )
        source = replace(notebook.read(sweep.notebook), path=path)
    if source.sha256 != manifest.get("source_sha256"):
        raise BadInput(
            f"{inside} has changed since {sweep.name} was begun, and its results would be of two notebooks; bring it "
            f"back (git), or begin another sweep: labkit sweep {os.path.relpath(path)} …"
        )
    try:
        listed = [Point.of(one) for one in manifest["points"]]
        plan = Plan.of(manifest["search"]) if "search" in manifest else None
        settings = Settings(**manifest["settings"])
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadInput(f"{sweep.manifest} cannot be read: {error!r:.200}; begin the sweep anew") from error
    if plan is not None:
        search.check(plan)
    return Opened(sweep, source, listed, plan, settings, manifest, is_new=False)


def work(
    opened: Opened,
    room: Slots | DaskWorkers,
    stops: Stops,
    *,
    quiet: bool = False,
    retry_failed: bool = False,
    command: list[str] | None = None,
    session: Session | None = None,
) -> tuple[Summary, str]:
    """Works on a sweep until every point has a result, or a signal stops it.

    Args:
        opened: The sweep.
        room: Where its runs have room.
        stops: The stop signals of this process.
        quiet: Show nothing.
        retry_failed: First take back the results that are no finished runs.
        command: The command line, for the record.
        session: The right to work on it, where that was taken already.

    Returns:
        What came of it, and the signal that stopped it; empty where none did.

    Raises:
        BadInput: Somebody else works on it.
    """
    session = session or sweepdir.claim(opened.sweep, command or [])
    try:
        sweeper = _sweeper(opened, command or [])
        many = sweeper.total > room.size() and _loads_torch(opened.source)
        sweeper.carry_out = _carry_out(opened, many)
        if isinstance(room, DaskWorkers):
            sweeper.stop = room.stop
        with _workers(room, many) as workers:  # they import while the rest is looked at
            stops.reach(sweeper)
            _take_up(sweeper, opened, retry_failed, quiet)
            asked = opened.settings
            watch = sweeptable.Watch(sweeper, asked.metric, asked.lowest)
            with sweeptable.shown(watch, quiet=quiet):
                sweeper.work(workers, room.size)
            if sweeper.at_once:
                workers.kill()
        found = sweepreport.summarise(
            opened.sweep, opened.manifest, sweeper.points, sweeper.results, asked.metric, asked.lowest
        )
        _write(found)
    finally:
        stops.reach(None)
        session.end()
    return found, sweeper.stopping


def _sweeper(opened: Opened, command: list[str]) -> Sweeper:
    """Returns what works on a sweep; what a search has proposed so far is read now that nobody else adds to it."""
    points, settings, thinks = opened.points, opened.settings, None
    if opened.plan is not None:
        points = proposed(opened.sweep)
        goal = Goal(str(settings.metric), bool(settings.lowest))
        thinks = Search(opened.plan, goal, opened.source, opened.sweep)
    begin = partial(begin_run, opened, command)
    return Sweeper(opened.sweep, points, begin, search=thinks, report=settings.report)


def _workers(room: Slots | DaskWorkers, many: bool) -> Workers | DaskWorkers:
    return room if isinstance(room, DaskWorkers) else Workers(room.environments, many=many)


def _loads_torch(source: Notebook) -> bool:
    """Tells whether a notebook says torch anywhere: without it a kernel starts fast enough cold."""
    return any("torch" in cell["source"] for cell in source.cells if cell["cell_type"] == "code")


def _write(found: Summary) -> None:
    try:
        sweepreport.write(found)
    except OSError as error:
        name = found.sweep.path
        raise FolderProblem(
            f"{name} cannot be written: {error.strerror or error}; make room, then: labkit sweep --continue {name.name}"
        ) from error


def _take_up(sweeper: Sweeper, opened: Opened, retry_failed: bool, quiet: bool) -> None:
    if opened.is_new:
        return
    if retry_failed:
        try:
            take_back(opened.sweep)
        except OSError as error:
            raise FolderProblem(f"{opened.sweep.aside} cannot be written: {error.strerror or error}") from error
    sweeper.go_on()
    if not quiet:
        done = f"{len(sweeper.results)} of {sweeper.total} points have a result"
        print(f"labkit: {opened.sweep.name} goes on; {done}", file=sys.stderr)


def take_back(sweep: SweepDir) -> None:
    """Takes the results back that are no finished runs, so that their points can have others.

    Raises:
        OSError: A file cannot be moved.
    """
    for number, result in sweepdir.results(sweep).items():
        if ranking.is_failed(result):
            sweepdir.put_aside(sweep, number)


def _carry_out(opened: Opened, many: bool) -> Callable[[Job], outcome.Outcome]:
    return partial(outcome.carry_out, report=opened.settings.report, warm_s=WARM_S * many)


def begin_run(opened: Opened, command: list[str], point: Point, earlier: RunDir | None) -> Job:
    """Makes the run of a point; one that was interrupted goes on from its checkpoint where that can be."""
    settings = opened.settings
    limits: dict[str, Any] = {"timeout_s": settings.timeout_s, "grace_s": settings.grace_s, "command": command}
    if earlier is not None and resume.resumable(earlier):
        try:
            return resume.prepare(earlier, trust_silence=True, own_notebook=opened.sweep.notebook.exists(), **limits)
        except BadInput:
            pass  # something is not what it was: it begins anew
    asked = [Source("the sweep", tuple(point.values.items()))]
    more: dict[str, Any] = {"sweep": opened.sweep.id, "point": point.number}
    return job.prepare(opened.source, asked, kernel=settings.kernel, runs=opened.sweep.runs, **limits, **more)


def tell(opened: Opened, found: Summary, stopping: str, *, as_json: bool) -> int:
    """Prints what came of a sweep, its directory as the last line, and returns the exit status."""
    from labkit.workbench.running import notice

    failed = [f"{point.number}" for point, _ in found.failed]
    state = "interrupted" if stopping else "failed" if failed else "finished"
    reason = f"stopped by {stopping}" if stopping else f"points {', '.join(failed[:20])} did not finish" * bool(failed)
    notice.tell(RunDir(opened.sweep.path), Status(state, reason), opened.source.path)
    if as_json:
        print_json(found.facts() | {"path": str(opened.sweep.path), "status": state})
    else:
        for line in sweepreport.lines(found):
            print(printable(line), file=sys.stderr)
        if len(found.results) < found.total:
            print(f"go on with: labkit sweep --continue {opened.sweep.id}", file=sys.stderr)
        elif failed:
            print(f"try them again: labkit sweep --continue {opened.sweep.id} --retry-failed", file=sys.stderr)
        print(opened.sweep.path)
    if stopping:
        return EXIT_BY_SIGNAL.get(stopping, SIGTERM_STATUS)
    return int(bool(failed))
