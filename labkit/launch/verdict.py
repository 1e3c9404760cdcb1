"""What happened to a run, from what is known when its kernel has ended."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any

NOT_COUNTED = "what its kernel lost could not be recorded: kernel.json is missing (was the disk full?)"
NEAR = 0.7  # of the memory limit: a process killed there was probably killed for it


@dataclass(frozen=True)
class End:
    """The evidence.

    Attributes:
        kernel_exit: The kernel's exit `code` and the `signal` that ended it, None for none.
        outcome: What the runner said: `status`, `reason`, `error`; empty where it said nothing.
        refused: Why the kernel could not be started.
        stop: The signal that asked for a stop, or `timeout`; empty where nothing did.
        why: Why it was to stop, in a sentence; empty where nobody gave a reason.
        overdue: The grace was over, and the kernel was killed.
        runner_gone: The runner's process id, where it went away; else None.
        counted: The kernel has recorded what it lost, or is one that does not.
        grace_s: Seconds from a stop request to the kill.
        timeout_s: The time limit; None without one.
        peak_rss_bytes: The most memory that the kernel had.
        memory_limit_bytes: The most that it could have.
        oom_kills: How many processes of its control group were killed for want of memory.
    """

    kernel_exit: dict[str, int | None]
    outcome: dict[str, Any]
    refused: str = ""
    stop: str = ""
    why: str = ""
    overdue: bool = False
    runner_gone: int | None = None
    counted: bool = True
    grace_s: float = 0.0
    timeout_s: float | None = None
    peak_rss_bytes: int = 0
    memory_limit_bytes: int = 2**63
    oom_kills: int = 0


def verdict(end: End) -> tuple[str, str]:
    """Returns the status of a run and the reason in a sentence; the reason is empty where the status says all."""
    if end.refused:
        return "failed", f"the kernel did not start: {end.refused}"
    if end.outcome.get("status") == "finished" and end.kernel_exit != {"code": 0, "signal": None}:
        # Exit hooks and threads were cut off: what they had to write may be missing.
        late = f"it was killed {end.grace_s:g} s after {_limit(end)}" if end.overdue else _why_kernel_ended(end)
        return "failed", f"all cells ran, but while it closed, {late}"
    if end.outcome.get("status") == "finished":
        # A run that may have lost something must not pass for whole.
        return "finished", "" if end.counted else NOT_COUNTED
    if end.stop == "timeout":
        late = f", and no step boundary came within {end.grace_s:g} s of it" if end.overdue else ""
        return "timeout", f"the time limit of {end.timeout_s:g} s was over{late}"
    if end.overdue:
        return "killed", f"no step boundary came within {end.grace_s:g} s of {end.stop}"
    if end.stop or end.outcome.get("status") == "interrupted":
        return "interrupted", end.why or f"stopped by {end.stop or end.outcome.get('reason') or 'its user'}"
    if end.outcome:
        return str(end.outcome["status"]), str(end.outcome.get("reason") or "")
    if end.runner_gone is not None:
        gone = f"its runner {end.runner_gone} went away (killed from outside?)"
        return "killed", f"{gone}; the supervisor ended the rest"
    return "failed", _why_kernel_ended(end)


def _limit(end: End) -> str:
    return f"the time limit of {end.timeout_s:g} s" if end.stop == "timeout" else end.stop


def _why_kernel_ended(end: End) -> str:
    code, number = end.kernel_exit.get("code"), end.kernel_exit.get("signal")
    if number is None:
        return f"the kernel exited with status {code}"
    name = signal.Signals(number).name if number in set(signal.Signals) else "unknown signal"
    reason = f"the kernel was ended by signal {number} ({name})"
    if number == signal.SIGKILL:
        peak = f"its memory peaked at {end.peak_rss_bytes / 2**30:.2f} GiB"
        if end.oom_kills > 0:
            return f"{reason}: out of memory, says its control group; {peak}"
        if end.peak_rss_bytes > NEAR * end.memory_limit_bytes:
            return f"{reason}: probably out of memory; {peak}"
    return reason
