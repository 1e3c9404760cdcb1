"""What it costs to record a run so that it can be made again, and to make it again.

    python benchmarks/reproduce.py [--rounds 5] [--json] [--only reproduce,record,files]

Ways take turns, in another order each round; compared are ratios within a round. `CPU` is the processor's time of all
processes, which other programs disturb less.

    run         labkit run of the digits notebook, two epochs, record and report included
    reproduce   labkit reproduce of it, in the same environment, judgement included
    recorded    labkit run --no-report of a training of 20 s or more on 128 MB of data files
    plain       the same without what is recorded for reproduction alone: data files, weights, source and packages
    labkit      the fingerprint of a file of 500 MB
    blake3      the blake3 package over the same bytes in memory, with the same threads
    again       the fingerprint of the unchanged file, which is not read again
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import nbformat
import rounds
from blake3 import blake3
from nbformat.v4 import new_code_cell, new_notebook

from labkit.launch import processes
from labkit.record.fingerprints import Known, of_file

ROOT = Path(__file__).resolve().parent.parent
LABKIT = [sys.executable, "-m", "labkit.cli"]
FILE_BYTES = 500 * 2**20
DATA_FILES, SAMPLES, FEATURES = 8, 4096, 1024  # of float32: 16 MB a file
TRAINING = f"""\
import numpy as np
import torch
from torch import nn

import labkit

run = labkit.start()
labkit.seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear({FEATURES}, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
loss_function = nn.CrossEntropyLoss()
state = run.restore(model=model, optimizer=optimizer, state={{"step": 0}})
for epoch in run.progress(range(3), "epoch"):
    for number in range({DATA_FILES}):
        inputs = torch.from_numpy(np.load(f"../data/{{number}}.npy"))  # ({SAMPLES}, {FEATURES})
        targets = (inputs[:, 0] * 10).long()  # ({SAMPLES},)
        for batch in torch.arange({SAMPLES}).split(64):
            loss = loss_function(model(inputs[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(state["step"], loss=loss.detach())
            state["step"] += 1
    run.checkpoint(state=state)
"""
# Python executes this at its start, in the runner and in the kernel.
UNRECORDED = """\
import os

if os.environ.get("UNRECORDED"):
    from labkit.launch import inputs
    from labkit.record import provenance

    inputs.watch = lambda: None
    provenance.record_source = provenance.record_modules = lambda *_: None
"""
# It can only be done where PyTorch is loaded already.
NO_WEIGHTS = """\
import os

if os.environ.get("UNRECORDED"):
    from labkit.kernel.prints import Prints

    Prints.weights = Prints._data = lambda *_: None
"""


def timed(command: list[str], folder: Path, cpu_s: list[float], **variables: str) -> str:
    """Runs a command to its end, notes the processor's time that it took, and returns what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, check=True, cwd=folder, env=os.environ | variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with suppress(ChildProcessError):
        while os.waitpid(-1, 0):
            pass  # a run's supervisor, and its kernel with it, comes here when its runner is gone
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return done.stdout.decode()


def in_turn(commands: dict[str, Callable[[list[float]], object]], count: int, over: str) -> dict[str, float]:
    """Returns the median seconds of commands, and their ratios to one of them."""
    settle = 1
    processes.adopt_orphans()
    cpu: rounds.Times = {name: [] for name in commands}

    def way(name: str) -> Callable[[], object]:
        return lambda: commands[name](cpu[name])

    wall, _ = rounds.interleaved({name: way(name) for name in commands}, count, settle)
    cpu = {name: found[settle:] for name, found in cpu.items()}
    (other,) = set(commands) - {over}
    ratios = {
        f"{other} / {over}": rounds.ratio(wall, other, over),
        f"{other} / {over}, CPU": rounds.ratio(cpu, other, over),
    }
    return rounds.medians(wall, "s") | ratios


def reproducing(folder: Path, count: int) -> dict[str, float]:
    """Measures a run, and the same made again from its record."""
    lab = folder / "digits"
    (lab / "notebooks").mkdir(parents=True)
    shutil.copy(ROOT / "notebooks" / "digits-cnn.ipynb", lab / "notebooks")
    runs = ["--runs", str(lab / "runs")]
    command = [*LABKIT, "run", "notebooks/digits-cnn.ipynb", "-p", "EPOCHS=2", *runs]
    first = timed(command, lab, []).split()[-1]
    again = [*LABKIT, "reproduce", first, "--yes", *runs]
    return in_turn(
        {"run": lambda cpu: timed(command, lab, cpu), "reproduce": lambda cpu: timed(again, lab, cpu)}, count, "run"
    )


def recording(folder: Path, count: int) -> dict[str, float]:
    """Measures a training with and without what is recorded for reproduction."""
    import numpy as np

    lab = folder / "training"
    for name in ("notebooks", "data", "start"):
        (lab / name).mkdir(parents=True)
    for number in range(DATA_FILES):
        np.save(lab / "data" / f"{number}.npy", np.random.default_rng(number).random((SAMPLES, FEATURES), np.float32))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [new_code_cell(NO_WEIGHTS), new_code_cell(TRAINING)]
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), lab / "notebooks" / "training.ipynb")
    (lab / "start" / "sitecustomize.py").write_text(UNRECORDED)
    command = [*LABKIT, "run", "notebooks/training.ipynb", "--no-report", "--runs", str(lab / "runs")]
    path = {"PYTHONPATH": str(lab / "start")}

    def run(cpu: list[float], **variables: str) -> None:
        made = Path(timed(command, lab, cpu, **path, **variables).split()[-1])
        read = json.loads((made / "inputs.json").read_bytes())["files"] if (made / "inputs.json").exists() else {}
        recorded = len(read) == DATA_FILES and (made / "source" / "packages.json").exists()
        assert recorded != bool(variables), "what was to be measured was not"
        (lab / "runs" / ".fingerprints.jsonl").unlink(missing_ok=True)  # as if each run had new data

    return in_turn({"recorded": run, "plain": lambda cpu: run(cpu, UNRECORDED="1")}, count, "plain")


def files(folder: Path, count: int) -> dict[str, float]:
    """Measures the fingerprint of a large file."""
    path, runs = folder / "large", folder / "runs"
    runs.mkdir(exist_ok=True)
    data = os.urandom(FILE_BYTES)
    path.write_bytes(data)
    os.utime(path, (0, 0))
    while not (runs / ".fingerprints.jsonl").exists():  # until the file has been left alone for long enough
        known = Known(runs)
        known.of_file(path)
        known.save()
    ways: dict[str, Callable[[], object]] = {
        "labkit": lambda: of_file(path),
        "blake3": lambda: blake3(data, max_threads=blake3.AUTO).digest(),
        "again": lambda: Known(runs).of_file(path),
    }
    wall, _ = rounds.interleaved(ways, count)
    speed = {"speed, labkit / blake3": rounds.ratio(wall, "blake3", "labkit")}
    return rounds.medians(wall, "ms", 1e3) | speed


PARTS = {"reproduce": reproducing, "record": recording, "files": files}


def main() -> None:
    """Prints seconds and ratios."""
    parser = rounds.parser(__doc__ or "", 5)
    parser.add_argument("--only", default=",".join(PARTS), help="which of reproduce, record, files")
    asked = parser.parse_args()
    with rounds.own_runs() as folder:
        result: dict[str, float] = {}
        for name in asked.only.split(","):
            result |= PARTS[name](folder, asked.rounds)
    rounds.show(result, as_json=asked.json)


if __name__ == "__main__":
    main()
