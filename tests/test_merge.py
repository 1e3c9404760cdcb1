"""Merges of notebooks: real ones of git, and any edits on both sides; nothing vanishes, and all stays a notebook."""

from __future__ import annotations

import json
import random
from pathlib import Path

import nbformat
import pytest
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from repositories import NAME, Book, after, book, cells_of, diverged, edited, git, labkit, make_repository, put

from labkit.workbench.git.cellmerge import flaws, merge, readable
from labkit.workbench.git.conflicts import Answer, holds_marks, resolved
from labkit.workbench.git.threeway import Hunk, merge_text, merge_values
from labkit.workbench.notebooks import notebook
from labkit.workbench.notebooks.clean import dumps

PARAMETERS = "EPOCHS: int = 3  # passes\nRATE: float = 0.1  # of learning\nSEED: int = 0"
BASE: Book = {"goal": "# Digits", "parameters": PARAMETERS, "train": "train(EPOCHS)\nprint(1)", "end": "# Conclusion"}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = make_repository(tmp_path / "Ada's lab")
    monkeypatch.chdir(made)
    return made


def merged(repository: Path, base: Book | None, ours: Book | None, theirs: Book | None) -> Path:
    """A notebook that git could not merge."""
    path = diverged(repository, base, ours, theirs)
    git(repository, "merge", "feature", fails=True)
    return path


def is_settled(repository: Path) -> bool:
    return git(repository, "ls-files", "--unmerged") == "" and git(repository, "diff", "--name-only") == ""


def parameters(**values: str) -> str:
    text = PARAMETERS
    for name, value in values.items():
        line = next(line for line in PARAMETERS.split("\n") if line.startswith(name))
        text = text.replace(line, f"{line.partition('=')[0]}= {value}")
    return text


# what people do


def test_both_edit_one_parameter_and_one_answer_settles_it(repository: Path):
    ours, theirs = (edited(BASE, parameters=parameters(EPOCHS=value)) for value in ("5", "7"))
    path = merged(repository, BASE, ours, theirs)
    result = labkit("merge", NAME, answers="t\n")
    assert result.exit_code == 0, result.output
    assert f"{NAME}, cell parameters (1 of 1): both sides changed these lines" in result.output
    assert "ours (main)\n    EPOCHS: int = 5\ntheirs (" in result.output and "    EPOCHS: int = 7\n" in result.output
    assert "[o]urs, [t]heirs, [e]dit, [s]kip" in result.output, "one parameter has one value, so not both"
    assert result.output.endswith("git commit goes on\n")
    assert cells_of(path) == theirs and is_settled(repository)
    git(repository, "commit", "-q", "-m", "merged")


def test_parameters_on_neighbouring_lines_do_not_collide(repository: Path):
    ours = edited(BASE, parameters=parameters(EPOCHS="5"))
    path = merged(repository, BASE, ours, edited(BASE, parameters=parameters(RATE="0.2", SEED="1")))
    assert labkit("merge").exit_code == 0
    assert cells_of(path)["parameters"] == parameters(EPOCHS="5", RATE="0.2", SEED="1")


def test_both_cannot_be_the_value_of_a_parameter(repository: Path):
    ours, theirs = (edited(BASE, parameters=parameters(EPOCHS=value)) for value in ("5", "7"))
    path = merged(repository, BASE, ours, theirs)
    result = labkit("merge", "--both")
    assert result.exit_code == 1 and f"{NAME}: parameters: both sides changed these lines" in result.output
    assert cells_of(path)["parameters"].startswith(
        "<<<<<<< ours\nEPOCHS: int = 5\n=======\nEPOCHS: int = 7\n>>>>>>> theirs\n"
    )
    with pytest.raises(notebook.NotebookProblem, match=r"conflict markers of a merge; labkit merge leads through"):
        notebook.read(path)


@pytest.mark.parametrize(
    ("answer", "names"), [("o", ["mine"]), ("t", ["yours"]), ("b", ["mine", "yours"])], ids=["ours", "theirs", "both"]
)
def test_both_add_a_cell_at_one_place(repository: Path, answer: str, names: list[str]):
    new = {"mine": "plot(loss)", "yours": "print(loss)"}
    path = merged(repository, BASE, after(BASE, "train", mine=new["mine"]), after(BASE, "train", yours=new["yours"]))
    assert labkit("merge", answers=f"{answer}\n").exit_code == 0
    assert list(cells_of(path).items()) == list(after(BASE, "train", **{name: new[name] for name in names}).items())


@pytest.mark.parametrize(("side", "is_kept"), [("--ours", False), ("--theirs", True), ("--both", True)])
def test_one_deletes_what_the_other_edits(repository: Path, side: str, is_kept: bool):
    path = merged(repository, BASE, edited(BASE, train=None), edited(BASE, train="train(EPOCHS)\nprint(2)"))
    result = labkit("merge", side)
    assert result.exit_code == 0 and is_settled(repository)
    assert cells_of(path) == edited(BASE, train="train(EPOCHS)\nprint(2)" if is_kept else None)


def test_both_add_the_same_notebook(repository: Path):
    ours = edited(BASE, parameters=parameters(EPOCHS="5"))
    path = merged(
        repository, None, ours, edited(after(BASE, "goal", extra="import os"), parameters=parameters(SEED="2"))
    )
    result = labkit("merge", answers="o\nt\n")
    assert result.exit_code == 0, result.output
    assert cells_of(path) == edited(after(BASE, "goal", extra="import os"), parameters=parameters(EPOCHS="5", SEED="2"))


# how it leads


def test_what_was_decided_is_remembered_until_the_rest_is(repository: Path):
    ours = edited(BASE, parameters=parameters(EPOCHS="5"), train="train(5)\nprint(1)")
    path = merged(repository, BASE, ours, edited(BASE, parameters=parameters(EPOCHS="7"), train="train(7)\nprint(1)"))
    first = labkit("merge", answers="t\ns\n")
    assert first.exit_code == 1 and f"{NAME}: 1 left\n{NAME}: train: both sides changed these lines" in first.output
    assert cells_of(path)["train"] == "<<<<<<< ours\ntrain(5)\n=======\ntrain(7)\n>>>>>>> theirs\nprint(1)"
    second = labkit("merge", answers="o\n")
    assert second.exit_code == 0 and "cell parameters" not in second.output
    assert cells_of(path) == edited(ours, parameters=parameters(EPOCHS="7"))
    assert not (repository / ".git" / "labkit-merge.json").exists()


def test_without_anybody_to_answer_all_is_left_and_nothing_lost(repository: Path):
    ours, theirs = edited(BASE, train="ours()"), edited(BASE, train="theirs()")
    path = merged(repository, BASE, ours, theirs)
    result = labkit("merge")
    assert result.exit_code == 1 and "1 left" in result.output
    assert cells_of(path)["train"] == "<<<<<<< ours\nours()\n=======\ntheirs()\n>>>>>>> theirs"
    assert not is_settled(repository)


def test_an_editor_settles_lines(repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\ncp "$1" "$0.seen"\necho "EPOCHS: int = 6" >"$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(editor))
    monkeypatch.delenv("VISUAL", raising=False)
    ours, theirs = (edited(BASE, parameters=parameters(EPOCHS=value)) for value in ("5", "7"))
    path = merged(repository, BASE, ours, theirs)
    assert labkit("merge", answers="x\nb\ne\n").exit_code == 0
    assert cells_of(path)["parameters"] == parameters(EPOCHS="6")
    assert (tmp_path / "editor.seen").read_text().startswith("<<<<<<< ours\nEPOCHS: int = 5\n=======\n")


def test_what_is_saved_while_it_asks_stays_and_the_answers_are_known_the_next_time(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    path = merged(repository, BASE, edited(BASE, train="ours()"), edited(BASE, train="theirs()"))
    labkit("merge", answers="s\n")
    saved = path.read_text().replace("# Conclusion", "# Conclusion, written meanwhile")
    (tmp_path / "saved").write_text(saved)
    editor = tmp_path / "editor"
    editor.write_text(f'#!/bin/sh\ncp "{tmp_path / "saved"}" "{path}"\necho "both()" >"$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    result = labkit("merge", answers="e\n")
    assert result.exit_code == 1 and "it was saved while you were asked" in result.output
    assert path.read_text() == saved and not is_settled(repository)
    again = labkit("merge")
    assert again.exit_code == 0 and cells_of(path)["train"] == "both()"
    blob = again.output.partition("git cat-file -p ")[2].split()[0]
    assert git(repository, "cat-file", "-p", blob) == saved


def test_a_notebook_that_is_settled_keeps_its_mode_and_one_for_reading_only_is_not_written(repository: Path):
    path = merged(repository, BASE, edited(BASE, train="ours()"), edited(BASE, train="theirs()"))
    path.chmod(0o440)
    before = path.read_bytes()
    result = labkit("merge", answers="o\n")
    assert result.exit_code == 2 and f"{NAME} is read-only" in result.output and path.read_bytes() == before
    path.chmod(0o640)
    assert labkit("merge").exit_code == 0, "the answer is remembered"
    assert path.stat().st_mode & 0o777 == 0o640 and cells_of(path)["train"] == "ours()"


def test_a_file_that_is_no_notebook_is_copied_before_a_side_takes_its_place(repository: Path):
    path = merged(repository, BASE, None, edited(BASE, train="theirs()"))
    path.write_text("notes")
    result = labkit("merge", "--theirs")
    blob = result.output.partition("git cat-file -p ")[2].split()[0]
    assert cells_of(path)["train"] == "theirs()" and git(repository, "cat-file", "-p", blob) == "notes"


def test_a_notebook_that_was_settled_by_hand_is_left_alone(repository: Path):
    path = merged(repository, BASE, edited(BASE, train="ours()"), edited(BASE, train="theirs()"))
    by_hand = edited(BASE, train="all_of_us()")
    put(repository, by_hand)
    result = labkit("merge", answers="o\n")
    assert result.exit_code == 1 and f"git add {NAME} takes it as it is" in result.output
    assert cells_of(path) == by_hand
    again = labkit("merge", "--anew", answers="o\n")
    assert again.exit_code == 0 and cells_of(path)["train"] == "ours()"
    blob = again.output.partition("git cat-file -p ")[2].split()[0]
    assert "all_of_us()" in git(repository, "cat-file", "-p", blob)


def test_the_deletion_of_a_whole_notebook_is_asked_too(repository: Path):
    changed = edited(BASE, train="theirs()")
    path = merged(repository, BASE, None, changed)
    assert "ours has it no more" in labkit("merge", answers="s\n").output
    assert labkit("merge", answers="b\n").exit_code == 0
    assert cells_of(path) == changed and is_settled(repository)
    git(repository, "merge", "--abort")
    git(repository, "merge", "feature", fails=True)
    assert labkit("merge", "--ours").exit_code == 0
    assert not path.exists() and git(repository, "ls-files", NAME) == ""


def test_a_rebase_says_whose_side_is_whose(repository: Path):
    path = diverged(repository, BASE, edited(BASE, train="ours()"), edited(BASE, train="theirs()"))
    git(repository, "checkout", "-q", "feature")
    git(repository, "rebase", "main", fails=True)
    result = labkit("merge", answers="t\n")
    assert "ours (what you rebase onto)" in result.output and " theirs)\n" in result.output
    assert result.output.endswith("git rebase --continue goes on\n")
    assert cells_of(path)["train"] == "theirs()"
    git(repository, "-c", "core.editor=true", "rebase", "--continue")


def test_a_stash_that_does_not_fit_is_led_through(repository: Path):
    path = diverged(repository, BASE, edited(BASE, train="ours()"), BASE)
    git(repository, "checkout", "-q", "feature")
    put(repository, edited(BASE, train="stashed()"))
    git(repository, "stash")
    git(repository, "checkout", "-q", "main")
    git(repository, "stash", "pop", fails=True)
    result = labkit("merge", answers="t\n")
    assert result.exit_code == 0 and "theirs (what was applied)" in result.output
    assert cells_of(path)["train"] == "stashed()"


# what cannot be merged


def told(result: Result) -> str:
    assert result.exit_code == 2, result.output
    return result.output


def test_marks_that_were_committed_are_named_with_a_way_out(repository: Path):
    path = merged(repository, BASE, edited(BASE, train="ours()"), edited(BASE, train="theirs()"))
    git(repository, "add", NAME)
    assert f"git checkout --merge -- {NAME} brings them back" in told(labkit("merge", NAME))
    git(repository, "checkout", "--merge", "--", NAME)
    assert labkit("merge", NAME, answers="o\n").exit_code == 0
    assert cells_of(path)["train"] == "ours()"


def test_a_side_that_is_no_notebook_is_named_with_a_way_out(repository: Path):
    path = diverged(repository, BASE, edited(BASE, train="ours()"), BASE)
    git(repository, "checkout", "-q", "feature")
    path.write_text("{\n<<<<<<< HEAD\n")
    git(repository, "commit", "-q", "-a", "-m", "torn")
    git(repository, "checkout", "-q", "main")
    git(repository, "merge", "feature", fails=True)
    said = told(labkit("merge"))
    assert "theirs is no notebook" in said and f"git checkout --ours -- {NAME} && git add {NAME}" in said


def test_without_a_conflict_there_is_nothing_to_settle(repository: Path):
    diverged(repository, BASE, BASE, BASE)
    for arguments in (("merge",), ("merge", NAME)):
        result = labkit(*arguments)
        assert result.exit_code == 0 and result.output.startswith("nothing to settle")
    assert "cannot be read" in told(labkit("merge", "notebooks/none.ipynb"))


def test_outside_of_a_repository_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert "lies in no git repository" in told(labkit("merge"))


# any edits on both sides

SOURCES = st.lists(st.sampled_from(["a = 1", "b = 2", "", "c()", "for x in y:", "    pass"]), min_size=1, max_size=4)


def mangled(base: Book, seed: int, side: str) -> Book:
    """A notebook after a few random edits that somebody could make; what a side writes has its name in it."""
    chance = random.Random(seed)
    cells = list(base.items())
    for number in range(chance.randrange(5)):
        what, place = chance.choice(["edit", "line", "delete", "insert", "move"]), chance.randrange(len(cells) + 1)
        if what == "insert":
            cells.insert(place, (f"{side}-{number}", f"{side}_{number}()"))
        elif place < len(cells):
            name, source = cells.pop(place)
            lines = source.split("\n")
            at = chance.randrange(len(lines) + 1)
            if what == "line":
                lines.insert(at, f"{side}_{number}()")
            elif what == "edit":
                lines[at : at + 1] = [f"{side}_{number}()"]
            if what == "move":
                place = chance.randrange(len(cells) + 1)
            if what != "delete":
                cells.insert(place, (name, "\n".join(lines)))
    return dict(cells)


def sources(content: dict) -> str:
    return "\n".join("".join(cell["source"]) for cell in content["cells"])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(SOURCES, max_size=5),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.booleans(),
    st.sampled_from([None, "ours", "theirs", "both"]),
)
def test_any_merge_is_a_notebook_that_lacks_nothing_undecided(lines, seed, other_seed, has_base, take):
    base = {f"cell-{number}": "\n".join(source) for number, source in enumerate(lines)}
    ours, theirs = mangled(base, seed, "ours"), mangled(base, other_seed, "theirs")
    versions = [readable(book(version)) for version in (base, ours, theirs)]
    made = merge(versions[0] if has_base else None, *versions[1:], order="" if take is None else "ours")
    result = resolved(made, {conflict.key: Answer(take) for conflict in made.conflicts} if take else {})
    parsed = json.loads(dumps(result))
    nbformat.validate(parsed)
    names = [cell["id"] for cell in parsed["cells"]]
    assert len(set(names)) == len(names)
    assert holds_marks(result) is (take is None and bool(made.conflicts))
    for side, version in (("ours", ours), ("theirs", theirs)):
        if take in (None, "both", side):
            added = [line for source in version.values() for line in source.split("\n") if line.startswith(side)]
            assert all(line in sources(result) for line in added)
        unchanged = {name for name, source in version.items() if base.get(name) == source}
        other = theirs if side == "ours" else ours
        assert not has_base or {name for name in unchanged if name in other} <= set(names)


@settings(deadline=None, max_examples=20)
@given(st.lists(SOURCES, max_size=5), st.integers(0, 10**6))
def test_what_one_side_left_alone_is_what_the_other_made_of_it(lines, seed):
    base = {f"cell-{number}": "\n".join(source) for number, source in enumerate(lines)}
    changed = readable(book(mangled(base, seed, "ours")))
    untouched = readable(book(base))
    expected = [(cell["id"], cell["source"]) for cell in changed["cells"]]
    for sides in ((changed, untouched), (untouched, changed), (changed, changed)):
        made = merge(untouched, *sides)
        assert made.conflicts == [] and made.notes == ()
        found = [(cell["id"], "".join(cell["source"])) for cell in resolved(made, {})["cells"]]
        assert found == expected


# parts of it


def of(cells: Book, tagged: str = "parameters") -> dict:
    content = book(cells)
    for cell in content["cells"]:
        cell["metadata"] = {"tags": ["parameters"]} if cell["id"] == tagged else {}
    return readable(content)


def test_the_same_id_on_two_different_cells_gives_two_cells():
    made = merge(of(BASE), of(after(BASE, "goal", new="plot(loss)")), of(after(BASE, "train", new="print(accuracy)")))
    assert made.conflicts == [] and made.notes[0].startswith("both sides added a cell new, and not the same one")
    cells = resolved(made, {})["cells"]
    assert [cell["id"] for cell in cells] == ["goal", "new", "parameters", "train", "new-2", "end"]
    assert cells[4]["source"] == ["print(accuracy)"]


def test_two_cells_of_parameters_are_never_made_unseen():
    base = edited(BASE, parameters=None)
    ours, theirs = (
        of(after(base, "goal", mine="A: int = 1"), "mine"),
        of(after(base, "goal", yours="B: int = 2"), "yours"),
    )
    made = merge(of(base), ours, theirs)
    assert [conflict.choices for conflict in made.conflicts] == [("ours", "theirs")]
    assert [cell["id"] for cell in resolved(made, {"added:mine:yours": Answer("theirs")})["cells"]][1] == "yours"
    apart = resolved(merge(of(base), ours, of(after(base, "train", yours="B: int = 2"), "yours")), {})
    assert flaws(apart) == ["cells mine and yours are both tagged `parameters`; keep the tag on one of them"]


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "lines"),
    [
        ("a\nb\nc", "a\nB\nc", "a\nb\nc\nd", ["a", "B", "c", "d"]),
        ("a\nb\nc", "a\nB\nc", "a\nB\nc", ["a", "B", "c"]),
        ("a\nb", "a\nx\nb", "a\ny\nb", ["a", Hunk((), ("x",), ("y",)), "b"]),
        ("a\nb", "A\nb", "a\nB", [Hunk(("a", "b"), ("A", "b"), ("a", "B"))]),
        (None, "a\nb", "a\nc", ["a", Hunk((), ("b",), ("c",))]),
        ("", "x", "", ["x"]),
    ],
)
def test_lines_merge_as_in_git(base, ours, theirs, lines):
    assert merge_text(base, ours, theirs) == lines


def test_very_long_cells_merge_in_no_time():
    lines = [str(number) for number in range(100_000)]
    ours, theirs = ["0", *lines], [*lines, "9"]
    assert len(merge_text("\n".join(lines), "\n".join(ours), "\n".join(theirs))) == 100_002
    same = ["x", "y"] * 3_000
    found = merge_text("\n".join(same), "\n".join(same[:-2][::-1]), "\n".join(["z", *same[4:]]))
    assert any(isinstance(piece, Hunk) for piece in found)


def test_a_cell_of_two_megabytes_and_characters_that_are_none_pass_through():
    odd = "x = '\x00\ud800\u2028" + "A" * 2_000_000 + "'"
    base = after(BASE, "train", odd=odd)
    made = merge(of(base), of(edited(base, odd=f"1\n{odd}")), of(edited(base, odd=f"{odd}\n2")))
    parsed = json.loads(dumps(resolved(made, {})))
    assert made.conflicts == [] and "".join(parsed["cells"][3]["source"]) == f"1\n{odd}\n2"


def test_tags_come_and_go_one_by_one():
    assert merge_values(
        {"tags": ["a", "b"], "k": 1}, {"tags": ["a", "b", "c"], "k": 1}, {"tags": ["b", "d"], "k": 2}
    ) == {"tags": ["b", "c", "d"], "k": 2}


def test_metadata_that_both_changed_is_a_conflict_and_stands_in_the_notebook_until_it_is_decided():
    versions = [of(BASE) for _ in range(3)]
    for version, value in zip(versions, ("a", "b", "c"), strict=True):
        version["metadata"]["title"] = value
        version["cells"][2]["metadata"]["slide"] = value
    made = merge(*versions)
    assert [conflict.choices for conflict in made.conflicts] == [("ours", "theirs")] * 2
    undecided = resolved(made, {})
    assert 'title = "c"' in json.dumps(undecided, ensure_ascii=False).replace('\\"', '"') and holds_marks(undecided)
    decided = resolved(made, {conflict.key: Answer("theirs") for conflict in made.conflicts})
    assert decided["metadata"]["title"] == decided["cells"][2]["metadata"]["slide"] == "c"
    assert not holds_marks(decided)


def test_cells_moved_by_one_side_move_and_by_both_are_asked():
    moved, other = (
        {name: BASE[name] for name in names.split()}
        for names in ("end goal parameters train", "goal end parameters train")
    )
    assert [cell["id"] for cell in resolved(merge(of(BASE), of(BASE), of(moved)), {})["cells"]] == list(moved)
    both = merge(of(BASE), of(moved), of(other))
    assert [conflict.key for conflict in both.conflicts] == ["order"]
    assert [cell["id"] for cell in resolved(merge(of(BASE), of(moved), of(other), "theirs"), {})["cells"]] == list(
        other
    )


def without_ids(cells: Book, stem: str = "") -> dict:
    content = book(cells)
    for number, cell in enumerate(content["cells"]):
        del cell["id"]
        cell |= {"id": f"{stem}{number}"} if stem else {}
    return readable(content | {"nbformat_minor": 5 if stem else 4})


@pytest.mark.parametrize("stems", [("", "", ""), ("", "a", "b"), ("a", "b", "c")], ids=["none", "new", "other"])
def test_cells_without_ids_in_common_are_known_by_their_text(stems):
    new = "print(f'the accuracy is {accuracy:.3f} after {EPOCHS} epochs')"
    changed = (BASE, after(BASE, "goal", new=new), edited(BASE, parameters=parameters(EPOCHS="5")))
    made = merge(*(without_ids(cells, stem) for cells, stem in zip(changed, stems, strict=True)))
    result = resolved(made, {})
    nbformat.validate(json.loads(dumps(result)))
    assert made.conflicts == []
    assert ["".join(cell["source"]) for cell in result["cells"]] == list(
        edited(after(BASE, "goal", new=new), parameters=parameters(EPOCHS="5")).values()
    )


def test_a_parameter_that_both_add_elsewhere_is_a_flaw_and_one_of_a_side_alone_is_not():
    twice = edited(BASE, parameters=f"NEW: int = 1\n{PARAMETERS}\nNEW: int = 2")
    assert flaws(of(twice)) == ["the cell `parameters` gives NEW twice; keep one of the lines"]
    assert flaws(of(twice), of(BASE), of(twice)) == []


def test_a_cell_that_one_side_made_markdown_and_the_other_edited_is_asked():
    made = merge(of(BASE), of(edited(BASE, train="# words")), of(edited(BASE, train="train(7)")))
    assert [conflict.about for conflict in made.conflicts] == [
        "one side made it a cell of another type, the other changed it"
    ]
    both = resolved(made, {made.conflicts[0].key: Answer("both")})
    nbformat.validate(json.loads(dumps(both)))
    assert [cell["id"] for cell in both["cells"]] == ["goal", "parameters", "train", "train-2", "end"]


def test_what_is_no_cell_is_refused():
    for cells in ([1], [{"cell_type": "code", "source": 1}], [{"cell_type": "page", "source": ""}]):
        with pytest.raises(ValueError, match="cell 1"):
            readable({"nbformat": 4, "cells": cells, "metadata": {}})
    with pytest.raises(ValueError):
        readable([])
