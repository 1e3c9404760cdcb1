"""The status of a run follows from the evidence, and from nothing else."""

from __future__ import annotations

import pytest

from labkit.launch.verdict import End, verdict

CLOSED = {"code": 0, "signal": None}
KILLED = {"code": 0, "signal": 9}
FAILED = {"status": "failed", "reason": "cell 2 raised ValueError: x"}


@pytest.mark.parametrize(
    ("end", "status", "said"),
    [
        (End(CLOSED, {"status": "finished"}), "finished", ""),
        (End(CLOSED, {"status": "finished"}, counted=False), "finished", "could not be recorded"),
        (
            End(KILLED, {"status": "finished"}, stop="SIGTERM", overdue=True),
            "failed",
            "all cells ran, but while it closed",
        ),
        (End({"code": 0, "signal": 11}, {"status": "finished"}), "failed", "signal 11"),
        (End({"code": 127, "signal": None}, {}, refused="no such file"), "failed", "no such file"),
        (End(CLOSED, FAILED), "failed", "ValueError"),
        (End(KILLED, FAILED), "failed", "ValueError"),
        (End(CLOSED, FAILED, stop="SIGINT"), "interrupted", "SIGINT"),
        (End(CLOSED, {"status": "interrupted", "reason": "SIGTERM"}), "interrupted", "SIGTERM"),
        (End(KILLED, {}, stop="SIGTERM", overdue=True, grace_s=30), "killed", "within 30 s of SIGTERM"),
        (End(CLOSED, FAILED, stop="timeout", timeout_s=5), "timeout", "5 s"),
        (End(KILLED, {}, stop="timeout", timeout_s=5, overdue=True, grace_s=3), "timeout", "within 3 s"),
        (End(KILLED, {}, runner_gone=12), "killed", "its runner 12 went away"),
        (End({"code": 3, "signal": None}, {}), "failed", "exited with status 3"),
        (End({"code": 0, "signal": 11}, {}), "failed", "signal 11 (SIGSEGV)"),
        (End(KILLED, {}, peak_rss_bytes=100, memory_limit_bytes=1000), "failed", "signal 9 (SIGKILL)"),
        (End(KILLED, {}, peak_rss_bytes=900, memory_limit_bytes=1000), "failed", "probably out of memory"),
        (End(KILLED, {}, oom_kills=1), "failed", "out of memory, says its control group"),
    ],
)
def test_the_evidence_gives_status_and_reason(end: End, status: str, said: str) -> None:
    assert verdict(end)[0] == status
    assert said in verdict(end)[1] and bool(said) == bool(verdict(end)[1])
