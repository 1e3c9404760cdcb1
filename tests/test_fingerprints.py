"""Fingerprints of files are kept, and few of many that are known cost a new writing of all."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from blake3 import blake3

from labkit.record import fingerprints
from labkit.record.fingerprints import KNOWN, SETTLED_S, Known


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that have been left alone for long enough."""
    now = time.time()
    made = [tmp_path / f"{number}.bin" for number in range(50)]
    for path in made:
        path.write_text(path.name)
    monkeypatch.setattr(fingerprints.time, "time", lambda: now + 2 * SETTLED_S)
    return made


def test_what_was_saved_is_not_read_again(files: list[Path], tmp_path: Path) -> None:
    known = Known(tmp_path)
    found = [known.of_file(path) for path in files]
    assert found[0] == (blake3(b"0.bin").hexdigest(), 5)
    assert not (tmp_path / KNOWN).exists()
    known.save()
    again = Known(tmp_path)
    assert [again.of_file(str(path)) for path in files] == found and again.read_bytes == 0
    files[0].write_text("1.bin")
    assert again.of_file(files[0])[0] == blake3(b"1.bin").hexdigest()


def test_many_files_in_use_are_not_written_anew_for_each(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "LARGEST_BYTES", 100)
    written: list[int] = []
    write = fingerprints.write_atomic
    monkeypatch.setattr(
        fingerprints, "write_atomic", lambda path, data, durable: (written.append(len(data)), write(path, data))
    )
    known = Known(tmp_path)
    for path in files:
        known.of_file(path)
        known.save()
    assert not written and len((tmp_path / KNOWN).read_bytes().splitlines()) == len(files)


def test_what_is_gone_is_forgotten_once_the_file_is_large(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "LARGEST_BYTES", 100)
    monkeypatch.setattr(fingerprints, "LINE_BYTES", 1)
    known = Known(tmp_path)
    for path in files:
        known.of_file(path)
    for path in files[1:]:
        os.unlink(path)
    known.save()
    assert len((tmp_path / KNOWN).read_bytes().splitlines()) == 1


def test_a_folder_that_cannot_be_written_breaks_nothing(files: list[Path], tmp_path: Path) -> None:
    known = Known(tmp_path / "gone")
    assert known.of_file(files[0])[1] == 5
    known.save()
