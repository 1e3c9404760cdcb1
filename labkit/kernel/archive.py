"""A public archive of data: fetched once, held to its checksum, read without unpacking it to the disk."""

from __future__ import annotations

import hashlib
import http.client
import os
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from labkit.errors import RunProblem

TIMEOUT_S = 20.0  # without a byte from the other side
CHUNK_BYTES = 2**20

Watch = Callable[[Iterable[bytes], int], Iterable[bytes]]  # (chunks, their number) -> the chunks, with a progress bar


@dataclass(frozen=True)
class Archive:
    """A .tar.gz file that others publish.

    Attributes:
        title: How people call the data.
        url: Where it is published.
        size_bytes: Of the file.
        md5: As its publishers state it, for people to compare.
        sha256: What the file is held to.
        members: The regular files to read, by their path inside, and the size of each in bytes.
    """

    title: str
    url: str
    size_bytes: int
    md5: str
    sha256: str
    members: Mapping[str, int]

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]

    @property
    def facts(self) -> str:
        """What tells that a file is the one that was published."""
        return f"{self.size_bytes:,} bytes, MD5 {self.md5}, SHA256 {self.sha256}"


def load(archive: Archive, folder: Path, *, download: bool, watch: Watch | None = None) -> dict[str, bytes]:
    """Returns the archive's members, from the file in `folder`; fetches the file when it is not there.

    Raises:
        RunProblem: The file is missing and cannot be fetched, or is not the one that was published.
    """
    path = Path(folder) / archive.name
    if not path.exists():
        if not download:
            raise RunProblem(_advice(archive, path))
        fetch(archive, path, watch)
    try:
        with path.open("rb") as file:
            _verify(archive, path, file)
            return _read_members(archive, path, file)
    except OSError as error:
        raise RunProblem(f"{path} cannot be read: {error.strerror or error}") from error


def fetch(archive: Archive, path: Path, watch: Watch | None = None) -> None:
    """Downloads an archive to `path`, where it appears whole and verified or not at all.

    Raises:
        RunProblem: It cannot be had; the message says what to do by hand.
    """
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            urlopen(Request(archive.url, headers={"User-Agent": "labkit"}), timeout=TIMEOUT_S) as response,
            _appearing(path) as file,
        ):
            chunks = iter(lambda: response.read(CHUNK_BYTES), b"")
            count = -(-archive.size_bytes // CHUNK_BYTES)
            for chunk in chunks if watch is None else watch(chunks, count):
                file.write(chunk)
                if file.tell() > archive.size_bytes:
                    raise RunProblem(f"more than {archive.size_bytes:,} bytes came")
            file.seek(0)
            _verify(archive, path, file)
    except (OSError, http.client.HTTPException, RunProblem) as error:
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        raise RunProblem(_advice(archive, path, str(error))) from error


class _appearing:
    """A new file that becomes `path` when all went well, and vanishes otherwise."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Any:
        self.file = tempfile.NamedTemporaryFile(
            dir=self.path.parent, prefix=f".{self.path.name}.", suffix=".part", delete=False
        )
        return self.file

    def __exit__(self, kind: Any, *_: object) -> None:
        self.file.close()
        if kind is None:
            os.chmod(self.file.name, 0o644)
            os.replace(self.file.name, self.path)
        else:
            Path(self.file.name).unlink(missing_ok=True)


def _advice(archive: Archive, path: Path, problem: str = "") -> str:
    lines = [
        f"{archive.title} is not at {path.absolute()}",
        f"  download {archive.url} by hand and put it there, packed as it is",
        f"  ({archive.facts})",
    ]
    return "\n".join([*lines, f"  it could not be fetched: {problem}"] if problem else lines)


def _verify(archive: Archive, path: Path, file: BufferedReader) -> None:
    """Reads the file through and holds it to its size and checksum.

    Raises:
        RunProblem: It is another file.
    """
    size = os.fstat(file.fileno()).st_size
    found = f"{size:,} bytes"
    if size == archive.size_bytes:
        file.seek(0)
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        if checksum == archive.sha256:
            return
        found = f"SHA256 {checksum}"
    raise RunProblem(
        f"{path} is damaged or another file ({found}): delete it, and take {archive.url} ({archive.facts})"
    )


def _read_members(archive: Archive, path: Path, file: BufferedReader) -> dict[str, bytes]:
    """Returns the expected members and ignores all others; nothing is written, so that no path can lead out."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=file, mode="r|gz") as tar:
            for entry in tar:
                if entry.name not in archive.members:
                    continue
                if entry.name in found or not entry.isreg() or entry.size != archive.members[entry.name]:
                    raise RunProblem(f"{path}: {entry.name} is not the one regular file that it should be")
                member = tar.extractfile(entry)
                assert member is not None  # of a regular file
                found[entry.name] = member.read()
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise RunProblem(f"{path} cannot be unpacked: {error}") from error
    _check_complete(archive, path, found)
    return found


def _check_complete(archive: Archive, path: Path, found: Mapping[str, bytes]) -> None:
    short = list(_missing(archive, found))
    if short:
        raise RunProblem(f"{path} lacks {', '.join(short)}")


def _missing(archive: Archive, found: Mapping[str, bytes]) -> Iterator[str]:
    return (name for name, size in archive.members.items() if len(found.get(name, b"")) != size)
