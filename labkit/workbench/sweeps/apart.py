"""A sweep in a process of its own, which outlives whoever began it: left to itself, followed, and stopped."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.errors import BadInput, LabkitError, WorkFailed
from labkit.launch import channel
from labkit.launch.stopping import terminate
from labkit.record import sweepdir, sweepstate
from labkit.record.process import Process
from labkit.record.sweepdir import SweepDir
from labkit.record.sweepstate import where_it_stands
from labkit.workbench.notebooks.notebook import Notebook
from labkit.workbench.running.stops import Stops
from labkit.workbench.slurm import slurmtasks
from labkit.workbench.sweeps import sweeping, sweeptable
from labkit.workbench.sweeps.sweeping import Opened, Settings
from labkit.workbench.terminal import printable

LOOK_S = 0.25
STOP_S = 60.0  # beyond the grace of its runs: for a sweep that was asked to stop


def leave(opened: Opened, room: dict[str, Any]) -> None:
    """Hands a sweep to a process of its own, and waits until it has taken hold of it.

    Args:
        opened: The sweep.
        room: What `sweeping.place` takes: `cluster`, `jobs`, `gpus`, `wait`; `refuse_without_room` has looked at it.

    Raises:
        BadInput: Somebody works on it.
        WorkFailed: The process did not begin; the message says what it printed.
    """
    sweep = opened.sweep
    if (other := sweepdir.holder(sweep)) is not None:
        raise BadInput(f"{sweep.name} is being worked on by process {other.pid} on {other.host}: labkit watch it")
    if known := slurmtasks.under_way(sweep):
        raise BadInput(f"{slurmtasks.told(sweep, known)}: labkit watch it, or labkit stop it first")
    before = sweepdir.session(sweep)
    arguments = [str(sweep.path), json.dumps(room)]
    process = Process.of(channel.start_detached("labkit.workbench.sweeps.apart", arguments, sweep.log))
    while sweepdir.session(sweep) == before:
        if not process.is_alive():
            raise WorkFailed(f"{sweep.name} did not begin; {sweep.log} says: {_last_words(sweep)}")
        time.sleep(LOOK_S / 5)


def refuse_without_room(source: Notebook, settings: Settings, runs: Path | None, room: dict[str, Any]) -> None:
    """Refuses a sweep for whose runs there is no room, before it is begun: where somebody sees it.

    Raises:
        BadInput: There is none.
    """
    if not room.get("wait"):
        with sweeping.place(source, settings, runs, **room):
            pass


def _last_words(sweep: SweepDir) -> str:
    try:
        return sweep.log.read_text(errors="replace").strip()[-500:] or "nothing"
    except OSError as error:
        return str(error)


def watch(sweep: SweepDir) -> dict[str, Any]:
    """Shows a sweep until it is over or nobody works on it, and returns where it stands then.

    Outside of a terminal it is a line each time that another point has its result.
    """
    looked_at = _looked_at(sweep)
    if sys.stderr.isatty():
        with sweeptable.live(looked_at):
            _wait_until_nobody_works(sweep)
        return where_it_stands(sweep)
    done = -1

    def say() -> None:
        nonlocal done
        facts = looked_at()
        if facts["done"] != done:
            done = facts["done"]
            print(printable(facts["head"]), file=sys.stderr, flush=True)

    _wait_until_nobody_works(sweep, say)
    return where_it_stands(sweep)


def _looked_at(sweep: SweepDir) -> Callable[[], dict[str, Any]]:
    """Returns what tells where a sweep stands; of one whose results must all be read for it, not at each picture."""
    found: dict[str, Any] = {}
    after = 0.0

    def facts() -> dict[str, Any]:
        nonlocal found, after
        if time.monotonic() >= after:
            found = where_it_stands(sweep)
            after = time.monotonic() + (slurmtasks.ASK_S if sweepdir.holder(sweep) is None else 0.0)
        return found

    return facts


def _wait_until_nobody_works(sweep: SweepDir, meanwhile: Callable[[], None] = lambda: None) -> None:
    while _is_worked_on(sweep):
        meanwhile()
        time.sleep(slurmtasks.ASK_S if slurmtasks.numbers_of(sweep) else LOOK_S)


def _is_worked_on(sweep: SweepDir) -> bool:
    return sweepdir.holder(sweep) is not None or slurmtasks.has_any(sweep)


def tell(sweep: SweepDir, found: dict[str, Any]) -> int:
    """Prints where a sweep stands that nobody works on any more, and returns the exit status that says so."""
    for line in filter(None, (found["head"], found["best"])):
        print(printable(line), file=sys.stderr)
    if not sweep.is_over():
        print(f"it was stopped; go on with: labkit sweep --continue {sweep.id}", file=sys.stderr)
    print(sweep.path)
    return 0 if sweep.is_over() and not found["failed"] else 1


def stop(sweep: SweepDir, *, wait: bool = True) -> dict[str, Any]:
    """Asks a sweep to stop: its runs end at their next step, and no other begins.

    Raises:
        BadInput: Nobody works on it, or somebody on another host or of another user does.
        WorkFailed: It did not end in time.
    """
    other = sweepdir.holder(sweep)
    if slurmtasks.stop(sweep):
        return _stopped(sweep, wait)
    if other is None:
        raise BadInput(f"{sweep.name} is {'over' if sweep.is_over() else 'not being worked on'}; nothing to stop")
    if not other.is_here():
        raise BadInput(f"{sweep.name} is worked on by process {other.pid} on {other.host}; stop it there")
    terminate(other, sweep.name)
    return _stopped(sweep, wait)


def _stopped(sweep: SweepDir, wait: bool) -> dict[str, Any]:
    """Waits for the end of a sweep that was asked to stop, and returns where it stands."""
    end = time.monotonic() + float(sweep.read_manifest().get("settings", {}).get("grace_s") or 30.0) + STOP_S
    while wait and _is_worked_on(sweep):
        if time.monotonic() > end:
            raise WorkFailed(f"{sweep.name} was asked to stop and still goes on; see {sweep.path}")
        time.sleep(slurmtasks.ASK_S if slurmtasks.numbers_of(sweep) else LOOK_S)
    return where_it_stands(sweep)


def main(arguments: list[str]) -> int:
    """Works on a sweep to its end: `--detached SWEEP ROOM`, the room in JSON; returns the exit status."""
    _, path, room = arguments
    with Stops() as stops:
        try:
            return _work(sweeping.reopen(path), json.loads(room), stops)
        except LabkitError as error:
            print(f"labkit: {error}", file=sys.stderr)
            return error.exit_status


def _work(opened: Opened, room: dict[str, Any], stops: Stops) -> int:
    """Works on a sweep, of which this process takes hold before it waits for room."""
    command = opened.manifest.get("command") or []
    session = sweepdir.claim(opened.sweep, command)

    def waiting(problem: str) -> None:
        stops.refuse()
        facts = sweepstate.counted(opened.sweep) | {"head": f"waiting: {problem}", "best": "", "rows": []}
        sweepstate.write(opened.sweep, facts)

    try:
        with sweeping.place(opened.source, opened.settings, opened.sweep.runs, **room, waiting=waiting) as places:
            found, stopping = sweeping.work(opened, places, stops, command=command, session=session)
    finally:
        session.end()
    return sweeping.tell(opened, found, stopping, as_json=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
