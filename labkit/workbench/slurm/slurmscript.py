"""The text of a batch script: readable, and of nothing but what was asked for. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labkit.errors import BadInput

GO_ON = 75  # the exit status of a run that was warned and goes on when its job is started again (EX_TEMPFAIL)
AFTER_STOP_S = 30  # of the warning, for closing the record and asking for the requeue
EARLY_S = 60  # Slurm may send the warning so much earlier than it was asked for

BODY = """
set -u

fail() {
    echo "labkit: $1" >&2
    exit 1
}

# Is all there on this node?
host=${SLURMD_NODENAME:-$HOSTNAME}
[ -d "$lab" ] || fail "the lab $lab is not there on $host: share that folder with the nodes, or choose others"
[ -x "$python" ] || fail "$python is not there on $host: the environment must lie where the nodes see it"
@CHECK@
cd "$lab" || fail "the lab $lab cannot be entered on $host"
"$python" -P -c "import labkit" || fail "$python on $host has no labkit; what it said stands above"

# The run, and the signals that are passed on to it: the warning before the time limit, and a stop.
"$python" -P -m @COMMAND@ &
runner=$!
trap 'woken=yes; kill -USR1 "$runner" 2>/dev/null' USR1
trap 'woken=yes; kill -TERM "$runner" 2>/dev/null' TERM
woken=yes
while [ "$woken" = yes ]; do # a signal ends `wait` too
    woken=no
    wait "$runner"
    status=$?
done

# Stopped for want of time, with a checkpoint to go on from: the same job goes on with the same run.
if [ "$status" -eq @GO_ON@ ]; then
    job=@JOB@
    scontrol requeue "$job" || fail "job $job was not queued again; go on with: @BY_HAND@"
fi
exit "$status"
"""


@dataclass(frozen=True)
class Task:
    """What a script brings about.

    Attributes:
        about: What it says of itself.
        name: The job's name.
        log: Where its own output goes, as sbatch reads it: `literal` of a path, and `%a` for the number of a task.
        paths: The files that it names, by the shell's variables: `lab`, `python`, and what `checks` and `command` need.
        checks: The lines that look whether what is to be done is there on `$host`.
        command: The module that does it and its arguments, as the shell reads them.
        job: The job's number, as the shell has it.
        by_hand: The command that goes on with it, as the shell fills it in.
        array: The tasks of the array, as sbatch reads them; empty for a job by itself.
    """

    about: str
    name: str
    log: str
    paths: Mapping[str, str]
    checks: tuple[str, ...]
    command: str
    job: str
    by_hand: str
    array: str = ""


def script(task: Task, settings: Mapping[str, Any]) -> str:
    """Returns the batch script of a task.

    Args:
        task: The task.
        settings: The values of the lab's settings by name, `slurm.time` and the others.

    Raises:
        BadInput: The time limit leaves nothing before the warning.
    """
    _refuse_early_warning(settings)
    lines = [str(line) for line in settings["slurm.lines"]]
    options = [*_options(task, settings), *(line for line in lines if line.startswith("#SBATCH"))]
    shell = [f"module load {shlex.quote(name)}" for name in settings["slurm.modules"]]
    shell += [line for line in lines if not line.startswith("#SBATCH")]
    parts = [
        "#!/bin/bash",
        f"# {task.about}, made by labkit. Told to stop {settings['slurm.warn_s']} s before the time limit,",
        "# it saves a checkpoint, is queued again, and goes on from there.",
        *options,
        "",
        *(f"{name}={shlex.quote(path)}" for name, path in task.paths.items()),
        *([""] if shell else []),
        *shell,
    ]
    filled = {
        "@CHECK@": "\n".join(task.checks),
        "@COMMAND@": task.command,
        "@GO_ON@": str(GO_ON),
        "@JOB@": task.job,
        "@BY_HAND@": task.by_hand,
    }
    body = BODY
    for place, text in filled.items():
        body = body.replace(place, text)
    return "\n".join(parts) + "\n" + body


def literal(path: str) -> str:
    """Returns a path for sbatch, which fills in what stands behind `%`."""
    return path.replace("%", "%%")


def _options(task: Task, settings: Mapping[str, Any]) -> list[str]:
    """Returns the lines that sbatch reads."""
    asked = {
        "array": task.array,
        "account": settings["slurm.account"],
        "partition": settings["slurm.partition"],
        "time": settings["slurm.time"],
        "cpus-per-task": settings["slurm.cpus"],
        "gpus": settings["slurm.gpus"],
        "mem": settings["slurm.memory"],
    }
    options = {
        "job-name": task.name,
        "output": task.log,
        "open-mode": "append",
        **{name: value for name, value in asked.items() if value},
        "signal": f"B:USR1@{settings['slurm.warn_s']}",
    }
    return [*(f"#SBATCH --{name}={_quoted(str(value))}" for name, value in options.items()), "#SBATCH --requeue"]


def _quoted(value: str) -> str:
    """Returns a value as sbatch reads it in a script, where quotes hold words together."""
    return shlex.quote(value)


def _refuse_early_warning(settings: Mapping[str, Any]) -> None:
    limit, warn_s = limit_s(settings["slurm.time"]), settings["slurm.warn_s"]
    if limit is not None and limit < warn_s + EARLY_S:
        raise BadInput(
            f"slurm.time = {settings['slurm.time']!r} leaves a run no time: it is warned {warn_s} s before the end, "
            f"and maybe {EARLY_S} s earlier; ask for more time, or set slurm.warn_s lower"
        )


def limit_s(text: str) -> float | None:
    """Returns the seconds of a time limit as sbatch takes it; None where it is none, or not known here.

    >>> limit_s("90"), limit_s("1:30"), limit_s("2:00:00"), limit_s("1-12"), limit_s("UNLIMITED")
    (5400.0, 90.0, 7200.0, 129600.0, None)
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if match is None:
        return None
    days, *parts = (int(part) for part in match.groups(default="0"))
    given = sum(part is not None for part in match.groups()[1:])
    if match[1] is None and given < 3:  # minutes, or minutes:seconds
        parts = [0, *parts[:2]]
    hours, minutes, seconds = parts
    return float(86400 * days + 3600 * hours + 60 * minutes + seconds)
