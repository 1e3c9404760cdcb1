"""Tables for the reader of a run: what its training was set to, and how each epoch went."""

from __future__ import annotations

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

    An epoch ends with the line that has the metric `epoch`. What was logged several times in it, such as the loss of
    each step, is there as its mean; what was logged after the last epoch, such as a test, is not. Where no epochs were
    logged, each step is a row.

    Args:
        metrics: The run's `metrics.jsonl`.
    """
    import pandas as pd

    lines = [record for record in records(Path(metrics)) if record is not None]
    ends_epoch = EPOCH if any(EPOCH in record for record in lines) else "step"
    rows: list[dict[str, float]] = []
    values: dict[str, list[float]] = {}
    for record in lines:
        for name, value in record.items():
            if name not in ("t", "step", EPOCH):
                values.setdefault(name, []).append(value)
        if ends_epoch in record:
            means = {name: sum(found) / len(found) for name, found in values.items()}
            rows.append({EPOCH: record[ends_epoch], "step": record["step"]} | means)
            values = {}
    table = pd.DataFrame(rows, columns=[EPOCH, "step"] if not rows else None)
    return table if ends_epoch == EPOCH else table.drop(columns=EPOCH)
