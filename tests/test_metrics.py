"""What is logged reads back to the same bits; what cannot be logged or read is counted."""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path

import numpy
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from records import lines, quick

from labkit.record.metrics import MetricsWriter, canonical, last, read

LARGEST = int(1.7976931348623157e308)
names = st.text(max_size=20).filter(lambda name: name not in ("step", "t"))
rows = st.dictionaries(names, st.floats() | st.integers(-(2**70), 2**70), min_size=1, max_size=5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file for the many examples of a property."""
    return tmp_path_factory.mktemp("metrics") / "metrics.jsonl"


def written(path: Path, *rows: tuple[object, dict]) -> MetricsWriter:
    path.unlink(missing_ok=True)
    writer = MetricsWriter(path)
    for step, values in rows:
        writer.log(step, values)
    writer.close()
    return writer


def bits(value: float) -> bytes:
    return struct.pack("<d", value) if not math.isnan(value) else b"NaN"


@quick
@given(st.lists(rows, max_size=5))
@example([{"x": 5e-324, "y": -0.0, "z": 2.2250738585072014e-308}])
@example([{"x": math.nan, "y": math.inf, "z": -math.inf}])
@example([{"null": 1.0, '"': 2.0, "\n": 3.0, "\ud800": 4.0, "": 5.0, "NaN": math.nan}])
@example([{"x": 2**64, "y": -(2**63) - 1, "z": 10**300}])
def test_every_float_and_every_odd_name_reads_back_to_the_same_bits(scratch: Path, rows):
    writer = written(scratch, *enumerate(rows))
    found = read(scratch)
    assert (writer.written, writer.refused, writer.lost) == (len(rows), 0, 0)
    assert (found.rows, found.torn) == (len(rows), 0)
    for name in {name for row in rows for name in row}:
        expected = [(step, bits(float(row[name]))) for step, row in enumerate(rows) if name in row]
        column = found.columns[name]
        assert [(step, bits(value)) for step, value in zip(column.steps, column.values, strict=True)] == expected


@quick
@given(st.lists(st.floats(), min_size=1, max_size=5))
def test_every_line_is_strict_json(scratch: Path, values):
    written(scratch, *((step, {"loss": value}) for step, value in enumerate(values)))
    for line in lines(scratch):
        assert type(line["loss"]) is float or line["loss"] in ("NaN", "Infinity", "-Infinity")


@quick
@given(st.binary(max_size=300))
@example(b'{"step": 1, "x": 1' + b"0" * 400 + b"}\n")
@example(b'{"step": 1, "x": [1]}\n{"step": "1"}\n{"step": true}\n{"step": 99999999999999999999}\n')
@example(b"[" * 100_000 + b"}")
@example(b'{"step":1,"x":1e999}\n\xff\n\x00')
def test_reading_any_bytes_never_raises_and_counts_every_line(scratch: Path, data: bytes):
    scratch.write_bytes(data)
    found = read(scratch)
    assert found.rows + found.torn == len([line for line in data.split(b"\n") if line])
    canonical(scratch)
    assert isinstance(last(scratch), dict)


@quick
@given(st.dictionaries(st.integers(0, 19), st.floats(0.05, 0.95), max_size=5))
def test_torn_lines_anywhere_are_skipped_and_counted(scratch: Path, cut: dict[int, float]):
    written(scratch, *((step, {"loss": step / 7}) for step in range(20)))
    whole = scratch.read_bytes().splitlines()
    scratch.write_bytes(b"".join(line[: int(len(line) * cut.get(at, 1))] + b"\n" for at, line in enumerate(whole)))
    found = read(scratch)
    assert (found.rows, found.torn) == (20 - len(cut), len(cut))
    assert list(found.columns["loss"].steps) == [step for step in range(20) if step not in cut]


class Broken:
    @property
    def item(self):
        raise RuntimeError("no")


ACCEPTED = {
    "bool": (True, 1.0),
    "numpy float32": (numpy.float32(0.1), float(numpy.float32(0.1))),
    "numpy float64": (numpy.float64(0.1), 0.1),
    "numpy integer": (numpy.int64(7), 7.0),
    "0-d array": (numpy.array(2.5), 2.5),
    "largest integer": (LARGEST, float(LARGEST)),
}
REFUSED = {
    "text": "0.5",
    "None": None,
    "complex": 1j,
    "array": numpy.zeros(2),
    "list": [1.0],
    "too large for a float": 10**400,
    "too large to be written out": 10**5000,
    "an object that raises": Broken(),
}


@pytest.mark.parametrize(("value", "number"), ACCEPTED.values(), ids=ACCEPTED)
def test_what_is_a_number_is_logged(path: Path, value, number):
    writer = written(path, (0, {"x": value}))
    assert list(read(path).columns["x"].values) == [number]
    assert (writer.written, writer.refused) == (1, 0)


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
def test_what_is_no_number_is_left_out_and_counted_and_the_rest_of_the_step_kept(path: Path, value):
    writer = MetricsWriter(path)
    assert writer.log(3, {"bad": value, "good": 0.5}) is False
    assert writer.log(4, {"bad": value}) is False
    writer.close()
    assert [orjson.loads(line) for line in canonical(path).splitlines()] == [{"step": 3, "good": 0.5}]
    assert (writer.written, writer.refused, writer.lost) == (1, 2, 0)


@pytest.mark.slow
def test_a_zero_dimensional_tensor_is_a_number_and_a_larger_one_is_not(path: Path):
    torch = pytest.importorskip("torch")
    writer = written(path, (0, {"x": torch.tensor(0.25), "y": torch.zeros(3)}))
    assert list(read(path).columns) == ["x"]
    assert writer.refused == 1


@pytest.mark.parametrize("step", ["1", None, 1.5, math.inf, math.nan, 2**63, -(2**70), [1]], ids=repr)
def test_a_step_that_is_no_integer_of_64_bits_is_counted_and_its_values_stay_readable(path: Path, step):
    writer = written(path, (step, {"loss": 0.5}))
    assert list(read(path).columns["loss"].steps) == [-1]
    assert (writer.written, writer.refused) == (1, 1)


def test_a_whole_step_may_come_as_a_float_or_a_numpy_integer(path: Path):
    writer = written(path, (3.0, {"x": 1}), (numpy.int32(4), {"x": 1}), (2**63 - 1, {"x": 1}), (-(2**63) + 1, {"x": 1}))
    assert list(read(path).columns["x"].steps) == [3, 4, 2**63 - 1, -(2**63) + 1]
    assert writer.refused == 0


def test_reserved_names_are_refused_and_cannot_change_step_or_time(path: Path):
    writer = written(path, (3, {"t": 1.0, "step": 9, "loss": 0.5}))
    (line,) = lines(path)
    assert (line["step"], line["loss"]) == (3, 0.5)
    assert line["t"] != 1.0
    assert writer.refused == 2


def test_steps_may_repeat_and_go_back_and_keep_their_order(path: Path):
    written(path, *((step, {"x": float(at)}) for at, step in enumerate([5, 5, 3, 9, 0])))
    column = read(path).columns["x"]
    assert list(column.steps) == [5, 5, 3, 9, 0]
    assert list(column.values) == [0, 1, 2, 3, 4]


def test_a_line_is_on_its_way_when_log_returns(path: Path):
    writer = MetricsWriter(path)
    for step in range(10):
        writer.log(step, {"x": 1.0})
        assert read(path).rows == step + 1
    writer.close()


def test_a_second_writer_goes_on_after_a_line_that_the_first_left_torn(path: Path):
    written(path, (0, {"x": 1.0}))
    with path.open("ab") as file:
        file.write(b'{"step": 1, "x": 2')
    writer = MetricsWriter(path)
    writer.log(2, {"x": 3.0})
    writer.close()
    found = read(path)
    assert list(found.columns["x"].steps) == [0, 2]
    assert (found.rows, found.torn) == (2, 1)


def test_what_is_logged_after_the_close_is_counted_as_lost(path: Path):
    writer = written(path, (0, {"x": 1.0}))
    writer.log(1, {"x": 1.0})
    writer.flush(now=True)
    writer.close()
    assert (writer.written, writer.lost, read(path).rows) == (1, 1, 1)


def test_two_processes_may_log_into_one_run_at_once(path: Path):
    MetricsWriter(path).close()
    children = []
    for who in range(4):
        children.append(pid := os.fork())
        if pid == 0:
            writer = MetricsWriter(path)
            for step in range(300):
                writer.log(step, {f"by{who}": step / 3})
            os._exit(writer.lost)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    found = read(path)
    assert (found.rows, found.torn) == (1200, 0)
    assert all(list(found.columns[f"by{who}"].steps) == list(range(300)) for who in range(4))


def test_the_canonical_form_leaves_the_times_out(path: Path, tmp_path: Path):
    values = [(step, {"loss": 1 / (step + 1), "nan": math.nan}) for step in range(5)]
    written(path, *values)
    written(tmp_path / "other.jsonl", *values)
    assert path.read_bytes() != (tmp_path / "other.jsonl").read_bytes()
    assert canonical(path) == canonical(tmp_path / "other.jsonl")
    assert b'"t"' not in canonical(path)


def test_the_newest_whole_line_is_found_from_the_end(path: Path):
    written(path, *((step, {"loss": step / 1000, "padding": 0.123456789}) for step in range(1000)))
    with path.open("ab") as file:
        file.write(b'{"step": 1000, "lo')
    assert last(path)["step"] == 999


def test_a_summary_has_last_lowest_highest_count_and_step(path: Path):
    written(path, (0, {"loss": 3.0}), (1, {"loss": math.nan}), (2, {"loss": 1.0}), (1, {"loss": 2.0, "only": math.inf}))
    summary = read(path).summary()
    assert summary["steps"] == 4
    assert summary["metrics"]["loss"] == {"last": 2.0, "min": 1.0, "max": 3.0, "count": 4, "step": 1}
    assert summary["metrics"]["only"] == {"last": math.inf, "min": None, "max": None, "count": 1, "step": 1}


@pytest.mark.parametrize("kind", ["missing", "link", "fifo", "folder"])
def test_a_file_that_is_none_has_no_metrics_and_holds_nobody_up(path: Path, kind: str):
    (path.parent / "outside").write_bytes(b'{"step":1,"secret":1}\n')
    {
        "missing": lambda: None,
        "link": lambda: path.symlink_to("outside"),
        "fifo": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }[kind]()
    assert (read(path).rows, read(path).torn) == (0, 0)
    assert canonical(path) == b""
    assert last(path) == {}
