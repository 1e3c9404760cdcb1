"""`labkit new`, the launcher's templates, and what fills them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tiny import ROOT, markdown, write

from labkit.cli import main
from labkit.errors import NotebookProblem
from labkit.workbench.notebooks import lint, notebook, outline, template
from labkit.workbench.notebooks.check import check_file
from labkit.workbench.notebooks.launcher import Templates

TODAY = date.today().isoformat()


def labkit(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.fixture
def ada(lab: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab of Ada's, in git."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "config", "user.name", "Ada Lovelace"], check=True)
    return lab


def test_a_new_notebook_has_title_author_and_date_and_passes_the_check_unedited(ada: Path):
    status, out = labkit("new", "Does dropout help?")
    assert status == 0 and out.splitlines()[0] == "notebooks/does-dropout-help.ipynb"
    path = ada / "notebooks" / "does-dropout-help.ipynb"
    assert outline.source(json.loads(path.read_text())["cells"][0]).startswith(
        f"# Does dropout help?\n\n*Ada Lovelace, {TODAY}*\n\n## Goal\n"
    )
    assert notebook.read(path).title == "Does dropout help?"
    subprocess.run(["git", "add", "."], check=True)
    assert check_file(path).findings == ()


def test_nothing_is_overwritten(ada: Path):
    assert labkit("new", "one")[0] == 0
    (ada / "notebooks" / "one.ipynb").write_text("mine")
    status, out = labkit("new", "One")
    assert status == 2 and "there is a notebook notebooks/one.ipynb already" in out
    assert (ada / "notebooks" / "one.ipynb").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "file", "title"),
    [
        ("Does dropout help?", "does-dropout-help", "Does dropout help?"),
        ("digits-cnn", "digits-cnn", "Digits cnn"),
        ("notebooks/digits_cnn.ipynb", "digits-cnn", "Digits cnn"),
        ("Größe der Schicht", "größe-der-schicht", "Größe der Schicht"),
        ("../../etc/passwd", "etc-passwd", "Passwd"),
        ("  CIFAR-10\n at   last ", "cifar-10-at-last", "CIFAR-10 at last"),
    ],
)
def test_a_name_becomes_a_file_name_and_a_title(name: str, file: str, title: str):
    assert template.file_name(name) == file
    assert template.title(name) == title


@given(st.text(max_size=300))
def test_a_file_name_stays_in_its_folder(name: str):
    try:
        made = template.file_name(name)
    except NotebookProblem:
        return
    assert re.fullmatch(r"[^\W_]+(-[^\W_]+)*", made) and len(made.encode()) <= 200
    assert template.file_name(made) == made


def test_an_unknown_template_is_refused_with_the_nearest_and_the_list(ada: Path):
    status, out = labkit("new", "x", "--template", "experimnet")
    assert status == 2
    assert "there is no template 'experimnet'; did you mean experiment? There are labkit/experiment" in out


def test_templates_of_the_lab_come_first_and_are_found_by_either_name(ada: Path):
    write(ada / "templates" / "labkit" / "experiment.ipynb", markdown("# {title}\n\nours, $\\text{title}$ by {author}"))
    write(ada / "templates" / "own" / "sweep.ipynb", markdown("# Sweep"))
    status, out = labkit("new", "--list")
    assert status == 0 and [line.split() for line in out.splitlines()] == [
        ["labkit/experiment", "templates/labkit/experiment.ipynb"],
        ["own/sweep", "templates/own/sweep.ipynb"],
        ["labkit/performance", os.path.relpath(ROOT / "templates/labkit/performance.ipynb", ada)],
    ]
    assert labkit("new", "a") == (0, labkit("new", "b", "-t", "labkit/experiment")[1].replace("b.ipynb", "a.ipynb"))
    made = json.loads((ada / "notebooks" / "a.ipynb").read_text())["cells"][0]
    assert outline.source(made) == "# A\n\nours, $\\text{title}$ by Ada Lovelace"
    assert labkit("new", "c", "-t", "sweep")[0] == 0


def test_a_broken_template_is_named(ada: Path):
    (ada / "templates" / "own").mkdir(parents=True)
    (ada / "templates" / "own" / "broken.ipynb").write_text("{")
    status, out = labkit("new", "x", "-t", "broken")
    assert status == 2 and "broken.ipynb cannot be used: it is not a notebook" in out
    assert not (ada / "notebooks" / "x.ipynb").exists()


def test_a_title_that_is_still_to_come_is_none():
    assert outline.title(["# {title}\n\n## Goal"]) == outline.title(["# TODO title: what was tried"]) == ""


# the launcher


def test_the_launcher_offers_each_template_once_with_author_and_date(ada: Path):
    groups, by_name = Templates(ada).get_templates()
    assert groups == {"labkit": [{"name": f"/labkit/{name}.ipynb"} for name in ("experiment", "performance")]}
    offered = by_name["/labkit/experiment.ipynb"]
    assert offered["filename"] == "experiment.ipynb"
    content, problems = lint.parse(offered["content"].encode())
    assert problems == []
    assert outline.source(content["cells"][0]).startswith(
        f"# TODO title: what was tried, in a line\n\n*Ada Lovelace, {TODAY}*"
    )
    assert [finding.note for finding in lint.findings(content)] == [True]


def test_what_the_launcher_makes_passes_the_check_as_jupyterlab_saves_it(ada: Path):
    content = json.loads(Templates(ada).get_templates()[1]["/labkit/experiment.ipynb"]["content"])
    content["metadata"]["kernelspec"]["display_name"] = "Python 3 (ipykernel)"
    content["metadata"]["language_info"] |= {"version": "3.11.7", "codemirror_mode": {"name": "ipython", "version": 3}}
    path = ada / "notebooks" / "Untitled.ipynb"
    path.write_text(json.dumps(content, indent=1, sort_keys=True))
    status, out = labkit("check")
    assert status == 0 and "note: the title is still to be written" in out


def test_a_lab_s_own_template_hides_labkit_s_and_a_broken_one_hides_nothing(ada: Path):
    write(ada / "templates" / "labkit" / "experiment.ipynb", markdown("# ours"))
    (ada / "templates" / "labkit" / "broken.ipynb").write_text("{")
    groups, by_name = Templates(ada).get_templates()
    assert groups == {"labkit": [{"name": f"/labkit/{name}.ipynb"} for name in ("experiment", "performance")]}
    assert "ours" in by_name["/labkit/experiment.ipynb"]["content"]


def test_what_cannot_be_read_as_a_template_hides_none_that_can(ada: Path, tmp_path: Path, caplog):
    from jupyterlab_templates.extension import TemplatesLoader

    folder = ada / "templates" / "own"
    (folder / "folder.ipynb").mkdir(parents=True)
    (folder / "dangling.ipynb").symlink_to("nowhere")
    write(folder / "good.ipynb", markdown("# good"))
    others = tmp_path / "others" / "group"
    others.mkdir(parents=True)
    (others / "latin.ipynb").write_bytes(b"\xe9")
    groups, _ = Templates(ada, TemplatesLoader([str(others.parent)])).get_templates()
    assert groups["own"] == [{"name": "/own/good.ipynb"}] and "labkit" in groups
    assert "templates outside of the lab cannot be read" in caplog.text


def test_the_server_loads_the_extension_in_place_of_the_one_that_it_replaces():
    settings = json.loads((ROOT / "labkit" / "workbench" / "notebooks" / "launcher.json").read_text())
    assert settings["ServerApp"]["jpserver_extensions"] == {
        "jupyterlab_templates": False,
        "labkit.workbench.notebooks.launcher": True,
    }
    assert 'launcher.json" = "etc/jupyter/jupyter_server_config.d/labkit.json"' in (ROOT / "pyproject.toml").read_text()
