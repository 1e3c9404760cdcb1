"""What `labkit check` finds in a notebook, what it mends, and what it leaves alone."""

from __future__ import annotations

import copy
import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import ROOT, write

from labkit.cli import main
from labkit.workbench.notebooks import clean, lint, outline, tidy
from labkit.workbench.notebooks.adopt import adopted
from labkit.workbench.notebooks.check import check_file

EXPERIMENT = json.loads((ROOT / "templates" / "labkit" / "experiment.ipynb").read_text())
Content = dict[str, Any]


@pytest.fixture
def content() -> Content:
    """A notebook in which nothing is wrong."""
    return copy.deepcopy(EXPERIMENT)


def at(content: Content, identity: str) -> int:
    return next(index for index, cell in enumerate(content["cells"]) if cell.get("id") == identity)


def rewrite(content: Content, identity: str, old: str, new: str) -> None:
    cell = content["cells"][at(content, identity)]
    source = outline.source(cell)
    assert old in source
    cell["source"] = source.replace(old, new)


def told(content: Content, **options: bool) -> list[str]:
    return [str(finding) for finding in lint.findings(content, **options)]


def assert_told(content: Content, expected: str) -> None:
    found = told(content)
    assert any(expected in line for line in found), found


def labkit(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_nothing_is_wrong_with_the_template(content: Content):
    assert told(content) == []


# structure


def without(identity: str) -> Callable[[Content], None]:
    return lambda content: content["cells"].pop(at(content, identity))


def replaced(identity: str, old: str, new: str) -> Callable[[Content], None]:
    return lambda content: rewrite(content, identity, old, new)


def swapped(one: str, other: str) -> Callable[[Content], None]:
    def swap(content: Content) -> None:
        cells, first, second = content["cells"], at(content, one), at(content, other)
        cells[first], cells[second] = cells[second], cells[first]

    return swap


def retagged(identity: str, tags: list[str]) -> Callable[[Content], None]:
    return lambda content: content["cells"][at(content, identity)]["metadata"].update(tags=tags)


STRUCTURE = {
    "a section is missing": (
        without("model"),
        "the section Model is missing; add a Markdown cell `## Model` and its code after those of Data",
    ),
    "a heading of another level": (
        replaced("data", "## Data", "### 3. data"),
        "cell 6 (data), line 1: the heading of a section reads `### 3. data`; write `## Data`",
    ),
    "sections in another order": (
        swapped("analysis", "conclusion"),
        "the section Conclusion stands before Analysis; the order is Goal, Environment, Data, Model, Training, ",
    ),
    "two sections in a cell": (
        replaced("data", "## Data", "## Model\n\n## Data"),
        "cell 6 (data), line 1: the section Model stands before Data; the order is Goal",
    ),
    "a section without code": (
        without("environment-check"),
        "cell 4 (environment): the section Environment has no code; add a code cell below its text",
    ),
    "no parameters cell": (
        retagged("parameters", []),
        "cell 1 (goal): no cell declares the parameters; tag the code cell that does `parameters`, in the goal",
    ),
    "two of them": (
        retagged("start", ["parameters"]),
        "cell 3 (start): cell 2 is tagged `parameters` as well; keep the tag on one cell",
    ),
    "the parameters elsewhere": (
        swapped("parameters", "data-load"),
        "cell 7 (parameters): the parameters stand in the section Data; move the cell into the goal",
    ),
    "a required one is missing": (
        replaced("parameters", "TEST: bool", "TESTED: bool"),
        "cell 2 (parameters): the parameters cell declares no TEST; add `TEST: bool = True  # measure",
    ),
    "of another type": (
        replaced("parameters", "RANDOM_SEED: int = 0", "RANDOM_SEED: float = 0.0"),
        "cell 2 (parameters), line 10: RANDOM_SEED is declared as float; write `RANDOM_SEED: int = …`",
    ),
    "in lower case": (
        replaced("parameters", "EPOCHS: int", "epochs: int"),
        "cell 2 (parameters), line 1: the parameter epochs is not in upper case; write EPOCHS",
    ),
    "without a type": (
        replaced("parameters", "EPOCHS: int = 20", "EPOCHS = 20"),
        "cell 2 (parameters), line 1: EPOCHS has no type; write `EPOCHS: int = 20`",
    ),
    "without a comment": (
        replaced("parameters", "  # of Adam, in (0, inf)", ""),
        "cell 2 (parameters), line 3: LEARNING_RATE has no comment; say behind it what it means, in which unit",
    ),
    "computed": (
        replaced("parameters", "HIDDEN: int = 32", "HIDDEN: int = 2 * BATCH_SIZE"),
        "cell 2 (parameters), line 4: HIDDEN is computed, so no one can set it; move it to a later cell",
    ),
    "changed below its line": (
        replaced("parameters", "EPOCHS: int = 20", "DEBUG = False\nEPOCHS: int = 20\nif DEBUG:\n    EPOCHS = 2\n#"),
        "line 2: EPOCHS is changed in line 4, so no one can set it; move that line to a later cell",
    ),
    "a block": (
        replaced("parameters", "EPOCHS: int = 20", "EPOCHS: int = 20\nfor BATCH_SIZE in (1, 2):\n    pass\n#"),
        "cell 2 (parameters), line 2: `for BATCH_SIZE in (1, 2):` declares no parameter; move it to a later cell",
    ),
    "very long": (
        replaced("parameters", "EPOCHS: int = 20", f"EPOCHS: int = 20\n{'1 + ' * 900}1\n#"),
        f"cell 2 (parameters), line 2: `{('1 + ' * 15)}` declares no parameter; move it to a later cell",
    ),
    "a number of thousands of digits": (
        replaced("parameters", "EPOCHS: int = 20", f"EPOCHS = 0x{'f' * 4000}"),
        "cell 2 (parameters), line 1: EPOCHS has no type; write `EPOCHS: int = an integer of very many digits`",
    ),
    "not a declaration": (
        replaced("parameters", "EPOCHS: int", "import os\nEPOCHS: int"),
        "cell 2 (parameters), line 1: `import os` declares no parameter; move it to a later cell",
    ),
    "outside of its own range": (
        replaced("parameters", "EPOCHS: int = 20", "EPOCHS: int = 0"),
        "cell 2 (parameters), line 1: EPOCHS = 0 is outside of the range [1, inf); change default or declaration",
    ),
    "not Python": (
        replaced("parameters", "EPOCHS: int = 20", "EPOCHS: int = "),
        "cell 2 (parameters), line 1: the parameters cell is not plain Python: invalid syntax",
    ),
    "nothing starts the run": (
        replaced("start", "run = labkit.start()", ""),
        "`labkit.start()` is called nowhere, so nothing can be recorded; write `run = labkit.start()`",
    ),
    "it starts too early": (
        swapped("parameters", "start"),
        "cell 2 (start): `labkit.start()` is called before the parameters have their values; write",
    ),
    "the run has another name": (
        replaced("start", "run = labkit.start()", "experiment = labkit.start()"),
        "cell 3 (start): what `labkit.start()` returns is not called `run`; write `run = labkit.start()`",
    ),
}


@pytest.mark.parametrize("case", STRUCTURE)
def test_a_break_of_the_contract_is_named_with_its_cell_and_with_what_to_write(content: Content, case: str):
    change, expected = STRUCTURE[case]
    change(content)
    assert_told(content, expected)


def test_a_required_parameter_that_is_changed_below_its_line_is_not_said_to_be_missing(content: Content):
    rewrite(content, "parameters", "TEST: bool = True", "TEST: bool = False\nTEST |= True")
    assert [line for line in told(content) if "declares no TEST" in line] == []


def test_a_deep_expression_in_the_cell_that_starts_the_run_is_looked_at(content: Content):
    deep = f"labkit{'.start' * 900}()\nx = {'-' * 900}1"
    rewrite(content, "start", "run = labkit.start()", f"run = labkit.start()\n{deep}")
    assert told(content) == []


def test_all_problems_are_named_at_once_in_the_order_of_the_cells(content: Content):
    for case in ("a section without code", "in lower case", "without a comment", "the run has another name"):
        STRUCTURE[case][0](content)
    found = lint.findings(content)
    assert len(found) >= 4
    assert [finding.cell for finding in found] == sorted(finding.cell for finding in found)


def test_choices_may_be_imported_in_the_parameters_cell(content: Content):
    text = 'from typing import Literal\nOPTIMIZER: Literal["adam", "sgd"] = "adam"  # which one\nEPOCHS: int'
    rewrite(content, "parameters", "EPOCHS: int", text)
    assert told(content) == []
    rewrite(content, "parameters", '= "adam"', '= "adom"')
    assert "OPTIMIZER = 'adom' is none of 'adam', 'sgd'" in told(content)[0]


def test_a_notebook_that_does_not_use_labkit_hears_of_structure_in_one_line():
    plain = json.loads(nbformat.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1")])))
    assert told(plain) == [
        "it does not use labkit, so its structure is its own; `labkit adopt` puts in what is missing"
    ]


# ids


@pytest.mark.parametrize(
    ("identity", "new", "expected"),
    [
        ("data-load", "3f2a9c1d", "cell 7 (3f2a9c1d): the cell's id should be `data-` and a word"),
        ("data-load", "model-load", "cell 7 (model-load): the cell's id should be `data-` and a word"),
        ("data-load", "data-Load_1", "cell 7 (data-Load_1): the cell's id should be `data-` and a word"),
        ("data", "data-text", "cell 6 (data-text): the cell's id should be `data`"),
        ("start", "goal-start", "cell 3 (goal-start): the cell's id should be `start`"),
        ("data-load", "data-look", "cell 8 (data-look): cell 7 has the same id"),
        ("data-load", "data load", "cell 7 (data load): the cell has no valid id"),
        ("data-load", "", "cell 7: the cell has no valid id"),
    ],
)
def test_an_id_is_one_word_that_says_the_section(content: Content, identity: str, new: str, expected: str):
    content["cells"][at(content, identity)]["id"] = new
    assert_told(content, expected)


def test_ids_get_their_words_back_and_good_ones_stay(content: Content):
    before = [cell["id"] for cell in content["cells"]]
    for identity, pasted in {"data": "5b1c", "parameters": "9e0f", "start": "77aa", "data-look": "0d3e-44"}.items():
        content["cells"][at(content, identity)]["id"] = pasted
    mended, changes = tidy.tidied(content)
    assert [cell["id"] for cell in mended["cells"]] == [name if name != "data-look" else "data-3" for name in before]
    assert changes == ["ids: 9e0f → parameters, 77aa → start, 5b1c → data, 0d3e-44 → data-3"]
    assert told(mended) == []


def test_a_cell_that_was_pasted_gets_the_id_back_that_it_had_in_the_last_commit(content: Content):
    earlier = copy.deepcopy(content["cells"])
    content["cells"][at(content, "data-look")]["id"] = "0d3e44"
    mended, _ = tidy.tidied(content, earlier=earlier)
    assert [cell["id"] for cell in mended["cells"]] == [cell["id"] for cell in earlier]


def test_a_notebook_of_the_older_format_gets_ids(content: Content):
    for cell in content["cells"]:
        del cell["id"]
    content["nbformat_minor"] = 4
    assert "it is in an older format, whose cells have no ids" in told(content)[0]
    mended, _ = tidy.tidied(content)
    assert mended["nbformat_minor"] == 5 and told(json.loads(tidy.dumps(mended))) == []
    nbformat.validate(nbformat.from_dict(mended))


# leftovers and hygiene


@pytest.mark.parametrize(
    ("identity", "text", "expected"),
    [
        ("model-define", "", "cell 10 (model-define): the cell is empty; delete it"),
        (
            "model-define",
            "model = 1\n%debug",
            "line 2: `%debug` waits for an answer that no run gives; remove the line",
        ),
        ("model-define", "    breakpoint()", "line 1: `breakpoint()` waits"),
        ("model-define", "x = 1\n  if x: pdb.set_trace()  ", "line 2: `if x: pdb.set_trace()` waits"),
        ("data-load", 'x = load("/home/ada/x.csv")', "line 1: `/home/ada` is a folder of one machine; write a path"),
        ("data", "## Data\n\nin /Users/ada/data", "line 3: `/Users/ada` is a folder of one machine"),
        ("data-load", 'x = r"C:\\Users\\ada\\x.csv"', "`C:\\Users\\ada` is a folder of one machine"),
        ("goal", "# TODO title\n\n## Goal", "line 1: note: the title is still to be written; say what was tried"),
    ],
)
def test_what_was_left_over_is_named_with_its_line(content: Content, identity: str, text: str, expected: str):
    content["cells"][at(content, identity)]["source"] = text
    assert_told(content, expected)


def test_addresses_and_relative_paths_are_no_folders_of_a_machine(content: Content):
    text = 'a = "https://example.org/home/ada/x"; b = "../home/x/y"; c = "/homes/x"; d = "~/x"; e = "/data/x"'
    content["cells"][at(content, "data-load")]["source"] = text
    assert told(content) == []


RAN: dict[str, Callable[[Content], Any]] = {
    "outputs": lambda nb: nb["cells"][2].update(
        outputs=[{"name": "stdout", "output_type": "stream", "text": ["hi"]}], execution_count=1
    ),
    "an execution count": lambda nb: nb["cells"][2].update(execution_count=1),
    "`execution`": lambda nb: nb["cells"][2]["metadata"].update(execution={"iopub.status.busy": "now"}),
    "`papermill`": lambda nb: nb["metadata"].update(papermill={}),
    "the state of widgets": lambda nb: nb["metadata"].update(widgets={}),
    "the kernel is called 'Python 3 (ipykernel)'": lambda nb: nb["metadata"]["kernelspec"].update(
        display_name="Python 3 (ipykernel)"
    ),
    "the version of its language": lambda nb: nb["metadata"]["language_info"].update(version="3.11.7"),
}


@pytest.mark.parametrize("what", RAN)
def test_what_a_run_left_counts_only_where_git_stores_it_and_can_be_taken_out(content: Content, what: str):
    pure = copy.deepcopy(content)
    RAN[what](content)
    assert any(what in line for line in told(content))
    assert told(content, in_git=False) == []
    assert tidy.tidied(content, strip=False) == (content, [])
    mended, changes = tidy.tidied(content)
    assert mended == pure and changes == ["what a run had left: outputs, counts, metadata"]


def test_keys_in_an_odd_order_are_sorted(content: Content):
    odd = dict(reversed(content.items()))
    assert "its keys are not in the order in which Jupyter writes them" in told(odd)[0]
    mended, changes = tidy.tidied(odd)
    assert changes == ["the order of keys"] and tidy.dumps(mended) == tidy.dumps(content)


# what is no notebook


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"{", "it is not a notebook: "),
        (b"\xff\xfe", "it is not a notebook: "),
        (b"[]", "it is JSON, but no notebook; "),
        (b'{"nbformat": 3, "worksheets": []}', "it is in notebook format 3; write format 4"),
        (b'{\n<<<<<<< HEAD\n"a": 1}', "it holds conflict markers of a merge; "),
        (b'{"cells": 1, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "`cells`: 1 is not of type 'array'"),
        (b'{"cells": [{"cell_type": "code"}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "cell 1: "),
        (b"[" * 100_000, "it is not a notebook: "),
    ],
)
def test_a_file_that_is_no_notebook_says_why(lab: Path, data: bytes, expected: str):
    (lab / "notebooks" / "x.ipynb").write_bytes(data)
    status, out = labkit("check")
    assert status == 1 and "notebooks/x.ipynb: " in out and expected in out
    assert labkit("check", "--fix")[0] == 1 and (lab / "notebooks" / "x.ipynb").read_bytes() == data


def test_what_the_format_does_not_know_is_named_beside_all_else(content: Content):
    content["cells"][6]["bogus"] = 1
    content["cells"][7]["metadata"]["tags"] = "no list"
    parsed, problems = lint.parse(json.dumps(content).encode())
    assert parsed == content
    assert [finding.cell for finding in problems] == [7, 8]
    assert "('bogus' was unexpected)" in str(problems[0])


# properties

TEXTS = st.one_of(
    st.sampled_from(
        ["## Data", "# T\n\n## Goal", "## Model\n\ntext", "### 7. analysis", "", "x = 1", "run = labkit.start()"]
    ),
    st.sampled_from(["import labkit", "import labkit\nrun = labkit.start()", "A: int = 1  # a", "%debug"]),
    st.text(st.characters(codec="utf-8"), max_size=20),
)
IDS = st.one_of(st.none(), st.sampled_from(["goal", "data", "data-2", "start", "parameters", "5b1c", "a b", "model-1"]))
JUNK = st.sampled_from(
    [{}, {"tags": ["parameters"]}, {"execution": {}}, {"mine": {"b": 1, "a": [2**70]}}, {"collapsed": True}]
)


@st.composite
def notebooks(draw: st.DrawFn) -> Content:
    """Notebooks of every kind of disorder."""
    cells = []
    for _ in range(draw(st.integers(0, 9))):
        kind = draw(st.sampled_from(["code", "code", "markdown", "raw"]))
        text = draw(TEXTS)
        cell: Content = {"metadata": dict(draw(JUNK)), "cell_type": kind}
        cell["source"] = text if draw(st.booleans()) else text.splitlines(keepends=True)
        identity = draw(IDS)
        if identity is not None:
            cell["id"] = identity
        if kind == "code":
            cell |= {"outputs": [], "execution_count": draw(st.sampled_from([None, 3]))}
        cells.append(cell)
    metadata = draw(st.sampled_from([{}, {"widgets": {}}, {"kernelspec": {"name": "python3", "display_name": "P"}}]))
    return {
        "nbformat": 4,
        "nbformat_minor": draw(st.sampled_from([2, 4, 5])),
        "metadata": dict(metadata),
        "cells": cells,
    }


def sources(content: Content) -> list[tuple[str, str]]:
    return [(cell["cell_type"], outline.source(cell)) for cell in content["cells"]]


@settings(max_examples=30, deadline=None)
@given(notebooks(), st.booleans())
def test_mending_twice_is_mending_once_and_loses_no_cell_and_no_source(content: Content, strip: bool):
    before = copy.deepcopy(content)
    once, _ = tidy.tidied(content, strip=strip)
    assert content == before
    assert sources(once) == sources(content)
    twice, changes = tidy.tidied(lint.parse(tidy.dumps(once))[0], strip=strip)
    assert changes == [] and tidy.dumps(twice) == tidy.dumps(once)
    assert [cell["metadata"].get("mine") for cell in once["cells"]] == [
        cell["metadata"].get("mine") for cell in content["cells"]
    ]
    mended = json.loads(tidy.dumps(once))
    assert lint.parse(tidy.dumps(once)) == (mended, [])
    mendable = ("id", "format", "keys", "metadata", "outputs", "execution count", "kernel")
    left = [finding.problem for finding in lint.findings(mended, in_git=strip)]
    assert not [problem for problem in left if any(f" {word}" in problem for word in mendable)], left


ODD = [
    None,
    True,
    -1,
    10**30,
    1e300,
    "",
    "\x00",
    "## Data",
    "import labkit\n%debug",
    "code",
    [],
    {},
    [["a"]],
    {"a": {"b": 1}},
]


def damaged(content: Content, chance: random.Random) -> Content:
    """A copy in which one to three values, anywhere, are gone or something else."""
    made: Any = copy.deepcopy(content)
    for _ in range(chance.randint(1, 3)):
        place, key = made, chance.choice(list(made))
        while isinstance(place[key], (dict, list)) and place[key] and chance.random() < 0.85:
            place = place[key]
            key = chance.choice(list(place)) if isinstance(place, dict) else chance.randrange(len(place))
        if isinstance(place, dict) and chance.random() < 0.2 and len(made) > 1:
            del place[key]
        else:
            place[key] = copy.deepcopy(chance.choice(ODD))
    return made


@pytest.mark.parametrize("count", [20, pytest.param(1_000, marks=pytest.mark.faults)])
def test_a_damaged_notebook_is_named_and_mended_or_refused(content: Content, count: int):
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(count):
        parsed, problems = lint.parse(json.dumps(damaged(content, chance)).encode())
        assert parsed is not None or problems
        if parsed is not None:
            assert all(str(finding) for finding in lint.findings(parsed))
            once = tidy.dumps(tidy.tidied(parsed)[0])
            assert tidy.tidied(lint.parse(once)[0])[1] == []
            assert adopted(lint.parse(tidy.dumps(adopted(parsed).content))[0]).done == []


def test_what_is_nested_too_deep_is_refused(content: Content):
    for _ in range(300):
        content["metadata"] = {"x": content["metadata"]}
    assert [str(finding) for finding in lint.parse(json.dumps(content).encode())[1]] == [
        "it is nested too deep to be looked at; restore it, e.g. from git"
    ]


# files, git and the command


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(lab: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab in git, with one good notebook in its first commit."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    git("init", "-q")
    git("config", "user.name", "Ada")
    git("config", "user.email", "ada@example.org")
    path = lab / "notebooks" / "experiment.ipynb"
    path.write_bytes((ROOT / "templates" / "labkit" / "experiment.ipynb").read_bytes())
    git("add", ".")
    git("commit", "-q", "-m", "one")
    return lab


def run_by_hand(path: Path) -> None:
    content = json.loads(path.read_text())
    RAN["outputs"](content)
    content["cells"][6]["id"] = "5b1c"
    path.write_bytes(clean.dumps(content))


def test_outputs_count_in_a_file_that_git_tracks_as_it_is(repository: Path):
    path = repository / "notebooks" / "experiment.ipynb"
    assert labkit("check") == (0, "1 notebook: nothing wrong\n")
    run_by_hand(path)
    status, out = labkit("check", path)
    assert status == 1
    assert (
        "notebooks/experiment.ipynb: cell 3 (start): the cell has outputs; clear them: results live in runs/\n" in out
    )
    assert out.endswith("1 notebook: 2 problems\n")
    status, out = labkit("check", "--fix")
    assert status == 0 and "changed ids: 5b1c → data-load\n" in out and "changed what a run had left" in out
    assert path.read_bytes() == (ROOT / "templates" / "labkit" / "experiment.ipynb").read_bytes()


def test_outputs_may_stay_in_a_file_that_git_does_not_keep(repository: Path):
    path = repository / "notebooks" / "new.ipynb"
    path.write_bytes((repository / "notebooks" / "experiment.ipynb").read_bytes())
    run_by_hand(path)
    assert check_file(path, fix=True).findings == ()
    assert json.loads(path.read_text())["cells"][2]["outputs"]


def test_outputs_may_stay_where_the_filter_takes_them_out(repository: Path):
    path = repository / "notebooks" / "experiment.ipynb"
    run_by_hand(path)
    git("config", "filter.any.clean", "cat")
    (repository / ".gitattributes").write_text("*.ipynb filter=any\n")
    assert check_file(path, fix=True).findings == ()
    assert json.loads(path.read_text())["cells"][2]["outputs"]
    git("add", ".")
    (found,) = check_file(path).findings
    assert str(found) == (
        "git has stored outputs or metadata of a run, from before its filter; "
        "`git add --renormalize notebooks/experiment.ipynb`, and commit"
    )


def test_mending_keeps_links_and_modes_and_leaves_a_good_file_alone(lab: Path, content: Content):
    content["cells"][6]["id"] = "5b1c"
    real = lab / "real.ipynb"
    real.write_bytes(tidy.dumps(content))
    real.chmod(0o600)
    link = lab / "notebooks" / "link.ipynb"
    link.symlink_to(real)
    assert check_file(link, fix=True).changes == ("ids: 5b1c → data-2",)
    assert link.is_symlink() and real.stat().st_mode & 0o777 == 0o600
    inode = real.stat().st_ino
    assert check_file(link, fix=True).changes == () and real.stat().st_ino == inode


def test_folders_are_looked_through_but_for_checkpoints_and_runs(lab: Path):
    for name in ("notebooks/a.ipynb", "notebooks/deep/b.ipynb", "templates/own/c.ipynb", "runs/a/1/notebook.ipynb"):
        write(lab / name, "x = 1")
    write(lab / "notebooks" / ".ipynb_checkpoints" / "a.ipynb", "x = 1")
    assert [Path(one["path"]).name for one in json.loads(labkit("check", "--json")[1])["notebooks"]] == [
        "a.ipynb", "b.ipynb", "c.ipynb"
    ]  # fmt: skip
    assert len(json.loads(labkit("check", "--json", ".")[1])["notebooks"]) == 3


def test_json_tells_all_of_a_finding(lab: Path):
    write(lab / "notebooks" / "x.ipynb", "import labkit\n\n%debug")
    found = json.loads(labkit("check", "--json")[1])
    (stop,) = [one for one in found["notebooks"][0]["findings"] if "%debug" in one["problem"]]
    assert (stop["cell"], stop["cell_id"], stop["line"], stop["note"]) == (1, "cell-1", 3, False)
    assert found["problems"] == len(found["notebooks"][0]["findings"])


def test_what_is_not_there_is_bad_input(lab: Path):
    write(lab / "notebooks" / "digits.ipynb", "x = 1")
    status, out = labkit("check", "notebooks/digit.ipynb")
    assert status == 2 and "did you mean notebooks/digits.ipynb?" in out
    (lab / "empty").mkdir()
    assert labkit("check", "empty")[0] == 2
