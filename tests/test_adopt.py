"""`labkit adopt` puts labkit's structure into an existing notebook, and leaves its code as it is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from tiny import KERNEL

from labkit.cli import main
from labkit.workbench.notebooks import lint, outline, tidy
from labkit.workbench.notebooks.adopt import adopted

Content = dict[str, Any]

TUTORIAL = (
    "# Digits with a small network",
    ">import torch\nfrom torch import nn",
    ">epochs = 3\nlearning_rate = 1e-3",
    "### Load the data",
    ">from torch.utils.data import DataLoader\nloader = DataLoader(data, batch_size=64)",
    "A network of two layers.",
    ">class Net(nn.Module):\n    pass",
    ">for epoch in range(epochs):\n    for x, y in loader:\n        loss(x, y).backward()",
    ">plt.plot(losses)",
    "It works.",
)


def book(*texts: str) -> Content:
    """A notebook of these cells as it lies in a file; code begins with `>`."""
    cells = [new_code_cell(text[1:]) if text.startswith(">") else new_markdown_cell(text) for text in texts]
    return json.loads(nbformat.writes(new_notebook(cells=cells, metadata={"kernelspec": KERNEL})))


def shown(content: Content) -> list[str]:
    """The first line of each cell."""
    return [outline.source(cell).partition("\n")[0] for cell in content["cells"]]


def code(content: Content) -> list[str]:
    return [outline.source(cell) for cell in content["cells"] if cell["cell_type"] == "code"]


def test_a_heading_in_a_block_of_code_is_none_of_a_section():
    made = adopted(book("# Title\n\n```bash\n# Data\nmake data\n```", ">import torch", ">plt.plot(losses)"))
    assert shown(made.content)[:2] == ["# Title", "## Goal"]
    assert any(line.startswith("where the section Data begins") for line in made.undecided), made.undecided


def test_a_tutorial_gets_sections_where_its_headings_and_its_code_say():
    made = adopted(book(*TUTORIAL))
    assert shown(made.content) == [
        "# Digits with a small network", "## Goal", "import torch", "epochs = 3", "import labkit",
        "## Environment",
        "## Data", "### Load the data", "from torch.utils.data import DataLoader",
        "## Model", "A network of two layers.", "class Net(nn.Module):",
        "## Training", "for epoch in range(epochs):",
        "## Analysis", "plt.plot(losses)",
        "## Conclusion", "It works.",
    ]  # fmt: skip
    assert made.undecided == []
    assert made.done[:3] == [
        "tagged cell 4 as the parameters: epochs, learning_rate",
        "added `run = labkit.start()` as cell 5",
        "added `## Goal` as cell 2",
    ]
    ids = [cell["id"] for cell in made.content["cells"]]
    assert ids[:6] == ["goal-1", "goal", "goal-3", "parameters", "start", "environment"]


def test_what_is_left_to_check_is_about_parameters_and_empty_sections():
    written = json.loads(tidy.dumps(adopted(book(*TUTORIAL)).content))
    found = [finding.problem for finding in lint.findings(written)]
    assert found and not [
        problem
        for problem in found
        if not problem.startswith(("the parameters cell declares no", "the parameter ", "epochs ", "learning_rate "))
        and "has no code" not in problem
    ]


def test_a_place_that_cannot_be_told_is_said_and_its_heading_stands_in_order():
    made = adopted(book(">x = compute()", ">loss.backward()"))
    assert shown(made.content) == [
        "## Goal", "import labkit", "## Environment", "x = compute()", "## Data", "## Model", "## Training",
        "loss.backward()", "## Analysis", "## Conclusion",
    ]  # fmt: skip
    assert made.undecided == [
        "no cell holds plain values only: put the parameters into one, and tag it `parameters`",
        "where the section Data begins: move cell 5 there",
        "where the section Model begins: move cell 6 there",
        "where the section Analysis begins: move cell 9 there",
    ]
    unplaced = [outline.source(cell) for cell in made.content["cells"] if "TODO" in outline.source(cell)]
    assert [text.partition("\n")[0] for text in unplaced] == ["## Data", "## Model", "## Analysis"]


def test_what_is_there_already_stays_where_it_is():
    made = adopted(
        book("# T", "## Data", ">import labkit\n\nrun = labkit.start()", ">A: int = 1  # a", "## Model", ">m")
    )
    assert shown(made.content) == [
        "# T", "## Goal", "## Environment", "## Data", "import labkit", "A: int = 1  # a", "## Model", "m",
        "## Training", "## Analysis", "## Conclusion",
    ]  # fmt: skip
    assert made.done[0] == "tagged cell 6 as the parameters: A"


def test_a_name_that_the_notebook_uses_itself_is_said():
    made = adopted(book(">x = 1", ">for run in range(3):\n    pass"))
    assert "cell 5 gives the name `run` to something else: rename it" in made.undecided


ODD = (
    ">%matplotlib inline",
    ">",
    "",
    ">import labkit\nrun = labkit.start()",
    ">run = 3",
    ">A: int = 1  # a",
    ">a, b = 1, 2",
)
HEADINGS = ("## Data", "## Model\n\ntext", "## Conclusion", "## goal", "# Results", "## Data\n## Model")
SNIPPETS = st.sampled_from([*TUTORIAL, *ODD, *HEADINGS, ">model.fit(x)"])


@settings(max_examples=25, deadline=None)
@given(st.lists(SNIPPETS, max_size=9), st.booleans(), st.booleans())
def test_code_keeps_its_source_and_its_order_and_adopting_twice_adds_nothing(
    texts: list[str], is_tagged: bool, is_old: bool
):
    content = book(*texts)
    if is_tagged and content["cells"]:
        content["cells"][-1]["metadata"]["tags"] = ["parameters"]
    if is_old:
        content["nbformat_minor"] = 4
        for cell in content["cells"]:
            del cell["id"]
    before = json.dumps(content)
    made = adopted(content)
    assert json.dumps(content) == before
    kept = [text for text in code(made.content) if text != "import labkit\n\nrun = labkit.start()"]
    assert kept == code(content)
    written = json.loads(tidy.dumps(made.content))
    assert lint.parse(tidy.dumps(made.content)) == (written, [])
    named = [heading.section for heading in outline.headings(written["cells"]) if heading.is_exact]
    assert set(named) == set(outline.SECTIONS)
    again = adopted(written)
    assert (again.content, again.done) == (written, [])


def labkit(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True, capture_output=True)


def test_only_a_file_that_git_could_bring_back_is_adopted(lab: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    path = lab / "notebooks" / "old.ipynb"
    path.write_text(json.dumps(book(*TUTORIAL)))
    before = path.read_bytes()
    status, out = labkit("adopt", path)
    assert status == 2 and "is not in git" in out and path.read_bytes() == before
    git("init", "-q")
    status, out = labkit("adopt", path)
    assert status == 2 and "holds changes that are in no commit" in out and path.read_bytes() == before
    status, out = labkit("adopt", path, "--dry-run")
    assert status == 0 and path.read_bytes() == before
    assert "would add `## Model` as cell 10" in out and "added" not in out and "nothing was written" in out
    git("add", ".")
    git("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "commit", "-q", "-m", "old")
    status, out = labkit("adopt", path)
    assert status == 0 and "added `## Model` as cell 10" in out and path.read_bytes() != before
    status, out = labkit("adopt", path, "--force")
    assert status == 0 and "nothing to do: it has labkit's structure" in out


@pytest.fixture
def committed(lab: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A notebook that git could bring back."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    path = lab / "notebooks" / "b.ipynb"
    path.write_text(json.dumps(book(*TUTORIAL)))
    git("init", "-q")
    git("add", ".")
    git("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "commit", "-q", "-m", "b")
    return path


def refused(path: Path) -> str:
    before = path.read_bytes()
    status, out = labkit("adopt", path)
    assert status == 2 and path.read_bytes() == before
    return out


def test_a_link_is_as_safe_as_what_it_leads_to(committed: Path, tmp_path: Path):
    outside = tmp_path / "outside.ipynb"
    outside.write_bytes(committed.read_bytes())
    links = committed.with_name("outside.ipynb"), committed.with_name("lb.ipynb")
    links[0].symlink_to(outside)
    links[1].symlink_to("b.ipynb")
    git("add", ".")
    git("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "commit", "-q", "-m", "links")
    assert "is not in git" in refused(links[0])
    committed.write_text(json.dumps(book(*TUTORIAL, "more")))
    assert "lb.ipynb holds changes that are in no commit" in refused(links[1])
    git("checkout", str(committed))
    assert labkit("adopt", links[1])[0] == 0 and links[1].is_symlink()


def test_what_git_is_told_not_to_show_is_looked_at_all_the_same(committed: Path):
    new = committed.with_name("new.ipynb")
    new.write_bytes(committed.read_bytes())
    git("config", "status.showUntrackedFiles", "no")
    assert "holds changes that are in no commit" in refused(new)
    for option in ("assume-unchanged", "skip-worktree"):
        git("update-index", f"--{option}", str(committed))
        committed.write_text(json.dumps(book(*TUTORIAL, option)))
        assert "git was told not to look at notebooks/b.ipynb" in refused(committed)
        git("update-index", f"--no-{option}", str(committed))
    assert "holds changes that are in no commit" in refused(committed)


def test_what_is_not_python_is_refused(lab: Path):
    path = lab / "notebooks" / "r.ipynb"
    content = book(">x <- 1")
    content["metadata"] = {"kernelspec": {"name": "ir", "display_name": "R", "language": "R"}}
    path.write_text(json.dumps(content))
    status, out = labkit("adopt", path, "--force")
    assert status == 2 and "is written in R" in out
    path.write_text("{")
    assert labkit("adopt", path, "--force")[0] == 2
