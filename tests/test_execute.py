"""How a run ends: status, reason, exit status, log and notebook, for each way that a notebook can end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner
from running import NOTEBOOKS, Ended, alive, fixture, labkit, make_lab, run, started, wait_for
from tiny import ROOT, notebook, parameters, write

from labkit import cli
from labkit.record.find import every
from labkit.record.metrics import read

pytestmark = pytest.mark.slow

ENDINGS = {  # the options of each run, its exit status, its state, and what its reason says
    "minimal": ([], 0, "finished", ""),
    "raises": ([], 1, "failed", "cell 2 (cell-2) raised ValueError: no such luck"),
    "exits": ([], 1, "failed", "cell 1 (cell-1) called sys.exit(0)"),
    "leaves": ([], 1, "failed", "the kernel exited with status 3"),
    "segfaults": ([], 1, "failed", "ended by signal 11 (SIGSEGV)"),
    "kills-kernel": ([], 1, "failed", "ended by signal 9 (SIGKILL)"),
    "endless": (["--timeout", "2"], 1, "timeout", "the time limit of 2 s was over"),
    "sleeps": (["--timeout", "2", "--grace", "1"], 1, "timeout", "the time limit"),
    "leaves-child": ([], 0, "finished", ""),
    "leaves-file-open": ([], 0, "finished", ""),
    "prints-from-below": ([], 0, "finished", ""),
    "raises-on-purpose": ([], 0, "finished", ""),
    "allocates": ([], 1, "failed", "MemoryError"),
    "trains": (["-p", "STEPS=10", "-p", "PAUSE_S=0"], 0, "finished", ""),
    "parameters": (
        [
            "-p",
            "EPOCHS=5",
            "-p",
            "RATE=1e-4",
            "-p",
            'NAME=it\'s {a} "b"\n☃',
            "-p",
            "FAST=true",
            "-p",
            "SIZES=[3]",
            "-p",
            "LIMIT=7",
        ],
        0,
        "finished",
        "",
    ),
}


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """All these runs, three at a time: much of each is waiting."""
    lab = make_lab(tmp_path_factory.mktemp("endings") / "Ada's lab")
    with ThreadPoolExecutor(3) as pool:
        ended = {name: pool.submit(run, fixture(lab, name), *case[0]) for name, case in ENDINGS.items()}
    return {name: future.result() for name, future in ended.items()}


@pytest.mark.parametrize("name", ENDINGS)
def test_status_reason_and_exit_status_say_how_a_notebook_ended(endings: dict[str, Ended], name: str) -> None:
    _, exit_status, state, reason = ENDINGS[name]
    ended = endings[name]
    assert (ended.exit_status, ended.status.state) == (exit_status, state), ended.err
    assert reason in ended.status.reason
    assert bool(ended.status.reason) == bool(reason)
    assert ended.exit["written_by"] == "supervisor"
    assert ended.out.endswith(f"{ended.run.path}\n")
    assert state in ended.err


@pytest.mark.parametrize("name", ENDINGS)
def test_the_executed_notebook_is_valid_and_has_the_cells_of_the_original(endings: dict[str, Ended], name: str) -> None:
    executed = endings[name].notebook()
    original = json.loads((endings[name].run.source / "notebook.ipynb").read_bytes())
    kept = [cell for cell in executed.cells if cell["id"] != "injected-parameters"]
    assert [cell["id"] for cell in kept] == [cell["id"] for cell in original["cells"]]
    assert [cell.source for cell in kept] == [cell["source"] for cell in original["cells"]]


@pytest.mark.parametrize("name", ENDINGS)
def test_nothing_of_a_run_lives_on_and_its_private_folder_is_gone(endings: dict[str, Ended], name: str) -> None:
    facts = json.loads(endings[name].run.process.read_bytes())
    pids = [facts[key]["pid"] for key in ("process", "kernel", "runner")]
    wait_for(lambda: not alive(*pids), 5)
    assert not list(endings[name].run.path.rglob(".*")), "a half-written file was left over"


@pytest.mark.parametrize("name", ["leaves", "segfaults", "kills-kernel"])
def test_the_log_holds_what_was_printed_right_before_a_crash(endings: dict[str, Ended], name: str) -> None:
    assert "last words\n" in endings[name].log


def test_cells_after_the_one_that_raised_are_not_run(endings: dict[str, Ended]) -> None:
    for name in ("raises", "exits"):
        assert "never" not in endings[name].log
        assert "never" not in endings[name].shown()


def test_a_traceback_is_in_the_log_and_in_the_notebook_and_the_error_in_the_exit_record(
    endings: dict[str, Ended],
) -> None:
    ended = endings["raises"]
    assert "ValueError: no such luck" in ended.log and "\x1b" not in ended.log
    assert ended.notebook().cells[1].outputs[-1].ename == "ValueError"
    assert ended.exit["error"] == {"cell": 2, "cell_id": "cell-2", "ename": "ValueError", "evalue": "no such luck"}


def test_the_exit_record_keeps_signal_status_duration_and_peak_memory(endings: dict[str, Ended]) -> None:
    assert endings["kills-kernel"].exit["kernel_exit"] == {"code": 0, "signal": 9}
    assert endings["leaves"].exit["kernel_exit"] == {"code": 3, "signal": None}
    finished = endings["minimal"].exit
    assert 0 < finished["duration_s"] < 60 and 2**24 < finished["peak_rss_bytes"] < 2**31


def test_a_child_that_detached_and_ignores_sigterm_is_ended_and_named(endings: dict[str, Ended]) -> None:
    ended = endings["leaves-child"]
    pid = int(ended.log)
    assert not alive(pid)
    assert [left["pid"] for left in ended.exit["left"]] == [pid]
    assert "time.sleep(300)" in ended.exit["left"][0]["name"]


def test_output_of_descriptors_and_subprocesses_is_in_log_and_notebook(endings: dict[str, Ended]) -> None:
    ended = endings["prints-from-below"]
    assert ended.log == "python\ndescriptor\nsubprocess\nto stderr\n"
    assert ended.shown("stdout") == "python\ndescriptor\nsubprocess\n"
    assert ended.shown("stderr") == "to stderr\n"


def test_a_file_that_a_cell_left_open_loses_nothing(endings: dict[str, Ended]) -> None:
    folder = Path(json.loads(endings["leaves-file-open"].run.manifest.read_bytes())["command"][2]).parent
    assert (folder / "left-open.txt").read_text() == "whole"


def test_a_cell_tagged_raises_exception_may_raise(endings: dict[str, Ended]) -> None:
    assert "on purpose" in endings["raises-on-purpose"].log and "after\n" in endings["raises-on-purpose"].log


def test_parameters_arrive_typed_and_are_recorded(endings: dict[str, Ended]) -> None:
    ended = endings["parameters"]
    wanted = (5, 1e-4, 'it\'s {a} "b"\n☃', True, [3], 7)
    assert ended.log == f"{wanted!r}\n"
    manifest = ended.run.read_manifest()
    assert tuple(manifest["parameters"].values()) == wanted == tuple(manifest["given"].values())
    assert [cell["id"] for cell in ended.notebook().cells] == ["cell-1", "injected-parameters", "cell-2"]


def test_metrics_are_summarised_when_the_run_has_ended(endings: dict[str, Ended]) -> None:
    ended = endings["trains"]
    assert read(ended.run.metrics).rows == 10
    assert ended.run.read_manifest()["summary"]["metrics"]["loss"]["count"] == 10
    assert ended.counts["metrics"] == {"written": 10, "refused": 0, "lost": 0}


@pytest.mark.parametrize("name", ENDINGS)
def test_the_original_notebook_is_not_touched(endings: dict[str, Ended], name: str) -> None:
    original = Path(endings[name].run.read_manifest()["command"][2])
    assert original.read_bytes() == (NOTEBOOKS / f"{name}.ipynb").read_bytes()


def test_a_run_keeps_the_notebook_that_it_began_with(lab: Path) -> None:
    original, flag = fixture(lab, "waits"), lab / "flag"
    before = original.read_text()
    with started(original, "-p", f"FILE={flag}") as under_way:
        wait_for(flag.exists)
        original.write_text("{}")
        flag.unlink()
        ended = under_way.ended()
    assert ended.exit_status == 0 and "after\n" in ended.log
    assert [c.source for c in ended.notebook().cells if c["id"] != "injected-parameters"] == [
        "".join(cell["source"]) for cell in json.loads(before)["cells"]
    ]


def test_a_kill_near_the_memory_limit_is_probably_for_want_of_memory(lab: Path) -> None:
    limited = ("sh", "-c", 'ulimit -v 1600000; exec "$@"', "sh")
    ended = run(fixture(lab, "fills-memory"), "-p", f"SIZE={12 * 10**8}", prefix=limited, MALLOC_ARENA_MAX="1")
    assert ended.status.state == "failed"
    assert "probably out of memory; its memory peaked at 1." in ended.status.reason


def test_a_kill_far_from_the_memory_limit_says_nothing_of_memory(endings: dict[str, Ended]) -> None:
    assert "memory" not in endings["kills-kernel"].status.reason


# what is refused before anything starts


def refused(notebook: Path | str, *options: str, runs: Path | str = "runs") -> str:
    """The message of a `labkit run` that must refuse, and leave nothing behind."""
    arguments = ["run", str(notebook), "--runs", str(runs), *options]
    done = CliRunner().invoke(cli.main, arguments, catch_exceptions=False)
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    assert not every(Path(runs)) and not [found for found in Path(runs).rglob("*") if found.is_file()]
    return done.stderr


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("EPOCH=3", "did you mean EPOCHS?"),
        ("EPOCHS=many", "the notebook declares int"),
        ("EPOCHS=1.5", "the notebook declares int"),
        ("EPOCHS=true", "the notebook declares int"),
        ("SIZES=3", "the notebook declares list"),
        ("__import__('os')=1", "not a name that a parameter can have"),
        ("EPOCHS", "write NAME=VALUE"),
    ],
)
def test_an_unknown_parameter_or_a_wrong_type_is_refused(lab: Path, assignment: str, said: str) -> None:
    assert said in refused(fixture(lab, "parameters"), "-p", assignment)


def test_a_parameter_for_a_notebook_without_any_is_refused(lab: Path) -> None:
    assert "declares no parameters" in refused(fixture(lab, "minimal"), "-p", "EPOCHS=3")


def _with(**changes: object) -> str:
    return json.dumps(dict(notebook("print(1)", "print(2)")) | changes)


TWINS = [{"cell_type": "code", "id": "twin", "metadata": {}, "source": "", "outputs": [], "execution_count": None}] * 2
BAD_NOTEBOOKS = {
    "empty": ("", "is not a notebook"),
    "cut short": (_with()[:60], "is not a notebook"),
    "no notebook": ("[1, 2]", "no `nbformat`"),
    "no cells": (_with(cells=None), "is no valid notebook"),
    "a cell that is text": (_with(cells=["x"]), "is no cell of a notebook"),
    "nbformat 3": (_with(nbformat=3), "notebook format 3"),
    "duplicate ids": (_with(cells=TWINS), "have the same id 'twin'"),
    "conflicted": (_with()[:-1] + "\n<<<<<<< HEAD\n=======\n>>>>>>> other\n}", "conflict markers"),
    "nested too deep": ("[" * 100_000, "is not a notebook"),
}


@pytest.mark.parametrize("case", BAD_NOTEBOOKS)
def test_a_notebook_that_is_none_is_refused_with_the_reason(lab: Path, case: str) -> None:
    text, said = BAD_NOTEBOOKS[case]
    bad = lab / "notebooks" / "bad.ipynb"
    bad.write_text(text)
    assert said in refused(bad)


def test_a_missing_notebook_is_refused_with_the_nearest_name(lab: Path) -> None:
    fixture(lab, "minimal")
    assert "did you mean" in refused("notebooks/minimum.ipynb")
    assert "is a folder" in refused("notebooks")


def test_a_huge_notebook_is_refused_before_it_is_read(lab: Path) -> None:
    huge = lab / "notebooks" / "huge.ipynb"
    with huge.open("wb") as file:
        file.truncate(200 * 2**20)
    assert "200 MiB" in refused(huge)


def test_an_unknown_kernel_is_refused_with_the_known_ones(lab: Path) -> None:
    original = fixture(lab, "minimal")
    assert "python3" in refused(original, "--kernel", "no-such-kernel")
    assert "python3" in refused(original, "--kernel", "../python3")


def test_a_runs_folder_that_cannot_be_made_is_refused_with_advice(lab: Path) -> None:
    (lab / "a file").touch()
    assert "choose another folder with --runs" in refused(fixture(lab, "minimal"), runs="a file")


def test_a_read_only_runs_folder_is_refused_with_advice(lab: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    said = refused(fixture(lab, "minimal"), runs=small_disk / "runs")
    assert "Read-only" in said and "--runs" in said


def test_a_disk_that_is_full_before_the_start_is_refused(lab: Path, small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        (small_disk / "ballast").write_bytes(bytes(2**21))
    assert "No space left" in refused(fixture(lab, "minimal"), runs=small_disk / "runs")


# what looks strange and works


def test_a_long_temporary_folder_works_although_a_socket_cannot_lie_in_it(lab: Path) -> None:
    long = lab / ("t" * 100)
    long.mkdir()
    ended = run(fixture(lab, "minimal"), TMPDIR=str(long))
    assert ended.exit_status == 0, ended.err


def test_a_relative_folder_of_runs_works_where_the_notebook_lies_elsewhere(lab: Path) -> None:
    done = labkit("run", str(fixture(lab, "minimal")), "--runs", "elsewhere", "--no-report")
    assert done.returncode == 0, done.stderr
    assert (lab / "elsewhere" / "last" / "output.log").read_text() == "hello\n"


def test_an_environment_that_is_no_text_reaches_the_kernel_byte_by_byte(lab: Path) -> None:
    strange = {b"CAF\xc9": b"\xff\xfe x", b"PLAIN": b"a\xff\n", b"TEXT": "é☃".encode()}
    cell = f"import os\nprint({{name: os.environb.get(name) for name in {list(strange)}}} == {strange})"
    ended = run(
        write(lab / "notebooks" / "bytes.ipynb", cell),
        **{os.fsdecode(name): os.fsdecode(value) for name, value in strange.items()},
    )
    assert (ended.exit_status, ended.log) == (0, "True\n"), ended.err


def test_a_notebook_without_any_metadata_takes_parameters(lab: Path) -> None:
    bare = notebook(parameters("N: int = 1"), "print(N)")
    bare["metadata"] = {}
    path = lab / "notebooks" / "bare.ipynb"
    path.write_text(json.dumps(bare))
    ended = run(path, "-p", "N=5")
    assert (ended.exit_status, ended.log) == (0, "5\n"), ended.err
    assert ended.run.read_manifest()["parameters"] == {"N": 5}


STRANGE = [
    "two words, {braces} {0} %s $HOME",
    'it\'s "quoted" [b]rich[b]',
    "-dash\nbreak ☃🎉",
    "é" * 97 + "x",
]


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """A run of a notebook with each strange name, in a folder of that name."""

    def one(name: str) -> Ended:
        lab = make_lab(tmp_path_factory.mktemp("strange") / name)
        return run(fixture(lab, "minimal", name))

    with ThreadPoolExecutor(3) as pool:
        return dict(zip(STRANGE, pool.map(one, STRANGE), strict=True))


@pytest.mark.parametrize("name", STRANGE)
def test_a_path_of_any_name_works(strange: dict[str, Ended], name: str) -> None:
    ended = strange[name]
    assert ended.exit_status == 0, ended.err
    assert ended.log == "hello\n" == ended.shown()
    assert ended.run.read_manifest()["name"] == name


def test_the_output_cannot_be_the_input(lab: Path) -> None:
    original = write(lab / "runs" / "minimal" / "notebook.ipynb", "print('hello')")
    before = original.read_bytes()
    done = labkit("run", str(original), "--runs", str(lab / "runs"), "--no-report")
    assert done.returncode == 0 and original.read_bytes() == before


# kernels of other kinds


ECHO = """\
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel

class Echo(Kernel):
    implementation, implementation_version, banner = "echo", "1", "echo"
    language_info = {"name": "echo", "mimetype": "text/plain", "file_extension": ".txt"}

    async def do_execute(self, code, silent, store_history=True, user_expressions=None, allow_stdin=False):
        self.send_response(self.iopub_socket, "stream", {"name": "stdout", "text": "echo: " + code})
        return {"status": "ok", "execution_count": self.execution_count, "payload": [], "user_expressions": {}}

IPKernelApp.launch_instance(kernel_class=Echo)
"""


@pytest.fixture
def kernels(lab: Path) -> Iterator[Path]:
    """A Jupyter path on which a test may put kernels."""
    folder = lab / "share" / "jupyter"
    (folder / "kernels").mkdir(parents=True)
    yield folder


def install(folder: Path, name: str, argv: list[str], language: str) -> None:
    """Install a kernel."""
    spec = folder / "kernels" / name / "kernel.json"
    spec.parent.mkdir()
    spec.write_text(json.dumps({"argv": argv, "display_name": name, "language": language}))


def test_a_kernel_of_another_language_runs_and_its_notebook_has_the_output(lab: Path, kernels: Path) -> None:
    (lab / "echo.py").write_text(ECHO)
    install(kernels, "echo", [sys.executable, str(lab / "echo.py"), "-f", "{connection_file}"], "echo")
    original = write(lab / "notebooks" / "echo.ipynb", "cry", "again")
    ended = run(original, "--kernel", "echo", JUPYTER_PATH=str(kernels))
    assert (ended.exit_status, ended.shown()) == (0, "echo: cryecho: again"), ended.err


def test_a_stock_kernel_that_labkit_does_not_know_runs_and_is_owned(lab: Path, kernels: Path) -> None:
    install(
        kernels,
        "foreign",
        ["/bin/sh", "-c", f'"{sys.executable}" -m ipykernel_launcher -f "$0"', "{connection_file}"],
        "python",
    )
    ended = run(fixture(lab, "leaves-child"), "--kernel", "foreign", JUPYTER_PATH=str(kernels))
    assert ended.exit_status == 0, ended.err
    assert not alive(int(ended.shown()))


def test_a_kernel_whose_program_does_not_exist_fails_with_the_reason(lab: Path, kernels: Path) -> None:
    install(kernels, "gone", ["/no/such/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"], "python")
    ended = run(fixture(lab, "minimal"), "--kernel", "gone", JUPYTER_PATH=str(kernels))
    assert (ended.exit_status, ended.status.state) == (1, "failed")
    assert "the kernel did not start: /no/such/python: No such file or directory" in ended.status.reason


def test_a_kernel_that_dies_at_once_fails_with_the_reason(lab: Path, kernels: Path) -> None:
    install(
        kernels, "dies", [sys.executable, "-c", "raise SystemExit('no ipykernel here')", "{connection_file}"], "python"
    )
    ended = run(fixture(lab, "minimal"), "--kernel", "dies", JUPYTER_PATH=str(kernels))
    assert (ended.exit_status, ended.status.state) == (1, "failed")
    assert "the kernel exited with status 1" in ended.status.reason
    assert "no ipykernel here" in ended.log


def test_labkit_needs_nothing_of_the_lab_but_the_notebook(tmp_path: Path) -> None:
    alone = Path(shutil.copy(ROOT / "tests/notebooks/minimal.ipynb", tmp_path))
    done = labkit("run", str(alone), "--no-report")
    assert done.returncode == 0 and Path(done.stdout.strip()).parent == tmp_path / "runs" / "minimal"
    assert os.access(tmp_path / "runs" / "last" / "run.json", os.R_OK)
