"""labkit itself as a wheel that pip can install, made from what is installed.

The number of its commit would be no source: its repository may be gone.
"""

from __future__ import annotations

import base64
import bz2
import hashlib
import io
import os
import re
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import labkit
from labkit.record.files import read_regular

EPOCH = (1980, 1, 1, 0, 0, 0)  # equal content makes equal bytes
NAMED = re.compile(r"labkit-[0-9][0-9A-Za-z.+!]{0,60}-py3-none-any\.whl(?:\.bz2)?")  # earlier records have no .bz2
LARGEST_BYTES = 32 * 2**20
KEPT = (
    ".py",
    ".pyi",
    ".json",
    ".j2",
    ".css",
    ".js",
    ".html",
    ".ipynb",
    ".typ",
    ".in",
    ".typed",
    ".yml",
    ".yaml",
    ".md",
)


def name() -> str:
    """Returns the name of its file in a record."""
    return f"labkit-{labkit.__version__}-py3-none-any.whl.bz2"


@cache
def fingerprint() -> str:
    """Returns the SHA-256 of labkit's own files, names included."""
    digest = hashlib.sha256()
    for inside, content in _files():
        digest.update(f"{inside} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def content() -> bytes:
    """Returns the wheel."""
    made, record = io.BytesIO(), []
    info = f"labkit-{labkit.__version__}.dist-info"
    with zipfile.ZipFile(made, "w") as archive:
        for inside, data in [*_files(), *((f"{info}/{file}", text) for file, text in _about())]:
            archive.writestr(zipfile.ZipInfo(inside, EPOCH), data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{inside},sha256={digest},{len(data)}\n")
        record.append(f"{info}/RECORD,,\n")
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD", EPOCH), "".join(record))
    return made.getvalue()


def packed() -> bytes:
    """Returns the wheel by bzip2, which takes two thirds of what a wheel's own compression of each file alone does."""
    return bz2.compress(content())


def read(path: Path) -> bytes | None:
    """Returns the wheel in a record's file, for pip; None where it cannot be read, is damaged or far too large."""
    data = read_regular(path, LARGEST_BYTES)
    if data is None or len(data) > LARGEST_BYTES or path.suffix != ".bz2":
        return data if data is not None and len(data) <= LARGEST_BYTES else None
    unpacking = bz2.BZ2Decompressor()
    try:
        found = unpacking.decompress(data, LARGEST_BYTES)
    except (OSError, ValueError):
        return None
    return found if unpacking.eof else None


def _files() -> list[tuple[str, bytes]]:
    """Returns labkit's files by their path in a wheel, sorted; a clone has the templates beside the package."""
    package = Path(labkit.__file__).parent
    found = [*_below(package, "labkit")]
    beside = package.parent / "templates"
    if not (package / "templates").is_dir() and beside.is_dir():
        found += _below(beside, "labkit/templates")
    return sorted(found)


def _below(folder: Path, inside: str) -> Iterator[tuple[str, bytes]]:
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(one for one in folders if one != "__pycache__" and not one.startswith("."))
        for file in sorted(files):
            if file.endswith(KEPT):
                yield f"{inside}/{os.path.relpath(os.path.join(path, file), folder)}", Path(path, file).read_bytes()


def _about() -> Iterator[tuple[str, bytes]]:
    """Yields what stands beside the files in a wheel; without an installed labkit, the least that pip asks for."""
    texts: dict[str, str | None] = {}
    try:
        found = metadata.distribution("labkit")
        texts = {file: found.read_text(file) for file in ("METADATA", "entry_points.txt")}
    except metadata.PackageNotFoundError:
        pass
    least = f"Metadata-Version: 2.1\nName: labkit\nVersion: {labkit.__version__}\n"
    yield "METADATA", (texts.get("METADATA") or least).encode()
    yield "WHEEL", b"Wheel-Version: 1.0\nGenerator: labkit\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    if texts.get("entry_points.txt"):
        yield "entry_points.txt", str(texts["entry_points.txt"]).encode()
