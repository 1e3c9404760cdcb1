"""Working by hand in a kernel: each start is a run, the journal says what ran, and only a clean run is a result."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager
from nbformat import NotebookNode
from running import wait_for
from tiny import parameters, plain_environment, write

from labkit.record.find import every
from labkit.record.rundir import RunDir
from labkit.record.status import status

pytestmark = pytest.mark.slow

CELLS = {
    "cell-1": "LR: float = 0.5  # step size",
    "cell-2": "import labkit\nrun = labkit.start()\nrun.expect('low', 'loss < 0.3')",
    "cell-3": "for step in range(4):\n    run.log(step, loss=LR / (step + 1))",
    "cell-4": "run.logger.info('half way')",
    "cell-5": "run.conclude('it went down', True)\nrun.verdicts()",
}


class Hand:
    """A kernel as JupyterLab starts it for a notebook, and a person who runs cells."""

    def __init__(self, path: Path, session: str | None = None) -> None:
        self.path = path
        self.tells_cells = session is None
        self.kernel = KernelManager(kernel_name="python3")
        named = str(path) if session is None else session
        self.kernel.start_kernel(env=plain_environment(JPY_SESSION_NAME=named), cwd=str(path.parent))
        self.client = self.kernel.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, *names: str, **sources: str) -> str:
        """Runs cells as they are saved, or as they are edited; returns what the last one showed."""
        saved = self.saved()
        shown = ""
        for name in names or saved:
            source = sources.get(name.replace("-", "_"), saved.get(name, ""))
            shown = self.ask(source, cell=name if self.tells_cells else "")
        return shown

    def saved(self) -> dict[str, str]:
        return {cell["id"]: "".join(cell["source"]) for cell in json.loads(self.path.read_text())["cells"]}

    def save(self, **sources: str) -> None:
        """Saves cells as they are edited, some time after what ran last; an empty one is deleted."""
        time.sleep(0.05)
        content = json.loads(self.path.read_text())
        for cell in content["cells"]:
            cell["source"] = sources.get(cell["id"].replace("-", "_"), "".join(cell["source"]))
        content["cells"] = [cell for cell in content["cells"] if cell["source"]]
        self.path.write_text(json.dumps(content))

    def ask(self, code: str, *, cell: str = "", hidden: bool = False) -> str:
        """Runs code in an attached console, in a cell, or as front ends run their own; returns what it showed."""
        self.client.session.metadata = {"cellId": cell} if cell else {}
        found: list[str] = []

        def note(message: dict[str, Any]) -> None:
            content = message["content"]
            found.append(content.get("text") or content.get("data", {}).get("text/plain") or "")
            found.append("".join(content.get("traceback", "")))

        self.client.execute_interactive(code, store_history=not hidden, output_hook=note, timeout=60)
        return "".join(found)

    def close(self) -> None:
        if self.client is not None:
            if self.kernel.has_kernel:
                self.kernel.shutdown_kernel()
            self.client.stop_channels()
            self.client = None


@contextmanager
def working(lab: Path, *cells: str | NotebookNode, session: str | None = None) -> Iterator[Hand]:
    """A person at a notebook with these cells."""
    person = Hand(write(lab / "notebooks" / "tries.ipynb", *cells), session)
    time.sleep(0.05)  # it was saved before anything ran
    try:
        yield person
    finally:
        person.close()


@pytest.fixture
def hand(lab: Path) -> Iterator[Hand]:
    first, *rest = CELLS.values()
    with working(lab, parameters(first), *rest) as person:
        yield person


def ends(lab: Path) -> list[tuple[str, str]]:
    """How each run ended, and why it was explored."""
    return [(status(run).state, run.read_manifest().get("explored", "")) for run in runs(lab)]


def runs(lab: Path) -> list[RunDir]:
    return every(lab / "runs")


def test_every_cell_in_order_is_recorded_like_a_batch_run_and_not_called_explored(lab: Path, hand: Hand) -> None:
    hand.run(*CELLS)
    hand.close()
    (run,) = runs(lab)
    manifest = run.read_manifest()
    assert (manifest["kind"], manifest["labels"], manifest["parameters"]) == ("scratch", [], {"LR": 0.5})
    assert status(run).state == "finished"
    assert [(one["text"], one["verdict"]) for one in manifest["verdicts"]] == [
        ("low", "held"),
        ("it went down", "held"),
    ]
    journal = [json.loads(line) for line in run.journal.read_bytes().splitlines()]
    assert [(line["order"], line["cell"], line["ok"]) for line in journal] == [
        (number, name, True) for number, name in enumerate(list(CELLS)[1:], 1)
    ]
    assert "tries.ipynb cell-4" in run.log.read_text()
    assert run.requirements.stat().st_size


def test_starting_again_closes_one_run_and_opens_the_next(lab: Path, hand: Hand) -> None:
    hand.run("cell-1", "cell-2", "cell-3")
    hand.run("cell-1", "cell-2", "cell-3", cell_1="LR: float = 0.25")
    first, second = runs(lab)
    assert (status(first).state, status(second).state) == ("finished", "running")
    assert [run.read_manifest()["parameters"]["LR"] for run in (first, second)] == [0.5, 0.25]


def test_cells_out_of_order_make_an_explored_run_that_decides_nothing(lab: Path, hand: Hand) -> None:
    hand.run("cell-1", "cell-2", "cell-4", "cell-3")
    hand.close()
    (run,) = runs(lab)
    manifest = run.read_manifest()
    assert (manifest["labels"], manifest["explored"]) == (["explored"], "cells 2, 4, 3")
    assert manifest["verdicts"][0]["verdict"] == "undecided"


def test_a_cell_that_was_edited_after_it_ran_makes_an_explored_run(lab: Path, hand: Hand) -> None:
    hand.run("cell-1", "cell-2", "cell-3")
    time.sleep(0.05)
    hand.path.write_text(hand.path.read_text().replace("range(4)", "range(40)"))
    hand.close()
    assert runs(lab)[0].read_manifest()["explored"] == "cell 3 `for step in range(4):` edited after it ran"


def test_what_was_logged_is_there_in_the_next_kernel(lab: Path, hand: Hand) -> None:
    hand.run("cell-1", "cell-2", "cell-3", "cell-4")
    hand.kernel.shutdown_kernel(now=True)  # as when the server goes away
    again = Hand(hand.path)
    try:
        shown = again.ask("import labkit\nlabkit.last_run()")
        assert "half way" in shown and "loss 0.125" in shown
        assert again.ask("list(labkit.last_run().metrics().loss)").endswith("[0.5, 0.25, 0.16666666666666666, 0.125]")
        again.run("cell-1", "cell-2")
        assert again.ask("labkit.last_run().name != run.directory.name") == "True"
    finally:
        again.close()


def test_promoting_runs_the_saved_notebook_cleanly_and_outlives_the_kernel(lab: Path, hand: Hand) -> None:
    hand.run("cell-1", "cell-2", "cell-4", "cell-3")
    name = hand.ask("print(run.promote())").split()[-1]
    hand.close()
    run = RunDir(lab / "runs" / name)
    wait_for(lambda: run.report.exists() and status(run).is_over)
    manifest = run.read_manifest()
    assert (status(run).state, manifest["labels"], manifest["kind"]) == ("finished", [], "run")
    assert manifest["promoted_from"] == runs(lab)[0].name
    assert manifest["verdicts"][0]["verdict"] == "held"


def test_a_kernel_as_vs_code_starts_it_knows_its_notebook_and_its_cells_by_their_source(lab: Path) -> None:
    first, *rest = CELLS.values()
    with working(lab, parameters(first), *rest, session="") as person:
        person.ask(f"__vsc_ipynb_file__ = {str(person.path)!r}", hidden=True)
        person.run("cell-1", "cell-2", "cell-4", "cell-3")
    (run,) = runs(lab)
    manifest = run.read_manifest()
    assert (manifest["notebook"], manifest["explored"]) == ("notebooks/tries.ipynb", "cells 2, 4, 3")


def test_without_ids_equal_cells_are_clean_and_a_typo_that_was_mended_can_be_promoted(lab: Path) -> None:
    first, *rest = CELLS.values()
    with working(lab, parameters(first), *rest[:2], "print(LR)", "x = 1", "print(LR)", session="") as person:
        person.ask(f"__vsc_ipynb_file__ = {str(person.path)!r}", hidden=True)
        person.run()
        person.run("cell-1", "cell-2", "cell-3", "cell-4", "cell-5", cell_5="x = l")
        person.run("cell-5", "cell-6")
        person.save()
        name = person.ask("print(run.promote())").split()[-1]
    ended, mended = ends(lab)[:2]
    assert ended == ("finished", "")
    assert mended == (
        "finished",
        "a cell `x = l` changed or deleted after it ran;"
        " a cell `print(run.promote())` ran in a form that was never saved",
    )
    clean = RunDir(lab / "runs" / name)
    wait_for(lambda: clean.report.exists() and status(clean).is_over)
    assert status(clean).state == "finished"


def test_running_all_again_leaves_both_runs_clean_whatever_was_saved_between(lab: Path) -> None:
    first, *rest = CELLS.values()
    leftover = "BEST = run.path.name\nLOSSES = [0.5, 0.25]"
    with working(lab, parameters(first), *rest, leftover) as person:
        person.run()
        person.run()
        person.save(cell_1="LR: float = 0.25  # step size")
        person.run()
    assert ends(lab) == [("finished", "")] * 3
    manifests = [run.read_manifest() for run in runs(lab)]
    assert [manifest["parameters"] for manifest in manifests] == [{"LR": 0.5}, {"LR": 0.5}, {"LR": 0.25}]
    assert [manifest["verdicts"][0]["verdict"] for manifest in manifests] == ["held"] * 3


def test_what_a_deleted_cell_left_behind_makes_the_next_run_an_explored_one(lab: Path) -> None:
    start = "import labkit\nrun = labkit.start()"
    with working(lab, "scale = 2", start, "lr = 0.1", "print(lr * scale)") as person:
        person.run()
        person.save(cell_3="")
        assert "0.2" in person.run()
        assert "explored: the kernel had run other cells before the start>" in person.run("cell-4", cell_4="run")
    assert ends(lab) == [
        ("finished", "a cell `lr = 0.1` changed or deleted after it ran"),
        (
            "finished",
            "the kernel had run other cells before the start; cells 2, 3, 3;"
            " cell 3 `run` ran in a form that was never saved",
        ),
    ]


def test_a_cell_above_the_start_that_was_edited_after_it_ran_makes_an_explored_run(lab: Path) -> None:
    with working(lab, "scale = 2", "import labkit\nrun = labkit.start()", "print(scale)") as person:
        person.run()
        person.save(cell_1="scale = 3")
    assert ends(lab) == [("finished", "the kernel had run other cells before the start")]


def test_what_was_never_saved_makes_an_explored_run_when_it_is_over(lab: Path) -> None:
    with working(lab, "import labkit\nrun = labkit.start()", "x = 1", "run") as person:
        assert "explored" not in person.run(cell_2="x = 2")
    assert ends(lab) == [("finished", "cell 2 `x = 2` ran in a form that was never saved")]


def test_a_list_changed_in_place_and_a_console_are_noticed(lab: Path) -> None:
    with working(lab, parameters("SIZES: list[int] = [16]"), "import labkit\nrun = labkit.start()") as person:
        person.run()
        assert person.ask("SIZES.append(64)\nrun.parameters") == "{'SIZES': [16]}"
    reason = "a cell `SIZES.append(64)` ran in a form that was never saved; SIZES changed after the start"
    assert ends(lab) == [("finished", reason)]


def test_a_run_whose_notebook_cannot_be_found_any_more_ends_and_is_not_taken_for_a_clean_one(lab: Path) -> None:
    with working(lab, "import labkit\nrun = labkit.start()\nrun.log(1, loss=0.5)", session="") as person:
        person.run()
        person.ask("import os, tempfile\nos.chdir(folder := tempfile.mkdtemp())\nos.rmdir(folder)")
        person.path.unlink()
    ((state, explored),) = ends(lab)
    assert state == "finished" and explored.startswith("its journal could not be judged: FileNotFoundError")
    assert runs(lab)[0].read_manifest()["summary"]["steps"] == 1


def test_how_a_run_ended_is_written_after_all_that_it_came_to(lab: Path, hand: Hand) -> None:
    hand.run("cell-1", "cell-2", "cell-3", "cell-3")
    hand.close()
    (run,) = runs(lab)
    manifest = run.read_manifest()
    assert manifest["labels"] == ["explored"] and manifest["verdicts"][0]["verdict"] == "undecided"
    assert run.manifest.stat().st_mtime_ns <= run.exit.stat().st_mtime_ns


def test_cells_that_were_not_saved_cannot_be_promoted(lab: Path, hand: Hand) -> None:
    hand.run("cell-1", "cell-2", "cell-3", cell_3="run.log(0, loss=0.0)")
    said = hand.ask("run.promote()")
    assert "nothing was started: cell 3 `run.log(0, loss=0.0)` ran in a form that tries.ipynb has not saved" in said
    assert "save the notebook; then call run.promote() again" in said
    hand.close()
    assert [state for state, _ in ends(lab)] == ["finished"]


def test_the_same_notebook_runs_under_plain_papermill(lab: Path) -> None:
    first, *rest = CELLS.values()
    path = write(lab / "notebooks" / "tries.ipynb", parameters(first), *rest)
    command = [sys.executable, "-m", "papermill", str(path), str(lab / "out.ipynb")]
    done = subprocess.run(command, env=plain_environment(), cwd=lab / "notebooks", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = runs(lab)
    manifest = run.read_manifest()
    assert (manifest["kind"], manifest["parameters"], manifest["notebook"]) == (
        "scratch",
        {"LR": 0.5},
        "notebooks/tries.ipynb",
    )
    assert status(run).state == "finished" and manifest["verdicts"][0]["verdict"] == "held"


def test_a_run_whose_last_cell_raised_has_failed_and_decides_nothing(lab: Path, hand: Hand) -> None:
    hand.run("cell-1", "cell-2", "cell-3", cell_3="run.log(0, loss=0.1)\nraise ValueError")
    hand.close()
    (run,) = runs(lab)
    assert (status(run).state, status(run).reason) == ("failed", "cell 3 `run.log(0, loss=0.1)` raised")
    assert [one["verdict"] for one in run.read_manifest()["verdicts"]] == ["undecided"]


def test_what_is_logged_to_a_closed_run_is_said_once_and_stated_nothing(lab: Path, hand: Hand) -> None:
    hand.run("cell-1", "cell-2")
    hand.ask("old = run")
    hand.run("cell-2")
    assert hand.ask("old.log(1, loss=1.0)\nold.log(2, loss=1.0)").count("is closed, nothing is recorded") == 1
    for call in ("expect('x', 'loss < 1')", "label('stand-in')", "table('t', {'a': [1]})"):
        assert "is closed; use the run that labkit.start() opened" in hand.ask(f"old.{call}")
    assert not list(runs(lab)[0].path.glob("figures/*"))


def test_generated_images_are_there_after_the_run_was_closed_too(lab: Path) -> None:
    script = lab / "closes.py"
    script.write_text(
        "import labkit\nfrom labkit.kernel.datasets import cifar10_stand_in\n"
        "labkit.start().finish()\nprint(len(cifar10_stand_in(train=2).train))\n"
    )
    done = subprocess.run([sys.executable, script], env=plain_environment(), capture_output=True, text=True)
    assert done.stdout.split()[-1] == "2", done.stderr
    assert runs(lab)[0].read_manifest()["labels"] == []


def test_what_a_record_cannot_say_is_no_parameter(lab: Path) -> None:
    script = lab / "odd.py"
    script.write_text(
        "import labkit\nP = 2**20000\nDEEP = []\nfor _ in range(200): DEEP = [DEEP]\nROUND = []\nROUND.append(ROUND)\n"
        "class Odd(dict):\n    def items(self): raise OSError\nODD = Odd(a=1)\nLR = 0.5\nlabkit.start()\n"
    )
    done = subprocess.run([sys.executable, script], env=plain_environment(), capture_output=True, text=True)
    (run,) = runs(lab)
    assert run.read_manifest()["parameters"] == {"LR": 0.5} and status(run).state == "finished", done.stderr


def test_other_parameters_than_the_saved_ones_cannot_be_promoted(lab: Path, hand: Hand) -> None:
    hand.run("cell-1", "cell-2", "cell-3", cell_1="LR: float = 0.25")
    assert "LR: tries.ipynb says another value" in hand.ask("run.promote()")


def test_the_end_of_a_forked_child_is_not_the_end_of_the_run(lab: Path) -> None:
    script = lab / "forks.py"
    script.write_text(
        "import os, sys, labkit\nrun = labkit.start()\n"
        "if os.fork() == 0:\n    sys.exit(0)\n"
        "os.wait()\nprint(run.directory.exit.exists())\nrun.log(1, loss=1.0)\n"
    )
    done = subprocess.run([sys.executable, script], env=plain_environment(), capture_output=True, text=True)
    assert done.stdout.split()[-1] == "False" and status(runs(lab)[0]).state == "finished", done.stderr


def test_a_run_whose_directory_was_deleted_stops_nobody_from_starting_the_next(lab: Path, hand: Hand) -> None:
    hand.run("cell-1", "cell-2", "cell-4", "cell-3")
    shutil.rmtree(lab / "runs")
    hand.run("cell-2")
    assert status(runs(lab)[0]).state == "running"


def test_a_bar_stands_once_among_the_lines_that_are_logged_meanwhile(lab: Path) -> None:
    loop = "for i in run.progress(range(3), 'epoch'):\n    run.logger.info('epoch %d', i)\n    time.sleep(0.6)"
    with working(lab, "import time\nimport labkit\nrun = labkit.start()", loop) as person:
        person.run("cell-1")
        sent: list[dict[str, Any]] = []
        person.client.execute_interactive(loop, output_hook=sent.append, timeout=60)
    shown = [message for message in sent if message["header"]["msg_type"] != "stream"]
    first, *others = [message for message in shown if "text/plain" in message["content"].get("data", {})]
    assert first["header"]["msg_type"] == "display_data" and len(others) >= 2
    assert {message["header"]["msg_type"] for message in others} == {"update_display_data"}
    assert "3/3" in others[-1]["content"]["data"]["text/plain"]
    assert not any("epoch:" in message["content"].get("text", "") for message in sent)
    assert "epoch: 3 of 3" in runs(lab)[0].log.read_text()
