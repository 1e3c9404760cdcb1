"""What a kernel prints: all of it in the log, a limited view of it in the notebook."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running import Ended, fixture, make_lab, run

from labkit.launch import capture
from labkit.launch.capture import Capture, _cut_character, painted

NOTE = re.compile(r"\n?\[… [\d,]+ (?:bytes|displays) are left out[^\n]*\n")


class Collected:
    """Takes what the notebook is shown, of both streams in one list."""

    def __init__(self, name: str, shown: list[tuple[str, str]]) -> None:
        self.name, self.shown = name, shown

    def publish(self) -> None:
        pass

    def show(self, text: str) -> None:
        self.shown.append((self.name, text))


def captured(path: Path) -> tuple[Capture, list[tuple[str, str]]]:
    """A capture without its thread, and what it shows."""
    found: Any = Capture(str(path))
    shown: list[tuple[str, str]] = []
    found._streams = {name: Collected(name, shown) for name in ("stdout", "stderr")}
    return found, shown


def joined(shown: list[tuple[str, str]], stream: str | None = None) -> str:
    return "".join(text for name, text in shown if stream in (None, name))


def is_subsequence(part: str, whole: str) -> bool:
    rest = iter(whole)
    return all(character in rest for character in part)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain\n", "plain\n"),
        ("\r10 %\r20 %\r30 %", "30 %"),
        ("10 %\r20 %\r", "20 %\r"),
        ("10 %\r20 %\r\r", "20 %\r"),
        ("one\rtwo\nthree\rfour\n", "two\nfour\n"),
        ("windows\r\nlines\r\n", "windows\r\nlines\r\n"),
        ("\r", "\r"),
        ("", ""),
    ],
)
def test_what_a_terminal_would_paint_over_is_not_shown(text: str, seen: str) -> None:
    assert painted(text) == seen


@given(st.text(max_size=20), st.integers(0, 80))
def test_a_character_cut_at_a_chunk_border_is_kept_for_the_next_chunk(text: str, at: int) -> None:
    data = text.encode("utf-8", "replace")
    chunk = data[: min(at, len(data))]
    whole = chunk[: len(chunk) - _cut_character(chunk)]
    assert whole.decode() == text.encode("utf-8", "replace").decode()[: len(whole.decode())]


@given(st.binary(max_size=12))
def test_bytes_that_are_no_text_are_held_back_by_three_at_most(data: bytes) -> None:
    assert 0 <= _cut_character(data) <= min(3, len(data))


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["stdout", "stderr", "below"]), st.text(st.sampled_from("aé☃🎉\n"), max_size=30)),
        st.tuples(st.sampled_from(["show", "end"]), st.just("")),
    ),
    max_size=25,
)


def act(found: Capture, path: Path, actions: list[tuple[str, str]]) -> None:
    for kind, text in [*actions, ("end", "")]:
        if kind == "show":
            found.show()
        elif kind == "end":
            found.end_cell()
        elif kind == "below":
            with path.open("ab") as file:
                file.write(text.encode())
        else:
            found.write(kind, text)
    os.close(found._fd)


@settings(max_examples=100)
@given(ACTIONS)
def test_the_view_shows_every_byte_once_and_on_its_stream_while_there_is_room(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("view") / "output.log"
    found, shown = captured(path)
    act(found, path, actions)
    assert joined(shown) == path.read_text() == "".join(text for _, text in actions)
    assert joined(shown, "stderr") == "".join(text for kind, text in actions if kind == "stderr")
    assert found.cut_bytes == found.lost == 0


@settings(max_examples=100)
@given(ACTIONS)
def test_what_the_view_shows_is_a_part_of_the_log_in_order_and_the_rest_is_counted(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("view") / "output.log"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("HEAD_BYTES", 40), ("TAIL_BYTES", 15), ("NOTEBOOK_BYTES", 150)):
            patch.setattr(capture, name, value)
        found, shown = captured(path)
        act(found, path, actions)
    text = NOTE.sub("", joined(shown))
    assert is_subsequence(text, path.read_text())
    assert len(text.encode()) + found.cut_bytes == path.stat().st_size
    assert bool(NOTE.search(joined(shown))) == bool(found.cut_bytes)
    assert len(text.encode()) <= 150


def test_text_for_the_log_alone_is_not_shown(tmp_path: Path) -> None:
    found, shown = captured(tmp_path / "output.log")
    found.write("stdout", "a\n")
    found.write(capture.HIDDEN, "traceback\n")
    found.write("stderr", "b\n")
    found.end_cell()
    assert shown == [("stdout", "a\n"), ("stderr", "b\n")]
    assert (tmp_path / "output.log").read_text() == "a\ntraceback\nb\n"


def test_a_full_disk_loses_text_counts_it_and_stops_nothing(small_disk: Path) -> None:
    found, _ = captured(small_disk / "output.log")
    for _ in range(30):
        found.write("stdout", "x" * 2**16)
    assert found.lost > 0
    assert found.lost + (small_disk / "output.log").stat().st_size >= 30 * 2**16


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A run that prints in every way there is."""
    return run(fixture(make_lab(tmp_path_factory.mktemp("talks") / "Ada's lab"), "talks"))


def cell_text(ended: Ended, number: int, stream: str | None = None) -> str:
    outputs = ended.notebook().cells[number - 1].outputs
    return "".join(o.text for o in outputs if o.output_type == "stream" and stream in (None, o.name))


@pytest.mark.slow
def test_a_notebook_that_prints_in_every_way_finishes(talks: Ended) -> None:
    assert talks.exit_status == 0, (talks.err, talks.log)


@pytest.mark.slow
def test_standard_error_is_shown_as_standard_error(talks: Ended) -> None:
    assert cell_text(talks, 1, "stdout") == "out 1\nout 2\n"
    assert cell_text(talks, 1, "stderr") == "err 1\n"
    assert "out 1\nerr 1\nout 2\n" in talks.log


@pytest.mark.slow
def test_no_character_is_cut_in_two_where_the_view_leaves_text_out(talks: Ended) -> None:
    assert "é" * 60_000 in talks.log
    shown = cell_text(talks, 2)
    assert set(NOTE.sub("", shown)) == {"é", "\n"} and NOTE.search(shown)


@pytest.mark.slow
def test_a_thread_that_prints_after_its_cell_is_in_log_and_notebook(talks: Ended) -> None:
    assert talks.log.count("from a thread\n") == 1
    assert talks.shown().count("from a thread\n") == 1


@pytest.mark.slow
def test_forked_children_print_into_log_and_notebook(talks: Ended) -> None:
    assert "child 0\nchild 1\n" in talks.log
    assert cell_text(talks, 5) == "child 0\nchild 1\n"


@pytest.mark.slow
def test_faulthandler_writes_into_log_and_notebook(talks: Ended) -> None:
    assert "most recent call first" in talks.log
    assert "most recent call first" in cell_text(talks, 6)


@pytest.mark.slow
def test_the_capture_magic_and_redirected_streams_keep_their_text(talks: Ended) -> None:
    assert cell_text(talks, 8) == "'captured\\n'\n"
    assert cell_text(talks, 9) == "'held\\n'\n"
    assert "\ncaptured\n" not in talks.log and "\nheld\n" not in talks.log


@pytest.mark.slow
def test_a_question_to_the_user_fails_at_once(talks: Ended) -> None:
    assert talks.notebook().cells[9].outputs[-1].ename == "StdinNotImplementedError"


@pytest.mark.slow
def test_prints_and_subprocesses_keep_their_order(talks: Ended) -> None:
    wanted = "".join(f"python {i}\necho {i}\n" for i in range(5))
    assert wanted in talks.log
    assert cell_text(talks, 11) == wanted


@pytest.mark.slow
def test_shell_lines_and_shell_cells_are_in_log_and_notebook(talks: Ended) -> None:
    assert "from the shell" in talks.log and "from the shell" in cell_text(talks, 12)
    assert "from bash\n" in talks.log and "from bash\n" in cell_text(talks, 13)


@pytest.mark.slow
def test_bytes_that_are_no_text_and_halves_of_characters_stop_nothing(talks: Ended) -> None:
    assert b"bytes \xff that are no text\n\\ud83d half a character\nno line end" in talks.run.log.read_bytes()
    assert cell_text(talks, 14) == "bytes � that are no text\n\\ud83d half a character\nno line end"


@pytest.mark.slow
def test_an_exit_hook_still_prints_into_the_log(talks: Ended) -> None:
    assert talks.log.endswith("goodbye\n")
    assert "(False, 1, 2, 'UTF-8')" in talks.log


@pytest.mark.slow
def test_a_flood_of_output_finishes_with_all_text_in_the_log_and_a_small_notebook(lab: Path) -> None:
    began = time.monotonic()
    ended = run(fixture(lab, "floods"))
    assert ended.status.state == "finished" and time.monotonic() - began < 60
    data = ended.run.log.read_bytes()
    assert b"".join(b"\rstep %d" % i for i in range(200_000)) + b"\n" + b"x" * 60_000_000 + b"\n" in data
    assert b"".join(b"%d\n" % i for i in range(30_000)) in data and data.endswith(b"after\n")
    assert ended.run.notebook.stat().st_size < 5 * 2**20
    assert "bytes are left out" in cell_text(ended, 2) and "displays are left out" in cell_text(ended, 3)
    assert cell_text(ended, 1).endswith("step 199999\n")
    assert ended.counts["log"] == {"bytes": len(data), "lost": 0}
    assert ended.counts["view"]["cut_bytes"] > 50_000_000 and ended.counts["view"]["cut_displays"] == 29_700
