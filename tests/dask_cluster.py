"""A Dask cluster for tests: a scheduler and workers, each a process of its own."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from running import alive, wait_for
from tiny import plain_environment

from labkit.record.process import descendants


@dataclass
class Worker:
    """A worker's process; of one with a nanny the nanny's."""

    process: subprocess.Popen[bytes]
    log: Path
    address: str = ""

    def below(self) -> list[int]:
        return descendants(self.process.pid)


@dataclass
class Cluster:
    """A scheduler in `folder`, and its workers; leaving it ends all of them, and nothing of theirs may live on."""

    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)

    def __enter__(self) -> Cluster:
        self.folder.mkdir(parents=True)
        log = self.folder / "scheduler.log"
        self.scheduler = self._start(log, [*self._dask("scheduler"), "--host", "127.0.0.1", "--port", "0"])
        self.address = self._said(log, self.scheduler, "Scheduler at:")
        return self

    def __exit__(self, *_: object) -> None:
        below = [pid for process in self.started for pid in descendants(process.pid)]
        for process in reversed(self.started):
            process.terminate()
        for process in reversed(self.started):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        wait_for(lambda: not alive(*below), 20, f"the end of {below}, below the cluster")

    @property
    def where(self) -> str:
        return self.address.replace("tcp://", "dask://")

    def worker(self, *options: str, prefix: str = "", awaited: bool = True, **environment: str) -> Worker:
        """Start a worker; `prefix` is a shell command that goes before it, as in `hostname other &&`."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        command = [*self._dask("worker"), self.address, "--host", "127.0.0.1", "--no-dashboard", *options]
        if prefix:
            command = ["unshare", "--mount", "--uts", "sh", "-c", f"{prefix} exec {shlex.join(command)}"]
        made = Worker(self._start(log, command, **environment), log)
        self.workers.append(made)
        return self.await_worker(made) if awaited else made

    def two(self) -> Cluster:
        """Start two workers at once: one with one thread and no nanny, one with two and a nanny."""
        options = (["--no-nanny", "--nthreads", "1"], ["--nthreads", "2"])
        for one in [self.worker(*some, awaited=False) for some in options]:
            self.await_worker(one)
        return self

    def await_worker(self, worker: Worker) -> Worker:
        """Wait until a worker has joined."""
        worker.address = self._said(worker.log, worker.process, "Start worker at:")
        self._said(worker.log, worker.process, "Registered to:")
        return worker

    def _dask(self, kind: str) -> list[str]:
        return [sys.executable, "-m", "dask", kind]

    def _start(self, log: Path, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        own = {"DASK_CONFIG": str(self.folder / "config"), "DASK_TEMPORARY_DIRECTORY": str(self.folder)}
        with open(log, "wb") as output:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=plain_environment(**own, **environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.started.append(process)
        return process

    def _said(self, log: Path, process: subprocess.Popen[bytes], text: str) -> str:
        """The word that follows a text in a log."""

        def found() -> str:
            said = log.read_text(errors="replace")
            assert process.poll() is None, said
            after = said.partition(text)[2].split()
            return after[0] if after and said.endswith("\n") else ""

        return wait_for(found, what=f"{text!r} in {log}")


def can_unshare() -> bool:
    """Whether a process here may have mounts and a host name of its own."""
    try:
        return subprocess.run(["unshare", "--mount", "--uts", "true"], capture_output=True).returncode == 0
    except OSError:
        return False
