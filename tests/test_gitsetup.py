"""A clone that was set up: git stores notebooks without outputs, merges them cell by cell, and is in nobody's way."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_output
from repositories import NAME, Book, after, book, cells_of, commit, diverged, edited, git, labkit, make_repository, put

from labkit.errors import WorkFailed
from labkit.workbench.git import gitdiff, gitsetup, saved
from labkit.workbench.notebooks.clean import dumps

BASE: Book = {"goal": "# Digits", "parameters": "EPOCHS: int = 3", "train": "train(EPOCHS)\nprint(1)", "end": "# End"}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = make_repository(tmp_path / "Ada's lab")
    (made / ".gitattributes").write_text(f"{gitsetup.ATTRIBUTES}\n")
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def clone(repository: Path) -> Path:
    """A repository that is set up."""
    gitsetup.install(repository)
    return repository


def run_in_jupyterlab(path: Path, kernel: str = "python3") -> None:
    """Leave in a notebook what JupyterLab leaves when it runs it and saves."""
    content = nbformat.read(path, as_version=4)
    for number, cell in enumerate(content.cells, 1):
        if cell.cell_type == "code":
            cell.update(outputs=[new_output("stream", text="1\n")], execution_count=number)
            cell.metadata |= {"execution": {"iopub.status.idle": "2026-11-21T10:00:00Z"}, "scrolled": True}
    content.metadata.kernelspec = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": kernel}
    content.metadata.language_info = {"name": "python", "version": "3.12.1", "codemirror_mode": {"name": "ipython"}}
    content.metadata.widgets = {"application/vnd.jupyter.widget-state+json": {"state": {}, "version_major": 2}}
    nbformat.write(content, path)


def save(path: Path) -> None:
    """What the Jupyter server calls when it has saved a notebook."""
    saved.after_save({"type": "notebook"}, str(path))


def gone(repository: Path, tmp_path: Path) -> None:
    """Set up with an environment that then goes away."""
    gitsetup.install(repository, str(tmp_path / "a 100%f environment" / "bin" / "python"))


# the filter


def test_after_a_run_git_sees_no_change_and_the_file_keeps_its_outputs(clone: Path):
    path = put(clone, BASE)
    commit(clone, "one")
    for kernel in ("python3", "conda-env-lab"):
        run_in_jupyterlab(path, kernel)
        assert git(clone, "diff") == ""
        save(path)
        assert git(clone, "status", "--porcelain") == ""
    git(clone, "add", "-A")
    assert git(clone, "status", "--porcelain") == "" and "iopub" in path.read_text()
    run_in_jupyterlab(put(clone, edited(BASE, train="train(9)")))
    assert git(clone, "status", "--porcelain") == f" M {NAME}\n"
    git(clone, "add", "-A")
    assert git(clone, "show", f":{NAME}") == dumps(book(edited(BASE, train="train(9)"))).decode()


@pytest.mark.slow
def test_the_jupyter_server_calls_it_whenever_it_has_saved_a_notebook(clone: Path):
    from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

    path = put(clone, BASE)
    commit(clone, "one")
    run_in_jupyterlab(path)
    status = ("status", "--porcelain", "--untracked-files=no")  # the server keeps a checkpoint beside it
    model = {"type": "notebook", "format": "json", "content": nbformat.read(path, as_version=4)}
    manager = AsyncLargeFileManager(root_dir=str(clone))
    asyncio.run(manager.save(model, NAME))
    assert git(clone, *status) == f" M {NAME}\n", "git's own view; what the hook is for"
    manager.register_post_save_hook(saved.after_save)
    asyncio.run(manager.save(model, NAME))
    assert git(clone, *status) == ""


def test_a_save_stages_nothing_and_unstages_nothing(clone: Path):
    path = put(clone, BASE)
    save(path)
    assert git(clone, "status", "--porcelain") == "?? .gitattributes\n?? notebooks/\n"
    git(clone, "add", "--intent-to-add", NAME)
    save(path)
    assert git(clone, "status", "--porcelain", NAME) == f" A {NAME}\n"
    commit(clone, "one")
    put(clone, edited(BASE, train="staged()"))
    git(clone, "add", NAME)
    put(clone, edited(BASE, train="written()"))
    save(path)
    assert git(clone, "status", "--porcelain") == f"MM {NAME}\n" and "staged()" in git(clone, "show", f":{NAME}")


def test_a_name_that_is_a_pattern_for_another_one_is_only_itself(clone: Path):
    path, other = (put(clone, BASE, f"notebooks/{name}.ipynb") for name in ("run[1]", "run1"))
    commit(clone, "two")
    for each in (path, other):
        run_in_jupyterlab(each)
    save(path)
    assert git(clone, "status", "--porcelain") == " M notebooks/run1.ipynb\n"


ADDS = """\
#!/bin/sh
case "$*" in *"update-index"*) (unset GIT_INDEX_FILE; {git} add .; echo $? >"$0.said") 2>/dev/null;; esac
exec {git} "$@"
"""


def test_a_save_at_the_same_moment_takes_nothing_back_that_was_added(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = put(clone, BASE)
    commit(clone, "one")
    put(clone, edited(BASE, train="added()"))
    shim = tmp_path / "bin" / "git"
    shim.parent.mkdir()
    shim.write_text(ADDS.format(git=shutil.which("git")))
    shim.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(shim.parent), prepend=":")
        save(path)
    was_added = (shim.parent / "git.said").read_text() == "0\n"
    assert ("added()" in git(clone, "show", f":{NAME}")) is was_added
    git(clone, "add", NAME)
    assert git(clone, "status", "--porcelain") == f"M  {NAME}\n"


def test_a_save_changes_nothing_while_another_git_writes_and_leaves_its_lock(clone: Path):
    path = put(clone, BASE)
    commit(clone, "one")
    lock = clone / ".git" / "index.lock"
    lock.touch()
    before = (clone / ".git" / "index").read_bytes()
    assert not saved.forget_size(path) and lock.exists() and (clone / ".git" / "index").read_bytes() == before
    lock.unlink()
    assert saved.forget_size(path) and not list((clone / ".git").glob("*.lock"))


def test_a_change_that_git_knows_by_the_age_of_its_index_is_still_seen_after_a_save(clone: Path):
    git(clone, "config", "core.trustctime", "false")
    path, other, index = put(clone, BASE), clone / "notes.txt", clone / ".git" / "index"
    for text in ("as added", "as later"):  # of one size, in one moment, after the index was begun
        other.write_text(text)
        os.utime(other, (time.time() // 100 * 100,) * 2)
        if text == "as added":
            git(clone, "add", "-A")
    os.utime(index, (other.stat().st_mtime - 5,) * 2)
    run_in_jupyterlab(path)
    assert saved.forget_size(path)
    assert git(clone, "diff", "--name-only") == "notes.txt\n"


def test_a_clone_without_it_works_and_stores_what_is_there(repository: Path):
    run_in_jupyterlab(put(repository, BASE))
    commit(repository, "one")
    assert "iopub" in git(repository, "show", f"HEAD:{NAME}")


def test_a_file_that_is_no_notebook_is_added_as_it_is_with_a_warning(clone: Path):
    path = clone / NAME
    path.parent.mkdir()
    path.write_text("{\n<<<<<<< HEAD\n")
    assert f"labkit: git takes {NAME} as it is" in git(clone, "add", "-A")
    assert git(clone, "show", f":{NAME}") == "{\n<<<<<<< HEAD\n"


def test_other_working_trees_of_the_clone_have_it_too(clone: Path, tmp_path: Path):
    commit(clone, "one")
    git(clone, "worktree", "add", "-q", str(tmp_path / "other tree"), "-b", "other")
    run_in_jupyterlab(put(tmp_path / "other tree", BASE))
    git(tmp_path / "other tree", "add", "-A")
    assert "iopub" not in git(tmp_path / "other tree", "show", f":{NAME}")


def test_an_environment_that_has_gone_is_said_and_git_works_on(repository: Path, tmp_path: Path):
    gone(repository, tmp_path)
    run_in_jupyterlab(put(repository, BASE))
    said = git(repository, "add", "-A")
    assert "the environment that this clone was set up with has gone; remedy: make setup" in said
    assert git(repository, "show", f":{NAME}") == (repository / NAME).read_text()
    assert "has gone" in gitsetup.problem(repository)


def test_paths_with_spaces_and_signs_of_git_and_the_shell_are_kept(repository: Path, tmp_path: Path):
    folder = tmp_path / "an $HOME 'odd' %f \"place\""
    folder.mkdir()
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    gitsetup.install(repository, str(python))
    run_in_jupyterlab(put(repository, BASE))
    assert git(repository, "add", "-A") == "" and "iopub" not in git(repository, "show", f":{NAME}")
    assert gitsetup.problem(repository) == ""


# the commands


def test_setup_prints_the_line_for_the_path_and_says_once_what_it_did(repository: Path):
    (repository / ".gitattributes").unlink()
    (repository / "notebooks").mkdir()
    first, second = labkit("setup"), labkit("setup")
    assert first.exit_code == second.exit_code == 0
    line = f'export PATH={Path(sys.executable).parent}:"$PATH"\n'
    assert second.output == first.stdout == line
    assert first.stderr.count("labkit: ") == 2 and ".gitattributes names the filter now; commit it" in first.stderr
    assert (repository / ".gitattributes").read_text() == f"{gitsetup.ATTRIBUTES}\n"
    assert gitsetup.problem(repository) == ""


def test_remove_takes_out_what_setup_put_in_and_nothing_else(repository: Path):
    before = (repository / ".git" / "config").read_text()
    git(repository, "config", "mergetool.nbdime.path", "mine")
    assert "git would store outputs" in gitsetup.problem(repository)
    labkit("setup")
    assert labkit("setup", "--remove").output.startswith("labkit: git treats notebooks as any text again")
    assert git(repository, "config", "mergetool.nbdime.path") == "mine\n"
    git(repository, "config", "--unset", "mergetool.nbdime.path")
    assert (repository / ".git" / "config").read_text() == before
    assert labkit("setup", "--remove").output == ""


def test_attributes_that_cannot_be_written_are_named_and_all_stays_as_it_was(repository: Path):
    path = repository / ".gitattributes"
    path.write_text("* text\n")
    path.chmod(0o640)
    assert labkit("setup").exit_code == 0
    assert path.read_text() == f"* text\n{gitsetup.ATTRIBUTES}\n" and path.stat().st_mode & 0o777 == 0o640
    labkit("setup", "--remove")
    before = git(repository, "config", "--local", "--list")
    path.unlink()
    path.mkdir()
    result = labkit("setup")
    assert result.exit_code == 2 and ".gitattributes cannot be read: Is a directory" in result.output
    path.rmdir()
    path.symlink_to("../elsewhere")
    assert ".gitattributes is a link, which git does not follow" in labkit("setup").output
    assert git(repository, "config", "--local", "--list") == before and not (repository.parent / "elsewhere").exists()


def test_a_filter_of_somebody_else_is_taken_as_it_is(clone: Path):
    git(clone, "config", "filter.labkit.clean", "don't ask")
    assert gitsetup.problem(clone) == ""
    git(clone, "config", "filter.labkit.clean", "/nowhere/at/all %f")
    assert "needs an environment that has gone" in gitsetup.problem(clone)


def test_setup_outside_of_a_repository_still_prints_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    result = labkit("setup")
    assert result.exit_code == 0 and "lies in no git repository" in result.stderr and "export PATH" in result.stdout
    assert gitsetup.problem(tmp_path) == ""


# merges by git


def test_git_merges_cell_by_cell_where_lines_would_collide_or_give_two_cells_one_id(clone: Path):
    ours = after(edited(BASE, parameters="EPOCHS: int = 5"), "goal", new="plot(loss)")
    path = diverged(clone, BASE, ours, after(edited(BASE, train="train(EPOCHS)\nprint(2)"), "train", new="show()"))
    assert "both sides added a cell new" in git(clone, "merge", "feature")
    assert cells_of(path) == {
        "goal": "# Digits",
        "new": "plot(loss)",
        "parameters": "EPOCHS: int = 5",
        "train": "train(EPOCHS)\nprint(2)",
        "new-2": "show()",
        "end": "# End",
    }


def test_a_conflict_leaves_a_notebook_with_marks_which_labkit_merge_settles(clone: Path):
    ours, theirs = edited(BASE, train=None, end="# Ours"), edited(BASE, train="train(7)", end="# Theirs")
    path = diverged(clone, BASE, ours, theirs)
    assert f"labkit: labkit merge {NAME} leads through" in git(clone, "merge", "feature", fails=True)
    assert list(cells_of(path).values()) == [
        "# Digits",
        "EPOCHS: int = 3",
        "<<<<<<< ours",
        "=======",
        "train(7)",
        ">>>>>>> theirs",
        "<<<<<<< ours\n# Ours\n=======\n# Theirs\n>>>>>>> theirs",
    ]
    result = labkit("merge", "--theirs")
    assert result.exit_code == 0 and "git cat-file" not in result.output, "the file held nothing but git's marks"
    assert cells_of(path) == theirs and git(clone, "diff", "--name-only", "HEAD") == f"{NAME}\ntheirs\n"


@pytest.mark.parametrize("python", ["none", "without labkit"])
def test_git_merges_lines_where_the_environment_has_gone(repository: Path, tmp_path: Path, python: str):
    program = tmp_path / "python"
    if python != "none":
        program.write_text('#!/bin/sh\necho "No module named labkit" >&2\nexit 1\n')
        program.chmod(0o755)
    gitsetup.install(repository, str(program))
    path = diverged(repository, BASE, edited(BASE, train="ours()"), edited(BASE, train="theirs()"))
    said = git(repository, "merge", "feature", fails=True)
    assert ("has gone" if python == "none" else "No module named labkit") in said
    assert '<<<<<<< ours\n    "ours()"\n=======\n    "theirs()"\n>>>>>>> theirs\n' in path.read_text()
    assert labkit("merge", "--ours").exit_code == 0 and cells_of(path)["train"] == "ours()"


@pytest.mark.slow
def test_git_merges_lines_where_a_side_is_no_notebook(clone: Path):
    path = diverged(clone, BASE, edited(BASE, goal="# Ours"), BASE)
    git(clone, "checkout", "-q", "feature")
    path.write_text(path.read_text() + "torn\n")
    git(clone, "commit", "-q", "-a", "-m", "torn")
    git(clone, "checkout", "-q", "main")
    assert f"labkit: {NAME} cannot be merged cell by cell" in git(clone, "merge", "feature")
    assert '"# Ours"' in path.read_text() and path.read_text().endswith("torn\n")


# differences


def test_diff_shows_what_this_branch_changed_and_no_outputs(clone: Path):
    path = diverged(
        clone, BASE, edited(BASE, goal="# Others changed this"), edited(BASE, train="train(EPOCHS)\nprint(7)")
    )
    git(clone, "checkout", "-q", "feature")
    run_in_jupyterlab(path)
    put(clone, {"only": "new()"}, "notebooks/new.ipynb")
    result = labkit("diff")
    assert result.exit_code == 0
    assert result.output.startswith(f"{NAME}\n") and "-print(1)\n+print(7)\n" in result.output
    assert "notebooks/new.ipynb\n" in result.output and "new()" in result.output
    assert "Others" not in result.output and "iopub" not in result.output


def test_diff_says_where_there_is_nothing_to_show(repository: Path):
    path = put(repository, BASE)
    commit(repository, "one")
    run_in_jupyterlab(path)
    assert labkit("diff").output == "no notebook has changed since this branch left main\n"
    content = book(BASE)
    content["cells"][2]["metadata"]["tags"] = ["slow"]
    path.write_bytes(dumps(content))
    assert labkit("diff").output.startswith(f"only metadata has changed since this branch left main, in {NAME}; --all")
    assert "slow" in labkit("diff", "--all").output
    path.write_text("torn")
    assert labkit("diff").output.startswith(f"{NAME} is no notebook")


def test_diff_shows_the_others_where_one_cannot_be_shown(repository: Path, tmp_path: Path, monkeypatch):
    odd = put(repository, BASE, "notebooks/odd.ipynb")
    put(repository, BASE)
    commit(repository, "one")
    content = book(edited(BASE, end="# The end"))
    content["cells"][0]["attachments"] = 5
    odd.write_bytes(dumps(content))
    put(repository, edited(BASE, train="changed()"))
    result = labkit("diff", "--all")
    assert result.exit_code == 0 and "+changed()" in result.output
    assert "notebooks/odd.ipynb cannot be shown by nbdime (" in result.output


def test_diff_against_a_branch_that_is_not_there_names_near_ones(repository: Path, tmp_path: Path, monkeypatch):
    assert "there is no commit yet" in labkit("diff").output
    put(repository, BASE)
    commit(repository, "one")
    git(repository, "branch", "feature-augment")
    result = labkit("diff", "feature-augmnt")
    assert result.exit_code == 2 and "there are feature-augment" in result.output
    assert "there are feature-augment, main" in labkit("diff", "xyz").output
    monkeypatch.chdir(tmp_path)
    assert "lies in no git repository" in labkit("diff").output


@pytest.mark.slow
def test_git_diff_shows_cells_by_nbdime_and_lines_where_that_has_gone(clone: Path, tmp_path: Path):
    path = put(clone, BASE)
    commit(clone, "one")
    put(clone, edited(BASE, train="train(EPOCHS)\nprint(7)"))
    run_in_jupyterlab(path)
    shown = git(clone, "diff")
    assert shown.startswith(f"{NAME}\n## modified /cells/2/source:\n") and "+print(7)\n" in shown
    assert "iopub" not in shown and "\x1b" not in shown
    gone(clone, tmp_path)
    shown = git(clone, "diff")
    assert "has gone" in shown and '+    "print(7)"' in shown


BROWSER = """\
#!{python}
import http.cookiejar, sys, urllib.request

address, seen = sys.argv[1], {seen!r}
assert address.startswith("http://127.0.0.1:"), address
cookies = http.cookiejar.CookieJar()
browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies))
with open(seen, "a") as file:
    file.write(browser.open(address).read().decode())
token = next(cookie.value for cookie in cookies if cookie.name == "_xsrf")
close = address.replace("/difftool", "/api/closetool")
browser.open(urllib.request.Request(close, data=b'{{"exitCode": 0}}', headers={{"X-XSRFToken": token}}))
"""


@pytest.mark.slow
def test_diff_web_opens_the_browser_on_the_loopback_and_ends_when_it_is_closed(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen, browser = tmp_path / "seen", tmp_path / "browser"
    browser.write_text(BROWSER.format(python=sys.executable, seen=str(seen)))
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    put(repository, BASE)
    commit(repository, "one")
    put(repository, edited(BASE, train="changed()"))
    put(repository, BASE, "notebooks/nan.ipynb").write_text(json.dumps(book(BASE) | {"metadata": {"x": float("nan")}}))
    found = gitdiff.changed(repository, gitdiff.start(repository, "main"))
    with pytest.raises(WorkFailed, match=r"^notebooks/nan\.ipynb cannot be shown by nbdime \(.*$"):
        gitdiff.in_browser(sorted(found, key=lambda one: one.path))
    assert "/before/x.ipynb" in seen.read_text() and "/after/x.ipynb" in seen.read_text()


def test_make_diff_hands_its_base_over_as_it_was_typed(tmp_path: Path):
    from tiny import ROOT, plain_environment

    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "environment.sh").write_text('PATH="$PWD:$PATH" exec "$@"\n')
    (tmp_path / "labkit").write_text('#!/bin/sh\nprintf "[%s]" "$@"\n')
    (tmp_path / "labkit").chmod(0o755)
    for arguments, expected in (
        (["diff"], "[diff][--][main]"),
        (["diff-web", "BASE=a $b 'c'"], "[diff][--web][--][a $b 'c']"),
    ):
        said = subprocess.run(
            ["make", *arguments], cwd=tmp_path, env=plain_environment(), capture_output=True, text=True
        )
        assert said.stdout == expected, said.stderr
