"""A stand-in for Slurm's commands, one node of one cluster: what labkit uses of them, as their manual pages have it.

Each job is some files in `$SLURM_STAND_IN`: `7.sh` (the script, copied as sbatch does), `7.json`, `7.state`, `7.pid`
(of its batch shell), `7.ended` (the script's exit status), and what others ask of it: `7.requeue`, `7.cancel`, `7.late`
(its time is nearly over, now; it may hold the seconds that are left). A task of an array has those of its own, as
`7_3.state`. While there is a file `hold` the queue starts nothing.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

FOLDER = Path(os.environ.get("SLURM_STAND_IN", "."))
COMMANDS = ("sbatch", "squeue", "scancel", "scontrol")
KILL_WAIT_S = 5.0
LOOK_S = 0.05
ENDED_BY = ("cancel", "requeue")
MOST_TASKS = 1000  # the number of the last task that an array may have
OPTIONS = {
    "array", "job-name", "output", "open-mode", "account", "partition", "time", "cpus-per-task", "gpus", "mem",
    "signal", "requeue", "qos"
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


def states(number: str) -> dict[str, str]:
    """The states of a job, of a task, or of all tasks of an array; nothing for one that the cluster has no more."""
    found = {}
    for path in [FOLDER / f"{number}.state", *FOLDER.glob(f"{number}_*.state")]:
        try:
            found[path.stem] = path.read_text()
        except FileNotFoundError:
            continue
    return found


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


def tasks(array: str) -> list[int]:
    """The tasks of an array like `1-3,7%2`."""
    found: list[int] = []
    for part in array.partition("%")[0].split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
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
    if "array" in asked and max(tasks(asked["array"])) > MOST_TASKS:
        return fail("sbatch: error: Batch job submission failed: Invalid job array specification")
    number = str(1 + max((int(found.stem) for found in FOLDER.glob("*.json")), default=0))
    (FOLDER / f"{number}.sh").write_text(text)
    put(f"{number}.json", json.dumps(asked))
    for name in [f"{number}_{task}" for task in tasks(asked["array"])] if "array" in asked else [number]:
        put(f"{name}.state", "PENDING")
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
    found = {name: state for number in numbers for name, state in states(number).items()}
    if len(numbers) == 1 and not found:
        return fail("slurm_load_jobs error: Invalid job id specified")
    for name, state in found.items():
        shown = name if "--array" in arguments or state == "RUNNING" else f"{name.partition('_')[0]}_[…]"
        print(f"{shown}|{state}")
    return 0


def scancel(*arguments: str) -> int:
    numbers = [word for word in arguments if not word.startswith("--")]
    asked = {name: value for name, _, value in (word.partition("=") for word in arguments if word.startswith("--"))}
    for number in numbers:
        if not states(number):
            return fail(f"scancel: error: Kill job error on job id {number}: Invalid job id specified")
        for name, state in states(number).items():
            if state != asked.get("--state", state):
                continue
            if "--signal" not in asked:
                put(f"{name}.cancel", "")
            elif "--batch" in asked and state == "RUNNING":
                os.kill(int((FOLDER / f"{name}.pid").read_text()), signal.Signals[f"SIG{asked['--signal']}"])
    return 0


def scontrol(action: str, number: str) -> int:
    if action != "requeue" or not states(number):
        return fail("Invalid job id specified")
    for name in states(number):  # the number of an array stands for all of its tasks
        put(f"{name}.requeue", "")
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
    """Have a job as long as the cluster has it, or the tasks of an array, each by itself, so many at once."""
    array = json.loads((FOLDER / f"{number}.json").read_text()).get("array")
    if array is None:
        have(number, threading.Semaphore())
        return 0
    room = threading.Semaphore(int(array.partition("%")[2] or MOST_TASKS))
    threads = [threading.Thread(target=have, args=(f"{number}_{task}", room)) for task in tasks(array)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0


def have(name: str, room: threading.Semaphore) -> None:
    """Have a job or a task as long as the cluster has it: started, warned, ended at its limit, started again."""
    restarts = 0
    cancelled, requeued = FOLDER / f"{name}.cancel", FOLDER / f"{name}.requeue"
    while True:
        while not cancelled.exists():
            if not (FOLDER / "hold").exists() and room.acquire(blocking=False):
                break
            time.sleep(LOOK_S)
        else:
            break
        put(f"{name}.state", "RUNNING")
        execute(name, restarts)
        room.release()
        if not requeued.exists() or cancelled.exists():
            break
        requeued.unlink()
        put(f"{name}.state", "PENDING")
        restarts += 1
    (FOLDER / f"{name}.state").unlink()


def execute(name: str, restarts: int) -> None:
    """Run a script once, to its end or that of its time."""
    number, _, task = name.partition("_")
    asked = json.loads((FOLDER / f"{number}.json").read_text())
    warning, _, warn_s = asked["signal"].removeprefix("B:").partition("@")
    limit = time.monotonic() + (seconds(asked["time"]) if "time" in asked else 1e9)
    # The last task of an array has the array's number for its own, and what asks for that means all of them.
    environment = os.environ | {"SLURM_JOB_ID": number, "SLURM_RESTART_COUNT": str(restarts)}
    if task:
        environment |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": task}
    with Path(asked["output"].replace("%a", task).replace("%%", "%")).open("ab") as output:
        shell = subprocess.Popen(
            ["bash", str(FOLDER / f"{number}.sh")], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env=environment, start_new_session=True,
        )  # fmt: skip
    put(f"{name}.pid", str(shell.pid))
    warned, ending, late = False, 0.0, FOLDER / f"{name}.late"
    while shell.poll() is None:
        time.sleep(LOOK_S)
        if late.exists():
            limit = time.monotonic() + float(late.read_text() or warn_s)
            late.unlink()
        if not warned and time.monotonic() > limit - int(warn_s):
            warned = True
            shell.send_signal(signal.Signals[f"SIG{warning}"])  # `B:` is the batch shell alone
        if not ending and (time.monotonic() > limit or any((FOLDER / f"{name}.{one}").exists() for one in ENDED_BY)):
            ending = time.monotonic() + KILL_WAIT_S
            put(f"{name}.state", "COMPLETING")
            end(below(shell.pid), signal.SIGTERM)
        if ending and time.monotonic() > ending:
            end(below(shell.pid), signal.SIGKILL)
    put(f"{name}.ended", str(shell.returncode))


if __name__ == "__main__":
    sys.exit(globals()[sys.argv[1]](*sys.argv[2:]))
