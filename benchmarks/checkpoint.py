"""How long a training waits for a checkpoint of 100 MB, beside a write of the same bytes.

python benchmarks/checkpoint.py [--rounds 9] [--folder DIR] [--json]

labkit    what `run.checkpoint` takes from the loop; the file is written meanwhile by a thread
save      torch.save, which does not wait for the disk
write     a write of the same bytes and an fsync
copy      a copy of the tensors into memory that is there already: the least that is possible
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import rounds
import torch
from torch import nn

import labkit

PARAMETERS = 25_000_000  # of four bytes


def measure(count: int, folder: Path | None) -> dict[str, float]:
    """Returns the median milliseconds of each way, and their ratios to the plain write."""
    with rounds.own_runs() as own:
        place = folder or own
        os.environ["LABKIT_RUNS"] = str(place / "runs")
        run = labkit.start()
        model = nn.ParameterDict({f"layer {n}": torch.rand(PARAMETERS // 10) for n in range(10)})
        data = torch.rand(PARAMETERS).numpy().tobytes()
        kept = {name: tensor.detach().clone() for name, tensor in model.items()}

        def write() -> None:
            with (place / "raw").open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

        def copy() -> None:
            for name, tensor in model.items():
                kept[name].copy_(tensor.detach())

        ways: dict[str, Callable[[], object]] = {
            "labkit": lambda: run.checkpoint(model=model, keep=1),
            "save": lambda: torch.save(model.state_dict(), place / "saved.pt"),
            "write": write,
            "copy": copy,
        }
        wall, _ = rounds.interleaved(ways, count, after=lambda: run._training_state().wait())
        run.finish()
    result = rounds.medians(wall, "ms", 1e3)
    return result | {f"{name} / write": rounds.ratio(wall, name, "write") for name in ways if name != "write"}


def main() -> None:
    """Prints milliseconds and ratios."""
    parser = rounds.parser(__doc__ or "", 9)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; by default a temporary one")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rounds.show(measure(asked.rounds, asked.folder), as_json=asked.json)


if __name__ == "__main__":
    main()
