"""A run's directory is made whole, in one step, and found again by any of its names."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from records import lines, made, quick, tree
from tiny import plain_environment

from labkit.errors import FolderProblem, RunNotFound
from labkit.record.files import read_json, write_json
from labkit.record.find import every, find
from labkit.record.rundir import ID, SCRATCH, RunDir, create, folder_name
from labkit.record.summary import summarise


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def test_a_new_run_has_every_file_that_a_reader_expects(runs: Path):
    run = create(runs, "tiny", {"title": "Tiny"}, {"source/notebook.ipynb": b"{}"})
    manifest = run.read_manifest()
    assert (manifest["title"], manifest["id"], manifest["name"], manifest["format"]) == ("Tiny", run.id, "tiny", 1)
    assert manifest["created"].endswith("Z")
    assert ID.fullmatch(run.id)
    assert run.metrics.read_bytes() == run.log.read_bytes() == b""
    assert (run.source / "notebook.ipynb").read_bytes() == b"{}"
    assert run.attempt.is_dir()
    assert run.figures.is_dir()


def test_identity_cannot_be_chosen_by_the_manifest(runs: Path):
    run = create(runs, "tiny", {"id": "mine", "name": "other", "format": 99, "created": "never"})
    assert (run.read_manifest()["id"], run.read_manifest()["name"]) == (run.id, "tiny")


def test_two_runs_never_share_a_directory_even_in_one_millisecond(runs: Path):
    with ThreadPoolExecutor(8) as threads:
        paths = list(threads.map(lambda _: create(runs, "tiny", {}).path, range(100)))
    assert len(set(paths)) == len(every(runs)) == 100


FIFTY = """\
import os, sys
from pathlib import Path
from labkit.record.rundir import create
gate, opener = os.pipe()
children = []
for _ in range(50):
    children.append(pid := os.fork())
    if pid == 0:
        try:
            os.close(opener)
            os.read(gate, 1)  # until all have been started
            create(Path(sys.argv[1]), "tiny", {"title": str(os.getpid())})
        except BaseException:
            os._exit(1)
        os._exit(0)
os.close(opener)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 50
print(*children)
"""


def test_fifty_processes_that_create_runs_in_one_second_get_fifty_directories(runs: Path):
    done = subprocess.run(
        [sys.executable, "-c", FIFTY, str(runs)], capture_output=True, text=True, env=plain_environment()
    )
    assert done.returncode == 0, done.stderr
    assert sorted(run.read_manifest()["title"] for run in every(runs)) == sorted(done.stdout.split())
    assert len(every(runs)) == 50
    assert [name for name in os.listdir(runs / "tiny") if name.startswith(".")] == []


def test_the_newest_run_is_linked_beside_its_siblings_and_at_the_top(runs: Path):
    create(runs, "a", {})
    newest = create(runs, "b", {})
    assert (runs / "last").resolve() == (runs / "b" / "last").resolve() == newest.path.resolve()
    assert not os.path.isabs(os.readlink(runs / "last"))


def test_a_notebook_that_is_called_like_a_link_gets_a_folder_of_its_own(runs: Path):
    assert create(runs, "last", {}).path.parent.name == "last_"
    assert create(runs, "sweeps", {}).path.parent.name == "sweeps_"
    assert (runs / "last").is_symlink()


def test_a_file_that_is_in_the_way_of_a_link_stays(runs: Path):
    runs.mkdir()
    (runs / "last").write_text("mine")
    create(runs, "tiny", {})
    assert (runs / "last").read_text() == "mine"


def test_runs_follow_the_umask_and_the_group_of_their_folder(runs: Path):
    runs.mkdir()
    runs.chmod(0o2775)
    before = os.umask(0o002)
    try:
        run = create(runs, "tiny", {})
    finally:
        os.umask(before)
    assert run.path.stat().st_mode & 0o7777 == 0o2775
    assert run.manifest.stat().st_mode & 0o777 == 0o664
    assert run.path.stat().st_gid == runs.stat().st_gid


NAMES = [
    "with space",
    "two\nlines",
    "😀" * 100,
    "x" * 250,
    "../../escape",
    "/etc/passwd",
    "..",
    ".",
    "",
    "\x1b[2J",
    "a\0b",
    "\udce9",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_notebook_name_becomes_one_folder_below_the_runs(runs: Path, name: str):
    run = create(runs, name, {})
    assert run.path.parent.parent == runs
    assert not run.path.parent.name.startswith(".")
    assert [found.path for found in every(runs)] == [run.path]
    assert run.read_manifest()["name"] == name


@quick
@given(st.text())
@example(". ..")
@example("\u202e/..")
def test_a_folder_name_is_never_hidden_never_a_path_and_never_too_long(text: str):
    name = folder_name(text)
    assert name not in ("", ".", "..", "last", "sweeps")
    assert not name.startswith(".")
    assert not set(name) & {"/", "\\", "\0", "\n"}
    assert len(name.encode()) <= 101
    assert folder_name(name) == name or name.endswith(" ") or name.startswith(" ")


@pytest.mark.parametrize("place", ["runs/with space", "two\nlines/runs", "😀" * 60])
def test_runs_may_lie_in_a_folder_of_any_name(tmp_path: Path, place: str):
    run = create(tmp_path / place, "tiny", {})
    assert find("last", tmp_path / place).path == run.path


@pytest.mark.parametrize("place", ["a-file/runs", "a-file", "x" * 256, "/proc/labkit-runs"])
def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path, place: str):
    (tmp_path / "a-file").write_text("")
    with pytest.raises(FolderProblem, match=r"no run can be made in .*; choose another folder with --runs"):
        create(tmp_path / place, "tiny", {})


def test_a_read_only_folder_is_a_clear_error_and_stays_as_it_was(runs: Path):
    runs.mkdir()
    runs.chmod(0o555)
    child = (
        "import os, sys; from pathlib import Path\n"
        "from labkit.record.rundir import create; from labkit.errors import FolderProblem\n"
        "os.geteuid() or os.setuid(65534)\n"  # root may write anywhere
        "try: create(Path('runs'), 'tiny', {})\n"
        "except FolderProblem as error: print(error)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", child], cwd=runs.parent, capture_output=True, text=True, env=plain_environment()
    )
    assert "no run can be made in runs/tiny: Permission denied" in said.stdout, said.stderr
    assert os.listdir(runs) == []


def test_a_manifest_that_cannot_be_written_leaves_no_run(runs: Path):
    with pytest.raises(TypeError):
        create(runs, "tiny", {"title": 1j})
    assert every(runs) == []
    assert os.listdir(runs / "tiny") == []


def test_a_damaged_manifest_is_named_and_never_replaced(runs: Path):
    run = made(runs)
    for damage in (b"{", b"[]", b"\xff", b'{"format": 99}', b'{"format": "1"}', b"{}"):
        run.manifest.write_bytes(damage)
        with pytest.raises(FolderProblem, match=r"run\.json"):
            run.read_manifest()
        with pytest.raises(FolderProblem):
            run.update_manifest(labels=["x"])
        summarise(run)
        assert run.manifest.read_bytes() == damage


def test_keys_that_this_version_does_not_know_are_kept(runs: Path):
    run = made(runs)
    write_json(run.manifest, read_json(run.manifest) | {"future": [1, 2]})
    run.update_manifest(labels=["debug"])
    assert read_json(run.manifest)["future"] == [1, 2]
    assert run.read_manifest()["labels"] == ["debug"]


def test_a_value_of_the_wrong_kind_reads_as_missing(runs: Path):
    run = made(runs)
    write_json(
        run.manifest, {"format": 1, "parameters": [1], "labels": {}, "title": 5, "name": None, "given": {"A": 1}}
    )
    manifest = run.read_manifest()
    assert (manifest["parameters"], manifest["labels"], manifest["title"], manifest["name"]) == ({}, [], "", "")
    assert manifest["given"] == {"A": 1}


def test_runs_come_oldest_first_with_scratch_runs_and_without_anything_else(runs: Path, tmp_path: Path):
    order = [made(runs, "b"), made(runs, "a"), made(runs / SCRATCH, "c")]
    (runs / "a" / "notes").mkdir()
    (runs / "a" / "20261121T101500.123Z-3f9a1c.tar").mkdir()
    (runs / "a" / "20261121T101500.123Z-000000").write_text("a file")
    outside = made(tmp_path / "outside")
    (runs / "linked").symlink_to(outside.path.parent)
    (runs / "a" / "20991121T101500.123Z-3f9a1c").symlink_to(outside.path)
    assert [run.path for run in every(runs)] == [run.path for run in sorted(order, key=lambda run: run.id)]


def test_the_newest_attempt_has_the_largest_number(runs: Path):
    run = made(runs)
    for name in ("2", "10", "x", "03", "²", "99999999999999"):
        (run.attempts / name).mkdir()
    assert run.attempt.name == "10"


def test_attempts_that_are_a_link_out_of_the_run_are_not_followed(runs: Path, tmp_path: Path):
    run = made(runs)
    (tmp_path / "outside" / "7").mkdir(parents=True)
    write_json(tmp_path / "outside" / "7" / "exit.json", {"status": "finished"})
    run.attempts.rename(run.path / "elsewhere")
    run.attempts.symlink_to(tmp_path / "outside")
    assert read_json(run.exit) is None


# find


def test_a_run_is_found_by_each_of_its_names(runs: Path, lab: Path):
    older, run = made(runs, "digits"), made(runs, "digits")
    for name in (run.id, run.id[-6:], run.name, str(run.path), "last", "digits@last", os.path.relpath(run.path)):
        assert find(name, runs).path == run.path, name
    assert find(older.id[-6:], runs).path == older.path


def test_a_scratch_run_answers_to_its_id_but_is_not_the_last(runs: Path):
    run, scratch = made(runs, "digits"), made(runs / SCRATCH, "digits")
    assert find("last", runs).path == find("digits@last", runs).path == run.path
    assert find(scratch.id[-6:], runs).path == scratch.path


def test_the_best_run_is_the_finished_one_with_the_highest_or_lowest_last_value(runs: Path):
    for at, end in enumerate(["finished", "finished", "failed", "finished"]):
        run = made(runs, "digits", end=end)
        run.update_manifest(summary={"metrics": {"acc": {"last": [0.5, 0.9, 0.99, "NaN"][at]}, "other": {"last": at}}})
    assert find("digits@best:acc", runs).read_manifest()["summary"]["metrics"]["acc"]["last"] == 0.9
    assert find("best:-acc", runs).read_manifest()["summary"]["metrics"]["acc"]["last"] == 0.5
    with pytest.raises(RunNotFound, match="no finished run has a number for 'nothing'"):
        find("digits@best:nothing", runs)
    with pytest.raises(RunNotFound, match=r"no finished run has a number for 'ac'; did you mean acc\?"):
        find("digits@best:ac", runs)
    with pytest.raises(RunNotFound, match="there are acc"):
        find("best:-zzz", runs)


def test_a_best_run_is_chosen_among_hostile_summaries(runs: Path):
    values = [10**400, "x", [1], {}, None, "Infinity", 1]
    for value in values:
        made(runs).update_manifest(summary={"metrics": {"acc": {"last": value}}})
    made(runs).update_manifest(summary={"metrics": ["acc"]})
    made(runs).update_manifest(summary={"metrics": {"acc": 3}})
    assert find("best:acc", runs).read_manifest()["summary"]["metrics"]["acc"]["last"] == "Infinity"


def test_a_name_of_several_runs_is_refused_with_their_names(runs: Path):
    first, second = made(runs), made(runs)
    with pytest.raises(RunNotFound) as raised:
        find(first.id[:8], runs)
    assert first.name in str(raised.value)
    assert second.name in str(raised.value)


def test_a_name_of_nothing_is_refused_with_what_is_near(runs: Path):
    with pytest.raises(RunNotFound, match="there are no runs yet"):
        find("last", runs)
    run = made(runs)
    with pytest.raises(RunNotFound, match=f"the newest are {run.name}"):
        find("nothing", runs)


def test_a_damaged_run_is_still_found_by_its_path(runs: Path):
    run = made(runs)
    run.manifest.unlink()
    assert find(str(run.path), runs).path == run.path


@pytest.fixture(scope="module")
def known_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("find") / "runs"
    for name in ("a", "b"):
        made(runs, name, steps=2)
    return runs


@quick
@given(
    st.text()
    | st.builds("{}@{}".format, st.text(max_size=5), st.text(max_size=8) | st.just("last"))
    | st.builds("{}best:{}".format, st.sampled_from(["", "a@", "../@"]), st.sampled_from(["loss", "-loss", "-", ""]))
    | st.text(alphabet="./~ab0\0\n\ud800@-*[", max_size=400)
)
@example("x" * 5000)
@example("/" * 300)
@example("\0")
@example("\ud800/" * 300)
@example("..")
@example("x.html")
@example("/dev/zero.html")
def test_no_text_finds_anything_outside_or_raises_anything_but_not_found(known_runs: Path, text: str):
    try:
        found = find(text, known_runs)
    except RunNotFound as error:
        assert str(error)
    else:
        assert found.path.parent.parent == known_runs


@pytest.mark.slow
def test_two_thousand_runs_of_a_thousand_steps_are_listed_right(runs: Path):
    from labkit.workbench.runlist import rows

    pattern = made(runs, "a", steps=1000)
    for number in range(1999):
        run = made(runs, f"b{number % 7}", end="failed" if number % 10 == 0 else "finished")
        run.metrics.write_bytes(pattern.metrics.read_bytes())
        run.update_manifest(summary=pattern.read_manifest()["summary"])
    found = rows(runs, None, None, None, scratch=False)
    assert len(found) == len({row["id"] for row in found}) == 2000
    assert [row["id"] for row in found] == sorted(row["id"] for row in found)
    assert {row["metrics"]["loss"] for row in found} == {1 / 1000}
    assert len(rows(runs, None, "failed", None, scratch=False)) == 200
    assert len(rows(runs, "b1", None, 20, scratch=False)) == 20
    assert len(lines(every(runs)[1500].metrics)) == 1000


def test_looking_at_a_run_changes_nothing_in_it(runs: Path):
    from labkit.workbench.runlist import rows
    from labkit.workbench.terminal import facts

    run = made(runs, steps=3)
    before = tree(runs)
    facts(run)
    rows(runs, None, None, None, scratch=True)
    find("last", runs)
    assert tree(runs) == before
    assert RunDir(run.path).read_manifest()["id"] == run.id
