"""A stand-in for Slurm's commands, one node of one cluster: what labkit uses of them, as their manual pages have it.

Each job is some files in `$SLURM_STAND_IN`: `7.sh` (the script, copied as sbatch does), `7.json`, `7.state`, `7.pid`
(of its batch shell), and what others ask of it: `7.requeue`, `7.cancel`, `7.late` (its time is nearly over, now). While
there is a file `hold` the queue starts nothing.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(os.environ.get("SLURM_STAND_IN", "."))
COMMANDS = ("sbatch", "squeue", "scancel", "scontrol")
KILL_WAIT_S = 5.0
LOOK_S = 0.05
OPTIONS = {
    "job-name", "output", "open-mode", "account", "partition", "time", "cpus-per-task", "gpus", "mem", "signal",
    "requeue", "qos"
}  # fmt: skip


def install(folder: Path) -> None:
    """Put the commands into a folder for the PATH."""
    folder.mkdir()
    for name in COMMANDS:
        command = shlex.join([sys.executable, str(Path(__file__).resolve()), name])
        (folder / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (folder / name).chmod(0o755)


def fail(text: str) -> int:
    print(text, file=sys.stderr)
    return 1


def put(name: str, text: str) -> None:
    (FOLDER / f".{name}").write_text(text)
    os.replace(FOLDER / f".{name}", FOLDER / name)


def state(number: str) -> str:
    """The state of a job; empty for one that the cluster has no more."""
    try:
        return (FOLDER / f"{number}.state").read_text()
    except FileNotFoundError:
        return ""


def header(text: str) -> dict[str, str]:
    """The options in the lines before the first command."""
    found: dict[str, str] = {}
    for line in text.splitlines()[1:]:
        if line.strip() and not line.startswith("#"):
            break
        if line.startswith("#SBATCH "):
            for word in shlex.split(line.removeprefix("#SBATCH "), comments=True):
                name, _, value = word.removeprefix("--").partition("=")
                found[name] = value
    return found


def sbatch(*arguments: str) -> int:
    *options, path = arguments
    text = Path(path).read_text()
    asked = header(text)
    if not text.startswith("#!"):
        return fail("sbatch: error: This does not look like a batch script.")
    if unknown := asked.keys() - OPTIONS:
        return fail(f"sbatch: unrecognized option '--{unknown.pop()}'")
    if asked.get("partition") == "nowhere":
        return fail("sbatch: error: Batch job submission failed: Invalid partition name specified")
    number = str(1 + max((int(found.stem) for found in FOLDER.glob("*.json")), default=0))
    (FOLDER / f"{number}.sh").write_text(text)
    put(f"{number}.json", json.dumps(asked))
    put(f"{number}.state", "PENDING")
    subprocess.Popen(
        [sys.executable, __file__, "node", number], start_new_session=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=(FOLDER / f"{number}.errors").open("w"),
    )  # fmt: skip
    print(number if "--parsable" in options else f"Submitted batch job {number}")
    return 0


def squeue(*arguments: str) -> int:
    with (FOLDER / "asked").open("a") as log:
        log.write(f"{' '.join(arguments)}\n")
    (numbers,) = (word.partition("=")[2].split(",") for word in arguments if word.startswith("--jobs="))
    if len(numbers) == 1 and not state(numbers[0]):
        return fail("slurm_load_jobs error: Invalid job id specified")
    for number in numbers:
        if found := state(number):
            print(f"{number}|{found}")
    return 0


def scancel(*arguments: str) -> int:
    *options, number = arguments
    if not state(number):
        return fail(f"scancel: error: Kill job error on job id {number}: Invalid job id specified")
    if not options:
        put(f"{number}.cancel", "")
    elif "--batch" in options and state(number) == "RUNNING":
        named = next(word.partition("=")[2] for word in options if word.startswith("--signal="))
        os.kill(int((FOLDER / f"{number}.pid").read_text()), signal.Signals[f"SIG{named}"])
    return 0


def scontrol(action: str, number: str) -> int:
    if action != "requeue" or not state(number):
        return fail("Invalid job id specified")
    put(f"{number}.requeue", "")
    return 0


def seconds(text: str) -> float:
    """What a time limit like `1:02:03` stands for."""
    total = 0.0
    for part in text.split(":"):
        total = 60 * total + int(part)
    return total


def below(shell: int) -> list[int]:
    """The shell and everything below it, as the job's control group has it."""
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
    found = [shell]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def end(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def node(number: str) -> int:
    """Have a job as long as the cluster has it: started, warned, ended at its limit, started again."""
    restarts = 0
    while True:
        while (FOLDER / "hold").exists() and not (FOLDER / f"{number}.cancel").exists():
            time.sleep(LOOK_S)
        if not (FOLDER / f"{number}.cancel").exists():
            put(f"{number}.state", "RUNNING")
            execute(number, restarts)
        if not (FOLDER / f"{number}.requeue").exists() or (FOLDER / f"{number}.cancel").exists():
            (FOLDER / f"{number}.state").unlink()
            return 0
        (FOLDER / f"{number}.requeue").unlink()
        put(f"{number}.state", "PENDING")
        restarts += 1


def execute(number: str, restarts: int) -> None:
    """Run a job's script once, to its end or that of its time."""
    asked = json.loads((FOLDER / f"{number}.json").read_text())
    name, _, warn_s = asked["signal"].removeprefix("B:").partition("@")
    limit = time.monotonic() + (seconds(asked["time"]) if "time" in asked else 1e9)
    environment = os.environ | {"SLURM_JOB_ID": number, "SLURM_RESTART_COUNT": str(restarts)}
    with Path(asked["output"].replace("%%", "%")).open("ab") as output:
        shell = subprocess.Popen(
            ["bash", str(FOLDER / f"{number}.sh")], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env=environment, start_new_session=True,
        )  # fmt: skip
    put(f"{number}.pid", str(shell.pid))
    warned, ending = False, 0.0
    while shell.poll() is None:
        time.sleep(LOOK_S)
        if (FOLDER / f"{number}.late").exists():
            (FOLDER / f"{number}.late").unlink()
            limit = time.monotonic() + int(warn_s)
        if not warned and time.monotonic() > limit - int(warn_s):
            warned = True
            shell.send_signal(signal.Signals[f"SIG{name}"])  # `B:` is the batch shell alone
        if not ending and (time.monotonic() > limit or (FOLDER / f"{number}.cancel").exists()):
            ending = time.monotonic() + KILL_WAIT_S
            end(below(shell.pid), signal.SIGTERM)
        if ending and time.monotonic() > ending:
            end(below(shell.pid), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(globals()[sys.argv[1]](*sys.argv[2:]))
