"""From work by hand to a result: the saved notebook, run cleanly in the background."""

from __future__ import annotations

import logging
import subprocess
import sys

from labkit.errors import RunProblem
from labkit.kernel.byhand import ByHand
from labkit.kernel.explored import other_values, unsaved
from labkit.kernel.saved import read_saved


def promote(hand: ByHand, logger: logging.Logger) -> str:
    """Starts a clean run of the notebook and returns its name; nothing here waits for its end.

    Raises:
        RunProblem: Cells ran, or parameters had values, that the notebook has not saved; or the run cannot be started.
    """
    hand.explored()  # looks for a notebook that was renamed
    saved = read_saved(hand.notebook)
    if saved is None:
        raise RunProblem(f"there is no notebook {hand.notebook} to run; save it first")
    missing = unsaved(hand.journal.entries, saved)
    if missing:
        cells = ", ".join(missing[:5])
        raise RunProblem(f"{cells} ran in a form that {hand.notebook.name} has not saved; save it first")
    other = other_values(saved, hand.at_start)
    if other:
        names = ", ".join(other)
        raise RunProblem(f"{names}: {hand.notebook.name} says another value; save the one that you worked with")
    command = [sys.executable, "-P", "-m", "labkit.workbench.promote", str(hand.notebook), hand.directory.name]
    asked = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if asked.returncode:
        raise RunProblem(asked.stderr.strip() or f"{' '.join(command)} ended with status {asked.returncode}")
    name = asked.stdout.strip()
    logger.info("running cleanly, in the background: %s (labkit log -f %s)", name, name[-6:])
    return name
