"""`labkit report` of notebooks: each lab has its pages, and a notebook that fails has one that says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from running import labkit, make_lab
from test_report import text_of
from tiny import markdown, parameters, write

from labkit.record.find import every
from labkit.workbench.pages.index import page_name

pytestmark = pytest.mark.slow


def test_notebooks_of_two_labs_in_one_call_are_reported_each_in_its_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = (make_lab(tmp_path / name) for name in ("Ada's lab", "Grace's lab"))
    monkeypatch.chdir(here)
    texts = {here: "measured here", there: "measured there"}
    notebooks = [
        write(lab / "notebooks" / "same name.ipynb", markdown("# Same name"), f"print({text!r})")
        for lab, text in texts.items()
    ]
    done = labkit("report", *map(str, notebooks))
    assert done.returncode == 0, done.stderr
    for lab, text in texts.items():
        page, index = (lab / "reports" / name for name in ("same name.html", "index.html"))
        assert f"{text}\n" in page.read_text() and "Same name" in index.read_text()
        (run,) = every(lab / "runs")
        assert f"{text}\n" in run.report.read_text()
        (other,) = set(texts.values()) - {text}
        assert f"{other}\n" not in page.read_text()
    again = labkit("report", *map(str, notebooks))
    assert (again.returncode, "up to date" in again.stdout) == (0, True)


def test_a_point_of_a_sweep_stands_for_its_notebook_only_where_there_is_no_other_run(lab: Path) -> None:
    notebook = write(lab / "notebooks" / "n.ipynb", parameters("X: int = 0"), "import labkit\nrun = labkit.start()\nX")
    for command in (["sweep", str(notebook), "-p", "X=5"], ["report", str(notebook)]):
        assert labkit(*command).returncode == 0
    page = lab / "reports" / "n.html"
    assert "point 1 of sweeps/" in text_of(page.read_text())
    assert labkit("run", str(notebook)).returncode == 0
    assert labkit("sweep", str(notebook), "-p", "X=6").returncode == 0
    assert labkit("report", str(notebook)).returncode == 0
    assert "of sweeps/" not in text_of(page.read_text())


def test_the_page_of_a_notebook_that_fails_names_the_cell_and_the_error(lab: Path) -> None:
    cells = "before = 1", "raise ValueError('no such luck')", "after = 2"
    notebook = write(lab / "notebooks" / "fails.ipynb", markdown("# Fails"), *cells)
    done = labkit("report", str(notebook))
    assert done.returncode == 1
    assert "cell 3 (cell-3) raised ValueError: no such luck" in done.stdout and "Traceback" not in done.stderr
    page = text_of((lab / "reports" / "fails.html").read_text())
    for words in ("This run failed.", "ell 3 (cell-3) raised ValueError: no such luck", "after = 2"):
        assert words in page
    assert "failed" in text_of((lab / "reports" / "index.html").read_text() + "<script>")


def test_notebooks_whose_paths_look_alike_have_a_page_each_and_are_up_to_date_the_second_time(lab: Path) -> None:
    alike = "a/b.ipynb", "a--b.ipynb", "a-/b.ipynb", "a/-b.ipynb", "index.ipynb", "../a/b.ipynb"
    notebooks = [write(lab / "notebooks" / name, f"print('this is {number}')") for number, name in enumerate(alike)]
    done = labkit("report", *map(str, notebooks))
    assert done.returncode == 0, done.stderr
    pages = {page.name: page.read_text() for page in (lab / "reports").iterdir() if page.name != "index.html"}
    assert len(pages) == len(alike) and "this is 0\n" in pages["a--b.html"]
    for number in range(len(alike)):
        assert sum(f"this is {number}\n" in text for text in pages.values()) == 1
    again = labkit("report", *map(str, notebooks))
    assert again.stdout == "nothing to do: the reports in reports are up to date\n"


def test_the_name_of_a_page_follows_from_the_path_of_its_notebook_alone(lab: Path) -> None:
    assert page_name(lab, "notebooks/digits-cnn.ipynb") == "digits-cnn.html"
    assert page_name(lab, "notebooks/ä/b c.d.ipynb") == "ä--b c.d.html"
    parts = ["a", "-", "--", "a-", "-a", "a--a", "notebooks", "index"]
    paths = [f"{first}/{second}.ipynb" for first in (*parts, "notebooks/a", "notebooks/-") for second in parts]
    paths += [f"{part}.ipynb" for part in parts]
    assert len({page_name(lab, path) for path in paths} | {"index.html"}) == len(paths) + 1


def test_a_lab_without_a_folder_of_notebooks_names_pages_from_its_own_folder(tmp_path: Path) -> None:
    assert page_name(tmp_path, "tiny.ipynb") == "tiny.html"


@pytest.fixture
def two_labs(tmp_path: Path) -> tuple[Path, Path]:
    """Two labs that have a notebook of the same path, each of which prints the name of its lab."""
    here, there = (make_lab(tmp_path / name) for name in ("here", "there"))
    for lab in (here, there):
        write(lab / "notebooks" / "same.ipynb", f"print('measured ' + {lab.name!r})")
    return here, there


def test_one_folder_for_the_pages_of_two_labs_is_refused_before_anything_is_executed(
    tmp_path: Path, two_labs: tuple[Path, Path]
) -> None:
    here, there = (str(lab / "notebooks" / "same.ipynb") for lab in two_labs)
    output = tmp_path / "pages"
    done = labkit("report", here, there, "-o", str(output))
    assert (done.returncode, done.stdout, output.exists()) == (2, "", False)
    refused = f"{output / 'same.html'} is the page of {here}; for {there} name another folder with -o"
    assert refused in done.stderr
    assert [path for lab in two_labs for path in lab.glob("runs/*")] == []

    assert labkit("report", here, here, "-o", str(output)).returncode == 0
    page = (output / "same.html").read_bytes()
    done = labkit("report", there, "-o", str(output))
    assert done.returncode == 2 and refused in done.stderr
    assert (output / "same.html").read_bytes() == page and list(two_labs[1].glob("runs/*")) == []


def test_the_page_of_a_lab_that_has_gone_gives_way(tmp_path: Path, two_labs: tuple[Path, Path]) -> None:
    here, there = two_labs
    output = tmp_path / "pages"
    assert labkit("report", str(here / "notebooks" / "same.ipynb"), "-o", str(output)).returncode == 0
    shutil.rmtree(here)
    assert labkit("report", str(there / "notebooks" / "same.ipynb"), "-o", str(output)).returncode == 0
    assert "measured there\n" in (output / "same.html").read_text()


def test_two_labs_that_share_a_folder_of_runs_report_each_its_own(
    tmp_path: Path, two_labs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = str(tmp_path / "shared runs")
    for lab in two_labs:
        monkeypatch.chdir(lab)
        unknown = labkit("show", "same@last", LABKIT_RUNS=shared)
        assert unknown.returncode == 2 and "there is no such run of this lab" in unknown.stderr
        done = labkit("report", LABKIT_RUNS=shared)
        assert done.returncode == 0, done.stderr
    for lab in two_labs:
        monkeypatch.chdir(lab)
        again = labkit("report", LABKIT_RUNS=shared)
        assert again.stdout == "nothing to do: the reports in reports are up to date\n"
        assert f"measured {lab.name}\n" in (lab / "reports" / "same.html").read_text()
        for name in ("last", "same@last"):
            assert labkit("log", name, LABKIT_RUNS=shared).stdout == f"measured {lab.name}\n"
    assert len(every(Path(shared))) == 2


def test_a_lab_finds_its_runs_where_it_has_moved_with_them_and_where_they_have_moved_alone(
    tmp_path: Path, two_labs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(two_labs[0])
    assert labkit("report").returncode == 0
    lab = two_labs[0].rename(tmp_path / "moved")
    monkeypatch.chdir(lab)
    assert "up to date" in labkit("report").stdout

    runs = tmp_path / "runs elsewhere"
    assert labkit("report", "--rerun", "always").returncode == 0
    (lab / "runs").rename(runs)
    assert "up to date" in labkit("report", LABKIT_RUNS=str(runs)).stdout
    assert len(every(runs)) == 2


def test_runs_of_labkit_run_in_a_shared_folder_are_those_of_their_lab_for_reports_names_and_notebooks(
    tmp_path: Path, two_labs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = str(tmp_path / "shared runs")
    for lab in two_labs:
        monkeypatch.chdir(lab)
        done = labkit("run", "notebooks/same.ipynb", LABKIT_RUNS=shared)
        assert done.returncode == 0, done.stderr
    for lab in two_labs:
        monkeypatch.chdir(lab)
        assert labkit("report", "notebooks/same.ipynb", LABKIT_RUNS=shared).returncode == 0
        assert f"measured {lab.name}\n" in (lab / "reports" / "same.html").read_text()
        assert labkit("log", "same@last", LABKIT_RUNS=shared).stdout == f"measured {lab.name}\n"
        write(lab / "notebooks" / "looks.ipynb", "import labkit", "print(labkit.last_run('same.ipynb').log())")
        assert labkit("run", "notebooks/looks.ipynb", LABKIT_RUNS=shared).returncode == 0
        assert f"measured {lab.name}\n" in labkit("log", LABKIT_RUNS=shared).stdout
    assert len([run for run in every(Path(shared)) if run.name.startswith("same/")]) == 2
