"""The text of the batch script of a run: readable, and of nothing but what was asked for. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GO_ON = 75  # the exit status of a run that was warned and goes on when its job is started again (EX_TEMPFAIL)
AFTER_STOP_S = 30  # of the warning, for closing the record and asking for the requeue

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
[ -f "$notebook" ] || fail "the notebook $notebook is not there on $host"
[ -f "$run/run.json" ] || fail "the run $run is not there on $host: choose a shared folder with --runs"
cd "$lab" || fail "the lab $lab cannot be entered on $host"
"$python" -P -c "import labkit" || fail "$python on $host has no labkit; what it said stands above"

# The run, and the signals that are passed on to it: the warning before the time limit, and a stop.
"$python" -P -m labkit.workbench.slurmnode "$run" &
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
    scontrol requeue "$SLURM_JOB_ID" || fail "job $SLURM_JOB_ID was not queued again; go on with: labkit resume $run"
fi
exit "$status"
"""


@dataclass(frozen=True)
class Places:
    """The files that a script names.

    Attributes:
        run: The run's directory.
        lab: The lab's directory.
        notebook: The notebook's path.
        python: The interpreter.
        log: Where the script's own output goes.
        name: The job's name.
    """

    run: str
    lab: str
    notebook: str
    python: str
    log: str
    name: str


def script(places: Places, settings: Mapping[str, Any]) -> str:
    """Returns the batch script of a run.

    Args:
        places: The files that it names.
        settings: The values of the lab's settings by name, `slurm.time` and the others.
    """
    lines = [str(line) for line in settings["slurm.lines"]]
    options = [*_options(places, settings), *(line for line in lines if line.startswith("#SBATCH"))]
    shell = [f"module load {shlex.quote(name)}" for name in settings["slurm.modules"]]
    shell += [line for line in lines if not line.startswith("#SBATCH")]
    named = {"run": places.run, "lab": places.lab, "notebook": places.notebook, "python": places.python}
    parts = [
        "#!/bin/bash",
        f"# One run of a notebook, made by labkit; asked to stop {settings['slurm.warn_s']} s before the time limit,",
        "# it saves a checkpoint, and its job is queued again and goes on from there.",
        *options,
        "",
        *(f"{name}={shlex.quote(path)}" for name, path in named.items()),
        *([""] if shell else []),
        *shell,
    ]
    return "\n".join(parts) + "\n" + BODY.replace("@GO_ON@", str(GO_ON))


def _options(places: Places, settings: Mapping[str, Any]) -> list[str]:
    """Returns the lines that sbatch reads; the log's path has `%` doubled, which sbatch would fill in."""
    asked = {
        "account": settings["slurm.account"],
        "partition": settings["slurm.partition"],
        "time": settings["slurm.time"],
        "cpus-per-task": settings["slurm.cpus"],
        "gpus": settings["slurm.gpus"],
        "mem": settings["slurm.memory"],
    }
    options = {
        "job-name": places.name,
        "output": places.log.replace("%", "%%"),
        "open-mode": "append",
        **{name: value for name, value in asked.items() if value},
        "signal": f"B:USR1@{settings['slurm.warn_s']}",
    }
    return [*(f"#SBATCH --{name}={_quoted(str(value))}" for name, value in options.items()), "#SBATCH --requeue"]


def _quoted(value: str) -> str:
    """Returns a value as sbatch reads it in a script, where quotes hold words together."""
    return shlex.quote(value)
