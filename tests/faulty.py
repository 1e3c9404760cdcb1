"""Makes the n-th of some system calls fail, for the files below one folder, in a process of its own.

Two ways lead here. A real `labkit run` has `install_from_environment` called before anything else in its runner, its
supervisor or its kernel (`startup` makes the folder for PYTHONPATH). And `serve`, a process that has loaded PyTorch,
forks a child for each case: there a training takes a tenth of a second instead of three.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

CALLS = ("open", "write", "fsync", "replace", "rename", "mkdir", "symlink")
SHORT = -1  # in place of an errno: the write takes a part only
NAMES = {"runner": "labkit.cli", "supervisor": "labkit.launch.supervise", "kernel": "labkit.launch.kernel"}
TESTS = Path(__file__).parent

real = {call: getattr(os, call) for call in CALLS}
real_open = io.open


class Faults:
    """Fails the n-th of one call for the files below a folder; with `lasting` every later one too.

    A name in `call` may say of which files: `write metrics` counts those alone whose path has `metrics` in it.
    """

    def __init__(self, folder: str, call: str, number: int, fault: int, lasting: bool) -> None:
        self.folder, (self.call, _, self.only) = folder, call.partition(" ")
        self.number, self.fault, self.lasting = number, fault, lasting
        self.count = 0
        self.tell: Callable[[], object] = lambda: None  # called when the first fails: a killed process says no more
        self._lock = threading.Lock()
        self._owner = os.getpid()

    def due(self, *targets: Any) -> bool:
        """Counts a call; tells whether it is to fail."""
        if os.getpid() != self._owner or not any(map(self._is_ours, targets)):
            return False
        with self._lock:
            self.count += 1
            if self.count == self.number:
                self.tell()
            return self.count == self.number or (self.lasting and self.count > self.number)

    def _is_ours(self, target: Any) -> bool:
        if isinstance(target, int):
            try:
                target = os.readlink(f"/proc/self/fd/{target}")
            except OSError:
                return False
        path = os.fsdecode(target) if isinstance(target, (str, bytes, os.PathLike)) else ""
        return path.startswith(self.folder) and self.only in path

    def error(self) -> OSError:
        return OSError(self.fault, os.strerror(self.fault))

    def around(self, call: str) -> Callable[..., Any]:
        def faulty(*arguments: Any, **options: Any) -> Any:
            if call == "open" and self.fault == errno.ENOSPC and not arguments[1] & os.O_CREAT:
                return real[call](*arguments, **options)  # a full disk can be read
            paths = arguments[1:2] if call == "symlink" else arguments[: 2 if call in ("replace", "rename") else 1]
            if call != self.call or not self.due(*paths):
                return real[call](*arguments, **options)
            if self.fault != SHORT:
                raise self.error()
            fd, data = arguments
            return real[call](fd, memoryview(data)[: max(1, len(data) - 1 - self.count % 3)])

        return faulty

    def open(self, file: Any, mode: str = "r", buffering: int = -1, *more: Any, **options: Any) -> Any:
        """Stands for the built-in `open`: what is written through it goes through `os.write`."""
        is_read = set(mode).isdisjoint("wax")
        is_due = self.call == "open" and not isinstance(file, int) and not (is_read and self.fault == errno.ENOSPC)
        if is_due and self.due(file):
            raise self.error()
        if is_read or "+" in mode or options.get("opener") or not self._is_ours(file):
            return real_open(file, mode, buffering, *more, **options)
        raw = _Raw(file, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        buffered = io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *more, line_buffering=buffering == 1, **options)

    def save(self, content: Any, path: Any, *more: Any, **options: Any) -> None:
        """Stands for `torch.save`, whose own writes no Python sees: pieces, and the words of an error."""
        whole = io.BytesIO()
        saved(content, whole, *more, **options)
        data = memoryview(whole.getvalue())
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                while data:
                    data = data[os.write(fd, data[:4096]) :]
            finally:
                os.close(fd)
        except OSError as error:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . file write failed") from error

    def install(self) -> None:
        for call in CALLS:
            setattr(os, call, self.around(call))
        builtins.open = io.open = self.open  # type: ignore[assignment]
        if "torch" in sys.modules:
            global saved
            saved, sys.modules["torch"].save = sys.modules["torch"].save, self.save


saved: Callable[..., Any]


class _Raw(io.FileIO):
    def write(self, data: Any) -> int:
        return os.write(self.fileno(), data)


# a real run


def startup(folder: Path) -> str:
    """Makes a folder that, in PYTHONPATH, has each Python call `install_from_environment` first of all."""
    folder.mkdir()
    text = f"import sys\nsys.path.append({str(TESTS)!r})\nimport faulty\nfaulty.install_from_environment()\n"
    (folder / "sitecustomize.py").write_text(text)
    return str(folder)


def install_from_environment() -> None:
    """Installs the faults that FAULTS asks for, where this is the process that it names; says at its end how many."""
    text = os.environ.get("FAULTS")
    if not text:
        return
    order = json.loads(text)
    from labkit.launch import channel

    channel.RECORD_RETRY_S = 0.3  # the disk of a test does not get room again
    if NAMES[order["process"]] not in sys.orig_argv:
        return
    faults = Faults(*(order[name] for name in ("folder", "call", "number", "fault", "lasting")))
    faults.install()
    leave = os._exit

    def tell(*_: Any) -> None:
        with real_open(order["count"], "w") as file:
            file.write(str(faults.count))

    def leave_told(code: int) -> None:
        tell()
        leave(code)

    import atexit

    faults.tell = tell
    os._exit = leave_told  # type: ignore[assignment]  # the kernel's way out
    atexit.register(tell)


# forked trainings


def serve() -> None:
    """Runs a case for each line of standard input, and answers with a line."""
    import pandas  # noqa: F401
    import torch

    import labkit.kernel.claim
    import labkit.kernel.determinism
    import labkit.kernel.figures
    import labkit.kernel.loading
    import labkit.kernel.run
    import labkit.kernel.trainingstate
    from labkit.kernel.style import picture
    from labkit.record import provenance

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # for the first time it loads a thousand modules
    torch.use_deterministic_algorithms(False)
    picture({}, lambda _, figure: figure.subplots().plot([1, 2]), (1, 1))
    provenance.packages = lambda: ["labkit==0"]  # reading them all would take longer than the training
    provenance.git = _no_git  # type: ignore[assignment]
    labkit.kernel.claim.hardware()
    for line in sys.stdin:
        print(json.dumps(_forked(json.loads(line))), flush=True)


def _no_git(folder: Path, *arguments: str) -> bytes:
    raise OSError("git is not asked")


def _forked(case: dict[str, Any]) -> dict[str, Any]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            answer = _lived(case)
        except BaseException as error:
            import traceback

            answer = {"broken": repr(error) + traceback.format_exc()}
        real["write"](writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with real_open(reader, "rb") as file:
        answer = file.read()
    _, state = os.waitpid(pid, 0)
    return json.loads(answer) if answer else {"broken": f"ended with {state}"}


def _lived(case: dict[str, Any]) -> dict[str, Any]:
    """Lives one training, by hand or joined to a run that was made for it, as Python would: up to its exit hooks."""
    import atexit
    import runpy

    from labkit.errors import LabkitError
    from labkit.launch import capture, kernel
    from labkit.record.process import Process
    from labkit.record.rundir import RunDir

    script = Path(case["script"])
    os.chdir(script.parent)
    os.setsid()
    said = os.open(case["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.stdout = real_open(1, "w", buffering=1, closefd=False)
    sys.stderr = real_open(2, "w", buffering=1, closefd=False)
    os.environ["LABKIT_RUNS"] = case["runs"]
    kernel.RECORD_RETRY_S = 0.0
    run = None
    if case["joined"]:
        run = RunDir(Path(case["joined"]), 1)
        me = Process.of(os.getpid()).facts()
        run.process.write_text(json.dumps({"process": me, "kernel": me, "started_s": 0.0}))
        os.environ["LABKIT_RUN"] = str(run.path)
        capture.begin(str(run.log))
    faults = Faults(case["runs"], case["call"], case["number"], case["fault"], case["lasting"])
    faults.install()
    answer: dict[str, Any] = {"trained": None, "error": None}
    try:
        answer["trained"] = runpy.run_path(str(script), run_name="__main__")["RESULT"]
    except BaseException as error:
        import traceback

        sys.last_value = error
        answer["error"] = [isinstance(error, LabkitError), type(error).__name__, str(error)]
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if run is not None:
        kernel.record_end(run, script.parent)
    return answer | {"count": faults.count}


def name_of(case: object) -> str:
    """Returns a name for a test's case."""
    if isinstance(case, bool):
        return "for good" if case else "once"
    return "short" if case == SHORT else errno.errorcode[case] if isinstance(case, int) else str(case)


if __name__ == "__main__":
    serve()
