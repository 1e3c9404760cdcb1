"""A log is shown as it was written, cannot steer the terminal, and holds nobody up."""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from records import made, quick, started

from labkit.errors import RunNotFound
from labkit.record.files import write_json
from labkit.record.process import Process
from labkit.record.rundir import RunDir
from labkit.workbench.logview import lines

LOG = """\
printed
2026-11-21 10:15:00.123 INFO [x.ipynb training: train: 12] loss is 0.5
2026-11-21 10:15:01.123 WARNING [x.ipynb training: train: 13] slow
2026-11-21 10:15:02.123 ERROR [x.ipynb training: train: 14] failed
Traceback (most recent call last):
  File "x", line 1
\tdetail
printed again
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return made(tmp_path / "runs")


def shown(run: RunDir, text: str | bytes, **options) -> str:
    run.log.write_bytes(text if isinstance(text, bytes) else text.encode())
    return "".join(lines(run, **options))


def test_a_log_is_shown_whole(run: RunDir):
    assert shown(run, LOG) == LOG
    assert shown(run, "no end of line") == "no end of line"
    assert shown(run, "") == ""


def test_each_attempt_of_a_resumed_run_has_its_own_log(run: RunDir):
    (run.attempts / "2").mkdir()
    (run.attempts / "1" / "output.log").write_text("first try\n")
    assert shown(run, "second try\n") == shown(run, "second try\n", attempt=2) == "second try\n"
    assert shown(run, "", attempt=1) == shown(run, "", attempt=1, follow=True) == "first try\n"
    with pytest.raises(RunNotFound, match="has no attempt 3, only attempts 1 to 2"):
        shown(run, "", attempt=3)


def test_only_lines_that_hold_a_text_are_shown(run: RunDir):
    assert shown(run, LOG, grep="printed") == "printed\nprinted again\n"
    assert shown(run, LOG, grep="[") == "".join(line + "\n" for line in LOG.splitlines()[1:4])


@pytest.mark.parametrize(("level", "count"), [("debug", 6), ("info", 6), ("warning", 5), ("error", 4), ("CRITICAL", 0)])
def test_a_level_shows_logged_lines_from_it_up_with_their_tracebacks(run: RunDir, level: str, count: int):
    found = shown(run, LOG, level=level).splitlines()
    assert len(found) == count
    assert "printed" not in found
    assert "printed again" not in found


def test_the_traceback_of_a_cell_is_an_error(run: RunDir):
    raised = "ValueError      Traceback (most recent call last)\nCell In[3], line 1\n----> 1 f()\n\nValueError: boom\n"
    text = f"printed\n{raised}"
    assert shown(run, text, level="error") == raised
    assert shown(run, text, level="critical") == ""


ESCAPES = {
    "clear screen": ("a\x1b[2Jb\n", "ab\n"),
    "window title": ("a\x1b]0;owned\x07b\n", "ab\n"),
    "title without an end": ("a\x1b]0;owned\nb\n", "a\nb\n"),
    "device control": ("a\x1bP$q\x1b\\b\n", "ab\n"),
    "eight-bit control": ("a\x9b2Jb\n", "a2Jb\n"),
    "reset": ("a\x1bcb\n", "ab\n"),
    "escape at the end": ("a\x1b\n", "a\n"),
    "escape in escape": ("\x1b\x1b[2J\x1b\x00[2Jx\n", "[2J[2Jx\n"),
    "backspace and bell": ("a\b\x07b\n", "ab\n"),
}


@pytest.mark.parametrize(("text", "expected"), ESCAPES.values(), ids=ESCAPES)
def test_a_log_cannot_steer_the_terminal(run: RunDir, text: str, expected: str):
    assert shown(run, text) == expected


def test_colours_tabs_and_returns_stay(run: RunDir):
    assert shown(run, "\x1b[1;31mred\x1b[0m\t50 %\r100 %\n") == "\x1b[1;31mred\x1b[0m\t50 %\r100 %\n"


@quick
@given(
    st.binary(max_size=200) | st.text(alphabet="\x1b[]PX^_?;m0123ABab\x07\\\n\r\x9b\x00 ", max_size=100).map(str.encode)
)
@example(b"\x1b]" * 50_000)
@example(b"\x1b[" + b"0" * 100_000)
def test_no_bytes_bring_a_control_beyond_colours_to_the_terminal(tmp_path_factory, data: bytes):
    run = RunDir(tmp_path_factory.getbasetemp())
    began = time.perf_counter()
    text = shown(run, data)
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]|\x1b(?!\[[0-9;]*m)", text)
    assert text.count("\n") == data.count(b"\n")
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("kind", ["missing", "link", "fifo", "folder", "linked folder"])
def test_a_log_that_is_none_is_not_followed_and_holds_nobody_up(run: RunDir, tmp_path: Path, kind: str, follow: bool):
    run.log.unlink()
    (tmp_path / "outside").write_text("secret\n")
    match kind:
        case "link":
            run.log.symlink_to(tmp_path / "outside")
        case "fifo":
            os.mkfifo(run.log)
        case "folder":
            run.log.mkdir()
        case "linked folder":
            (tmp_path / "outside run").mkdir()
            (tmp_path / "outside run" / "output.log").write_text("secret\n")
            (tmp_path / "linked").symlink_to("outside run")
            run = RunDir(tmp_path / "linked")
    assert list(lines(run, follow=follow)) == []


def test_following_shows_what_comes_until_the_run_is_over(run: RunDir):
    run.exit.unlink()
    started(run, Process.of(os.getpid()))
    run.log.write_bytes("old\nhalf a charact\xe9r: ä".encode()[:-1])
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.extend(lines(run, follow=True)))
    reader.start()
    while len(found) < 1:
        time.sleep(0.01)
    time.sleep(0.05)
    with run.log.open("ab") as log:
        log.write("ä".encode()[1:] + b" end\nlast without an end")
    write_json(run.exit, {"status": "finished"})
    reader.join(10)
    assert not reader.is_alive()
    assert found == ["old\n", "half a charactér: ä end\n", "last without an end"]
