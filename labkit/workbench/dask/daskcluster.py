"""Reaches a Dask cluster: its scheduler, whether its workers suit a sweep, and a run that one of them has."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from labkit.errors import BadInput, FolderProblem
from labkit.record.files import now, read_json, write_json
from labkit.record.rundir import RunDir
from labkit.workbench.dask import dasknode
from labkit.workbench.dask.dasknode import Expected, Found

SCHEME = "dask://"
NOTE = "dask.json"  # in an attempt's folder: which worker has it
CONNECT_S = 10.0  # for the scheduler to answer
LOOK_S = 60.0  # for a worker to import labkit and to look at the folder


def refuse_missing() -> None:
    """Refuses to go on where the package is missing.

    Raises:
        BadInput: It is; the message says how to install it.
    """
    try:
        metadata.version("distributed")
    except metadata.PackageNotFoundError:
        raise BadInput(
            "--on dask://… needs the package distributed, which is not installed: pip install 'labkit[dask]'"
        ) from None


@asynccontextmanager
async def connected(where: str) -> AsyncIterator[Any]:
    """Gives a client of the scheduler at `dask://host:port`.

    Raises:
        BadInput: Nobody answers there.
    """
    from distributed import Client

    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters of it is told by the sweep
    address = where.removeprefix(SCHEME)  # Dask's own settings say whether it speaks TCP or TLS
    try:
        client = await Client(address, asynchronous=True, timeout=CONNECT_S, set_as_default=False, name="labkit")
    except (OSError, TimeoutError, ValueError) as error:
        raise BadInput(f"no Dask scheduler answers at {where}: {error}; start one with `dask scheduler`") from error
    try:
        yield client
    finally:
        await client.close()


async def ask(client: Any, address: str, fn: Callable[..., Any], *args: Any) -> Any:
    """Returns what a worker answers when it calls a function at once, beside its tasks; an exception as it is.

    Raises:
        OSError: The scheduler is gone.
    """
    answers = await client.run(fn, *args, workers=[address], on_error="return")
    return answers.get(address)


async def look_at_all(client: Any, where: str, expected: Expected) -> dict[str, Found]:
    """Returns the workers of a cluster by address, each of which suits.

    Raises:
        BadInput: There is none, or not each of them suits.
    """
    try:
        await client.run_on_scheduler(dasknode.versions)
    except Exception as error:
        raise BadInput(f"the scheduler at {where} cannot import labkit: {error}; install it there, too") from error
    there = list(await client.nthreads())
    if not there:
        raise BadInput(f"{where} has no workers; start some: dask worker {where.removeprefix(SCHEME)}")
    with marked(expected) as mark:
        found = dict(zip(there, await asyncio.gather(*(look(client, one, mark) for one in there)), strict=True))
    if wrong := [line for address, one in found.items() for line in told(address, one)]:
        raise BadInput("not every worker suits this sweep; nothing was started:\n" + "\n".join(wrong))
    return found


async def look(client: Any, address: str, expected: Expected) -> Found:
    """Returns what a worker is, and why it does not suit.

    Args:
        client: A client of its scheduler.
        address: The worker's address.
        expected: What the sweep needs, marked.
    """
    try:
        found = await asyncio.wait_for(ask(client, address, dasknode.look, expected), LOOK_S)
        if not isinstance(found, Found):
            return Found("", "", (f"it cannot execute labkit: {type(found).__name__}: {found}",))
        if not found.problems and not expected.is_signed(found.id):
            return replace(found, problems=(f"what it writes into {expected.runs} does not arrive here",))
        return found
    except TimeoutError:
        return Found("", "", (f"it gave no answer within {LOOK_S:.0f} s",))
    except OSError as error:
        return Found("", "", (f"it gave no answer: {error}",))


@contextmanager
def marked(expected: Expected) -> Iterator[Expected]:
    """Gives what workers must find, with a mark for them in the folder of runs, which no other folder has.

    Raises:
        FolderProblem: The folder cannot be written.
    """
    token = secrets.token_hex(16)
    mark = Path(expected.runs, f".dask-{token[:12]}")
    try:
        mark.mkdir(parents=True)
        made = replace(expected, mark=mark.name, token=token)
        made.sign("sweep")
    except OSError as error:
        raise FolderProblem(f"{expected.runs} cannot be written: {error.strerror or error}") from error
    try:
        yield made
    finally:
        shutil.rmtree(mark, ignore_errors=True)


def told(address: str, found: Found) -> list[str]:
    """Returns a line for each reason why a worker does not suit."""
    where = f"worker {address}" + f" on {found.host}" * bool(found.host)
    return [f"- {where}: {problem}" for problem in found.problems]


def note(run: RunDir, where: str, address: str) -> None:
    """Writes down which worker has a run, for whoever wants to stop it."""
    with suppress(OSError):
        write_json(run.attempt / NOTE, {"at": where, "worker": address, "noted": now()}, durable=False)


def stop(run: RunDir, number: int) -> bool:
    """Asks a run that a worker of another machine executes to stop at its next step; tells whether it was asked.

    Raises:
        BadInput: Its scheduler does not answer.
    """
    noted = read_json(run.attempt / NOTE) or {}
    where, address = str(noted.get("at") or ""), str(noted.get("worker") or "")
    if not where.startswith(SCHEME) or not address:
        return False
    refuse_missing()

    async def stop_there() -> bool:
        async with connected(where) as client:
            return await ask(client, address, dasknode.stop, run, number) is True

    return asyncio.run(stop_there())
