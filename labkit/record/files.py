"""Files that are never seen half-written, and strict JSON.

Every whole-file write goes beside its target and is renamed over it, so a reader finds the old content or the new.
JSON written here is strict: non-finite floats, which JSON cannot say, are the strings "NaN", "Infinity", "-Infinity".
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import stat
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import orjson

DEPTH = 100
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}", re.DOTALL)
_ZEROS = bytes(ord("0") if chr(byte).isdecimal() else ord(" ") for byte in range(256))  # makes zeros of all digits


def write_atomic(path: Path, data: bytes | str, *, durable: bool = True) -> None:
    """Replaces the content of `path` in one step; on any error the old content stays and nothing is left over.

    Args:
        path: The file; its folder must exist. A link is replaced, never written through.
        data: The whole new content; text is written as UTF-8.
        durable: Wait until the bytes are on the disk, so that they also survive a power cut.

    Raises:
        OSError: The content could not be written or renamed.
    """
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    path = Path(path)
    beside = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}")
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            write_all(fd, data)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def remove_unfinished(folder: Path) -> None:
    """Removes what a writer that was killed inside `write_atomic` left in `folder`; nobody may be writing there."""
    for path in folder.glob(".?*.*"):
        if _UNFINISHED.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()


def sync_folder(folder: Path) -> None:
    """Makes renames in `folder` durable, where the file system offers it."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.fsync(fd)
    except OSError:
        pass  # some network file systems cannot; the content itself is already safe
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Writes every byte of `data`, also where one system call takes only a part."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def dumps(value: Any, *, pretty: bool = False) -> bytes:
    """Returns `value` as strict JSON.

    Raises:
        TypeError: `value` holds something that JSON cannot say; the message names it.
    """
    plain = plain_json(value)
    try:
        return orjson.dumps(plain, option=orjson.OPT_INDENT_2 if pretty else 0)
    except TypeError:  # integers beyond 64 bits, lone surrogates
        return json.dumps(plain, allow_nan=False, indent=2 if pretty else None).encode()


def plain_json(value: Any) -> Any:
    """Returns `value` with non-finite floats as strings, tuples as lists and keys as text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else float_text(value)
    if isinstance(value, dict):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: {value!r:.80}")


def float_text(value: float) -> str:
    """Returns how a record spells a non-finite float."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Replaces `path` by `value` as indented JSON, in one step."""
    write_atomic(path, dumps(value, pretty=True) + b"\n", durable=durable)


def read_json(path: Path, limit_bytes: int = 64 * 2**20) -> dict[str, Any] | None:
    """Returns the object in a JSON file, or None where there is no readable one.

    Only a regular file is read: no link out of the run, no pipe that would never end. What is nested more than
    DEPTH deep counts as unreadable, so that nobody who walks through it runs out of stack.
    """
    data = _read(open_record(path), limit_bytes)
    if data is None:
        return None
    try:
        if b"0" * 19 in data.translate(_ZEROS):
            raise ValueError  # maybe an integer beyond 64 bits, of which orjson would make a float
        value = orjson.loads(data)
    except ValueError:
        try:
            value = json.loads(data)  # integers beyond 64 bits, halves of characters
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) and not is_deep(value) else None


def is_deep(value: Any) -> bool:
    """Tells whether objects and lists are nested more than DEPTH deep."""
    front = [value]
    for _ in range(DEPTH):
        below = [item.values() if isinstance(item, dict) else item for item in front if isinstance(item, (dict, list))]
        front = [item for items in below for item in items]
        if not front:
            return False
    return True


def read_regular(path: Path, limit_bytes: int) -> bytes | None:
    """Returns at most `limit_bytes` of a regular file; None where it is missing, a link, or something else."""
    return _read(_open(path), limit_bytes)


def open_record(path: Path) -> BinaryIO | None:
    """Opens a regular file of a run; None where it is missing, a link, something else, or in a linked folder."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        return _open(path.name, folder)
    finally:
        os.close(folder)


def _open(path: Path | str, folder: int | None = None) -> BinaryIO | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return os.fdopen(fd, "rb")
    os.close(fd)
    return None


def _read(file: BinaryIO | None, limit_bytes: int) -> bytes | None:
    if file is None:
        return None
    with file:
        try:
            return file.read(limit_bytes)
        except OSError:
            return None


def now() -> str:
    """Returns the present time in UTC with milliseconds, as records write it."""
    return iso(datetime.now(UTC).timestamp())


def iso(seconds: float) -> str:
    """Returns a time given in seconds since the epoch as `2026-11-21T10:15:00.123Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
