"""Whole files are old or new, and JSON is strict."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import quick

from labkit.record.files import (
    DEPTH,
    dumps,
    iso,
    open_record,
    read_json,
    read_regular,
    remove_unfinished,
    write_atomic,
    write_json,
)

names = st.text(max_size=12)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | names
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(names, inner, max_size=5), max_leaves=10
)


def plain(value):
    """What a document reads back as: non-finite floats as their names."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if isinstance(value, list):
        return [plain(item) for item in value]
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def refuse(constant):
    raise ValueError(constant)


def test_a_file_is_replaced_whole_and_nothing_stays_beside_it(tmp_path: Path):
    path = tmp_path / "a.json"
    write_atomic(path, "old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_link_is_replaced_and_never_written_through(tmp_path: Path):
    (tmp_path / "outside").write_text("untouched")
    (tmp_path / "a.json").symlink_to("outside")
    write_atomic(tmp_path / "a.json", "mine")
    assert (tmp_path / "outside").read_text() == "untouched"
    assert (tmp_path / "a.json").read_text() == "mine"
    assert not (tmp_path / "a.json").is_symlink()


@pytest.mark.parametrize(
    "name", ["with space", "two\nlines", "😀" * 60, "x" * 250], ids=["space", "newline", "emoji", "long"]
)
def test_any_name_that_a_file_can_have_can_be_written(tmp_path: Path, name: str):
    write_atomic(tmp_path / name, "content")
    assert (tmp_path / name).read_text() == "content"


def test_a_new_file_follows_the_umask(tmp_path: Path):
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_write_that_cannot_be_renamed_leaves_no_trace(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_atomic(tmp_path / "folder", "x")
    assert os.listdir(tmp_path) == ["folder"]


def test_what_a_killed_writer_left_half_written_is_removed_and_nothing_else(tmp_path: Path):
    writer = os.fork()
    if not writer:
        os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)
        write_atomic(tmp_path / "kernel.json", "x")
    os.waitpid(writer, 0)
    for name in ("kernel.json", ".hidden", ".notes.txt"):
        (tmp_path / name).write_text("mine")
    assert len(os.listdir(tmp_path)) == 4
    remove_unfinished(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", ".notes.txt", "kernel.json"]


@quick
@given(st.dictionaries(names, documents, max_size=5))
def test_what_is_written_is_strict_json_that_reads_back(value):
    text = dumps(value)
    assert json.loads(text, parse_constant=refuse) == plain(value)
    assert dumps(json.loads(text)) == text


def test_a_value_that_json_cannot_say_is_named(tmp_path: Path):
    with pytest.raises(TypeError, match="complex cannot be written as JSON"):
        write_json(tmp_path / "a.json", {"z": 1j})
    assert os.listdir(tmp_path) == []


def test_a_written_object_reads_back_from_its_file(tmp_path: Path):
    value = {"a": [1, 2.5, None, True, "\ud800"], "large": 10**40, "nan": math.nan}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value | {"nan": "NaN"}


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**64, 10**40, -(10**19), 0.1234567890123456789, 1e-300, 1e22])
def test_a_number_reads_back_exactly_however_many_digits_it_has(tmp_path: Path, number: float):
    write_json(tmp_path / "a.json", {"a": [number]})
    found = read_json(tmp_path / "a.json")
    assert found == {"a": [number]} and type(found["a"][0]) is type(number)


@quick
@given(st.binary(max_size=200))
def test_reading_any_bytes_gives_an_object_or_nothing(tmp_path_factory, data: bytes):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(data)
    assert read_json(path) is None or isinstance(read_json(path), dict)


@pytest.mark.parametrize("data", [b"", b"[1]", b'"text"', b"null", b'{"a":', b"\xff\xfe", b"\x00" * 100])
def test_what_is_no_object_reads_as_nothing(tmp_path: Path, data: bytes):
    (tmp_path / "a.json").write_bytes(data)
    assert read_json(tmp_path / "a.json") is None


@pytest.mark.parametrize("deep", [DEPTH + 1, 600, 100_000])
@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}")], ids=["lists", "objects"])
def test_an_object_nested_too_deep_to_walk_reads_as_nothing(tmp_path: Path, deep: int, brackets: tuple[str, str]):
    (tmp_path / "a.json").write_text('{"a":' + brackets[0] * deep + "1" + brackets[1] * deep + "}")
    assert read_json(tmp_path / "a.json") is None


@pytest.mark.parametrize("kind", ["missing", "folder", "link", "fifo", "linked folder", "null byte"])
def test_only_a_regular_file_in_a_real_folder_is_read(tmp_path: Path, kind: str):
    path = tmp_path / "a.json"
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.json").write_text('{"secret": 1}')
    match kind:
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to("real/a.json")
        case "fifo":
            os.mkfifo(path)
        case "linked folder":
            (tmp_path / "linked").symlink_to("real")
            path = tmp_path / "linked" / "a.json"
        case "null byte":
            path = tmp_path / "a\0.json"
    before = len(os.listdir("/proc/self/fd"))
    assert read_json(path) is None
    assert open_record(path) is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_reader_takes_no_more_than_its_limit(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"x" * 1000)
    assert read_regular(tmp_path / "a", 10) == b"x" * 10


def test_times_are_utc_with_milliseconds():
    assert iso(0.1239) == "1970-01-01T00:00:00.123Z"
    assert iso(1795249971.0) == "2026-11-21T08:32:51.000Z"
