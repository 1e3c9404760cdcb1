"""`labkit unpack` writes a record out as a lab, replaces nothing, follows nothing, executes nothing."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from mutations import mutated
from pages import notebook, prose
from records import tree
from running import labkit, run
from test_capsule import archive, full_run
from tiny import markdown, parameters, write

from labkit.errors import CapsuleProblem, FolderProblem, RunNotFound
from labkit.record import capsule, lab
from labkit.record.capsule import parse
from labkit.record.find import every
from labkit.record.metrics import read as read_metrics
from labkit.workbench.pages.report import write_report
from labkit.workbench.reproducing.unpack import SHOWN, lay_out, opened, told
from labkit.workbench.terminal import printable


def test_a_report_is_laid_out_as_the_lab_of_its_run(tmp_path: Path) -> None:
    made = full_run(tmp_path)
    page = write_report(made, tmp_path / "page.html")
    laid = lay_out(capsule.read(page), tmp_path / "again")
    assert laid.notebook == tmp_path / "again" / "notebooks" / "digits.ipynb"
    assert laid.notebook.read_bytes() == (made.source / "notebook.ipynb").read_bytes()
    assert (laid.folder / "notebooks" / "nets.py").read_text() == "layers = 2\n"
    assert (laid.folder / "data" / "x.csv").read_bytes() == b"a,b\n1,2\n"
    assert (laid.folder / "params.yaml").read_text() == "EPOCHS: 3\n"
    assert (laid.folder / "requirements.txt").read_text() == "numpy==2.4.6\n"
    assert lab.root(laid.notebook.parent) == laid.folder
    assert laid.record.name == made.name
    assert every(laid.folder / "record") == [laid.record]
    assert laid.record.read_manifest() == made.read_manifest()
    assert list(read_metrics(laid.record.metrics).columns["loss"].values) == [0.5]
    assert (laid.record.figures / "curves.csv").read_text() == "step,loss\n1,0.5\n"
    assert laid.missing == ()
    assert {path.name for path in laid.folder.iterdir()} == {
        "notebooks", "data", "params.yaml", "requirements.txt", "record", "runs",
    }  # fmt: skip


def test_a_record_that_was_laid_out_is_packed_to_the_same(tmp_path: Path) -> None:
    made = full_run(tmp_path)
    laid = lay_out(capsule.of_run(made), tmp_path / "again")
    files = dict(capsule.of_run(made).files)
    del files["data/data/x.csv"]
    (tmp_path / "lab" / "data" / "x.csv").unlink()
    assert capsule.of_run(laid.record).files == files


def test_a_folder_that_holds_something_of_the_names_is_left_as_it_is(tmp_path: Path) -> None:
    packed = capsule.of_run(full_run(tmp_path))
    folder = tmp_path / "mine"
    for name in ("data", "params.yaml", "runs"):
        folder.mkdir()
        (folder / "other.txt").write_text("mine")
        (folder / name).write_text("mine")
        before = tree(folder)
        with pytest.raises(FolderProblem, match=f"{name} is there already"):
            lay_out(packed, folder)
        assert tree(folder) == before
        (folder / name).unlink()
        (folder / name).symlink_to(tmp_path / "nowhere")
        with pytest.raises(FolderProblem, match="already"):
            lay_out(packed, folder)
        assert not (tmp_path / "nowhere").exists()
        (folder / name).unlink()
        (folder / "other.txt").unlink()
        folder.rmdir()


def test_other_files_of_a_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "other.txt").write_text("mine")
    laid = lay_out(capsule.of_run(full_run(tmp_path)), tmp_path / "mine")
    assert (tmp_path / "mine" / "other.txt").read_text() == "mine"
    assert laid.notebook is not None and laid.notebook.exists()


def test_what_cannot_be_written_leaves_nothing_over(tmp_path: Path) -> None:
    packed = parse(archive({"run.json": b"{}", "data/" + "/".join(["x" * 200] * 4): b"1"}))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FolderProblem, match="cannot be written"):
        lay_out(packed, tmp_path / "file" / "below")
    long = tmp_path
    while len(str(long)) < 3700:
        long = long / ("y" * 200)
    with pytest.raises(FolderProblem, match="cannot be written"):
        lay_out(packed, long / "out")
    assert not (long / "out").exists()


@pytest.mark.parametrize("inside", ["../x.ipynb", "/tmp/x.ipynb", ".x.ipynb", "x.py", 3, None, "a\\b.ipynb"])
def test_a_notebook_whose_place_is_no_path_of_a_lab_stands_at_the_top(tmp_path: Path, inside: object) -> None:
    files = {"run.json": json.dumps({"notebook": inside}).encode(), "source/notebook.ipynb": b"{}"}
    assert lay_out(parse(archive(files)), tmp_path / "out").notebook == tmp_path / "out" / "notebook.ipynb"


def test_two_files_of_one_place_are_one_or_the_second_is_missing(tmp_path: Path) -> None:
    files = {
        "run.json": json.dumps({"notebook": "a.ipynb", "name": "../up", "id": "../up"}).encode(),
        "source/notebook.ipynb": b"{}",
        "source/modules/nets.py": b"1",
        "data/nets.py": b"1",
        "data/A.ipynb": b"other",
        "data/record/x.csv": b"2",
        "data/runs/x.csv": b"3",
        "params.yaml": b"N: 1\n",
        "data/params.yaml": b"N: 1\n",
    }
    laid = lay_out(parse(archive(files)), tmp_path / "out")
    assert laid.files == ("a.ipynb", "nets.py", "params.yaml", "record/x.csv")
    assert {one.path for one in laid.missing} == {"data/A.ipynb", "data/runs/x.csv"}
    assert laid.record.path == tmp_path / "out" / "record-" / "-up" / "unknown"
    assert laid.record.manifest.exists()


def test_labkits_own_modules_are_no_part_of_a_lab(tmp_path: Path) -> None:
    made = full_run(tmp_path)
    (made.source / "modules" / "labkit").mkdir(parents=True)
    (made.source / "modules" / "labkit" / "__init__.py").write_text("x = 1\n")
    laid = lay_out(capsule.of_run(made), tmp_path / "again")
    assert not (laid.folder / "labkit").exists() and not laid.missing
    assert (laid.record.source / "modules" / "labkit" / "__init__.py").exists()


def test_a_record_without_its_notebook_is_written_and_says_so(tmp_path: Path) -> None:
    laid = lay_out(parse(archive({"run.json": b"{}"})), tmp_path / "out")
    assert laid.notebook is None
    assert any("the notebook as it was" in line for line in told(laid))


def test_what_is_missing_is_told_with_its_fingerprint_but_not_without_end(tmp_path: Path) -> None:
    files = {f"data/part{number:03}.bin": {"blake3": f"{number:064x}", "bytes": 2**30} for number in range(SHOWN + 9)}
    laid = lay_out(parse(archive({"inputs.json": json.dumps({"files": files}).encode()})), tmp_path / "out")
    lines = list(told(laid))
    assert any(f"data/part007.bin (1,073,741,824 bytes, blake3:{7:064x})" in line for line in lines)
    assert "9 further files" in lines[-1] and len(lines) < SHOWN + 5


def test_a_name_is_a_report_or_a_run(tmp_path: Path) -> None:
    made = full_run(tmp_path)
    page = write_report(made, tmp_path / "page.html")
    link = tmp_path / "link.html"
    link.symlink_to(page)
    runs = tmp_path / "runs"
    assert opened(str(page), runs) == opened(str(link), runs) == opened("3f9a1c", runs)
    with pytest.raises(RunNotFound):
        opened("missing.html", runs)
    with pytest.raises(CapsuleProblem):
        (tmp_path / "other.html").write_text("<p>")
        opened(str(tmp_path / "other.html"), runs)


@pytest.mark.slow
def test_the_command_says_what_it_wrote_and_refuses_with_status_2(lab: Path) -> None:
    made = full_run(lab)
    page = write_report(made, lab / "page.html")
    done = labkit("unpack", str(page), "-o", "again")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "again/data/x.csv", "again/notebooks/digits.ipynb", "again/notebooks/nets.py", "again/params.yaml",
        "again/requirements.txt", f"the record: again/record/{made.name}",
    ]  # fmt: skip
    again = labkit("unpack", str(page), "-o", "again")
    assert again.returncode == 2 and "nothing was written" in again.stderr
    page.write_bytes(page.read_bytes()[:-3000])
    cut = labkit("unpack", str(page), "-o", "cut")
    assert cut.returncode == 2 and "page.html is cut short" in cut.stderr and not Path("cut").exists()
    write_report(made, page, is_public=True)
    public = labkit("unpack", str(page), "-o", "public")
    assert public.returncode == 2 and "the record is not carried" in public.stderr


@pytest.mark.slow
def test_a_run_goes_into_its_report_and_out_again_and_runs_there(lab: Path) -> None:
    (lab / "nets.py").write_text("layers = 2\n")
    (lab / "x.csv").write_text("1\n2\n")
    cells = [
        markdown("# Digits"),
        parameters("N: int = 3"),
        "import sys; sys.path.insert(0, '..')\nimport labkit, nets\nrun = labkit.start()",
        "rows = open('../x.csv').read().split()\nfor step in range(N): run.log(step, loss=step / 7 + len(rows))",
    ]
    path = write(lab / "notebooks" / "it's.ipynb", *cells)
    ended = run(path, "-p", "N=4")
    assert ended.exit_status == 0, ended.err
    page = write_report(ended.run, lab / "page.html")
    elsewhere = lab.parent / "elsewhere"
    done = labkit("unpack", str(page), "-o", str(elsewhere))
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "nets.py").read_text() == "layers = 2\n"
    (record,) = every(elsewhere / "record")
    assert record.metrics.read_bytes() == ended.run.metrics.read_bytes()
    assert record.read_manifest() == ended.run.read_manifest()
    if not (elsewhere / "x.csv").exists():
        pytest.fail(f"the data did not come along: {done.stdout}")
    again = run(elsewhere / "notebooks" / "it's.ipynb", "-f", str(elsewhere / "params.yaml"))
    assert again.exit_status == 0, again.err
    assert read_metrics(again.run.metrics).columns["loss"].values == read_metrics(record.metrics).columns["loss"].values
    shown = labkit("show", str(record.path))
    assert shown.returncode == 0 and "finished" in shown.stdout


def test_a_notebook_of_a_hostile_title_is_told_in_one_line(tmp_path: Path) -> None:
    made = full_run(tmp_path, notebook="notebooks/a\x1b[31m.ipynb")
    (made.source / "notebook.ipynb").write_text(json.dumps(notebook(prose("# x"))))
    laid = lay_out(capsule.of_run(made), tmp_path / "out")
    assert laid.notebook == tmp_path / "out" / "notebook.ipynb"
    assert not [line for line in told(laid) if "\x1b" in line or os.linesep in line]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run.json", "inputs.json", "checkpoints/000001.json", "source/modules.json"])
def test_a_run_with_any_damage_is_carried_and_laid_out_or_refused(tmp_path: Path, name: str) -> None:
    made = full_run(tmp_path)
    made.checkpoints.mkdir()
    about = {"bytes": 5, "sha256": "0" * 64, "lines": 3}
    (made.checkpoints / "000001.json").write_text(json.dumps(about))
    whole = (made.path / name).read_bytes()
    chance = random.Random(name)
    for number in range(150):
        (made.path / name).write_bytes(mutated(whole, chance))
        laid = lay_out(parse(capsule.pack(made)), tmp_path / "out" / str(number))
        assert all(path.resolve().is_relative_to(laid.folder) for path in laid.folder.rglob("*"))
        assert all(line.isprintable() for line in map(printable, told(laid)))
