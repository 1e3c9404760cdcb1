"""Log lines with their place."""

from __future__ import annotations

import io
import logging
import re
import sys

from labkit.kernel.logs import run_logger

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
