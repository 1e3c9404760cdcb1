"""`list`, `show` and `log` on good, damaged and hostile runs: what can be read is shown, and nothing is executed."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mutations import mutated
from records import dead_process, made, started, tree
from tiny import markdown, parameters, write

from labkit import cli
from labkit.errors import LabkitError
from labkit.record import STATES
from labkit.record.files import read_json, write_json
from labkit.record.find import every, find
from labkit.record.rundir import SCRATCH, RunDir, create
from labkit.record.status import status
from labkit.workbench import logview, runlist, terminal
from labkit.workbench.notebooks import notebook as notebooks
from labkit.workbench.notebooks import yamlfile

STEERING = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e[/red][bold]\r"


@pytest.fixture
def runs(lab: Path) -> Path:
    return lab / "runs"


@pytest.fixture
def run(runs: Path) -> RunDir:
    """A whole run that has finished."""
    return whole(runs)


def whole(runs: Path) -> RunDir:
    """A finished run with each file that a reader opens."""
    run = made(
        runs,
        "digits",
        steps=20,
        title="Digits",
        parameters={"N": 1, "NOTE": "a: b"},
        given={"N": 1},
        notebook="digits.ipynb",
    )
    run.params.write_text(yamlfile.yaml_text({"N": 1, "RATE": 1e-3, "NOTE": "a: b", "LIST": [1, {"x": None}]}))
    write(run.notebook, markdown("# Digits"), parameters("N: int = 1"), "print(N)")
    shutil.copy(run.notebook, run.source / "notebook.ipynb")
    run.log.write_text("2026-11-21 10:15:00.123 INFO [digits.ipynb training: train: 12] loss is 0.5\nprinted\n")
    write_json(run.environment, {"python": "3.11", "torch": "2.13.0", "gpus": [], "memory_gib": 23.5})
    write_json(run.source / "git.json", {"commit": "0" * 40, "branch": "main", "dirty": True, "problem": ""})
    write_json(run.kernel, {"metrics": {"written": 20, "refused": 1, "lost": 0}, "log": {"bytes": 5, "lost": 0}})
    write_json(run.process, {"process": dead_process().facts(), "started_s": time.time() - 5})
    write_json(
        run.exit,
        {"status": "finished", "reason": "", "duration_s": 1.5, "left": [{"pid": 1, "name": "x"}], "error": None},
    )
    return run


def labkit(*arguments: str) -> Result:
    """What a command says; an exception that is not labkit's own is passed on."""
    return CliRunner().invoke(cli.main, arguments, catch_exceptions=False)


def shown(*arguments: str) -> str:
    said = labkit(*arguments)
    assert said.exit_code == 0, said.output
    return said.stdout


def test_a_list_shows_each_run_once_and_the_newest_last(runs: Path):
    made_runs = [whole(runs), made(runs, "other", end="failed"), made(runs / SCRATCH, "digits")]
    text = shown("list")
    assert [text.count(run.id[-6:]) for run in made_runs] == [1, 1, 0]
    assert text.index(made_runs[0].id[-6:]) < text.index(made_runs[1].id[-6:])
    assert shown("list", "--all").count("\n") == 4
    assert made_runs[1].id[-6:] not in shown("list", "--status", "finished")
    assert made_runs[0].id[-6:] not in shown("list", "other")
    assert [row["id"] for row in json.loads(shown("list", "-n", "1", "--json"))] == [made_runs[1].id]


def test_a_run_that_was_given_much_takes_no_more_room_in_a_list_than_others(runs: Path):
    made(runs, given={"N": 1, "NOTE": "words " * 40, "RATE": 0.5} | {f"P{number}": number for number in range(9)})
    line = shown("list").splitlines()[-1]
    assert "N=1  NOTE=words" in line and line.endswith(" more") and len(line) < 160
    assert '"P8": 8' in shown("list", "--json")


def test_a_list_tells_a_run_that_its_search_pruned_from_one_that_somebody_stopped(runs: Path):
    for stop in ({"reason": "pruned: loss 3", "pruned": {"metric": "loss"}}, {"reason": "enough", "by_hand": True}):
        run = whole(runs)
        write_json(run.exit, read_json(run.exit) | {"status": "interrupted"})
        write_json(run.stop, stop)
    by_search, by_hand = labkit("list", "--runs", str(runs)).stdout.splitlines()[1:]
    assert "interrupted (pruned)  " in by_search and "interrupted  " in by_hand


def test_newlines_of_a_reason_are_shown_as_spaces(run: RunDir):
    refused = "sbatch refused: no route\nsbatch: error: try later"
    write_json(run.exit, read_json(run.exit) | {"status": "failed", "reason": refused})
    assert refused.replace("\n", " ") in labkit("show", str(run.path)).stdout


def test_a_lab_without_runs_says_so(lab: Path):
    assert "no runs in" in shown("list")
    assert json.loads(shown("list", "--json")) == []
    said = labkit("show", "last")
    assert (said.exit_code, said.stdout) == (2, "")
    assert "there are no runs yet" in said.stderr


def test_a_run_shows_status_numbers_parameters_source_and_losses(run: RunDir):
    text = shown("show", "last")
    for expected in (
        "Digits",
        "finished in 1.5 s",
        "digits.ipynb",
        "N=1 (given)",
        "0" * 40,
        "uncommitted changes",
        "metrics refused: 1",
    ):
        assert expected in text.replace("\n", " "), expected
    found = json.loads(shown("show", run.id[-6:], "--json"))
    assert (found["status"], found["counts"]["metrics"]["refused"], found["problem"]) == ("finished", 1, "")
    assert found["summary"]["metrics"]["loss"]["count"] == 20


def test_a_log_is_printed_by_text_and_level(run: RunDir):
    assert shown("log") == run.log.read_text()
    assert shown("log", "last", "--level", "info").count("\n") == 1
    assert shown("log", "digits@last", "--grep", "printed") == "printed\n"


def test_metrics_of_a_run_that_was_cut_off_are_summed_up_on_the_spot(run: RunDir):
    run.update_manifest(summary={})
    with run.metrics.open("ab") as file:
        file.write(b'{"step": 20, "lo')
    summary = json.loads(shown("show", "--json"))["summary"]
    assert (summary["steps"], summary["torn"]) == (20, 1)


def test_a_run_without_its_manifest_is_listed_and_shown_as_far_as_it_goes(run: RunDir):
    run.manifest.unlink()
    assert run.id[-6:] in shown("list")
    assert "run.jsonismissingornotJSON" in "".join(shown("show", run.id).split())
    assert json.loads(shown("show", run.id, "--json"))["summary"]["steps"] == 20


@pytest.mark.parametrize(
    "name",
    [
        "run.json",
        "metrics.jsonl",
        "output.log",
        "attempts/1/exit.json",
        "attempts/1/process.json",
        "attempts/1/kernel.json",
        "environment.json",
        "source/git.json",
        "attempts",
        "attempts/1",
        "source",
    ],
)
@pytest.mark.parametrize(
    "kind",
    [
        "link",
        "fifo",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("gone", "folder", "dangling", "loop", "empty", "zeros")
        ),
    ],
)
def test_any_file_of_a_run_may_be_anything_and_no_command_follows_it_out_or_waits(
    run: RunDir, tmp_path: Path, name: str, kind: str
):
    outside = tmp_path / "outside"
    shutil.copytree(run.path, outside)
    for file in outside.rglob("*"):
        if file.is_file():
            file.write_bytes(
                file.read_bytes()
                .replace(b"Digits", b"SECRET")
                .replace(b"printed", b"SECRET")
                .replace(b"finished", b"timeout")
            )
    path = run.path / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    match kind:
        case "link":
            path.symlink_to(outside / name)
        case "dangling":
            path.symlink_to("nowhere")
        case "loop":
            path.symlink_to(path)
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "empty":
            path.touch()
        case "zeros":
            path.write_bytes(b"\0" * 100_000)
    before = tree(tmp_path)
    began = time.perf_counter()
    said = [
        shown("list"),
        shown("show", run.id),
        shown("log", run.id),
        shown("log", "-f", str(run.path)),
        shown("show", "--json", run.id),
    ]
    assert time.perf_counter() - began < 2
    assert "SECRET" not in "".join(said)
    assert "timeout" not in "".join(said)
    assert tree(tmp_path) == before


def hostile_manifest(run: RunDir) -> None:
    write_json(
        run.manifest,
        {
            "format": 1,
            "title": STEERING,
            "name": STEERING,
            "notebook": STEERING,
            "created": "0001-01-01T00:00:00+23:59",
            "author": STEERING,
            "host": STEERING,
            "labels": [STEERING, 5, ["x"]],
            "given": {STEERING: STEERING, "[/]": "[/]"},
            "parameters": {STEERING: [STEERING], "[/]": 10**400},
            "command": [1],
            "summary": {
                "metrics": {
                    STEERING: {"last": STEERING, "min": "[/]", "max": [1], "count": STEERING},
                    "[/x]": {"last": 10**400},
                    "none": {},
                    "text": "x",
                }
            },
        },
    )
    write_json(run.exit, {"status": "failed", "reason": STEERING, "duration_s": 10**400})
    write_json(run.source / "git.json", {"commit": STEERING, "dirty": [1]})
    write_json(run.kernel, {STEERING: {"lost": STEERING}, "x": 5})


def test_no_text_in_a_run_steers_the_terminal_or_breaks_the_tables(run: RunDir):
    hostile_manifest(run)
    run.log.write_bytes(STEERING.encode())
    for text in (shown("list"), shown("show", run.id), shown("log", run.id)):
        assert not set(text) & set("\x1b\x07\x9b")
    assert "\u202e" not in shown("list") + shown("show", run.id)
    assert json.loads(shown("show", run.id, "--json"))["title"] == STEERING


@pytest.mark.parametrize(
    "name",
    [b"caf\xe9", STEERING.replace("/", "-").encode(), b"two\nlines", "😀".encode() * 50, b"[bold]", b" "],
    ids=ascii,
)
def test_a_notebooks_folder_may_have_any_name(runs: Path, run: RunDir, name: bytes):
    os.rename(os.fsencode(run.path.parent), os.path.join(os.fsencode(runs), name))
    (found,) = every(runs)
    for arguments in (["list"], ["show", found.id], ["show", "nothing"], ["log", found.id]):
        text = labkit(*arguments).output
        text.encode()
        assert "\x1b" not in text
        assert "\x9b" not in text
    assert json.loads(shown("list", "--json"))[0]["id"] == found.id


@pytest.mark.parametrize(
    "text", ["x" * 5000, "\ud800", "../..", "@", "a@b", "best:", "@best:loss", "a" * 300 + "/b", "*", "[", ".html"]
)
def test_a_name_of_no_run_is_said_in_a_line(run: RunDir, text: str):
    for command in ("show", "log"):
        said = labkit(command, text)
        if text == "@best:loss":
            assert said.exit_code == 0
        else:
            assert (said.exit_code, said.stdout) == (2, "")
            assert said.stderr.startswith("labkit: ")


def test_nothing_in_a_run_is_executed_or_imported(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sprung = tmp_path / "sprung"
    trap = f"open({str(sprung)!r}, 'w')\n"
    for name in ("sitecustomize.py", "orjson.py", "rich.py", "labkit.py", "conftest.py", "source/modules/json.py"):
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_text(trap)
    (run.checkpoints).mkdir()
    (run.checkpoints / "x.pt").write_bytes(b"cbuiltins\nexec\n(V" + trap.strip().encode() + b"\ntR.")
    run.params.write_text(f"A: !!python/object/apply:builtins.exec [{json.dumps(trap)}]\n")
    monkeypatch.chdir(run.path)
    before = set(sys.modules)
    for arguments in (["list"], ["show", "."], ["log", "."]):
        shown(*arguments)
    assert not sprung.exists()
    assert not {
        name for name in set(sys.modules) - before if str(run.path) in str(getattr(sys.modules[name], "__file__", ""))
    }


def test_a_reader_that_goes_away_is_no_error(run: RunDir):
    import subprocess

    run.log.write_bytes(b"line\n" * 200_000)
    done = subprocess.run(
        f'"{sys.executable}" -m labkit.cli log last | head -n 1', shell=True, capture_output=True, text=True, timeout=30
    )
    assert (done.stdout, done.stderr) == ("line\n", "")


# damage by chance

FILES = (
    "run.json",
    "metrics.jsonl",
    "params.yaml",
    "notebook.ipynb",
    "attempts/1/exit.json",
    "attempts/1/process.json",
    "attempts/1/kernel.json",
    "output.log",
    "source/git.json",
    "environment.json",
)


def look(run: RunDir, runs: Path) -> None:
    """Every reading function on one run; each may refuse with an error of labkit's own, and with no other."""
    found = status(run)
    assert found.state in STATES
    assert found.state not in ("running", "queued")
    known = terminal.facts(run)
    terminal.print_facts(known)
    terminal.print_json(known)
    (row,) = runlist.rows(runs, None, None, None, scratch=True)
    assert row["id"] == run.id
    runlist.print_rows([row], runs)
    assert all(isinstance(line, str) for line in logview.lines(run, level="info", follow=True))
    for name in (run.id, "last", "best:loss", "digits@best:-accuracy"):
        refusable(find, name, runs)
    refusable(yamlfile.read_yaml, run.params)
    refusable(lambda: notebooks.read(run.notebook).parameters())
    refusable(run.read_manifest)


def refusable(call, *arguments) -> None:
    try:
        call(*arguments)
    except LabkitError as error:
        assert str(error)


def fuzz(tmp_path: Path, count: int, also=lambda run, runs: None) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    runs = tmp_path / "fuzz" / "runs"
    run = whole(runs)
    good = {name: (run.path / name).read_bytes() for name in FILES}
    slowest = (0.0, "")
    for number in range(count):
        name = chance.choice(FILES)
        damaged = mutated(good[name], chance)
        (run.path / name).write_bytes(damaged)
        before = tree(tmp_path / "fuzz")
        began = time.perf_counter()
        try:
            look(run, runs)
            also(run, runs)
        except BaseException:
            print(f"mutation {number} of {name}: {damaged[:3000]!r}")
            raise
        slowest = max(slowest, (time.perf_counter() - began, f"mutation {number} of {name}"))
        assert tree(tmp_path / "fuzz") == before, f"mutation {number} of {name} changed something"
        (run.path / name).write_bytes(good[name])
    assert slowest[0] < 2, slowest


@pytest.mark.slow
def test_some_hundred_damaged_runs_crash_no_reader(tmp_path: Path):
    fuzz(tmp_path, 200)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_ten_thousand_damaged_runs_crash_no_reader(tmp_path: Path):
    fuzz(tmp_path, 10_000)


@pytest.mark.slow
def test_damaged_runs_still_have_a_report(tmp_path: Path):
    from labkit.workbench.pages.report import write_report

    target = tmp_path / "reports"
    target.mkdir()

    def report(run: RunDir, runs: Path) -> None:
        refusable(write_report, run, target / "report.html")

    fuzz(tmp_path, 60, report)


def test_a_run_that_was_never_started_is_listed(runs: Path):
    run = create(runs, "x", {})
    assert json.loads(shown("list", "--json"))[0]["status"] == "unknown"
    started(run, dead_process())
    assert "killed" in shown("list")
    assert read_json(run.exit) is None
