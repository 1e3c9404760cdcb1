"""The workers of a Dask cluster as an executor of runs: one run at a time on each, in a folder of runs that all share.

Each worker is looked at before it gets a run, also one that joins later. A run is given to one worker by name: the task
of a worker that died Dask would do again elsewhere by itself, and a directory must never have two runs.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.record.rundir import RunDir
from labkit.record.status import FRESH_S, status
from labkit.workbench.dask import daskcluster, dasknode
from labkit.workbench.dask.dasknode import Expected, Found
from labkit.workbench.notebooks.notebook import Notebook
from labkit.workbench.running.job import Job
from labkit.workbench.running.workers import WorkerGone

TICK_S = 1.0  # between two looks at which workers there are
ANSWER_S = 30.0  # for a busy scheduler to answer
NOBODY_S = 300.0  # without any worker, after which a sweep ends
AGAIN_S = 60.0  # after which a worker that did not suit is looked at again
BEGIN_S = 5.0  # for the first sign of a run whose worker died, to tell it from one that never began
OVER_S = FRESH_S + 30.0  # for the end of a run whose machine died: until its heartbeat is old


@dataclass(eq=False)
class Call:
    """A run that a worker is to execute.

    Attributes:
        future: What the sweep waits for.
        carry_out: What the worker calls with the job.
        job: The run.
        address: The worker that has it; empty while none has.
        task: Dask's future.
        is_lost: Its worker is gone, and what became of it is not known yet.
        is_called_off: It was to stop before it began.
    """

    future: Future[Any]
    carry_out: Callable[[Job], Any]
    job: Job
    address: str = ""
    task: Any = None
    is_lost: bool = False
    is_called_off: bool = False

    def fail(self, error: Exception) -> None:
        """Says that there will be no result."""
        if self.address or self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


class DaskWorkers(Executor):
    """Executes runs on the workers of a Dask cluster.

    Args:
        where: `dask://host:port`, the scheduler.
        source: The notebook that is run.
        runs: The folder of runs.
        kernel: The kernel; None for the one that the notebook names.
        jobs: How many runs at once at most; None for one on each worker.

    Raises:
        BadInput: There is no such scheduler or no worker, or a worker does not suit.
    """

    def __init__(
        self, where: str, source: Notebook, runs: Path, kernel: str | None = None, jobs: int | None = None
    ) -> None:
        daskcluster.refuse_missing()
        self.where = where
        self._expected = Expected(
            str(runs), str(source.path), source.sha256, kernel or source.kernel, dasknode.versions()
        )
        self._jobs = jobs or sys.maxsize
        self._open: set[Call] = set()
        self._fit: set[str] = set()
        self._broken = ""
        self._is_leaving = self._is_killed = False
        self._told: set[str] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._began: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="dask", daemon=True)
        self._thread.start()
        self._began.result()

    def size(self) -> int:
        """Returns how many runs can go on at once now, those that nobody can tell of any more included."""
        if self._broken:
            return 1  # which is told why
        return min(self._jobs, len(self._fit)) + sum(call.is_lost for call in list(self._open))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Has a worker execute a run, whose job is the only argument."""
        if self._is_leaving:
            raise RuntimeError("these workers have been shut down")
        call = Call(Future(), fn, *args, **kwargs)
        self._open.add(call)
        call.future.add_done_callback(lambda _: self._open.discard(call))
        self._loop.call_soon_threadsafe(self._take, call)
        return call.future

    def stop(self, run: RunDir, number: int, why: Mapping[str, Any] | None = None) -> bool:
        """Has a run asked to stop, as `outcome.stop` does, on whichever machine it is; True, for it will be asked."""
        self._loop.call_soon_threadsafe(lambda: self._keep(self._stop(run, number, why)))
        return True

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leaves the cluster when what was submitted is done; or only what goes on."""
        if cancel_futures:
            for call in list(self._open):
                call.future.cancel()
        self._leave(is_killed=False)
        if wait:
            self._thread.join()

    def kill(self) -> None:
        """Leaves the cluster at once; the workers end its runs within seconds."""
        self._leave(is_killed=True)
        self._thread.join()

    def __exit__(self, kind: Any, *_: object) -> None:
        self.kill() if kind is not None else self.shutdown()

    def _leave(self, *, is_killed: bool) -> None:
        self._is_leaving, self._is_killed = True, self._is_killed or is_killed
        with suppress(RuntimeError):  # it has left already
            self._loop.call_soon_threadsafe(self._awake.set)

    # in the thread that speaks to the cluster

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._awake = asyncio.Event()
        self._calls: asyncio.Queue[Call] = asyncio.Queue()
        try:
            async with daskcluster.connected(self.where) as client:
                self._client = client
                found = await daskcluster.look_at_all(client, self.where, self._expected)
                self._fit.update(found)
                self._began.set_result(None)
                await self._serve(found)
        except BaseException as error:
            if not self._began.done():
                self._began.set_exception(error)
                return
            self._broken = self._broken or f"{self.where}: {type(error).__name__}: {error}"
        while not self._calls.empty():
            self._take(self._calls.get_nowait())
        while not self._is_left():
            await self._tick()

    def _is_left(self) -> bool:
        return self._is_killed or (self._is_leaving and not self._open)

    async def _tick(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._awake.wait(), TICK_S)
        self._awake.clear()

    def _take(self, call: Call) -> None:
        if self._broken:
            call.fail(BrokenExecutor(self._broken))
        else:
            self._calls.put_nowait(call)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _serve(self, found: dict[str, Found]) -> None:
        """Passes runs on to the workers that there are, until the sweep leaves or the cluster is gone."""
        lines = {address: asyncio.create_task(self._line(address, one)) for address, one in found.items()}
        seen = time.monotonic()
        try:
            while not self._is_left():
                there = await self._there()
                for address in [one for one, line in lines.items() if one not in there or line.done()]:
                    lines.pop(address).cancel()
                for address in there - set(lines):
                    lines[address] = asyncio.create_task(self._line(address))
                seen = time.monotonic() if self._fit else seen
                self._look_for_anybody(time.monotonic() - seen)
                if self._broken:
                    return
                await self._tick()
        finally:
            for line in lines.values():
                line.cancel()
            await asyncio.gather(*lines.values(), return_exceptions=True)

    async def _there(self) -> set[str]:
        """Returns the addresses of the workers that there are."""
        try:
            if self._client.status == "running":
                return set(await asyncio.wait_for(self._client.nthreads(), ANSWER_S))
        except (OSError, TimeoutError):
            pass
        self._broken = f"the Dask scheduler at {self.where} is gone"
        return set()

    def _look_for_anybody(self, missing_s: float) -> None:
        if missing_s > NOBODY_S:
            self._broken = f"{self.where} has had no worker for {NOBODY_S / 60:.0f} minutes"
        elif missing_s > 5 * TICK_S:
            self._say(f"{self.where} has no worker left; waiting {NOBODY_S / 60:.0f} minutes for another one")

    def _say(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            print(f"labkit: {text}", file=sys.stderr)

    async def _line(self, address: str, found: Found | None = None) -> None:
        """Passes one run after the other on to a worker, as long as it is there."""
        if found is None:
            with daskcluster.marked(self._expected) as expected:
                found = await daskcluster.look(self._client, address, expected)
        if found.problems:
            wrong = "\n".join(daskcluster.told(address, found))
            self._say(f"a worker that joined does not suit and is left out:\n{wrong}")
            await asyncio.sleep(AGAIN_S)
            return
        self._fit.add(address)
        try:
            while await self._pass_on(await self._calls.get(), address, found.id):
                pass
        finally:
            self._fit.discard(address)

    async def _pass_on(self, call: Call, address: str, worker_id: str) -> bool:
        """Has a worker execute a run; tells whether it can be given another one."""
        if not call.future.set_running_or_notify_cancel():
            return True
        run, call.address = call.job.directory, address
        daskcluster.note(run, self.where, address)
        key = f"labkit-{run.id}-{secrets.token_hex(4)}"
        alone = {"workers": [address], "allow_other_workers": False, "pure": False, "retries": 0}
        try:
            call.task = self._client.submit(dasknode.attend, worker_id, call.carry_out, call.job, key=key, **alone)
            call.future.set_result(await call.task)
            return True
        except asyncio.CancelledError:
            self._keep(self._lose(call, WorkerGone(f"its worker {address} is gone")))
            raise
        except Exception as error:
            self._keep(self._lose(call, error))
            return False

    async def _lose(self, call: Call, error: Exception) -> None:
        """Gives a run back whose worker cannot tell any more what came of it, as soon as it has ended."""
        call.is_lost = True
        began, run = time.monotonic(), call.job.directory
        while (age_s := time.monotonic() - began) < OVER_S and not status(run).is_over:
            if call.is_called_off or (age_s > BEGIN_S and not run.process.exists()):
                break
            await asyncio.sleep(0.2)
        call.fail(CancelledError() if call.is_called_off else BrokenExecutor(self._broken) if self._broken else error)

    async def _stop(self, run: RunDir, number: int, why: Mapping[str, Any] | None) -> None:
        while call := next((one for one in list(self._open) if one.address and one.job.run == str(run.path)), None):
            try:
                answer = await daskcluster.ask(self._client, call.address, dasknode.stop, run, number, why)
            except OSError:
                return  # the scheduler is gone, and the run ends without being asked
            if answer is False:
                call.is_called_off = True
                await call.task.cancel()
            if answer is None or isinstance(answer, bool):
                return
            await asyncio.sleep(TICK_S)
