"""The n-th system call of a run's record fails, for every n: files are old or new, and losses are counted exactly."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from records import lines

from labkit.errors import FolderProblem
from labkit.record import metrics as record_metrics
from labkit.record.files import read_json, write_atomic, write_json
from labkit.record.find import every
from labkit.record.metrics import MetricsWriter, read
from labkit.record.rundir import RunDir, create
from labkit.record.summary import summarise

STEPS = 200
CALLS = ("open", "write", "fsync", "replace", "rename", "mkdir", "symlink")
UNTRIED = ("replace", "rename", "mkdir", "symlink")  # Python passes EINTR of these on, and tries the others again
SHORT = "short write"


class Faults:
    """Fails the n-th of some calls; `persistent` fails every later one as well."""

    def __init__(self, call: str, number: int, fault: int | str, persistent: bool) -> None:
        self.call, self.number, self.fault, self.persistent = call, number, fault, persistent
        self.count = 0
        self.active = True

    @property
    def fired(self) -> bool:
        return self.count >= self.number

    def due(self) -> bool:
        self.count += 1
        return self.active and (self.count == self.number or (self.persistent and self.count > self.number))

    def around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if not self.due():
                return real(*arguments, **options)
            if self.fault == SHORT:
                fd, data = arguments
                return real(fd, memoryview(data)[: max(1, len(data) - 1 - self.count % 3)])
            raise OSError(self.fault, os.strerror(self.fault))

        return call

    @contextmanager
    def injected(self) -> Iterator[None]:
        real = getattr(os, self.call)
        setattr(os, self.call, self.around(real))
        try:
            yield
        finally:
            setattr(os, self.call, real)


def values(step: int) -> dict[str, float]:
    return {"loss": 1 / (step + 1), "accuracy": step / 7}


def live(runs: Path) -> tuple[RunDir | None, MetricsWriter | None, dict[str, bool]]:
    """A whole run as labkit does it; what could not be written is told, and nothing else is raised."""
    outcome: dict[str, bool] = {}
    try:
        run = create(runs, "tiny", {"title": "old"}, {"params.yaml": "N: 1\n", "source/notebook.ipynb": b"{}" * 1000})
    except FolderProblem:
        return None, None, outcome
    writer = MetricsWriter(run.metrics)
    for step in range(STEPS):
        assert writer.log(step, values(step)) is True
        if step == STEPS // 2:
            outcome["environment"] = wrote(write_json, run.environment, {"python": "3.11"})
            outcome["manifest"] = wrote(run.update_manifest, labels=["new"])
    writer.close()
    summarise(run)
    counts = {"written": writer.written, "refused": writer.refused, "lost": writer.lost}
    outcome["kernel"] = wrote(write_json, run.kernel, {"metrics": counts})
    outcome["exit"] = wrote(write_json, run.exit, {"status": "finished"})
    return run, writer, outcome


def wrote(write: Callable[..., None], *arguments: Any, **options: Any) -> bool:
    try:
        write(*arguments, **options)
    except (OSError, FolderProblem):
        return False
    return True


def check(
    runs: Path, run: RunDir | None, writer: MetricsWriter | None, outcome: dict[str, bool], faults: Faults
) -> None:
    if run is None or writer is None:
        assert every(runs) == [], "a run without its files is found"
        # what cannot even be opened cannot be removed: then it stays, hidden
        assert not leftovers(runs) or (faults.call == "open" and faults.persistent)
        return
    assert [found.path for found in every(runs)] == [run.path]
    assert (writer.written + writer.lost, writer.refused, writer.waiting) == (STEPS, 0, 0)
    found = read(run.metrics)
    assert found.rows == writer.written, "records that count as written are readable"
    assert found.rows + writer.lost == STEPS, "what was lost is counted exactly"
    assert found.torn <= (1 if writer.lost else 0)
    if not faults.persistent:
        assert writer.lost == found.torn == 0, "a disk that refused once costs nothing"
    rows = list(zip(*columns(found), strict=True))
    assert rows == [(step, *values(step).values()) for step in range(found.rows)], "lines keep their order"
    whole_files(run, outcome)
    assert leftovers(runs) == []


def columns(found: record_metrics.Metrics) -> tuple[list, list, list]:
    if not found.rows:
        return [], [], []
    return list(found.columns["loss"].steps), list(found.columns["loss"].values), list(found.columns["accuracy"].values)


def whole_files(run: RunDir, outcome: dict[str, bool]) -> None:
    assert run.params.read_text() == "N: 1\n"
    assert (run.source / "notebook.ipynb").read_bytes() == b"{}" * 1000
    manifest = read_json(run.manifest)
    assert manifest is not None
    assert manifest["title"] == "old"
    assert manifest["labels"] in ([], ["new"])
    assert manifest["summary"] in ({}, read(run.metrics).summary())
    if outcome["manifest"]:
        assert manifest["labels"] == ["new"]
    for name, path, value in (
        ("environment", run.environment, {"python": "3.11"}),
        ("exit", run.exit, {"status": "finished"}),
    ):
        assert read_json(path) in (None, value)
        assert path.exists() == (read_json(path) is not None)
        if outcome[name]:
            assert read_json(path) == value


def leftovers(runs: Path) -> list[str]:
    return (
        [str(path.relative_to(runs)) for path in runs.rglob("*") if path.name.startswith(".")] if runs.exists() else []
    )


def sweep(folder: Path, call: str, fault: int | str, persistent: bool, stride: int = 1) -> int:
    """Lives a run with a fault at each n until none fires; returns how many did."""
    number = 0
    while True:
        number += 1 if number < 30 else stride
        faults = Faults(call, number, fault, persistent)
        runs = folder / f"{call} {number}"
        with faults.injected():
            run, writer, outcome = live(runs)
        try:
            check(runs, run, writer, outcome, faults)
        except BaseException:
            print(f"os.{call} number {number}: {fault}, {'persistent' if persistent else 'once'}, {STEPS} steps")
            raise
        if not faults.fired:
            return number - 1
        shutil.rmtree(runs, ignore_errors=True)


CASES = [
    (call, fault, persistent)
    for call in CALLS
    for fault in (errno.ENOSPC, errno.EIO, *((errno.EINTR,) if call in UNTRIED else ()))
    for persistent in (False, True)
]


def name_of(case: object) -> str:
    return (
        errno.errorcode[case]
        if isinstance(case, int) and case in errno.errorcode and not isinstance(case, bool)
        else str(case)
    )


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where the system has one: thousands of runs would wear a disk."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def retried_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between two tries: the sweep would otherwise see but one."""
    monkeypatch.setattr(record_metrics, "RETRY_S", 0.0)


@pytest.mark.parametrize(
    ("call", "fault", "persistent"),
    [pytest.param(*case, marks=[pytest.mark.slow] if case[1] == errno.EIO else []) for case in CASES],
    ids=name_of,
)
def test_a_failing_call_loses_nothing_uncounted(memory: Path, call: str, fault: int, persistent: bool):
    assert sweep(memory, call, fault, persistent, stride=23) >= 1


@pytest.mark.parametrize("persistent", [False, True], ids=["once", "always"])
def test_a_write_that_takes_a_part_only_is_continued(memory: Path, persistent: bool):
    assert sweep(memory, "write", SHORT, persistent, stride=23) >= STEPS


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("call", "fault", "persistent"), [*CASES, ("write", SHORT, False), ("write", SHORT, True)], ids=name_of
)
def test_every_failing_call_loses_nothing_uncounted(memory: Path, call: str, fault: int | str, persistent: bool):
    assert sweep(memory, call, fault, persistent) >= 1


def test_a_fault_in_every_other_write_still_loses_nothing(tmp_path: Path):
    class EveryOther(Faults):
        def due(self) -> bool:
            self.count += 1
            return self.count % 2 == 0

    path = tmp_path / "metrics.jsonl"
    for fault in (errno.ENOSPC, errno.EIO, SHORT):
        path.unlink(missing_ok=True)
        with EveryOther("write", 0, fault, True).injected():
            writer = MetricsWriter(path)
            for step in range(STEPS):
                writer.log(step, values(step))
            writer.close()
        writer.close()
        assert (read(path).rows + writer.lost, read(path).torn) == (STEPS, 0)
        assert writer.lost <= 1  # the last, when the very last try fails


def test_while_the_disk_is_full_lines_wait_and_are_written_in_order_when_space_returns(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    faults = Faults("write", 1, errno.ENOSPC, True)
    with faults.injected():
        writer = MetricsWriter(path)
        for step in range(50):
            writer.log(step, values(step))
        assert (writer.written, writer.waiting, path.read_bytes()) == (0, 50, b"")
        assert writer.problem == "No space left on device"
        faults.active = False
        for step in range(50, 60):
            writer.log(step, values(step))
    writer.close()
    assert (writer.written, writer.waiting, writer.lost) == (60, 0, 0)
    assert [line["step"] for line in lines(path)] == list(range(60))


def test_what_waits_is_bounded_and_the_rest_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(record_metrics, "KEPT_BYTES", 1000)
    path = tmp_path / "metrics.jsonl"
    faults = Faults("write", 1, errno.ENOSPC, True)
    with faults.injected():
        writer = MetricsWriter(path)
        for step in range(100):
            writer.log(step, values(step))
        assert 5 < writer.waiting < 20
        assert writer.waiting + writer.lost == 100
        faults.active = False
    writer.close()
    assert writer.written == read(path).rows == 100 - writer.lost
    assert read(path).torn == 0


def test_a_file_that_cannot_be_opened_at_first_gets_every_line_later(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    faults = Faults("open", 1, errno.EIO, True)
    with faults.injected():
        writer = MetricsWriter(path)
        for step in range(10):
            writer.log(step, values(step))
        assert (writer.waiting, writer.problem) == (10, "Input/output error")
        faults.active = False
        writer.log(10, values(10))
    writer.close()
    assert (writer.written, writer.lost, read(path).rows) == (11, 0, 11)


def test_tries_on_a_full_disk_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(record_metrics, "RETRY_S", 60.0)
    faults = Faults("write", 1, errno.ENOSPC, True)
    with faults.injected():
        writer = MetricsWriter(tmp_path / "metrics.jsonl")
        for step in range(1000):
            writer.log(step, values(step))
        assert faults.count < 5
        faults.active = False
        writer.close()
    assert read(tmp_path / "metrics.jsonl").rows == 1000


def test_a_close_that_fails_raises_nothing(tmp_path: Path):
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    writer.log(0, values(0))
    with Faults("close", 1, errno.EIO, False).injected():
        writer.close()
    assert (writer.written, writer.problem) == (1, "Input/output error")


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_replaced_file_is_old_or_new_and_nothing_lies_beside_it(tmp_path: Path, call: str, number: int):
    path = tmp_path / "a.json"
    write_atomic(path, b"old")
    with Faults(call, number, errno.EIO, False).injected():
        failed = not wrote(write_atomic, path, b"new" * 1000)
    assert path.read_bytes() == (b"old" if failed else b"new" * 1000)
    assert os.listdir(tmp_path) == ["a.json"]


# a real disk


def fill(folder: Path, spare: int = 0) -> Path:
    """Takes all space of a small file system but a few bytes."""
    path = folder / "ballast"
    with path.open("wb", buffering=0) as file:
        for size in (2**16, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass
    if spare:
        os.truncate(path, path.stat().st_size - spare)
    return path


def test_a_full_disk_before_the_start_is_a_clear_error_and_leaves_no_run(small_disk: Path):
    fill(small_disk)
    with pytest.raises(FolderProblem, match=r"no run can be made in .*: No space left on device"):
        create(small_disk / "runs", "tiny", {})
    assert every(small_disk / "runs") == []
    assert leftovers(small_disk / "runs") == []


@pytest.mark.parametrize("spare", [0, 4096, 3 * 4096])
def test_a_real_disk_that_is_full_for_a_while_has_every_line_when_it_is_free_again(small_disk: Path, spare: int):
    run = create(small_disk / "runs", "tiny", {"title": "old"})
    writer = MetricsWriter(run.metrics)
    for step in range(100):
        writer.log(step, values(step))
    ballast = fill(small_disk, spare)
    for step in range(100, 900):
        writer.log(step, values(step))
    assert writer.waiting > 0
    assert read(run.metrics).torn <= 1
    assert wrote(run.update_manifest, labels=["x"] * 20_000) is False
    assert run.read_manifest()["title"] == "old"
    ballast.unlink()
    for step in range(900, 1000):
        writer.log(step, values(step))
    writer.close()
    assert (writer.written, writer.lost, writer.waiting) == (1000, 0, 0)
    assert [line["step"] for line in lines(run.metrics)] == list(range(1000))
    assert leftovers(small_disk) == []


def test_a_real_disk_that_stays_full_keeps_what_was_there_and_counts_the_rest(small_disk: Path):
    run = create(small_disk / "runs", "tiny", {})
    fill(small_disk)
    writer = MetricsWriter(run.metrics)
    for step in range(1000):
        writer.log(step, values(step))
    writer.close()
    found = read(run.metrics)
    assert 0 < writer.lost < 1000 or found.rows == 0
    assert (found.rows, found.rows + writer.lost) == (writer.written, 1000)
    assert run.read_manifest()["id"] == run.id


@pytest.mark.slow
def test_a_run_by_hand_on_a_full_disk_ends_with_its_losses_told(small_disk: Path):
    """The whole of it, in a process of its own: training is unharmed, and what can be written is whole."""
    import subprocess
    import sys

    from tiny import plain_environment

    script = small_disk / "train.py"
    script.write_text(
        "import labkit, os\n"
        "run = labkit.start()\n"
        "for step in range(100): run.log(step, loss=1 / (step + 1))\n"
        "with open('ballast', 'wb', buffering=0) as file:\n"
        "    for size in (65536, 4096, 1):\n"
        "        try:\n"
        "            while True: file.write(b'x' * size)\n"
        "        except OSError: pass\n"
        "for step in range(100, 1000): run.log(step, loss=1 / (step + 1))\n"
        "if os.environ.get('FREE'): os.unlink('ballast')\n"
        "print('trained to the end')\n"
    )
    for free in ("1", ""):
        env = plain_environment(LABKIT_RUNS=str(small_disk / "runs"), FREE=free)
        done = subprocess.run([sys.executable, script], cwd=small_disk, env=env, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.endswith("\ntrained to the end\n"), done.stderr
        run = every(small_disk / "runs")[-1]
        found, counts = read(run.metrics), read_json(run.kernel)
        assert found.columns["loss"].values[99] == 0.01
        if free:
            assert counts is not None
            assert (found.rows, counts["metrics"]["lost"]) == (1000, 0)
        elif counts is not None:
            assert found.rows + counts["metrics"]["lost"] == 1000
        else:
            assert "could not be written" in done.stderr
        assert orjson.loads(run.manifest.read_bytes())["id"] == run.id
        assert not [name for name in leftovers(run.path) if not re.search("scratch", name)]
