"""Log lines with their place, and the progress bar."""

from __future__ import annotations

import io
import logging
import re
import sys
import time

import pytest
import torch

from labkit.kernel import progress
from labkit.kernel.logs import run_logger
from labkit.kernel.progress import Progress

CODE = "def train():\n    logger.info('hello')\n"


def cell(name, logger, source=CODE):
    """A function compiled as ipykernel compiles a cell."""
    space = {"logger": logger}
    exec(compile(source, f"/tmp/ipykernel_77/{name}.py", "exec"), space)
    return space["train"]


def test_a_line_from_a_cell_names_notebook_cell_function_and_line(capsys):
    logger = run_logger("digits-cnn.ipynb", lambda: "training")
    cell("123", logger)()
    line = capsys.readouterr().out
    pattern = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} INFO \[digits-cnn\.ipynb training: train: 2\] hello\n"
    assert re.fullmatch(pattern, line)


def test_a_line_from_the_top_of_a_cell_or_of_unknown_id_leaves_out_what_is_not_known(capsys):
    logger = run_logger("a.ipynb", lambda: "")
    exec(compile("logger.info('x')", "/tmp/ipykernel_77/1.py", "exec"), {"logger": logger})
    exec(compile("logger.info('x')", "<ipython-input-3-abc>", "exec"), {"logger": logger})
    assert capsys.readouterr().out.count("INFO [a.ipynb: 1] x\n") == 2


def test_a_line_from_a_file_names_the_file(capsys):
    run_logger("a.ipynb", lambda: "training").warning("careful")
    assert "WARNING [test_logs.py: test_a_line_from_a_file_names_the_file: " in capsys.readouterr().out


def test_a_traceback_follows_its_line(capsys):
    logger = run_logger("a.ipynb", lambda: "")
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        logger.exception("failed")
    out = capsys.readouterr().out
    assert "] failed\nTraceback" in out and out.endswith("ZeroDivisionError: division by zero\n")


def test_each_sink_has_its_own_level(capsys):
    lines = []
    logger = run_logger("a.ipynb", lambda: "", write_log=lines.append, log_level=logging.DEBUG, level=logging.WARNING)
    logger.debug("quiet")
    logger.warning("loud")
    assert len(lines) == 2 and lines[0].endswith("quiet\n")
    assert "quiet" not in (out := capsys.readouterr().out) and "loud" in out


def test_starting_again_does_not_double_the_lines(capsys):
    run_logger("a.ipynb", lambda: "")
    run_logger("a.ipynb", lambda: "").info("once")
    assert capsys.readouterr().out.count("once") == 1


def test_a_broken_sink_does_not_break_the_loop(monkeypatch):
    def full(line):
        raise OSError("disk full")

    monkeypatch.setattr(logging, "raiseExceptions", False)
    run_logger("a.ipynb", lambda: "", write_log=full).info("still running")


def test_a_line_stands_above_a_tqdm_bar(monkeypatch):
    from tqdm import tqdm

    screen = io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    with tqdm(range(2), file=screen, ncols=40, mininterval=0, leave=True) as bar:
        run_logger("a.ipynb", lambda: "").info("between")
        bar.update()
    line = next(line for line in screen.getvalue().split("\n") if "between" in line)
    assert line.rsplit("\r", 1)[-1].startswith("20"), "the line begins where the bar was wiped"


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


@pytest.mark.slow
def test_a_step_costs_next_to_nothing():
    def seconds(iterable):
        started = time.perf_counter()
        for _ in iterable:
            pass
        return time.perf_counter() - started

    bare = min(seconds(range(200_000)) for _ in range(3))
    ours = min(seconds(Screen(range(200_000)).bar) for _ in range(3))
    assert (ours - bare) / 200_000 < 5e-6  # a hundredth of a short training step, on a busy machine
