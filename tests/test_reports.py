"""`labkit report` of notebooks: each lab has its pages, and a notebook that fails has one that says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import labkit, make_lab
from test_report import text_of
from tiny import markdown, write

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
        assert [path.parent for path in (lab / "runs").glob("*/*/run.json")] != []
        (other,) = set(texts.values()) - {text}
        assert f"{other}\n" not in page.read_text()
    again = labkit("report", *map(str, notebooks))
    assert (again.returncode, "up to date" in again.stdout) == (0, True)


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
