"""The progress bar of a loop: what is painted, what stays, what is told."""

from __future__ import annotations

import re

import pytest
import torch

from labkit.kernel import progress
from labkit.kernel.progress import Progress


class Screen:
    """Collects what a progress bar writes."""

    def __init__(self, iterable, description="epoch", **settings):
        self.live, self.final, self.facts = [], [], []
        self.bar = Progress(
            iterable,
            description,
            write_live=self.live.append,
            write_final=self.final.append,
            on_update=self.facts.append,
            **settings,
        )


def test_a_loop_leaves_one_final_line_with_the_newest_values():
    screen = Screen(range(20))
    for item in screen.bar:
        screen.bar.set(loss=torch.tensor(1 / (item + 1)), note="x")
    assert len(screen.final) == 1
    assert re.fullmatch(r"epoch: 20 of 20 in \d+\.\d s, loss=0\.05, note=x\n", screen.final[0])
    assert screen.live[0].startswith("\repoch:   0%") and screen.live[-1].endswith("\n")
    assert "20/20" in screen.live[-1] and "loss=0.05" in screen.live[-1]
    assert screen.facts == []  # over within a second: nothing to tell


def test_states_come_at_most_every_half_second(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    screen = Screen(range(100))
    for _ in screen.bar:
        now[0] += 0.125
    assert len(screen.live) == 26  # the first, one each half second, the last
    assert [facts["elapsed_s"] for facts in screen.facts] == [*range(1, 13), 12.5]
    assert screen.facts[1] == {
        "description": "epoch",
        "done": 16,
        "total": 100,
        "elapsed_s": 2,
        "left_s": 10.5,
        "values": {},
    }
    assert screen.facts[-1]["done"] == 100 and screen.facts[-1]["left_s"] == 0


def test_a_loop_left_early_says_so_once():
    screen = Screen(range(10))
    for item in screen.bar:
        if item == 3:
            break
    screen.bar.close()
    assert len(screen.final) == 1 and screen.final[0].startswith("epoch: 3 of 10, stopped in ")


def test_a_loop_that_fails_leaves_its_final_line():
    screen = Screen(range(10))
    with pytest.raises(ZeroDivisionError):
        for item in screen.bar:
            1 / (item - 2)
    screen.bar.close()
    assert screen.final[0].startswith("epoch: 2 of 10, stopped in ")


def test_an_iterable_of_unknown_length_is_counted():
    screen = Screen(iter("abc"), "")
    assert list(screen.bar) == ["a", "b", "c"]
    assert screen.final[0].startswith("progress: 3 in ")
    with pytest.raises(TypeError):
        len(screen.bar)
    assert len(Screen(iter("abc"), total=3).bar) == 3


def test_a_shorter_state_covers_the_longer_one_before():
    screen = Screen(range(2))
    for item in screen.bar:
        screen.bar.set(text="x" * (30 - 28 * item))
        screen.bar._show()
    widths = [len(state.strip("\r\n")) for state in screen.live]
    assert all(after >= len(before.rstrip()) - 1 for before, after in zip(screen.live, widths[1:], strict=False))


def test_without_a_terminal_only_the_final_line_is_printed(capsys):
    assert list(progress.progress(range(3), "epoch")) == [0, 1, 2]
    captured = capsys.readouterr()
    assert captured.out.startswith("epoch: 3 of 3 in ") and captured.err == ""
