"""Tables for the reader of a run: what its training was set to, and how each epoch went."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.record.files import plain_json, write_json
from labkit.record.metrics import records

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from labkit.kernel.run import Run

EPOCH = "epoch"


def training_settings(
    run: Run,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    **more: Any,
) -> pd.DataFrame:
    """Records what optimizer and scheduler are set to, in the run's `training.json`, and returns it as a table.

    >>> labkit.training_settings(run, optimizer, scheduler, loss="CrossEntropyLoss", clip_norm=1.0)

    Args:
        run: Whose record to write.
        optimizer: As it is before the first step.
        scheduler: Of the learning rate.
        **more: Further settings, plain values.

    Returns:
        A column `value`, by the setting's name; the record has also what is None or switched off.

    Raises:
        TypeError: A further setting is no plain value.
    """
    import pandas as pd

    from labkit.kernel.training import settings

    facts = settings(optimizer, scheduler) | plain_json(more)
    try:
        write_json(run.directory.training, facts)
    except OSError as error:  # a full disk stops no notebook
        run.logger.error("training.json was not saved: %s", error.strerror or error)
    shown = {name: _text(value) for name, value in _rows(facts) if value is not None and value is not False}
    return pd.DataFrame({"value": shown})


def _rows(facts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields the settings flat: those of the groups after the optimizer, those of the schedule after the scheduler."""
    for name, value in facts.items():
        if name == "groups":
            for number, group in enumerate(value, start=1):
                prefix = "" if len(value) == 1 else f"group {number}: "
                yield from ((prefix + key, setting) for key, setting in group.items())
        elif name == "schedule":
            yield from ((f"schedule: {key}", setting) for key, setting in value.items())
        else:
            yield name, value


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)


def epoch_table(metrics: Path | str) -> pd.DataFrame:
    """Returns a row an epoch from a run's metrics file: `epoch`, `step`, and a column a metric.

    An epoch ends with the last step at which the metric `epoch` had its value. What was logged several times in it,
    such as the loss of each step, is there as its mean; what was logged at later steps than the last epoch, such as a
    test, is not. Where no epochs were logged, each step is a row.

    Args:
        metrics: The run's `metrics.jsonl`.
    """
    import pandas as pd

    lines = [record for record in records(Path(metrics)) if record is not None]
    ends = {record[EPOCH]: record["step"] for record in lines if EPOCH in record}  # the last line of each
    by_step = sorted((step, epoch) for epoch, step in ends.items())
    rows: dict[float, dict[str, list[float]]] = {}
    for record in lines:
        place = bisect_left(by_step, (record["step"], -math.inf))
        if ends and place == len(by_step):
            continue  # after the last epoch
        key = by_step[place][1] if ends else record["step"]
        for name, value in record.items():
            if name not in ("t", "step", EPOCH):
                rows.setdefault(key, {}).setdefault(name, []).append(value)
    table = pd.DataFrame(
        [
            {EPOCH: key, "step": ends.get(key, key)} | {name: sum(found) / len(found) for name, found in values.items()}
            for key, values in rows.items()
        ],
        columns=None if rows else [EPOCH, "step"],
    )
    return table if ends else table.drop(columns=EPOCH)
