"""A report carries the record of its run; what comes out of any bytes is checked files or a refusal."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import stat
import time
import zipfile
from pathlib import Path
from typing import Any

import pages
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import code, make_run, notebook, prose, shown, stream
from records import quick

from labkit.errors import CapsuleProblem
from labkit.record import capsule
from labkit.record.capsule import BEGIN, END, Capsule, parse
from labkit.record.carried import DATA_BYTES, DATA_FILE_BYTES, clash, is_safe
from labkit.record.page import page_stamp, page_summary
from labkit.record.rundir import RunDir
from labkit.workbench.pages.report import write_report
from labkit.workbench.reproducing.unpack import lay_out

KEY = "ghp_0123456789abcdefABCDEF"


def full_run(folder: Path, data: dict[str, bytes] | None = None, **manifest: Any) -> RunDir:
    """A run with a module, raw data of figures, and data that it read in the lab."""
    lab = folder / "lab"
    data = {"data/x.csv": b"a,b\n1,2\n"} if data is None else data
    for name, content in data.items():
        (lab / name).parent.mkdir(parents=True, exist_ok=True)
        (lab / name).write_bytes(content)
    about = {"lab": str(lab), "notebook": "notebooks/digits.ipynb", "parameters": {"EPOCHS": 3}}
    run = make_run(folder, manifest=about | manifest)
    (run.source / "notebook.ipynb").write_text(json.dumps(notebook(prose("# Digits"), code("import nets"))))
    (run.source / "modules" / "notebooks").mkdir(parents=True)
    (run.source / "modules" / "notebooks" / "nets.py").write_text("layers = 2\n")
    (run.source / "modules.json").write_text(json.dumps({"nets": {"path": "notebooks/nets.py", "sha256": "0" * 64}}))
    (run.figures / "curves.csv").write_text("step,loss\n1,0.5\n")
    (run.figures / "curves.png").write_bytes(b"a picture")
    files = {name: {"blake3": blake3(content).hexdigest(), "bytes": len(content)} for name, content in data.items()}
    (run.path / "inputs.json").write_text(json.dumps({"files": files, "left_out": {}}))
    run.params.write_text("EPOCHS: 3\n")
    run.requirements.write_text("numpy==2.4.6\n")
    run.log.write_text("printed\n")
    return run


def archive(content: dict[str, bytes], /, **changes: Any) -> bytes:
    """An archive with a true index, made by hand."""
    listed = {name: {"bytes": len(one), "sha256": hashlib.sha256(one).hexdigest()} for name, one in content.items()}
    index = {"format": 1, "files": listed, "left_out": []} | changes
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as out:
        for name, one in {"capsule.json": json.dumps(index).encode(), **content}.items():
            out.writestr(zipfile.ZipInfo(name), one, zipfile.ZIP_DEFLATED)
    return made.getvalue()


def test_what_is_packed_is_read_back_and_nothing_else(tmp_path: Path) -> None:
    found = parse(capsule.pack(full_run(tmp_path)))
    assert set(found.files) == {
        "run.json", "params.yaml", "environment.json", "requirements.txt", "inputs.json", "metrics.jsonl",
        "source/git.json", "source/modules.json", "source/modules/notebooks/nets.py", "source/notebook.ipynb",
        "figures/curves.csv", "attempts/1/exit.json", "attempts/1/kernel.json", "data/data/x.csv",
    }  # fmt: skip
    assert found.files["source/modules/notebooks/nets.py"] == b"layers = 2\n"
    assert found.json("run.json")["parameters"] == {"EPOCHS": 3}
    assert found.missing() == []


def test_equal_files_make_an_equal_archive(tmp_path: Path) -> None:
    run = full_run(tmp_path)
    first = capsule.pack(run)
    for path in run.path.rglob("*"):
        os.utime(path, (1, 1))
    run.metrics.chmod(0o600)
    assert capsule.pack(run) == first
    run.metrics.write_text('{"step": 1, "loss": 0.75}\n')
    assert capsule.pack(run) != first


def test_links_and_hidden_files_do_not_come_along(tmp_path: Path) -> None:
    run = full_run(tmp_path)
    secret = tmp_path / "secret.txt"
    secret.write_text("s3cret")
    (run.source / "link.py").symlink_to(secret)
    (run.source / "folder").symlink_to(tmp_path)
    (run.source / ".hidden").write_text("s3cret")
    os.mkfifo(run.source / "pipe")
    run.stated.symlink_to(secret)
    found = parse(capsule.pack(run))
    assert b"s3cret" not in b"".join(found.files.values())
    assert [one.path for one in found.left_out] == ["source/.hidden"]
    run.source.rename(tmp_path / "moved")
    run.source.symlink_to(tmp_path / "moved")
    assert not [name for name in parse(capsule.pack(run)).files if name.startswith("source")]


def test_what_looks_like_a_key_stays_where_it_is_and_without_its_fingerprint(tmp_path: Path) -> None:
    data = {"data/config.txt": f"x={KEY}".encode(), "api_key.txt": b"short", ".env": b"A=1"}
    run = full_run(tmp_path, data)
    (run.source / "changes.patch").write_text(f"+key = {KEY!r}\n")
    (run.source / "modules" / "keys.py").write_text(f"key = {KEY!r}\n")
    run.journal.write_text(json.dumps({"source": f"login({KEY!r})"}) + "\n")
    found = parse(capsule.pack(run))
    assert KEY.encode() not in b"".join(found.files.values())
    why = {one.path: one for one in found.left_out}
    held = ["source/changes.patch", "source/modules/keys.py", "journal.jsonl", "data/data/config.txt"]
    assert set(why) == {*held, "data/api_key.txt", "data/.env"}
    assert all("key" in why[name].why and not why[name].fingerprint for name in held)


def test_data_come_along_while_they_are_small_and_as_they_were(tmp_path: Path) -> None:
    large, most = b"x" * (DATA_FILE_BYTES + 1), b"y" * DATA_FILE_BYTES
    data = {"empty.csv": b"", "changed.csv": b"1", "gone.csv": b"2", "large.bin": large, "link.csv": b"3"}
    data |= {f"part{number}.bin": most for number in range(5)}
    run = full_run(tmp_path, data)
    lab = tmp_path / "lab"
    (lab / "changed.csv").write_bytes(b"4")
    (lab / "gone.csv").unlink()
    (lab / "link.csv").rename(tmp_path / "elsewhere.csv")
    (lab / "link.csv").symlink_to(tmp_path / "elsewhere.csv")
    found = parse(capsule.pack(run))
    carried = {name.removeprefix("data/"): one for name, one in found.files.items() if name.startswith("data/")}
    assert set(carried) == {"empty.csv", "link.csv", "part0.bin", "part1.bin", "part2.bin"}
    assert sum(map(len, carried.values())) <= DATA_BYTES
    missing = {one.path.removeprefix("data/"): one for one in found.missing()}
    assert set(missing) == set(data) - set(carried)
    assert "no longer what" in missing["changed.csv"].why and "no longer there" in missing["gone.csv"].why
    assert missing["large.bin"].fingerprint == f"blake3:{blake3(large).hexdigest()}"
    assert missing["large.bin"].bytes == len(large)


@pytest.mark.parametrize("name", ["../out.csv", "/etc/hostname", "data/../../out.csv", "a\\b.csv", "", "a//b", "C:x"])
def test_a_run_that_names_data_outside_of_its_lab_gets_none(tmp_path: Path, name: str) -> None:
    run = full_run(tmp_path)
    (tmp_path / "out.csv").write_bytes(b"1")
    facts = {"files": {name: {"blake3": blake3(b"1").hexdigest(), "bytes": 1}}}
    (run.path / "inputs.json").write_text(json.dumps(facts))
    found = parse(capsule.pack(run))
    assert not [one for one in found.files if one.startswith("data/")]
    assert len(found.missing()) == 1


@pytest.mark.parametrize("files", [None, [], {"x": None}, {"x": {"bytes": "1", "blake3": 3}}, {"x": {"bytes": -1}}])
def test_a_damaged_list_of_inputs_keeps_nothing_else_out(tmp_path: Path, files: Any) -> None:
    run = full_run(tmp_path)
    (run.path / "inputs.json").write_text(json.dumps({"files": files}))
    assert "run.json" in parse(capsule.pack(run)).files


def test_over_the_cap_the_largest_optional_files_stay_out_first_and_are_named(tmp_path: Path) -> None:
    run = full_run(tmp_path)
    noise = os.urandom(300_000)
    (run.figures / "large.npz").write_bytes(noise)
    (run.figures / "small.npz").write_bytes(noise[:1000])
    packed = capsule.pack(run, 100_000)
    assert len(packed) <= 100_000
    found = parse(packed)
    assert "figures/small.npz" in found.files and "metrics.jsonl" in found.files
    (left,) = found.left_out
    assert (left.path, left.bytes) == ("figures/large.npz", len(noise))
    assert left.fingerprint == f"sha256:{hashlib.sha256(noise).hexdigest()}"
    tiny = parse(capsule.pack(run, 5_000))
    assert "run.json" in tiny.files and "source/notebook.ipynb" in tiny.files
    assert "figures/small.npz" not in capsule.parse(capsule.pack(run, 3_500)).files


def test_nothing_of_what_is_packed_says_more_than_the_run_of_who_asked(tmp_path: Path) -> None:
    run = full_run(tmp_path)
    run.process.write_text(json.dumps({"process": {"pid": 1, "host": "canary"}}))
    (run.attempt / "job.json").write_text('{"values": "canary"}')
    assert b"canary" not in b"".join(parse(capsule.pack(run)).files.values())


# hostile archives

HOSTILE = {
    "a path that leads up": "../../outside",
    "an absolute path": "/tmp/outside",
    "a path of Windows": "C:\\outside",
    "a backslash": "..\\outside",
    "an empty part": "a//b",
    "a dot": "./a",
    "a hidden folder": ".git/hooks/post-checkout",
    "a hidden folder below": "source/.git/config",
    "a long name": "x" * 300,
    "a line break": "a\nb",
    "an escape": "a\x1b[31mb",
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_an_archive_with_a_name_that_is_no_path_of_a_record_is_refused(name: str) -> None:
    with pytest.raises(CapsuleProblem, match="no path that a record has"):
        parse(archive({"run.json": b"{}", name: b"x"}), "page.html")


def test_a_name_cut_off_by_a_zero_byte_is_refused() -> None:
    data = archive({"run.json": b"{}", "evilXtxt": b"x"}).replace(b"evilXtxt", b"evil\x00txt")
    with pytest.raises(CapsuleProblem):
        parse(data)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFDIR, stat.S_IFSOCK])
def test_links_devices_and_folders_are_refused(kind: int) -> None:
    made = io.BytesIO(archive({"run.json": b"{}"}))
    with zipfile.ZipFile(made, "a") as out:
        member = zipfile.ZipInfo("link")
        member.external_attr = (kind | 0o777) << 16
        out.writestr(member, "/etc/passwd")
    with pytest.raises(CapsuleProblem, match="a link or a device"):
        parse(made.getvalue())


@pytest.mark.parametrize("names", [("a", "A"), ("a", "a/b"), ("a/b", "A"), ("\u00e9", "e\u0301")])
def test_two_files_for_one_place_are_refused(names: tuple[str, str]) -> None:
    assert clash(names)
    with pytest.raises(CapsuleProblem, match="twice"):
        parse(archive(dict.fromkeys(names, b"x")))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_name_twice_is_refused() -> None:
    made = io.BytesIO(archive({"run.json": b"{}"}))
    with zipfile.ZipFile(made, "a") as out:
        out.writestr("run.json", b"[]")
    with pytest.raises(CapsuleProblem, match="twice"):
        parse(made.getvalue())


def test_what_the_index_does_not_vouch_for_is_refused() -> None:
    with pytest.raises(CapsuleProblem, match="not what the index says"):
        parse(archive({"run.json": b"{}"}, files={"run.json": {"bytes": 2, "sha256": "0" * 64}}))
    with pytest.raises(CapsuleProblem, match="other files"):
        parse(archive({"run.json": b"{}"}, files={}))
    with pytest.raises(CapsuleProblem, match="other files"):
        parse(archive({}, files={"run.json": {"bytes": 2, "sha256": "0" * 64}}))
    with pytest.raises(CapsuleProblem, match="newer labkit"):
        parse(archive({"run.json": b"{}"}, format=2))


@pytest.mark.parametrize(
    "index", [{"left_out": 3}, {"left_out": [3]}, {"left_out": None}, {"files": []}, {"format": "1"}]
)
def test_a_damaged_index_is_a_refusal(index: dict[str, Any]) -> None:
    with pytest.raises(CapsuleProblem):
        parse(archive({}, **index))


def test_a_bomb_is_refused_before_it_unfolds(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = archive({"run.json": b"{}", "figures/bomb.csv": bytes(capsule.MEMBER_BYTES + 1)})
    assert len(bomb) < 200_000
    started = time.monotonic()
    with pytest.raises(CapsuleProblem, match="more than a record's file"):
        parse(bomb)
    assert time.monotonic() - started < 5
    monkeypatch.setattr(capsule, "WHOLE_BYTES", 1000 - capsule.INDEX_BYTES)
    with pytest.raises(CapsuleProblem, match="unfold to more"):
        parse(archive({"a": bytes(600), "b": bytes(600)}))
    monkeypatch.setattr(capsule, "MOST_MEMBERS", 3)
    with pytest.raises(CapsuleProblem, match="more than 3 files"):
        parse(archive(dict.fromkeys("abcd", b"")))
    with pytest.raises(CapsuleProblem, match="larger than 16 MiB"):
        parse(bytes(capsule.LARGEST_BYTES + 1))


def test_a_size_that_lies_brings_no_more_than_it_says() -> None:
    data = archive({"x" * 8: bytes(5_000_000)})
    lying = data.replace((5_000_000).to_bytes(4, "little"), (5).to_bytes(4, "little"))
    with pytest.raises(CapsuleProblem):
        parse(lying)


def seed_archive() -> bytes:
    return archive(
        {"run.json": b'{"notebook": "a.ipynb"}', "source/notebook.ipynb": b"{}", "data/x/y.csv": b"1\n" * 50}
    )


@given(st.data())
@settings(quick, max_examples=150)
def test_a_mutated_archive_is_read_or_refused_and_writes_nowhere_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    bytes_ = bytearray(seed_archive())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(bytes_) - 1))
        piece = data.draw(
            st.binary(max_size=4) | st.sampled_from([b"../", b"/", b"\x00", b"\xff\xff\xff\xff", b"PK\x01\x02"])
        )
        bytes_[place : place + data.draw(st.integers(0, 4))] = piece
        if not bytes_:
            return
    folder = tmp_path_factory.mktemp("mutated")
    try:
        made = lay_out(parse(bytes(bytes_)), folder / "out")
    except CapsuleProblem:
        assert list(folder.iterdir()) == []
        return
    assert os.listdir(folder) == ["out"]
    assert all(path.is_file() or path.is_dir() for path in made.folder.rglob("*"))


@given(st.binary(max_size=300))
@quick
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for piece in (data, b"PK\x03\x04" + data, b"PK\x05\x06" + bytes(16) + data):
        with pytest.raises(CapsuleProblem):
            parse(piece)


@given(st.dictionaries(st.text(min_size=1, max_size=12), st.binary(max_size=50), max_size=6))
@quick
def test_any_names_are_refused_or_stay_below_the_folder(files: dict[str, bytes]) -> None:
    for name in files:
        if is_safe(name):
            assert os.path.normpath(os.path.join("/lab", name)).startswith("/lab/")
            assert os.path.normpath(name) == name


# in a page


def test_a_report_carries_the_record_and_gives_it_back(tmp_path: Path) -> None:
    run = full_run(tmp_path)
    page = write_report(run, tmp_path / "page.html", stamp="made of x")
    assert capsule.read(page) == parse(capsule.pack(run), str(page))
    assert page_stamp(page) == "made of x"
    summary = page_summary(page)
    assert summary is not None and summary["run"] == run.name
    text = page.read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    assert write_report(run, tmp_path / "again.html", stamp="made of x").read_bytes() == page.read_bytes()


def test_text_that_looks_like_a_capsule_is_none(tmp_path: Path) -> None:
    forged = capsule.element(archive({"run.json": b'{"forged": true}'}))
    cells = [prose(f"# D\n\n{forged}"), code(forged, stream(forged), shown(text_html=forged, text_plain=forged))]
    run = make_run(tmp_path, notebook(*cells), manifest={"title": forged, "author": forged})
    page = write_report(run, tmp_path / "page.html", stale=[forged])
    assert page.read_text().count(BEGIN) == 1
    assert "forged" not in capsule.read(page).json("run.json")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99])
def test_a_report_that_is_cut_short_is_named_and_refused(tmp_path: Path, kept: float) -> None:
    page = write_report(full_run(tmp_path), tmp_path / "page.html")
    data = page.read_bytes()
    begin, end = data.index(BEGIN.encode()) + len(BEGIN), data.index(END.encode())
    for place in (begin - 100, begin + int((end - begin) * kept)):
        page.write_bytes(data[:place])
        with pytest.raises(CapsuleProblem, match=r"page\.html is cut short"):
            capsule.read(page)


def test_a_changed_record_is_refused(tmp_path: Path) -> None:
    page = write_report(full_run(tmp_path), tmp_path / "page.html")
    data = page.read_bytes()
    place = data.index(BEGIN.encode()) + len(BEGIN) + 400
    page.write_bytes(data[:place] + (b"A" if data[place : place + 1] != b"A" else b"B") + data[place + 1 :])
    with pytest.raises(CapsuleProblem, match="damaged"):
        capsule.read(page)


def test_other_files_carry_no_record_and_say_so(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for content in (b"", b"<html>", b'<meta name="labkit-page" content="x">'):
        page.write_bytes(content)
        with pytest.raises(CapsuleProblem, match="no report that carries a record"):
            capsule.read(page)
    with pytest.raises(CapsuleProblem, match="no report"):
        capsule.read(tmp_path / "missing.html")
    page.write_text('<meta name="labkit-capsule" content="public: the record is not carried">')
    with pytest.raises(CapsuleProblem, match="public"):
        capsule.read(page)


@pytest.mark.slow
def test_of_a_large_page_only_its_ends_are_read(tmp_path: Path) -> None:
    page = write_report(full_run(tmp_path), tmp_path / "page.html")
    before, begin, after = page.read_text().partition(BEGIN)
    with page.open("w") as file:
        file.write(before.replace("</main>", "<p>long</p>" * 20_000_000 + "</main>"))
        file.write(begin + after)
    assert page.stat().st_size > 200e6
    started = time.monotonic()
    assert "run.json" in capsule.read(page).files
    assert time.monotonic() - started < 2
    page.unlink()


def test_the_record_adds_little_time_to_a_report(tmp_path: Path) -> None:
    run = full_run(tmp_path)
    (run.source / "labkit-0.1.0-py3-none-any.whl").write_bytes(os.urandom(400_000))
    times = []
    for _ in range(7):
        started = time.perf_counter()
        capsule.element(capsule.pack(run))
        times.append(time.perf_counter() - started)
    assert min(times) < 0.05


class Pickled:
    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return os.mkdir, (str(Path.cwd() / "ran"),)


def test_pickles_scripts_and_hooks_inside_do_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bad = pages.EVERY_ATTACK
    manifest = {"notebook": "../../x.ipynb", "name": bad, "id": bad, "title": bad}
    files = {
        "run.json": json.dumps(manifest).encode(),
        "source/notebook.ipynb": bad.encode(),
        "source/modules/sitecustomize.py": b"import os; os.mkdir('ran')",
        "figures/x.npz": pickle.dumps(Pickled()),
        "data/Makefile": b"all:\n\tmkdir ran\n",
    }
    made = lay_out(parse(archive(files)), tmp_path / "out")
    assert made.notebook == tmp_path / "out" / "notebook.ipynb"
    assert os.listdir(tmp_path) == ["out"]
    written = [path for path in made.folder.rglob("*") if path.is_file()]
    assert all(path.stat().st_mode & 0o111 == 0 and not path.name.startswith(".") for path in written)
    assert all(path.resolve().is_relative_to(tmp_path / "out") for path in made.folder.rglob("*"))


def test_a_capsule_from_a_run_has_what_a_report_of_it_has(tmp_path: Path) -> None:
    run = full_run(tmp_path)
    assert capsule.of_run(run) == parse(capsule.pack(run))
    assert Capsule({}).missing() == [] and Capsule({"run.json": b"[" * 9000}).json("run.json") == {}
