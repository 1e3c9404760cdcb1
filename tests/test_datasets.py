"""The digits, CIFAR-10's loader on small archives in the true format, and the stand-in."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from dataclasses import replace
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler

import pytest
import torch

from labkit.errors import RunProblem
from labkit.kernel import archive
from labkit.kernel.archive import Archive, load
from labkit.kernel.datasets import CIFAR10, CIFAR10_RECORD, cifar10, cifar10_parts, cifar10_stand_in, digits
from labkit.kernel.shapes import check_shape

MEMBERS = tuple(CIFAR10.members)
EACH = 20  # records in a file


def records(number):
    """A file's bytes: record i is of class i modulo 10, its planes hold `number`, i and 255."""
    planes = (bytes([number] * 1024) + bytes([i] * 1024) + bytes([255] * 1024) for i in range(EACH))
    return b"".join(bytes([i % 10]) + plane for i, plane in enumerate(planes))


def entry(name, data, **facts):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for fact, value in facts.items():
        setattr(info, fact, value)
    return info, io.BytesIO(data)


def true_entries():
    return [entry(name, records(number)) for number, name in enumerate(MEMBERS)]


def pack(folder, entries, url="https://nowhere.invalid/small.tar.gz"):
    """Writes an archive and returns what is published about it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for info, data in entries:
            tar.addfile(info, data)
    data = made.getvalue()
    folder.mkdir(exist_ok=True)
    (folder / "small.tar.gz").write_bytes(data)
    sizes = dict.fromkeys(MEMBERS, EACH * CIFAR10_RECORD)
    return Archive("Small", url, len(data), hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest(), sizes)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves a folder on this machine, and returns the folder and its address."""
    monkeypatch.setenv("no_proxy", "*")
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as http:
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield folder, f"http://127.0.0.1:{http.server_port}/small.tar.gz"
        http.shutdown()


def test_the_archive_is_read_packed_and_what_else_is_in_it_is_ignored(tmp_path):
    packed = pack(tmp_path / "data", [entry("cifar-10-batches-bin/readme.html", b"<html>"), *true_entries()])
    found = load(packed, tmp_path / "data", download=False)
    assert found == {name: records(number) for number, name in enumerate(MEMBERS)}
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["small.tar.gz"]


def test_records_become_images_of_three_planes_split_in_the_same_share(tmp_path):
    files = [records(number) for number in range(5)]
    made = cifar10_parts(files, records(9), each=2)
    assert [tuple(x.shape) for x, _ in (made.train, made.validation, made.test)] == [
        (80, 3, 32, 32),
        (20, 3, 32, 32),
        (20, 3, 32, 32),
    ]
    assert made.validation[1].bincount().tolist() == [2] * 10 and made.train[1].bincount().tolist() == [8] * 10
    x, y = made.test
    assert x.dtype == torch.float32 and y.dtype == torch.int64 and y.tolist() == [i % 10 for i in range(EACH)]
    assert torch.equal(x[7, :, 0, 0] * 255, torch.tensor([9.0, 7.0, 255.0]))
    assert torch.equal(made.validation[0], cifar10_parts(files, records(9), each=2).validation[0])
    assert not torch.equal(made.validation[0], cifar10_parts(files, records(9), split_seed=1, each=2).validation[0])
    assert made.classes[3] == "cat"


def test_bytes_that_are_no_records_are_refused():
    with pytest.raises(RunProblem, match="no whole records of 3,073 bytes"):
        cifar10_parts([records(0)[:-1]], records(1))
    with pytest.raises(RunProblem, match="of class 255; there are 10"):
        cifar10_parts([b"\xff" * CIFAR10_RECORD], records(1))


def test_the_published_archive_is_described_in_full():
    assert sum(CIFAR10.members.values()) == 60_000 * 3_073 and len(CIFAR10.members) == 6
    assert (len(CIFAR10.md5), len(CIFAR10.sha256), CIFAR10.name) == (32, 64, "cifar-10-binary.tar.gz")


def test_a_missing_archive_says_what_to_put_where(lab, monkeypatch):
    monkeypatch.chdir(lab / "notebooks")
    with pytest.raises(RunProblem) as problem:
        cifar10(download=False)
    said = str(problem.value)
    for part in (CIFAR10.url, CIFAR10.md5, CIFAR10.sha256, "170,052,171", f"{lab / 'data' / CIFAR10.name}"):
        assert part in said


@pytest.mark.parametrize("spoil", [lambda data: data[:-100], lambda data: b"x" + data[1:], lambda data: b""])
def test_a_truncated_or_other_file_is_refused_and_left_where_it_is(tmp_path, spoil):
    packed = pack(tmp_path / "data", true_entries())
    path = tmp_path / "data" / "small.tar.gz"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(RunProblem, match=r"damaged or another file \((SHA256 [0-9a-f]{64}|[\d,]+ bytes)\): delete it"):
        load(packed, tmp_path / "data", download=True)
    assert path.exists()


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (lambda: true_entries()[:-1], "lacks cifar-10-batches-bin/test_batch.bin"),
        (lambda: [*true_entries(), entry(MEMBERS[0], records(7))], "is not the one regular file"),
        (lambda: [entry(MEMBERS[0], b"short")], "is not the one regular file"),
        (
            lambda: [entry(MEMBERS[0], b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
            "is not the one regular file",
        ),
        (lambda: [entry("../../outside", b"x"), entry("/tmp/outside", b"x")], "lacks"),
    ],
)
def test_an_archive_with_other_members_gives_nothing_and_writes_nothing(tmp_path, entries, said):
    packed = pack(tmp_path / "data", entries())
    with pytest.raises(RunProblem, match=said):
        load(packed, tmp_path / "data", download=False)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["data", "small.tar.gz"]


def test_a_path_out_of_the_folder_is_ignored(tmp_path):
    packed = pack(tmp_path / "data", [entry("../outside", b"x"), *true_entries()])
    assert set(load(packed, tmp_path / "data", download=False)) == set(MEMBERS)
    assert not (tmp_path / "outside").exists()


def test_what_is_no_archive_is_refused(tmp_path):
    packed = pack(tmp_path / "data", true_entries())
    (tmp_path / "data" / "small.tar.gz").write_bytes(b"no archive")
    fits = replace(packed, size_bytes=10, sha256=hashlib.sha256(b"no archive").hexdigest())
    with pytest.raises(RunProblem, match="cannot be unpacked"):
        load(fits, tmp_path / "data", download=False)
    (tmp_path / "data" / "small.tar.gz").unlink()
    (tmp_path / "data" / "small.tar.gz").mkdir()
    with pytest.raises(RunProblem, match="cannot be read: Is a directory"):
        load(packed, tmp_path / "data", download=False)


def test_a_download_is_verified_and_appears_whole_under_a_progress_bar(tmp_path, server):
    folder, url = server
    packed = pack(folder, true_entries(), url)
    seen = []

    def watch(chunks, count):
        for chunk in chunks:
            seen.append((len(chunk), count))
            yield chunk

    load(packed, tmp_path / "data", download=True, watch=watch)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["small.tar.gz"]
    assert sum(size for size, _ in seen) == packed.size_bytes and {count for _, count in seen} == {1}
    (folder / "small.tar.gz").unlink()
    assert len(load(packed, tmp_path / "data", download=True)) == 6  # what is there is not fetched again


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "damaged or another file"),
        (lambda path: path.write_bytes(b"x" + path.read_bytes()[1:]), "damaged or another file"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "more than"),
        (lambda path: path.unlink(), "404"),
    ],
)
def test_a_download_that_fails_leaves_nothing_and_says_what_to_do_by_hand(tmp_path, server, spoil, said):
    folder, url = server
    packed = pack(folder, true_entries(), url)
    spoil(folder / "small.tar.gz")
    with pytest.raises(
        RunProblem, match=f"(?s)Small is not at .*by hand and put it there.*could not be fetched: .*{said}"
    ) as problem:
        load(packed, tmp_path / "data", download=True)
    assert str(tmp_path / "data" / "small.tar.gz") in str(problem.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_host_that_cannot_be_reached_or_says_nothing_is_given_up(tmp_path, monkeypatch):
    import socket

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(archive, "TIMEOUT_S", 0.1)
    packed = pack(tmp_path / "elsewhere", true_entries())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        quiet = replace(packed, url=f"http://127.0.0.1:{port}/small.tar.gz")
        with pytest.raises(RunProblem, match="could not be fetched: timed out"):
            load(quiet, tmp_path / "data", download=True)
    with pytest.raises(RunProblem, match="refused"):
        load(quiet, tmp_path / "data", download=True)


def test_the_stand_in_has_the_shapes_of_the_real_data_and_classes_that_can_be_told_apart():
    made = cifar10_stand_in(seed=1)
    for images, labels in (made.train, made.validation, made.test):
        check_shape(images, ("samples", 3, 32, 32))
        assert images.dtype == torch.float32 and (images.min() >= 0) and (images.max() <= 1)
        assert labels.dtype == torch.int64 and labels.bincount(minlength=10).min() >= len(labels) // 10
    colours = made.train[0].mean(dim=(2, 3))  # (samples, 3)
    centres = torch.stack([colours[made.train[1] == number].mean(dim=0) for number in range(10)])
    nearest = torch.cdist(made.test[0].mean(dim=(2, 3)), centres).argmin(dim=1)
    assert (nearest == made.test[1]).double().mean() > 0.9
    assert torch.equal(made.train[0], cifar10_stand_in(seed=1).train[0])
    assert not torch.equal(made.train[0], cifar10_stand_in(seed=2).train[0])


def test_the_stand_in_labels_the_run_of_its_process(monkeypatch):
    from labkit.kernel import run

    labels = []
    monkeypatch.setattr(run, "current", lambda: type("Run", (), {"label": staticmethod(labels.append)}))
    cifar10_stand_in(train=10, validation=10, test=10)
    assert labels == ["stand-in"]


def test_the_digits_are_split_once_for_all_with_each_class_in_the_same_share():
    made = digits()
    assert [len(part[1]) for part in (made.train, made.validation, made.test)] == [1257, 180, 360]
    x, y = made.train
    check_shape(x, ("samples", 1, 8, 8))
    assert x.dtype == torch.float32 and y.dtype == torch.int64 and (x.min(), x.max()) == (0, 1)
    for _, labels in (made.train, made.validation, made.test):
        shares = labels.bincount(minlength=10) / len(labels)
        assert (shares - 0.1).abs().max() < 0.006
    together = torch.cat([part[0].flatten(1) for part in (made.train, made.validation, made.test)])
    assert len(together.unique(dim=0)) == len(together)  # no image in two parts
    torch.manual_seed(99)
    assert torch.equal(digits().test[1], made.test[1])
    assert "test       (360, 1, 8, 8)" in repr(made)
