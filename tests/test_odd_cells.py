"""What a cell may do to its own kernel: the run goes on or ends, and says truly how."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from running import Ended, alive, make_lab, run, started, wait_for
from tiny import write

pytestmark = pytest.mark.slow

ORDER = """\
import sys
from IPython.display import display
print("one")
display("two")
print("three", file=sys.stderr)
print("four")
display("five")
"""
CASES = {  # the cells of each notebook, its options, and the exit status, the state and the reason of its run
    "a hook that hangs": (
        ["import atexit, time; atexit.register(time.sleep, 300)"],
        ["--timeout", "8", "--grace", "1"],
        1,
        "failed",
        "all cells ran, but while it closed, it was killed 1 s after the time limit of 8 s",
    ),
    "a hook that raises": (["import atexit; atexit.register(lambda: 1 / 0)"], [], 0, "finished", ""),
    "a hook that leaves": (
        ["import atexit, os; atexit.register(os._exit, 3)"],
        [],
        1,
        "failed",
        "all cells ran, but while it closed, the kernel exited with status 3",
    ),
    "a finalizer that has no module": (
        [
            "import weakref\nclass Odd:\n    @property\n    def __module__(self): raise RuntimeError\n"
            "    def __call__(self): pass\nodd = weakref.finalize(Odd, Odd())\n"
            "import atexit, os; atexit.register(os._exit, 4)"
        ],
        [],
        1,
        "failed",
        "all cells ran, but while it closed, the kernel exited with status 4",  # so the hooks were run
    ),
    "closes its streams": (["import sys; sys.stdout.close(); sys.stderr.close()"], [], 0, "finished", ""),
    "closes its descriptors": (["import os; os.close(1); os.close(2)"], [], 0, "finished", ""),
    "replaces standard output": (["import io, sys; sys.stdout = io.StringIO()"], [], 0, "finished", ""),
    "leaves a closed file": (["import sys; sys.stdout = open('x', 'w'); sys.stdout.close()"], [], 0, "finished", ""),
    "has no standard output": (["import sys; sys.stdout = None"], [], 0, "finished", ""),
    "deletes its error stream": (["import sys; del sys.stderr"], [], 0, "finished", ""),
    "prints in turns": ([ORDER], [], 0, "finished", ""),
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """All these runs, three at a time; each has a last cell that prints and has a value."""
    lab = make_lab(tmp_path_factory.mktemp("odd") / "Ada's lab")

    def one(name: str) -> Ended:
        cells, options, *_ = CASES[name]
        return run(write(lab / "notebooks" / f"{name}.ipynb", *cells, "print('after')\n6 * 7"), *options)

    with ThreadPoolExecutor(3) as pool:
        return dict(zip(CASES, pool.map(one, CASES), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_the_status_is_true_whatever_a_cell_did_to_its_kernel(odd: dict[str, Ended], name: str) -> None:
    ended, (_, _, exit_status, state, reason) = odd[name], CASES[name]
    assert (ended.exit_status, ended.status.state, ended.status.reason) == (exit_status, state, reason), ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("name", CASES)
def test_nothing_of_such_a_run_lives_on(odd: dict[str, Ended], name: str) -> None:
    facts = json.loads(odd[name].run.process.read_bytes())
    wait_for(lambda: not alive(*(facts[key]["pid"] for key in ("process", "kernel", "runner"))), 5)
    assert odd[name].exit["left"] == []


@pytest.mark.parametrize("name", CASES)
def test_the_last_cell_ran_and_its_value_is_in_log_and_notebook(odd: dict[str, Ended], name: str) -> None:
    value = odd[name].notebook().cells[-1].outputs[-1]
    assert (value.output_type, value.data["text/plain"]) == ("execute_result", "42")
    assert "42\n" in odd[name].log


@pytest.mark.parametrize("name", ["closes its streams", "closes its descriptors"])
def test_what_is_printed_after_the_streams_were_closed_is_in_log_and_notebook(odd: dict[str, Ended], name: str) -> None:
    assert odd[name].log.startswith("after\n") and odd[name].shown() == "after\n"


def test_the_traceback_of_a_hook_that_raises_is_in_the_log(odd: dict[str, Ended]) -> None:
    assert "ZeroDivisionError: division by zero" in odd["a hook that raises"].log


def test_outputs_of_a_cell_stand_in_the_order_in_which_they_came(odd: dict[str, Ended]) -> None:
    def said(output: dict) -> tuple[str, str]:
        return (output["name"], output["text"]) if "text" in output else ("display", output["data"]["text/plain"])

    assert [said(output) for output in odd["prints in turns"].notebook().cells[0].outputs] == [
        ("stdout", "one\n"),
        ("display", "'two'"),
        ("stderr", "three\n"),
        ("stdout", "four\n"),
        ("display", "'five'"),
    ]


def test_a_run_whose_directory_a_cell_deletes_ends_soon_with_a_clear_message(lab: Path) -> None:
    cells = "import shutil, labkit\nrun = labkit.start()\nshutil.rmtree(run.path)", "print('after')"
    with started(write(lab / "notebooks" / "deletes.ipynb", *cells)) as under_way:
        out, err = under_way.process.communicate(timeout=20)
    assert under_way.process.returncode == 1
    assert "is gone: something deleted it while it ran" in err and str(under_way.runs) in err
    assert "Traceback" not in out + err
