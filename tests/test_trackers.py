"""Trackers are mirrors: they show what the record has, once each, and whatever becomes of them changes no run."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import alive, labkit, make_lab, run, started, wait_for
from tiny import parameters, plain_environment, write
from tracking import KEY, in_offline_runs, log, make_run, on_tensorboard, recorded, server, torn

from labkit.errors import BadInput, ParameterProblem
from labkit.record import metrics
from labkit.record.files import write_atomic, write_json
from labkit.record.process import descendants
from labkit.record.rundir import RunDir
from labkit.record.tail import Tail
from labkit.workbench.notebooks import params
from labkit.workbench.pages.facts import facts_of
from labkit.workbench.running import job, trackers
from labkit.workbench.running.feed import Feed

LOOP = "import time\nimport labkit\nrun = labkit.start()\nfor step in range(STEPS):\n    run.log(step, loss=step / 2)\n"
SLEEPS = "    time.sleep(PAUSE_S)"


def installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


tensorboard = pytest.mark.skipif(not installed("tensorboard"), reason="tensorboard is not installed")
wandb = pytest.mark.skipif(not installed("wandb"), reason="wandb is not installed")


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The tests have no account at W&B but the one that they make."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))


def notebook(folder: Path, steps: int = 50, pause_s: float = 0.0, *names: str) -> Path:
    declared = f"TRACKERS: list = {list(names)}\nSTEPS: int = {steps}\nPAUSE_S: float = {pause_s}"
    return write(make_lab(folder) / "notebooks" / "tracked.ipynb", parameters(declared), LOOP + SLEEPS)


def feed_now(run: RunDir, name: str) -> Feed:
    """Feed a tracker with all that there is, as the process that follows a run does at its end."""
    fed = Feed(run, name)
    over = threading.Event()
    over.set()
    fed.serve(over)
    return fed


def said(run: RunDir, name: str) -> dict:
    return json.loads(trackers.outcome_file(run, name).read_bytes())


def board(run: RunDir) -> Path:
    return trackers.folder(run) / "tensorboard"


# the record as another process writes it


@given(st.lists(st.binary(max_size=40) | st.just(b'{"step": 1, "loss": 2.5}\n') | st.just(b"\n"), max_size=12))
def test_what_is_read_piece_by_piece_is_what_the_whole_file_has(tmp_path_factory: pytest.TempPathFactory, pieces: list):
    path = tmp_path_factory.mktemp("tail") / "metrics.jsonl"
    tail, found = Tail(path), []
    for piece in pieces:
        with path.open("ab") as file:
            file.write(piece)
        found += [record for records in tail.read() for record in records]
    found += [record for records in tail.read(over=True) for record in records]
    tail.rewind()
    assert repr(found) == repr([record for record in metrics.records(path) if record is not None])


def test_a_line_too_long_to_be_a_record_is_passed_over_and_does_not_fill_the_memory(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 1}\n' + b"x" * (3 * 2**20) + b'\n{"step": 2, "loss": 2}\n')
    tail = Tail(path)
    assert [record["step"] for records in tail.read() for record in records] == [1, 2]
    tail.rewind()


def test_a_metrics_file_that_was_replaced_or_cut_is_noticed(tmp_path: Path):
    run = make_run(tmp_path, 10)
    tail = Tail(run.metrics)
    assert sum(map(len, tail.read())) == 10 and not tail.is_replaced()
    log(run, [10])
    assert not tail.is_replaced()
    write_atomic(run.metrics, run.metrics.read_bytes())
    assert tail.is_replaced()
    tail.rewind()
    assert sum(map(len, tail.read())) == 11 and not tail.is_replaced()
    os.truncate(run.metrics, 20)
    assert tail.is_replaced()
    tail.rewind()


# TensorBoard


@tensorboard
def test_tensorboard_shows_each_line_of_the_record_once_with_its_time(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = make_run(tmp_path, 100)
    assert feed_now(run, "tensorboard").problem == ""
    assert on_tensorboard(board(run)) == recorded(range(100))
    times = [point.wall_time for point in EventAccumulator(str(board(run))).Reload().Scalars("loss")]
    assert times == [record["t"] for record in metrics.records(run.metrics) if record is not None]
    assert said(run, "tensorboard") | {"noted": ""} == {"fed": 100, "problem": "", "done": True, "noted": ""}


@tensorboard
def test_feeding_tensorboard_again_doubles_nothing_also_in_one_that_is_open(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = make_run(tmp_path, 20)
    feed_now(run, "tensorboard")
    is_open = EventAccumulator(str(board(run)), size_guidance={"scalars": 0}).Reload()
    for more in (range(20, 20), range(20, 30)):
        log(run, more)
        feed_now(run, "tensorboard")
        assert on_tensorboard(board(run)) == recorded(range(max(more.stop, 20)))
        points = is_open.Reload().Scalars("loss")
        assert [point.step for point in points] == list(range(max(more.stop, 20)))
    assert sorted(path.stat().st_size > 0 for path in board(run).iterdir()) == [False, True]


@tensorboard
def test_steps_that_repeat_and_go_back_numbers_that_are_none_and_odd_names_arrive(tmp_path: Path):
    run = make_run(tmp_path)
    steps = [0, 1, 1, 0, -5, 2**40]
    log(run, steps)
    log(run, [7], **{"": 1.0, "a/b c": float("nan"), "große \N{GREEK SMALL LETTER LAMDA}": float("inf"), "huge": 1e300})
    assert feed_now(run, "tensorboard").problem == ""
    assert on_tensorboard(board(run)) == recorded([*steps, 7])
    assert str(on_tensorboard(board(run), "a/b c")) == "[(7, nan)]"
    assert on_tensorboard(board(run), "große \N{GREEK SMALL LETTER LAMDA}") == [(7, float("inf"))]


@tensorboard
def test_torn_lines_are_left_out_and_the_others_arrive(tmp_path: Path):
    run = make_run(tmp_path, 3)
    with run.metrics.open("ab") as file:
        file.write(torn({"step": 3, "loss": 1.0}) + b"\n")
    log(run, [4])
    assert feed_now(run, "tensorboard").fed == 4
    assert on_tensorboard(board(run)) == recorded([0, 1, 2, 4])


@tensorboard
def test_a_record_cut_back_while_it_is_followed_is_shown_as_it_is_now(tmp_path: Path):
    run = make_run(tmp_path, 10)
    fed = Feed(run, "tensorboard")
    fed._take_turn(False)
    assert on_tensorboard(board(run)) == recorded(range(10))
    write_atomic(run.metrics, metrics.split(run.metrics, 4)[0])
    log(run, [100, 101])
    fed._take_turn(True)
    assert on_tensorboard(board(run)) == recorded([0, 1, 2, 3, 100, 101])
    assert said(run, "tensorboard")["fed"] == 6


@tensorboard
def test_a_process_killed_at_any_byte_leaves_nothing_that_doubles_or_stops_the_next(tmp_path: Path):
    run = make_run(tmp_path, 5)
    feed_now(run, "tensorboard")
    (whole,) = board(run).iterdir()
    data = whole.read_bytes()
    for size in range(0, len(data), 7):
        whole = max(board(run).iterdir())
        whole.write_bytes(data[:size])
        (board(run) / ".0123.partial").write_bytes(data[:size])
        feed_now(run, "tensorboard")
        assert on_tensorboard(board(run)) == recorded(range(5))
        assert len(list(board(run).iterdir())) <= 2


@tensorboard
def test_parameters_go_along_as_hyperparameters(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    run = make_run(tmp_path, 1, LR=0.1, MODEL="cnn", LAYERS=[8, 8], DEBUG=False, NOTHING=None)
    feed_now(run, "tensorboard")
    found = EventAccumulator(str(board(run))).Reload().summary_metadata["_hparams_/session_start_info"]
    start = HParamsPluginData.FromString(found.plugin_data.content).session_start_info.hparams
    assert start["LR"].number_value == 0.1 and start["MODEL"].string_value == "cnn"
    assert start["LAYERS"].string_value == "[8, 8]" and start["DEBUG"].bool_value is False


@tensorboard
def test_feeding_tensorboard_loads_no_torch(tmp_path: Path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom labkit.record.rundir import RunDir\n"
        "from labkit.workbench.running.feed import TensorBoard\nTensorBoard(RunDir(Path(sys.argv[1])))\n"
        "assert not {'torch', 'tensorflow'} & set(sys.modules)"
    )
    run = make_run(tmp_path)
    subprocess.run([sys.executable, "-c", code, str(run.path)], check=True, env=plain_environment())


@tensorboard
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a file that cannot be closed
def test_a_disk_that_refuses_is_named_and_later_all_is_there(small_disk: Path):
    run = make_run(small_disk, 50)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize - 8192))
    log(run, range(50, 53))
    fed = Feed(run, "tensorboard")
    with filler.open("ab") as file:
        try:
            file.write(b"x" * 2**20)
        except OSError:
            pass
    fed._take_turn(False)
    assert "No space left" in fed.problem
    filler.unlink()
    assert feed_now(run, "tensorboard").problem == ""
    assert on_tensorboard(board(run)) == recorded(range(53))


# what is refused


def test_a_tracker_that_nobody_knows_is_refused_with_those_there_are():
    declared = [params.Parameter("TRACKERS", "list", [], "", 1)]
    with pytest.raises(ParameterProblem, match="TRACKERS names 'tensorbord'; the trackers are tensorboard, wandb"):
        params.admit(declared, {"TRACKERS": ["tensorbord"]}, "x.ipynb")


def test_a_tracker_without_its_package_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    path = notebook(tmp_path / "lab")
    monkeypatch.setattr(trackers.metadata, "version", missing)
    with pytest.raises(BadInput, match=r"pip install 'labkit\[wandb\]'"):
        job.prepare(path, {"TRACKERS": ["wandb"]})
    assert not list((tmp_path / "lab" / "runs").iterdir())
    with pytest.raises(BadInput, match="pip install"):
        trackers.export(make_run(tmp_path), "tensorboard")


def test_a_parameter_of_that_name_that_is_no_list_means_nothing():
    assert trackers.asked({"TRACKERS": "wandb"}) == [] == trackers.unknown({"TRACKERS": "wandb"})
    assert trackers.asked({"TRACKERS": ["wandb", "wandb", "tensorboard"]}) == ["tensorboard", "wandb"]


@tensorboard
@pytest.mark.parametrize("linked", ["trackers", "trackers/tensorboard"])
def test_nothing_is_written_through_a_link_out_of_the_run(tmp_path: Path, linked: str):
    run = make_run(tmp_path, 3)
    (tmp_path / "elsewhere" / "tensorboard").mkdir(parents=True)
    (run.path / linked).parent.mkdir(exist_ok=True)
    (run.path / linked).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="it is a link"):
        trackers.export(run, "tensorboard")
    assert trackers.Feeding(run, ["tensorboard"]).end() == {}
    assert [path.name for path in (tmp_path / "elsewhere").rglob("*")] == ["tensorboard"]


def test_outcomes_are_told_with_what_to_do(tmp_path: Path):
    run = make_run(tmp_path)
    trackers.Feeding(run, [])._note("wandb", "it was rude")
    assert trackers.told(trackers.outcomes(run)) == [
        "wandb: 0 lines fed; it was rude (again: labkit export RUN --to wandb)"
    ]


def test_a_report_says_what_became_of_the_trackers_that_were_asked_for(tmp_path: Path):
    run = make_run(tmp_path)
    assert "Trackers" not in dict(facts_of(run).about)
    run.update_manifest(parameters={"TRACKERS": ["tensorboard", "wandb"]})
    trackers.Feeding(run, [])._note("wandb", "it was rude")
    assert dict(facts_of(run).about)["Trackers"] == (
        "wandb: 0 lines fed; it was rude (again: labkit export RUN --to wandb);"
        " tensorboard: nothing is recorded of it (feed it: labkit export RUN --to tensorboard)"
    )


def test_a_report_reads_no_outcome_of_a_tracker_from_outside_of_the_run(tmp_path: Path):
    run = make_run(tmp_path)
    run.update_manifest(parameters={"TRACKERS": ["wandb"]})
    (tmp_path / "elsewhere").mkdir()
    write_json(tmp_path / "elsewhere" / "wandb.json", {"fed": 7, "problem": "secret"})
    trackers.folder(run).symlink_to(tmp_path / "elsewhere")
    assert "secret" not in str(facts_of(run).about)


# processes


@tensorboard
@pytest.mark.slow
def test_a_killed_process_is_said_and_an_export_afterwards_has_each_line_once(tmp_path: Path):
    run = make_run(tmp_path, 100)
    feeding = trackers.Feeding(run, ["tensorboard"])
    wait_for(lambda: trackers.outcomes(run).get("tensorboard", {}).get("fed") == 100)
    feeding._processes["tensorboard"].kill()
    log(run, range(100, 120))
    assert feeding.end() == {"tensorboard": -signal.SIGKILL}
    assert said(run, "tensorboard")["problem"] == "its process ended with status -9"
    for _ in range(2):
        assert trackers.export(run, "tensorboard") == board(run)
        assert on_tensorboard(board(run)) == recorded(range(120))
        assert said(run, "tensorboard")["problem"] == ""


@tensorboard
@pytest.mark.slow
def test_a_process_that_hangs_is_ended_within_five_seconds(tmp_path: Path):
    run = make_run(tmp_path, 10)
    feeding = trackers.Feeding(run, ["tensorboard"])
    wait_for(lambda: trackers.outcomes(run))
    process = feeding._processes["tensorboard"]
    process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    feeding.end()
    assert time.monotonic() - began < 5.5
    assert not alive(process.pid)
    assert said(run, "tensorboard")["problem"] == "it had not taken everything 4.5 s after the end"


@tensorboard
@pytest.mark.slow
def test_of_two_exports_at_once_neither_doubles_anything(tmp_path: Path):
    run = make_run(tmp_path, 5000)
    command = [sys.executable, "-m", "labkit.cli", "export", str(run.path), "--to", "tensorboard"]
    both = [subprocess.Popen(command, env=plain_environment(), stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [(process.communicate()[1], process.returncode) for process in both]
    assert all(code == 0 or "another process feeds" in err for err, code in ends), ends
    assert on_tensorboard(board(run)) == recorded(range(5000))


@tensorboard
@pytest.mark.slow
def test_a_run_feeds_tensorboard_while_it_goes_on_and_to_its_last_line(tmp_path: Path):
    with started(notebook(tmp_path / "lab", 200, 0.03, "tensorboard")) as under_way:
        wait_for(lambda: (found := trackers.outcomes(under_way.run).get("tensorboard")) and found["fed"] > 0)
        assert under_way.process.poll() is None
        ended = under_way.ended()
    assert ended.exit_status == 0 and ended.exit["left"] == []
    assert "tensorboard: 200 lines fed" in ended.err
    assert on_tensorboard(board(ended.run)) == recorded(range(200))
    shown = json.loads(labkit("show", str(ended.run.path), "--json").stdout)
    assert shown["trackers"]["tensorboard"]["done"] is True


@tensorboard
@pytest.mark.slow
@pytest.mark.parametrize("signal_name", ["SIGKILL", "SIGSTOP"])
def test_whatever_is_done_to_the_process_of_a_tracker_the_run_ends_as_it_would(tmp_path: Path, signal_name: str):
    with started(notebook(tmp_path / "lab", 60, 0.02, "tensorboard")) as under_way:
        under_way.logs(5)
        (pid,) = [pid for pid in descendants(under_way.process.pid) if is_feed(pid)]
        os.kill(pid, getattr(signal, signal_name))
        ended = under_way.ended()
    assert ended.exit_status == 0 and ended.status.state == "finished" and ended.exit["left"] == []
    assert said(ended.run, "tensorboard")["problem"] in ended.err
    assert metrics.read(ended.run.metrics).rows == 60
    assert delay_s(ended.run) < 5.5
    assert not alive(pid)


@tensorboard
@pytest.mark.slow
def test_when_the_runner_is_killed_the_process_feeds_what_there_is_and_goes(tmp_path: Path):
    with started(notebook(tmp_path / "lab", 1000, 0.05, "tensorboard")) as under_way:
        run = under_way.logs(5)
        wait_for(lambda: trackers.outcomes(run))
        (pid,) = [pid for pid in descendants(under_way.process.pid) if is_feed(pid)]
        under_way.process.kill()
        wait_for(lambda: not alive(pid), 10)
    wait_for(run.exit.exists)
    rows = metrics.read(run.metrics).rows
    assert trackers.export(run, "tensorboard")
    assert on_tensorboard(board(run)) == recorded(range(rows))


@tensorboard
@pytest.mark.slow
def test_a_run_that_was_killed_and_resumed_has_each_line_once_in_its_trackers(tmp_path: Path):
    path = write(
        make_lab(tmp_path / "lab") / "notebooks" / "resumed.ipynb",
        parameters(f"TRACKERS: list = {list(filter(installed, trackers.KNOWN))}\nSTEPS: int = 150"),
        "import time\nimport torch\nimport labkit\nrun = labkit.start()\n"
        "state = run.restore(generator=torch.Generator(), state={'step': 0})\n"
        "for step in range(state['step'], STEPS):\n    run.log(step, loss=step / 2)\n"
        "    state['step'] = step + 1\n    run.checkpoint(state=state, every_s=0.7)\n    time.sleep(0.03)",
    )
    with started(path) as under_way:
        killed = under_way.logs(70)
        wait_for(lambda: trackers.outcomes(killed).get("tensorboard", {}).get("fed"))
        os.kill(json.loads(killed.process.read_bytes())["kernel"]["pid"], signal.SIGKILL)
        under_way.ended()
    resumed = labkit("resume", str(killed.path), "--no-report")
    assert resumed.returncode == 0, resumed.stderr
    assert [record["step"] for record in metrics.records(killed.metrics) if record is not None] == list(range(150))
    assert on_tensorboard(board(killed)) == recorded(range(150))
    if installed("wandb"):
        ((_, rows),) = in_offline_runs(trackers.export(killed, "wandb")).items()
        assert [row["step"] for row in rows] == list(range(150))


@pytest.mark.slow
def test_by_hand_the_run_says_what_feeds_its_trackers_afterwards(tmp_path: Path):
    script = make_lab(tmp_path / "lab") / "notebooks" / "by_hand.py"
    script.write_text("import labkit\nTRACKERS = ['tensorboard']\nrun = labkit.start()\nrun.log(0, loss=1.0)\n")
    done = subprocess.run([sys.executable, script], env=plain_environment(), capture_output=True, text=True)
    assert "by hand no tracker is fed; afterwards: labkit export" in done.stderr + done.stdout


def is_feed(pid: int) -> bool:
    return b"labkit.workbench.running.feed" in Path(f"/proc/{pid}/cmdline").read_bytes()


def delay_s(run: RunDir) -> float:
    """Seconds from the end of a run's kernel to what its trackers came to."""
    return max(path.stat().st_mtime for path in trackers.folder(run).glob("*.json")) - run.exit.stat().st_mtime


# Weights & Biases


@wandb
@pytest.mark.slow
def test_w_and_b_offline_has_each_line_once_however_often_it_is_fed(tmp_path: Path):
    run = make_run(tmp_path, 30, LR=0.1)
    ids = set()
    for lines in (30, 30, 40):
        log(run, range(30, lines))
        folder = trackers.export(run, "wandb")
        ((name, rows),) = in_offline_runs(folder).items()
        ids.add(name)
        assert [(row["step"], row["loss"]) for row in rows] == recorded(range(lines))
        assert [row["_step"] for row in rows] == list(range(lines))
        times = [record["t"] for record in metrics.records(run.metrics) if record is not None]
        assert [row["_timestamp"] for row in rows] == pytest.approx(times, abs=1e-3)
    assert len(ids) == 1


@wandb
@pytest.mark.slow
def test_w_and_b_begins_another_run_where_the_record_was_cut_back(tmp_path: Path):
    run = make_run(tmp_path, 30)
    (earlier,) = in_offline_runs(trackers.export(run, "wandb"))
    write_atomic(run.metrics, metrics.split(run.metrics, 10)[0])
    log(run, range(100, 103))
    ((later, rows),) = in_offline_runs(trackers.export(run, "wandb")).items()
    assert later != earlier
    assert [row["step"] for row in rows] == [*range(10), 100, 101, 102]


@wandb
@pytest.mark.slow
def test_an_account_at_w_and_b_gets_each_line_once_and_is_asked_where_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = make_run(tmp_path, 30, LR=0.1)
    with server("works") as served:
        kept, told = served.rows, served.said
        for name, value in served.environment.items():
            monkeypatch.setenv(name, value)
        trackers.export(run, "wandb")
        assert steps_in(kept) == [list(range(30))]
        log(run, range(30, 50))
        told.clear()
        trackers.export(run, "wandb")
        assert steps_in(kept) == [list(range(50))]
        sent = b"".join(told)
        assert b'\\"_step\\":30' in sent and b'\\"_step\\":29' not in sent, "only what was new is sent"
        write_atomic(run.metrics, metrics.split(run.metrics, 10)[0])
        log(run, [100])
        trackers.export(run, "wandb")
        assert steps_in(kept) == [list(range(50)), [*range(10), 100]]


def steps_in(kept: dict[str, dict[int, str]]) -> list[list[int]]:
    return [[json.loads(rows[place])["step"] for place in sorted(rows)] for rows in kept.values()]


@wandb
@pytest.mark.slow
@pytest.mark.parametrize("temper", ["refuses", "never answers", "answers 500"])
def test_a_server_that_fails_delays_the_end_by_five_seconds_at_most_and_is_fed_later(tmp_path: Path, temper: str):
    path = notebook(tmp_path / "lab", 50, 0.01, "wandb")
    with server(temper) as served:
        began = time.monotonic()
        ended = run(path, **served.environment)
        took_s = time.monotonic() - began
    assert ended.exit_status == 0 and ended.status.state == "finished" and ended.exit["left"] == []
    assert metrics.read(ended.run.metrics).rows == 50
    assert delay_s(ended.run) < 5.5, took_s
    assert f"wandb: 0 lines fed; {said(ended.run, 'wandb')['problem']}" in ended.err
    ((_, rows),) = in_offline_runs(trackers.export(ended.run, "wandb")).items()
    assert [row["step"] for row in rows] == list(range(50))


@wandb
@pytest.mark.slow
def test_a_server_that_dies_in_the_middle_changes_nothing_and_an_export_makes_up_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = notebook(tmp_path / "lab", 400, 0.03, "wandb")
    with server("works") as served, started(path, **served.environment) as under_way:
        wait_for(lambda: any(served.rows.values()))
        served.die()
        before = max(map(len, served.rows.values()))
        ended = under_way.ended()
    assert ended.exit_status == 0 and ended.exit["left"] == []
    assert before < 400 and delay_s(ended.run) < 5.5
    assert "had not taken everything" in said(ended.run, "wandb")["problem"]
    with server("works", served.rows) as again:
        for name, value in again.environment.items():
            monkeypatch.setenv(name, value)
        trackers.export(ended.run, "wandb")
    assert steps_in(served.rows) == [list(range(400))]


@wandb
@pytest.mark.slow
def test_no_secret_of_the_environment_stands_in_what_trackers_write_or_send(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = make_run(tmp_path, 20)
    monkeypatch.setenv("MY_TOKEN", "hunter2hunter2")
    with server("works") as served:
        for name, value in served.environment.items():
            monkeypatch.setenv(name, value)
        for tracker in filter(installed, trackers.KNOWN):
            trackers.export(run, tracker)
    assert any(served.rows.values())
    written = b"".join(path.read_bytes() for path in run.path.rglob("*") if path.is_file())
    for secret in (KEY.encode(), b"hunter2hunter2"):
        assert secret not in written and secret not in b"".join(served.said)
