"""Training in several processes from a notebook: torchrun as a child that goes on with the notebook's run."""

from __future__ import annotations

import base64
import json
import marshal
import os
import re
import select
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import RunProblem
from labkit.kernel.ranks import SET_BY_TORCHRUN
from labkit.launch import capture, channel, signals
from labkit.record import lab, provenance
from labkit.record.files import read_json, write_json
from labkit.record.rundir import RunDir

LENT = "LABKIT_LENT"  # in the environment of what is started: the run, and the notebook's parameters
OF_THE_KERNEL = (channel.RUN, channel.LOG, "JPY_SESSION_NAME", *SET_BY_TORCHRUN)  # not of what it starts
GRACE_S = 28.0  # from a stop to the kill; a little before the notebook's own is over
LOOK_S = 0.1
TAIL_BYTES = 2**16
FAILED = re.compile(r"Root Cause.*?rank\s*:\s*(\d+).*?exitcode\s*:\s*(-?\d+)", re.DOTALL)


@dataclass(frozen=True)
class Lent:
    """What a notebook leaves to the processes that it starts and waits for.

    Attributes:
        run: The directory of its run.
        parameters: Its parameters.
    """

    run: Path
    parameters: dict[str, Any]

    @classmethod
    def told(cls) -> Lent | None:
        """Returns what this process has been lent; None where it was started in another way."""
        global _lent
        told = os.environ.pop(LENT, "")  # what this process starts is not meant
        if told:
            run, parameters, modules = marshal.loads(base64.b64decode(told))
            _lent = cls(Path(run), parameters)
            provenance.elsewhere.update({name: Path(path) for name, path in modules.items()})
        return _lent

    def environment(self, script: Path) -> dict[str, str]:
        """Returns the environment of a process that shall find this."""
        provenance.elsewhere[script.stem] = script
        modules = {name: str(path) for name, path in provenance.first_party(lab.root(script.parent)).items()}
        try:
            told = marshal.dumps((str(self.run), self.parameters, modules))
        except ValueError:
            raise RunProblem("labkit.torchrun: the parameters are not all numbers, text, lists and mappings") from None
        kept = {name: value for name, value in os.environ.items() if name not in OF_THE_KERNEL}
        return kept | {LENT: base64.b64encode(told).decode(), "MPLBACKEND": "Agg"}

    def given(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Gives the script's variables of the parameters' names their values, and returns the parameters."""
        variables |= {name: value for name, value in self.parameters.items() if name in variables}
        return dict(self.parameters)

    @property
    def _returned(self) -> Path:
        return RunDir(self.run).attempt / "torchrun.json"

    def give_back(self, counts: Mapping[str, Any]) -> None:
        """Tells the notebook what was written and lost, and which modules were imported."""
        modules = {name: str(path) for name, path in provenance.first_party(lab.root(Path.cwd())).items()}
        try:
            write_json(self._returned, {**counts, "modules": modules})
        except OSError as error:
            print(f"labkit: {self._returned} could not be written: {error}", file=sys.stderr)

    def counts(self) -> dict[str, Any]:
        """Returns what the processes told; nothing where they were cut off."""
        found = read_json(self._returned) or {}
        self._returned.unlink(missing_ok=True)
        provenance.elsewhere.update({name: Path(path) for name, path in found.pop("modules", {}).items()})
        return found


_lent: Lent | None = None


def torchrun(script: str | Path, *arguments: str, processes: int = 2, options: Sequence[str] = ()) -> None:
    """Runs a script in several processes on this machine, which train one model, and waits for them.

    >>> labkit.torchrun("train.py", processes=2)

    It goes on with the run of this notebook: `labkit.start()` in the script returns it in the first process, with the
    notebook's parameters, and gives them to the script's variables of the same names. What is printed goes to the
    run's log. A stop is handed on, and all of the processes end with the run. They are children of this kernel and not
    forks of it, so that it may have used the GPU before.

    Args:
        script: A Python file, as seen from the working directory.
        *arguments: For the script.
        processes: How many; one for each GPU.
        options: For torchrun itself, such as `--max-restarts=0`.

    Raises:
        RunProblem: There is no run or no script, or a process failed.
        labkit.launch.signals.StopRequested: A stop was asked for.
    """
    from labkit.kernel.run import current

    run, path = current(), Path(os.path.abspath(script))
    if run is None:
        raise RunProblem("labkit.torchrun: call run = labkit.start() first")
    if not path.is_file():
        raise RunProblem(f"labkit.torchrun: there is no file {path}")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    with run.lend() as lent:
        output = _Output(run.directory.log)
        start = {
            "argv": [*command, *options, str(path), *arguments],
            "env": lent.environment(path),
            "cwd": os.getcwd(),
            "log": str(run.directory.log),
            "grace_s": GRACE_S,
        }
        code = _run(start, output)
    signals.check(saved=True)
    if code:
        raise RunProblem(f"{path.name}: {_failure(output.tail())}; what it printed stands above and in output.log")


def _run(start: dict[str, Any], output: _Output) -> int:
    """Runs a command below a supervisor, which ends with this process, and returns its exit status."""
    with channel.launch() as supervisor:
        _tell(supervisor, {"start": start})
        interrupted = False
        while True:
            try:
                exited = _exited(supervisor, output)
                break
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                _tell(supervisor, {"stop": "SIGINT"})
        output.show()
    if interrupted:
        raise KeyboardInterrupt
    return int(exited["code"] or exited["signal"] or 0)


def _exited(supervisor: socket.socket, output: _Output) -> dict[str, Any]:
    """Waits until everything has ended; hands on a stop request."""
    waiting, is_told = b"", False
    while True:
        if select.select([supervisor], [], [], LOOK_S)[0]:
            data = supervisor.recv(2**16)
            if not data:
                return {"code": 1, "signal": None}  # the supervisor was killed, and torchrun with it
            *lines, waiting = (waiting + data).split(b"\n")
            for message in map(json.loads, lines):
                if "refused" in message:
                    raise RunProblem(f"labkit.torchrun: {message['refused']}")
                if "exited" in message:
                    return dict(message["exited"])
        if signals.requested() and not is_told:
            is_told = True
            _tell(supervisor, {"stop": signals.requested()})
        output.show()


def _tell(supervisor: socket.socket, message: dict[str, Any]) -> None:
    try:
        supervisor.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        pass  # it is gone; reading says so


class _Output:
    """What the processes append to the run's log, from now on; shown where nothing else follows the log."""

    def __init__(self, log: Path) -> None:
        self._log, self._begin = log, log.stat().st_size
        self._seen = self._begin

    def show(self) -> None:
        """Shows what is new."""
        if capture.current is not None:
            return
        with self._log.open("rb") as file:
            file.seek(self._seen)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        self._seen += len(data)
        if data:
            sys.stdout.write(data.decode(errors="replace"))
            sys.stdout.flush()

    def tail(self) -> str:
        """Returns the end of it."""
        with self._log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._begin, size - TAIL_BYTES))
            return file.read().decode(errors="replace")


def _failure(text: str) -> str:
    """Returns what torchrun says of the process that failed first."""
    found = FAILED.search(text)
    if found is None:
        return "its processes failed"
    code = int(found[2])
    how = f"was ended by signal {-code}" if code < 0 else f"failed with exit status {code}"
    return f"process {found[1]} {how} first"
