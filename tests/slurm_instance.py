"""A Slurm of one node for tests: its own daemons, in a folder, with free ports; nothing of it outlives the test.

Slurm's and munge's packages have to be there: `apt-get install slurmctld slurmd slurm-client munge`.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
PLACES = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin{os.pathsep}/sbin"
START_S = 30.0
CPUS = 4  # of its node, whatever this machine has: so many jobs run at once
KILL_WAIT_S = 10

CONFIGURATION = """
ClusterName=labkit
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MailProg=/bin/true
MpiDefault=none
JobRequeue=1
KillWait={kill_wait_s}
ReturnToService=2
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """What a Slurm of one's own lacks here; empty where nothing does."""
    lacking = [name for name in PROGRAMS if shutil.which(name, path=PLACES) is None]
    return f"{', '.join(lacking)} not installed (apt-get install slurmctld slurmd slurm-client munge)" * bool(lacking)


@contextmanager
def started(folder: Path) -> Iterator[dict[str, str]]:
    """Start it, and yield the variables with which Slurm's commands find it; end it, and all of its jobs.

    Raises:
        RuntimeError: It does not start here; the message says what its daemons printed.
    """
    host = socket.gethostname().partition(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(1024))
    controller_port, node_port = free_ports()
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            host=host, user=getpass.getuser(), folder=folder, controller_port=controller_port, node_port=node_port,
            cpus=CPUS, kill_wait_s=KILL_WAIT_S,
        )
    )  # fmt: skip
    environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PLACES}
    munge = [
        "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket",
        f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munged.seed", f"--log-file={folder}/munged.log",
    ]  # fmt: skip
    with ExitStack() as daemons:
        for command in (munge, ["slurmctld", "-D"], ["slurmd", "-D", "-N", host]):
            daemons.enter_context(daemon(command, folder, environment))
        wait_until_idle(folder, environment)
        yield environment
        cancel_all(environment)


@contextmanager
def daemon(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    program = shutil.which(command[0], path=PLACES)
    assert program is not None
    with (folder / f"{command[0]}.said").open("wb") as said:
        process = subprocess.Popen(
            [program, *command[1:]], env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_ports() -> list[int]:
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(2)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]


def ask(environment: dict[str, str], *command: str) -> str:
    """What one of Slurm's commands prints; it has to succeed."""
    program = shutil.which(command[0], path=PLACES)
    assert program is not None
    done = subprocess.run(
        [program, *command[1:]], env=os.environ | environment, capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


def wait_until_idle(folder: Path, environment: dict[str, str]) -> None:
    end = time.monotonic() + START_S
    state = ""
    while time.monotonic() < end:
        with suppress(RuntimeError, subprocess.TimeoutExpired):
            state = ask(environment, "sinfo", "--noheader", "--format=%T").strip()
        if state == "idle":
            return
        time.sleep(0.2)
    said = "\n".join(path.read_text(errors="replace")[-500:] for path in sorted(folder.glob("*.said")))
    raise RuntimeError(f"Slurm did not start within {START_S:g} s: its node is {state or 'unknown'}; {said}")


def cancel_all(environment: dict[str, str]) -> None:
    """Ends every job: none may outlive its cluster."""
    end = time.monotonic() + KILL_WAIT_S + 20
    while time.monotonic() < end and (jobs := ask(environment, "squeue", "--noheader", "--format=%A").split()):
        with suppress(RuntimeError):  # it has just ended
            ask(environment, "scancel", *dict.fromkeys(jobs))
        time.sleep(0.5)
