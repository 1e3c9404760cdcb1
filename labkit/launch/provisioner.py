"""A Jupyter kernel provisioner whose kernels are owned by a supervisor and talk over private sockets."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import orjson
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import KernelProvisionerBase
from traitlets import Bool

from labkit.launch import channel, scratch, warm
from labkit.launch.channel import KERNEL, LOG
from labkit.record.given import GIVEN, INLINE, noted, restored

SOCKETS_S = 0.5  # to wait for those of a warm kernel
OVERSEEN = "--IPKernelApp.parent_handle=1"  # one that it does not watch: its supervisor ends it
STOCK_LAUNCHERS = ("ipykernel_launcher", "ipykernel")


class RunProvisioner(KernelProvisionerBase):
    """Starts a kernel through a supervisor.

    Beyond what Jupyter passes, `start_kernel` takes `attempt` (a run's folder), `log`, `grace_s`, `timeout_s` and
    `fixed`, variables that no kernel specification may change.
    """

    starts_server = Bool(False, help="Where no server of warm kernels is ready, start one for the next time.").tag(
        config=True
    )
    channel: socket.socket | None = None
    pid: int | None = None
    exit_code: int | None = None
    stopping: str = ""
    refused: str = ""
    _waiting: bytes = b""
    _scratch: scratch.Scratch | None = None

    @property
    def _folder(self) -> str:
        return str(self._scratch.path) if self._scratch is not None else ""

    @property
    def has_process(self) -> bool:
        """Tells whether there is a supervisor."""
        return self.channel is not None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Writes the connection file, in a folder that only this user can enter, and builds the command."""
        manager = self.parent
        if not os.path.isdir(self._folder):  # else it is started again, and clients wait at its sockets
            self._remove_folder()
            self._scratch = scratch.make()
        manager.transport = "ipc"
        manager.ip = str(Path(self._folder, "k"))
        manager.connection_file = str(Path(self._folder, "connection.json"))
        manager.write_connection_file()
        self.connection_info = manager.get_connection_info()
        command = manager.format_kernel_cmd(extra_arguments=kwargs.pop("extra_arguments", []))
        fixed = kwargs.pop("fixed", {})
        found = await super().pre_launch(cmd=command, **kwargs)
        env = found["env"] | fixed  # after the specification's own
        before = restored(os.environ)
        found["env"] = env | {GIVEN: noted(before, {"MPLBACKEND": INLINE} | env)}
        return found

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Has the supervisor start the kernel."""
        env = dict(kwargs["env"])
        log = kwargs.get("log")
        if log:
            env[LOG] = str(log)
        command = own_kernel(cmd) if log else overseen(cmd)
        self.pid = self.exit_code = None
        self.stopping = self.refused = ""
        self._waiting = b""
        self.channel, cold = channel.join(), "its supervisor was there before"
        if self.channel is None:
            self.channel, cold = _supervisor(command, env, self.starts_server)
        start = {
            "argv": command,
            "env": env,
            "cwd": str(kwargs.get("cwd") or Path.cwd()),
            "run": str(kwargs["attempt"]) if kwargs.get("attempt") else None,
            "log": str(log) if log else None,
            "grace_s": kwargs.get("grace_s", 30.0),
            "timeout_s": kwargs.get("timeout_s"),
            "scratch": self._folder,
            "cold": cold,
        }
        self.send({"start": start})
        while self.pid is None and self.exit_code is None:
            await self._hear(5.0)
        if not cold:
            await self._wait_for_sockets()
        return self.connection_info

    async def _wait_for_sockets(self) -> None:
        """Lets a warm kernel, which needs no longer than that, make its sockets before a client asks for them.

        One that comes too early tries again only after a tenth of a second.
        """
        info = self.connection_info
        sockets = [f"{info['ip']}-{port}" for name, port in info.items() if name.endswith("_port")]
        end = time.monotonic() + SOCKETS_S
        while await self.poll() is None and time.monotonic() < end and not all(map(os.path.exists, sockets)):
            await asyncio.sleep(0.002)

    def send(self, message: dict[str, Any]) -> None:
        """Sends one message to the supervisor; a dead one is noticed when it is heard from."""
        if self.channel is not None:
            try:
                # Names and values of the environment need not be UTF-8; the standard library writes them as surrogates.
                self.channel.sendall(json.dumps(message).encode() + b"\n")
            except OSError:
                pass

    async def _hear(self, patience_s: float) -> None:
        """Waits for the supervisor's next word."""
        assert self.channel is not None
        self.channel.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            data = await asyncio.wait_for(loop.sock_recv(self.channel, 2**16), patience_s)
        except TimeoutError:
            return
        except OSError:
            data = b""
        finally:
            self.channel.setblocking(True)
        self._take(data)

    def _take(self, data: bytes) -> None:
        if not data and self.exit_code is None:
            self.exit_code = -signal.SIGKILL  # the supervisor is gone, and its kernel with it
        *lines, self._waiting = (self._waiting + data).split(b"\n")
        for line in lines:
            message = orjson.loads(line)
            if "started" in message:
                self.pid = message["started"]["pid"]
            if "refused" in message:
                self.refused = message["refused"]
            if "stopping" in message:
                self.stopping = message["stopping"]
            if "exited" in message:
                number = message["exited"]["signal"]
                self.exit_code = -number if number else message["exited"]["code"]

    async def poll(self) -> int | None:
        """Returns None while the kernel lives, else its exit code."""
        if self.channel is None:
            return 0
        self.hear_now()
        return self.exit_code

    def hear_now(self) -> None:
        """Takes in what the supervisor has said so far, without waiting."""
        while self.channel is not None and self.exit_code is None:
            try:
                self._take(self.channel.recv(2**16, socket.MSG_DONTWAIT))
            except BlockingIOError:
                return
            except OSError:
                self._take(b"")

    async def wait(self) -> int | None:
        """Waits until the kernel and everything below it has ended, and returns its exit code."""
        while self.channel is not None and self.exit_code is None:
            await self._hear(1.0)
        self.let_go()
        return self.exit_code

    async def send_signal(self, signum: int) -> None:
        """Sends a signal to the kernel and its process group."""
        self.send({"signal": int(signum)})

    async def shutdown_requested(self, restart: bool = False) -> None:
        """Notes that the kernel will end, and whether it comes back to the same sockets."""
        if restart:
            self.send({"keep": True})

    async def kill(self, restart: bool = False) -> None:
        """Ends the kernel without asking."""
        await self.shutdown_requested(restart)
        self.send({"signal": int(signal.SIGKILL)})

    async def terminate(self, restart: bool = False) -> None:
        """Asks the kernel to end."""
        self.send({"signal": int(signal.SIGTERM)})

    async def cleanup(self, restart: bool = False) -> None:
        """Lets go of the supervisor and removes the folder of the sockets."""
        self.let_go()
        if not restart:
            self._remove_folder()

    def _remove_folder(self) -> None:
        if self._scratch is not None:
            self._scratch.remove()

    def let_go(self) -> None:
        """Closes the channel; a supervisor whose kernel still lives then ends it."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None


def _supervisor(command: list[str], env: dict[str, str], starts_server: bool) -> tuple[socket.socket, str]:
    """Returns the channel to a supervisor, one that can fork a warm kernel where that can be had; else why not."""
    is_python = len(command) > 2 and command[1] == "-m" and command[2] in warm.LAUNCHERS
    if not is_python or not _is_this_environment(command[0]):
        return channel.launch(), "another environment or language"
    try:
        return warm.launch(env, start=starts_server), ""
    except warm.Cold as reason:
        return channel.launch(), str(reason)


def own_kernel(command: list[str]) -> list[str]:
    """Returns the command of a stock IPython kernel of this environment with labkit's kernel in its place.

    Kernels of other environments and languages are left as they are: labkit may not be there to import.
    """
    match command:
        case [python, "-m", module, *rest] if module in STOCK_LAUNCHERS and _is_this_environment(python):
            return [python, "-m", KERNEL, *rest]
        case [python, option, *_] if option.startswith("-X"):
            return [python, option, *own_kernel([python, *command[2:]])[1:]]
    return command


def overseen(command: list[str]) -> list[str]:
    """Returns the command of a stock IPython kernel that has a parent: it prints no advice on how to end it."""
    match command:
        case [_, "-m", module, *_] if module in STOCK_LAUNCHERS:
            return [*command, OVERSEEN]
    return command


def _is_this_environment(python: str) -> bool:
    """Tells whether a command is this Python: from the same folder, in which there may be others."""
    found = shutil.which(python)
    if found is None or os.path.realpath(found) != os.path.realpath(sys.executable):
        return False
    return os.path.normpath(Path(found).parent) == os.path.normpath(Path(sys.executable).parent)
