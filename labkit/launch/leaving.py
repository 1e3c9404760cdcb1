"""How a kernel's process ends: as an interpreter would, less the teardown, which costs a second with PyTorch loaded."""

from __future__ import annotations

import _io
import atexit
import gc
import os
import threading
import weakref
from collections.abc import Callable
from types import FunctionType
from typing import Any


def leave(code: int, last: Callable[[], object] = lambda: None) -> None:
    """Ends this process.

    Non-daemon threads are joined, exit hooks run, then `last`; files that are still open are flushed.
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        _spare_operators()
        atexit._run_exitfuncs()
        last()
        for candidate in gc.get_objects():
            if issubclass(type(candidate), _io._IOBase):  # isinstance would have lazy objects load what they stand for
                _flush(candidate)
    finally:
        os._exit(code)


def spare_sockets(app: Any) -> None:
    """Keeps a kernel's application, which has ended, from closing its sockets in good order: the process does it."""
    atexit.unregister(app.close)  # waits for ever, once in fifty, for a thread that sends to one that has ended
    atexit.unregister(app.iopub_thread.stop)


def _spare_operators() -> None:
    """Keeps PyTorch from taking its tables of operators apart at the end: a twentieth of a second for nothing."""
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        known = finalizer.peek()
        # A plain function: what else users hand over may raise when it is asked for its name.
        if known is not None and type(known[1]) is FunctionType and known[1].__name__ == "_del_library":
            finalizer.atexit = False


def _flush(file: Any) -> None:
    try:
        if not file.closed:
            file.flush()
    except Exception:  # a broken file must not keep the others from their flush
        pass
