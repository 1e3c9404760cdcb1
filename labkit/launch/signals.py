"""A stop request is a flag: the loop of a run acts on it at its next step boundary.

A handler that saved in the middle of a step would store half an update, so SIGTERM only sets the flag. `run.log`,
`run.checkpoint` and labkit's loops call `check`, which raises in the notebook's own code. A kernel in which nothing has
promised to call `check` is interrupted at once instead.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

STOP = (signal.SIGTERM, signal.SIGUSR1)

_requested = ""
_has_boundaries = False
_together = False  # this process is one of several, which must stop at the same boundary
_saves = False  # the loop calls `run.checkpoint` at each step: a stop waits for that, so that nothing is lost
_kept: Callable[[], None] | None = None  # nothing was done since a boundary; it makes sure that all is on the disk


class StopRequested(KeyboardInterrupt):
    """Somebody asked this run to stop; raised at a step boundary.

    A KeyboardInterrupt, so that `except Exception` in a training loop does not swallow it.
    """


def install() -> None:
    """Lets the stop signals set the flag in this process; called in the main thread before any cell runs."""
    for number in STOP:
        signal.signal(number, _request)
    os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_restore)


def _block() -> None:
    """Holds the signals back while a fork is under way: a new child would take one for the flag and live on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)


def _restore() -> None:
    """Gives a forked child the usual signals: pools and loaders end their workers by SIGTERM."""
    for number in STOP:
        if signal.getsignal(number) is _request:
            signal.signal(number, signal.SIG_DFL)
    _unblock()


def promise_boundaries() -> None:
    """Says that step boundaries will come: from now on a stop waits for one."""
    global _has_boundaries
    _has_boundaries = True


def promise_saves() -> None:
    """Says that a step boundary that saves will come in this cell: a stop waits for it."""
    global _saves, _kept
    _saves, _kept = True, None


def keep(make_sure: Callable[[], None]) -> None:
    """Says that all is kept that was done up to here: until the training goes on, a stop need not wait.

    Args:
        make_sure: Returns when what is kept is on the disk.
    """
    global _kept
    _kept = make_sure


def go_on() -> None:
    """Says that the training goes on, and something would be lost."""
    global _kept
    _kept = None


def act_together() -> None:
    """Says that this process is one of several: `check` does nothing until they have agreed to stop (`agree`).

    Ctrl-C is then a request as well, and ends the process at once the second time.
    """
    global _together
    if threading.current_thread() is not threading.main_thread():
        return
    if not _together:
        install()
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _request_once)
    _together = True


def agree(name: str) -> None:
    """Says that all processes have agreed to stop at this boundary."""
    global _requested, _together
    _requested, _together = name, False


def is_saving() -> bool:
    """Tells whether a step boundary that saves is still to come."""
    return _saves


def requested() -> str:
    """Returns the name of the signal that asked for a stop; empty where none did."""
    return _requested


def is_stopping() -> bool:
    """Tells whether a stop was asked for, and has been agreed on where this process is one of several."""
    return _requested != "" and not _together


def check(saved: bool = False) -> None:
    """Marks a step boundary.

    Args:
        saved: The state of this step has been saved.

    Raises:
        StopRequested: A stop was asked for, and no boundary that saves is still to come, or nothing would be lost.
    """
    if is_stopping() and (saved or _kept is not None or not _saves):
        if _kept is not None:
            _kept()
        raise StopRequested(f"{_requested}: stopped at a step boundary")


def cell_begins() -> None:
    """Interrupts a cell that begins after the stop request, in a kernel without step boundaries."""
    global _saves, _kept
    _saves, _kept = False, None
    if _requested and not _has_boundaries:
        # Not at once: what is raised before the cell's first line does not reach the cell.
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()


def _request(number: int, frame: FrameType | None) -> None:
    global _requested
    _requested = signal.Signals(number).name
    if not _has_boundaries:
        os.kill(os.getpid(), signal.SIGINT)  # ignored while no cell runs


def _request_once(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.default_int_handler)
    _request(number, frame)
