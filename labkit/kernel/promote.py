"""From work by hand to a result: the saved notebook, run cleanly in the background."""

from __future__ import annotations

import logging

from labkit.errors import RunProblem
from labkit.kernel import submit
from labkit.kernel.byhand import ByHand
from labkit.kernel.explored import other_values, unsaved
from labkit.kernel.saved import read_saved
from labkit.record.rundir import RunDir


def promote(hand: ByHand, logger: logging.Logger) -> str | None:
    """Starts a clean run of the notebook and returns its name; nothing here waits for its end.

    Where that cannot be, it says why and what to do: an error would count as one of the work, which goes on.
    """
    reason = _refusal(hand)
    if reason:
        logger.warning("nothing was started: %s; then call run.promote() again", reason, stacklevel=3)
        return None
    try:
        path = submit.ask({"notebook": str(hand.notebook), "values": {}, "promoted_from": hand.directory.name})
    except RunProblem as error:
        logger.warning("nothing was started: %s", error, stacklevel=3)
        return None
    name = RunDir(path).name
    logger.info("running cleanly, in the background: %s (labkit log -f %s)", name, name[-6:])
    return name


def _refusal(hand: ByHand) -> str:
    """Returns why a clean run of the saved notebook would not be one of what was worked with, and what to do."""
    hand.explored()  # looks for a notebook that was renamed
    saved = read_saved(hand.notebook)
    if saved is None:
        return f"there is no notebook {hand.notebook} to run; save it"
    missing = unsaved(hand.journal.entries, saved)
    if missing:
        return f"{', '.join(missing[:5])} ran in a form that {hand.notebook.name} has not saved; save the notebook"
    other = other_values(saved, hand.at_start)
    if other:
        return f"{', '.join(other)}: {hand.notebook.name} says another value; save the one that you worked with"
    return ""
