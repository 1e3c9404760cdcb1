"""Notebooks that need files are left out of the reports while these are not there."""

from __future__ import annotations

import nbformat
import pytest
from records import made
from tiny import ROOT, notebook, write

from labkit.workbench.notebooks.needs import lacking
from labkit.workbench.notebooks.notebook import read
from labkit.workbench.pages import reports

SAID = {"needs": ["data/x.bin"], "advice": "download it from https://example.org\nand put it there"}


def needy(lab, said):
    """Writes a notebook that would fail if it ran, and returns its path."""
    path = write(lab / "notebooks" / "needy.ipynb", "raise SystemExit(5)")
    content = notebook("raise SystemExit(5)")
    content.metadata["labkit"] = said
    nbformat.write(content, path)
    return path


def report(lab, monkeypatch, **wanted):
    monkeypatch.chdir(lab)
    said = []
    return reports.make(reports.Wanted([], **wanted), said.append), said


def test_a_notebook_without_its_files_is_skipped_with_its_own_advice_and_nothing_fails(lab, monkeypatch):
    needy(lab, SAID)
    status, said = report(lab, monkeypatch)
    advice = "download it from https://example.org and put it there"
    assert status == 0
    assert said[0] == f"notebooks/needy.ipynb: not executed, data/x.bin is not there: {advice}"
    assert not (lab / "runs").exists() and not (lab / "reports" / "needy.html").exists()


def test_the_run_that_it_has_is_shown_whatever_is_asked(lab, monkeypatch):
    path = needy(lab, SAID)
    run = made(lab / "runs", "needy", notebook="notebooks/needy.ipynb", kind="run", source_sha256=read(path).sha256)
    run.notebook.write_text(path.read_text())
    status, said = report(lab, monkeypatch, rerun="always")
    assert status == 0 and "not executed, data/x.bin" in said[0] and "reports/needy.html" in said
    assert report(lab, monkeypatch, rerun="never")[1] == ["nothing to do: the reports in reports are up to date"]


def test_with_its_files_it_lacks_nothing(lab):
    path = needy(lab, SAID)
    (lab / "data").mkdir()
    (lab / "data" / "x.bin").touch()
    assert lacking(read(path), lab) == ""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"needs": ["a", "b/c"]}, "a, b/c are not there"),
        ({"needs": "data/x.bin"}, ""),
        ({"needs": ["a" * 5000]}, "a" * 300 + " is not there"),
        ({"needs": ["a\0b"]}, "a\0b is not there"),
        ({"needs": [5, "", None]}, ""),
        ({"needs": ["a"], "advice": 5}, "a is not there"),
        ("needs", ""),
        (None, ""),
    ],
)
def test_metadata_of_any_kind_are_read(lab, said, expected):
    assert lacking(read(needy(lab, said)), lab) == expected


def test_the_cifar_notebook_needs_the_archive_that_its_loader_takes():
    from labkit.kernel.datasets import CIFAR10

    said = lacking(read(ROOT / "notebooks" / "cifar10-simplecnn.ipynb"), ROOT / "nowhere")
    assert said.startswith(f"data/{CIFAR10.name} is not there: ") and CIFAR10.url in said
