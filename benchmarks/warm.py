"""From asking for a kernel to its first executed cell, with PyTorch, pandas and matplotlib imported: warm beside cold.

python benchmarks/warm.py [--rounds 7] [--json]

warm    the kernel that `labkit kernels install` installs, forked from a server
cold    the same notebook kernel as Jupyter starts it
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

import rounds
from jupyter_client.manager import KernelManager

from labkit.launch import warm
from labkit.workbench.running.kernels import Kernel

CELL = "import torch, pandas, matplotlib.pyplot"
READY_S = 120.0


def first_cell(name: str) -> None:
    """Starts a kernel, executes the cell, and ends it; only up to the cell's end is timed by the caller."""
    manager = KernelManager(kernel_name=name)
    manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()
    reply = client.execute(CELL, reply=True, timeout=READY_S, store_history=False)
    assert reply["content"]["status"] == "ok", reply
    _ending.append((client, manager))


_ending: list[tuple[object, KernelManager]] = []


def end() -> None:
    """Ends the kernels that were timed."""
    while _ending:
        client, manager = _ending.pop()
        client.stop_channels()  # type: ignore[attr-defined]
        manager.shutdown_kernel(now=True)


def measure(count: int) -> dict[str, float]:
    """Returns the median seconds of each way, and how many times as fast the warm one is."""
    with tempfile.TemporaryDirectory(prefix="labkit-warm-") as place:
        os.environ |= {"XDG_RUNTIME_DIR": place, "JUPYTER_PATH": place}
        folder = Path(place) / "kernels" / "labkit-cpu"
        folder.mkdir(parents=True)
        (folder / "kernel.json").write_text(json.dumps(Kernel("labkit-cpu", "labkit (CPU)").spec()))
        first_cell("labkit-cpu")  # which asks for the server
        end()
        while not warm.servers():
            time.sleep(0.1)
        ways = {"warm": lambda: first_cell("labkit-cpu"), "cold": lambda: first_cell("python3")}
        wall, _ = rounds.interleaved(ways, count, after=end)
        warm.stop_all()
    return rounds.medians(wall, "s") | {"cold / warm": rounds.ratio(wall, "cold", "warm")}


def main() -> None:
    """Prints seconds and the ratio."""
    asked = rounds.parser(__doc__ or "", 7).parse_args()
    rounds.show(measure(asked.rounds), as_json=asked.json)


if __name__ == "__main__":
    main()
