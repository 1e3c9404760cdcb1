"""What a cell printed is kept in order, and of each progress bar the newest state."""

from __future__ import annotations

from nbformat import NotebookNode
from nbformat.v4 import new_output

from labkit.workbench.running.streamed import joined

BAR = "epoch:  33%|███▎      | 1/3 [00:01<00:03,  1.92s/it]"
UNKNOWN = "epoch: 12it [00:01,  9.91it/s, loss=0.5]"
END = "epoch: 100%|██████████| 3/3 [00:05<00:00,  1.91s/it]\n"


def piece(name: str, text: str) -> NotebookNode:
    return new_output("stream", name=name, text=text)


def told(*pieces: NotebookNode) -> list[tuple[str, str]]:
    return [(one.name, one.text) for one in joined(list(pieces))]


def test_neighbouring_pieces_of_a_stream_become_one():
    assert told(piece("stdout", "a"), piece("stdout", "b"), piece("stderr", "c")) == [("stdout", "ab"), ("stderr", "c")]


def test_a_bar_stands_where_it_ended_and_not_above_what_was_printed_meanwhile():
    found = told(
        piece("stderr", f"\r{BAR}"),
        piece("stdout", "one\n"),
        piece("stderr", UNKNOWN),
        piece("stdout", "two\n"),
        piece("stderr", END),
    )
    assert found == [("stdout", "one\ntwo\n"), ("stderr", END)]


def test_a_bar_that_was_finished_stays_above_what_came_after_it():
    found = told(piece("stderr", f"{END}{BAR}"), piece("stdout", "one\n"), piece("stderr", END))
    assert found == [("stderr", END), ("stdout", "one\n"), ("stderr", END)]


def test_the_only_state_of_a_bar_and_what_is_no_bar_stay():
    pieces = [piece("stderr", BAR), piece("stdout", "killed here\n"), piece("stderr", "a warning")]
    assert told(*pieces) == [("stderr", BAR), ("stdout", "killed here\n"), ("stderr", "a warning")]
    assert told(piece("stderr", "50% [sure]"), piece("stdout", "x"), piece("stderr", END))[0] == (
        "stderr",
        "50% [sure]",
    )
