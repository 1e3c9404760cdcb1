"""The data of a run are the files that it reads, as they were when it began; not what it made itself."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from labkit.launch import inputs
from labkit.launch.inputs import Inputs, Seen
from labkit.record.files import write_json
from labkit.record.rundir import RunDir, create

BEFORE_S = 10.0  # so long ago the data were made


class Watched:
    """A run whose files are looked at, without a hook that would stay."""

    def __init__(self, lab: Path, attempt: int = 1, monkeypatch: pytest.MonkeyPatch | None = None) -> None:
        assert monkeypatch is not None
        monkeypatch.setattr(inputs, "seen", Seen())
        monkeypatch.setattr(inputs, "NO_DATA", ("/proc/",))
        (lab / "runs").mkdir(exist_ok=True)
        self.lab = lab
        self.run = RunDir(create(lab / "runs", "x", {}).path, attempt)
        self.data = Inputs(self.run, lab, lab / "runs")

    def opens(self, path: object, mode: str | None = "r", flags: int = 0) -> None:
        assert inputs.seen is not None
        inputs.seen.hook("open", (path, mode, flags))

    def renames(self, old: Path, new: Path) -> None:
        assert inputs.seen is not None
        inputs.seen.hook("os.rename", (old, new, -1, -1))
        os.replace(old, new)

    @property
    def found(self) -> dict[str, Any]:
        self.data.end()
        facts = json.loads(self.run.inputs.read_bytes())
        return {name: one["blake3"] for name, one in facts["files"].items()} | facts["left_out"]


Watch = Callable[..., Watched]


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    made: list[Watched] = []

    def begin(**more: Any) -> Watched:
        made.append(Watched(tmp_path, monkeypatch=monkeypatch, **more))
        return made[-1]

    yield begin
    for one in made:
        one.data.end()


def old(path: Path, text: str) -> Path:
    """Make a file that was there before the run."""
    path.write_text(text)
    wait = time.time()
    while os.stat(path).st_ctime >= time.time() or time.time() - wait < 0.02:
        time.sleep(0.005)
    return path


def mark(text: str) -> str:
    return blake3(text.encode()).hexdigest()


def test_a_file_that_is_read_is_data(tmp_path: Path, watch: Watch) -> None:
    path = old(tmp_path / "x.csv", "1")
    run = watch()
    run.opens(str(path))
    run.opens(path)
    run.opens(os.fsencode(path), None, os.O_RDONLY)
    assert run.found == {"x.csv": mark("1")}


def test_a_run_without_data_says_so(watch: Watch) -> None:
    assert watch().found == {}


def test_what_the_run_has_written_and_reads_back_is_no_data(tmp_path: Path, watch: Watch) -> None:
    run = watch()
    run.opens(str(tmp_path / "x.txt"), "w")
    (tmp_path / "x.txt").write_text("1")
    run.opens(str(tmp_path / "x.txt"))
    assert run.found == {}


def test_what_it_has_put_in_place_by_a_rename_is_none(tmp_path: Path, watch: Watch) -> None:
    run = watch()
    run.opens(str(tmp_path / ".beside"), "w")
    (tmp_path / ".beside").write_text("1")
    run.renames(tmp_path / ".beside", tmp_path / "x.txt")
    run.opens(str(tmp_path / "x.txt"))
    assert run.found == {}


def test_what_a_library_has_written_by_itself_is_none(tmp_path: Path, watch: Watch) -> None:
    run = watch()
    time.sleep(0.02)
    (tmp_path / "model.pt").write_text("1")  # as torch.save does, in C++
    run.opens(str(tmp_path / "model.pt"))
    assert run.found == {}


def test_what_an_earlier_attempt_has_written_is_none(tmp_path: Path, watch: Watch) -> None:
    path = old(tmp_path / "model.pt", "1")
    first = watch()
    write_json(RunDir(first.run.path, 1).process, {"started_s": time.time() - BEFORE_S})
    later = Inputs(RunDir(first.run.path, 2), tmp_path, tmp_path / "runs")
    assert later._began_s < os.stat(path).st_ctime
    later.end()


@pytest.mark.parametrize("writes", ["opens", "renames"])
def test_a_file_that_is_read_and_then_written_counts_as_it_was_read(tmp_path: Path, watch: Watch, writes: str) -> None:
    path = old(tmp_path / "count.txt", "7")
    run = watch()
    run.opens(str(path))
    if writes == "opens":
        run.opens(str(path), "w")
        path.write_text("8")
    else:
        (tmp_path / "beside").write_text("8")
        run.renames(tmp_path / "beside", path)
    run.opens(str(path))
    assert run.found == {"count.txt": mark("7")}


def test_a_large_file_that_is_written_after_it_was_read_holds_nobody_up_and_is_told(
    tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "KEPT_BYTES", 0)
    path = old(tmp_path / "x.bin", "7")
    run = watch()
    run.opens(str(path))
    run.opens(str(path), "r+")
    assert run.found == {"x.bin": "it was written after it was read"}


def test_names_that_are_none_and_descriptors_break_nothing(watch: Watch) -> None:
    run = watch()
    for path in (3, b"\xff", "\ud800", "a\0b", None):
        for mode in ("r", "w", None):
            run.opens(path, mode)
    assert run.found == {}


def test_a_name_that_is_no_unicode_is_data_too(tmp_path: Path, watch: Watch) -> None:
    path = old(Path(os.fsdecode(os.fsencode(tmp_path / "x") + b"\xff")), "1")
    run = watch()
    run.opens(os.fsencode(path))
    assert list(run.found.values()) == [mark("1")]


def test_the_names_beside_of_files_that_are_written_whole_are_forgotten(tmp_path: Path, watch: Watch) -> None:
    run = watch()
    for number in range(3):
        beside = str(tmp_path / f".x.{number}")
        run.opens(beside, None, os.O_WRONLY)
        Path(beside).write_text("1")
        assert inputs.seen is not None
        inputs.seen.hook("os.rename", (beside, str(tmp_path / "x"), -1, -1))
    assert inputs.seen is not None and inputs.seen.written == {str(tmp_path / "x")}


def test_caches_that_lie_elsewhere_are_no_data(
    watch: Watch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("caches")
    monkeypatch.setenv("XDG_CACHE_HOME", str(elsewhere))
    monkeypatch.setenv("MPLCONFIGDIR", str(elsewhere / "fonts"))
    monkeypatch.setattr(inputs, "_caches", inputs._caches.__wrapped__)
    watched = watch()
    for name in ("matplotlib/fontlist.json", "fonts/fontlist.json", "torch/weights.pt"):
        path = elsewhere / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("1")
        os.utime(path, (0, 0))
        watched.opens(str(path))
    watched.data._began_s = time.time() + 10
    assert list(watched.found) == [str(elsewhere / "torch" / "weights.pt")]


def test_a_short_file_for_a_password_has_no_fingerprint_and_a_long_one_of_such_a_name_has(
    watch: Watch, tmp_path: Path
) -> None:
    for name, size in {".env": 20, "key.txt": 20, "keypoints.csv": 20, "big/key.npy": inputs.GUESSED_BYTES + 1}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1" * size)
        os.utime(tmp_path / name, (0, 0))
    watched = watch()
    watched.data._began_s = time.time() + 10
    for name in (".env", "key.txt", "keypoints.csv", "big/key.npy"):
        watched.opens(str(tmp_path / name))
    found = watched.found
    assert found[".env"] == found["key.txt"] == "it may hold a password or a key"
    assert len(found["keypoints.csv"]) == len(found["big/key.npy"]) == 64
