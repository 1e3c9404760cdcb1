"""The record of a run as one archive, which its report carries: packed, put into a page, taken out, and read.

The archive is a zip of deflated or stored files with `capsule.json`, its index. Who reads one trusts nothing in it:
each limit is checked before anything is unfolded, each name must be safe to make a path of, and each file must have the
fingerprint that the index gives. Nothing of it is ever executed or unpickled.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from labkit.errors import CapsuleProblem
from labkit.record.carried import DATA, MEMBER_BYTES, MOST_LEFT_OUT, LeftOut, clash, gather, inputs_of, is_safe
from labkit.record.files import dumps, is_deep
from labkit.record.page import page_capsule
from labkit.record.rundir import RunDir

FORMAT = 1
INDEX = "capsule.json"
LARGEST_BYTES = 16 * 2**20  # of an archive
WHOLE_BYTES = 256 * 2**20  # of all that is in one
MOST_MEMBERS = 20_000
INDEX_BYTES = 16 * 2**20
EPOCH = (1980, 1, 1, 0, 0, 0)  # equal files make an equal archive
PACKED = (".whl", ".bz2", ".npz")  # which deflating again would make no smaller
QUICKLY_BYTES = 4 * 2**20  # larger files are deflated less tightly
BEGIN, END = '<template id="labkit-capsule">', "</template>"
TAIL_BYTES = LARGEST_BYTES * 4 // 3 + 2**20  # of a page: what it ends with, the capsule included
_OPTIONAL = re.compile(r"data/.*|figures/.*|journal\.jsonl|metrics\.jsonl|source/(?:changes\.patch|modules/.*)", re.S)


@dataclass(frozen=True)
class Capsule:
    """What a report carries of its run.

    Attributes:
        files: The content of each file, by its path in the run; data under `data/` and their path in the lab.
        left_out: What belongs to the run and is not in here.
    """

    files: Mapping[str, bytes]
    left_out: tuple[LeftOut, ...] = field(default=())

    def json(self, name: str) -> dict[str, Any]:
        """Returns the object in a file; empty where there is no readable one."""
        try:
            value = json.loads(self.files.get(name, b""))
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) and not is_deep(value) else {}

    def missing(self) -> list[LeftOut]:
        """Returns all that the run had and this has not, the data that were read included."""
        known = {one.path: one for one in self.left_out}
        for size, path, fingerprint in inputs_of(self.json("inputs.json")):
            name = path if path.startswith("/") else DATA + path
            if name not in self.files and name not in known:
                known[name] = LeftOut(name, size, f"blake3:{fingerprint}", "data come along while they are small")
        return list(known.values())


def of_run(run: RunDir) -> Capsule:
    """Returns what a report would carry of a run, without the limit on the whole."""
    files, left_out = gather(run)
    return Capsule(files, tuple(left_out))


def pack(run: RunDir, largest_bytes: int = LARGEST_BYTES) -> bytes:
    """Returns the record of a run as an archive; equal files give equal bytes.

    Args:
        run: The run.
        largest_bytes: What the archive may have. Where all is more, the largest files that the run can be made again
            without stay out first; what stays out is named in the index, with size and fingerprint.
    """
    files, left_out = gather(run)
    dropped = _largest(files, {name: len(content) for name, content in files.items()}, WHOLE_BYTES)
    why = f"the record has at most {largest_bytes / 2**20:g} MiB in a report"
    while True:
        for name in dropped:
            content = files.pop(name)
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            left_out.insert(0, LeftOut(name, len(content), digest, why))
        archive, sizes = _archive(Capsule(files, tuple(left_out)))
        if len(archive) <= largest_bytes or not files:
            return archive
        dropped = _largest(files, sizes, largest_bytes - (len(archive) - sum(sizes.values())))


def _largest(files: Mapping[str, bytes], sizes: Mapping[str, int], room: int) -> list[str]:
    """Returns which files stay out so that the others have room: the optional ones first, of these the largest."""
    total, found = sum(sizes[name] for name in files), []
    for name in sorted(files, key=lambda name: (not _OPTIONAL.fullmatch(name), -sizes[name], name)):
        if total <= room:
            break
        total -= sizes[name]
        found.append(name)
    return found


def _archive(packed: Capsule) -> tuple[bytes, dict[str, int]]:
    """Returns the archive, and what each file takes in it."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in [(INDEX, index(packed)), *sorted(packed.files.items())]:
            member = zipfile.ZipInfo(name, EPOCH)
            member.external_attr = 0o100644 << 16
            method = zipfile.ZIP_STORED if name.endswith(PACKED) else zipfile.ZIP_DEFLATED
            archive.writestr(member, content, method, 6 if len(content) <= QUICKLY_BYTES else 1)
        sizes = {one.filename: one.compress_size for one in archive.infolist() if one.filename != INDEX}
    return made.getvalue(), sizes


def index(packed: Capsule) -> bytes:
    """Returns the content of `capsule.json`: each file with its size and SHA-256, and what was left out."""
    files = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in sorted(packed.files.items())
    }
    return dumps(
        {"format": FORMAT, "files": files, "left_out": [asdict(one) for one in packed.left_out[:MOST_LEFT_OUT]]}
    )


def parse(data: bytes, origin: str = "the capsule") -> Capsule:
    """Returns what an archive holds, after all checks.

    Args:
        data: The archive, from anyone.
        origin: What it is called in a message.

    Raises:
        CapsuleProblem: It is damaged, cut short, too large, or not what `pack` makes; the message names what is wrong.
    """
    if len(data) > LARGEST_BYTES:
        raise CapsuleProblem(f"{origin}: its record is larger than {LARGEST_BYTES // 2**20} MiB; it was not read")
    try:
        return _parsed(data)
    except CapsuleProblem as error:
        raise CapsuleProblem(f"{origin}: its record was refused: {error}") from None
    except Exception as error:  # whatever zipfile makes of bytes that someone composed
        raise CapsuleProblem(f"{origin}: its record is damaged or cut short: {type(error).__name__}: {error}") from None


def _parsed(data: bytes) -> Capsule:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        _refuse_odd(members)
        listed, left_out = _index(json.loads(_content(archive, archive.getinfo(INDEX), INDEX_BYTES)))
        files = {member.filename: member for member in members if member.filename != INDEX}
        if files.keys() != listed.keys():
            raise CapsuleProblem(f"its index is of other files: {sorted(files.keys() ^ listed.keys())[:3]!a:.300}")
        found = {}
        for name, member in files.items():
            content = found[name] = _content(archive, member, MEMBER_BYTES)
            if hashlib.sha256(content).hexdigest() != listed[name]:
                raise CapsuleProblem(f"{name!a:.200} is not what the index says")
    return Capsule(found, left_out)


def _refuse_odd(members: list[zipfile.ZipInfo]) -> None:
    """Refuses an archive for what its directory says, before anything in it is unfolded."""
    if len(members) > MOST_MEMBERS:
        raise CapsuleProblem(f"it has more than {MOST_MEMBERS} files")
    if sum(member.file_size for member in members) > WHOLE_BYTES + INDEX_BYTES:
        raise CapsuleProblem(f"it would unfold to more than {WHOLE_BYTES // 2**20} MiB")
    for member in members:
        name = member.filename
        kind = member.external_attr >> 16 & 0o170000
        if not is_safe(name) or member.orig_filename != name:
            raise CapsuleProblem(f"{member.orig_filename!a:.200} is no path that a record has")
        if kind not in (0, 0o100000) or member.is_dir():
            raise CapsuleProblem(f"{name!a:.200} is a link or a device, no file")
        if member.flag_bits & 0x1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise CapsuleProblem(f"{name!a:.200} is encrypted or packed in an unknown way")
        if member.file_size > (INDEX_BYTES if name == INDEX else MEMBER_BYTES):
            raise CapsuleProblem(f"{name!a:.200} has {member.file_size} bytes, more than a record's file")
    twice = clash(member.filename for member in members)
    if twice:
        raise CapsuleProblem(f"{twice!a:.200} is there twice")


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes:
    with archive.open(member) as file:
        content = file.read(limit + 1)
    if len(content) != member.file_size or len(content) > limit:
        raise CapsuleProblem(f"{member.filename!a:.200} has another size than its directory says")
    return content


def _index(found: Any) -> tuple[dict[str, str], tuple[LeftOut, ...]]:
    """Returns the fingerprint of each file, and what was left out, from a decoded index."""
    number = found["format"]
    if type(number) is not int or number > FORMAT:
        raise CapsuleProblem(f"it has format {number!a:.40}, this labkit reads up to {FORMAT}; a newer labkit reads it")
    listed = {name: str(one["sha256"]) for name, one in found["files"].items()}
    left_out = tuple(
        LeftOut(str(one["path"])[:2000], int(one["bytes"]), str(one["fingerprint"])[:100], str(one["why"])[:300])
        for one in found["left_out"][:MOST_LEFT_OUT]
    )
    return listed, left_out


def element(archive: bytes) -> str:
    """Returns an archive as the element of a page in which no browser shows or runs anything."""
    return f"{BEGIN}{base64.b64encode(archive).decode()}{END}"


def mark(archive: bytes) -> str:
    """Returns what a page says of the archive that it carries: its size and its SHA-256."""
    return f"{len(archive)} {hashlib.sha256(archive).hexdigest()}"


def read(path: Path) -> Capsule:
    """Returns the record that a report carries. Only the report's first and last bytes are read.

    The capsule is the last element of its kind in the file, so that nothing on the page can stand for it; and what the
    page shows of a notebook is escaped, so that no such element is anywhere else.

    Raises:
        CapsuleProblem: The file is no report, carries no record, or one that is damaged.
    """
    return parse(extract(path), str(path))


def extract(path: Path) -> bytes:
    """Returns the archive in a report, which is as the page's first bytes say.

    Raises:
        CapsuleProblem: There is none, or not all of it.
    """
    said = page_capsule(path)
    if said is None:
        raise CapsuleProblem(f"{path} is no report that carries a record; `labkit report RUN` makes one")
    if said.startswith("public:"):
        raise CapsuleProblem(f"{path} is {said}; `labkit report` without --public makes a page that carries it")
    if not re.fullmatch(r"\d{1,9} [0-9a-f]{64}", said):
        raise CapsuleProblem(f"{path} carries no record: {said or 'it is of no run'}")
    tail = _tail(path)
    _, begin, after = tail.rpartition(BEGIN.encode())
    coded, end, _ = after.partition(b"<")
    size = int(said.partition(" ")[0])
    if not begin or not end:
        raise CapsuleProblem(
            f"{path} is cut short: its record of {size} bytes is not all there; ask for the whole file"
        )
    try:
        archive = binascii.a2b_base64(b"".join(coded.split()))
    except binascii.Error as error:
        raise CapsuleProblem(f"{path}: its record is damaged: {error}") from None
    if mark(archive) != said:
        raise CapsuleProblem(f"{path}: its record is damaged: it is not the one that the page began with")
    return archive


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            return file.read(TAIL_BYTES)
    except OSError as error:
        raise CapsuleProblem(f"{path} cannot be read: {error.strerror or error}") from error
