"""The reports of a lab: for each notebook the page of its newest finished run, and an index of them all.

A notebook is executed only when it has no such run, or when asked. A page that is up to date is left as it is, which
takes no
time: its first bytes say what it was made from.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from labkit import __version__
from labkit.errors import FolderProblem, LabkitError, NotebookProblem
from labkit.record import lab
from labkit.record.allowed import shown
from labkit.record.carried import record_files
from labkit.record.files import dumps, plain_json, read_json
from labkit.record.find import every, is_of, whereabouts
from labkit.record.page import make_stamp, page_notebook, page_stamp
from labkit.record.provenance import fingerprint_file
from labkit.record.rundir import NO_RESULT, RunDir
from labkit.record.version import VERSION
from labkit.workbench.notebooks import needs, notebook, params
from labkit.workbench.pages import index, looks
from labkit.workbench.reproducing import reproductions
from labkit.workbench.running import trackers

PUBLIC = "report-public.html"  # beside a run's report.html


@dataclass(frozen=True)
class Wanted:
    """What to report.

    Attributes:
        notebooks: The notebooks; all of the lab's `notebooks/` where none is named.
        given: Parameters that the runs must have been given.
        rerun: `never`, `stale` or `always`.
        output: The folder for the pages; None for `reports/` in the lab.
        runs: The folder of runs; None for the lab's.
        command: The command line, for the record.
        is_public: Pages for strangers, in a folder of their own.
    """

    notebooks: list[Path]
    given: params.Asked = field(default_factory=dict)
    rerun: str = "never"
    output: Path | None = None
    runs: Path | None = None
    command: list[str] = field(default_factory=list)
    is_public: bool = False


@dataclass(frozen=True)
class Page:
    """One notebook's page.

    Attributes:
        source: The notebook.
        target: Where the page goes.
        run: The run that it shows; None where there is none.
        stale: Why the page no longer shows what the notebook would give.
        is_public: It is for strangers.
    """

    source: notebook.Notebook
    target: Path
    run: RunDir | None
    stale: tuple[str, ...] = ()
    is_public: bool = False


def make(wanted: Wanted, say: Callable[[str], object]) -> int:
    """Writes the pages that are not up to date, executing what has no run, and returns the exit status.

    Raises:
        NotebookProblem: There is no notebook to report, or a page is another notebook's already; nothing is executed.
        BadInput: A notebook or a parameter cannot be used. Notebooks that can be are reported first.
    """
    changed, failed = 0, 0
    outputs: set[Path] = set()
    paths = wanted.notebooks or _all(lab.root(Path.cwd()))
    if wanted.output is not None:
        _refuse_shared_pages(paths, wanted.output)
    for path in paths:
        root = lab.root(path.parent)
        output = wanted.output or root / "reports" / ("public" if wanted.is_public else "")
        outputs.add(output)
        try:
            page = _current_page(path, root, lab.runs_folder(path.parent, wanted.runs), output, wanted, say)
            if page is None:
                continue
            if page.run is None or not _is_finished(page.run):
                failed = max(failed, 1)
            changed += page.run is not None and _write(replace(page, is_public=wanted.is_public), say)
        except LabkitError as error:
            say(f"{path}: {error}")
            failed = max(failed, error.exit_status)
            continue
        if page.stale:
            say(f"  stale: {'; '.join(page.stale)} (RERUN=stale, or --rerun stale, executes it again)")
    for output in sorted(outputs):
        changed += _write_index(output, say)
    if not changed and not failed:
        say(f"nothing to do: the reports in {os.path.relpath(min(outputs))} are up to date")
    return failed


def _all(root: Path) -> list[Path]:
    """Returns the notebooks of `notebooks/`; in a lab without that folder, those at its top."""
    folder = root / "notebooks"
    found = folder.rglob("*.ipynb") if folder.is_dir() else root.glob("*.ipynb")
    notebooks = sorted(path for path in found if ".ipynb_checkpoints" not in path.parts)
    if not notebooks:
        raise NotebookProblem(f"there are no notebooks in {folder if folder.is_dir() else root}; name one")
    return notebooks


def _refuse_shared_pages(paths: list[Path], output: Path) -> None:
    """Refuses notebooks of several labs that would have one page in a common folder, from this call or an earlier one.

    Raises:
        NotebookProblem: There is such a page.
    """
    taken: dict[Path, Path] = {}
    for path in paths:
        root, inside = _place(path)
        source, target = root / inside, output / index.page_name(root, inside)
        for other in (taken.setdefault(target, source), page_notebook(target) or source):
            if other != source and os.path.exists(other):
                raise NotebookProblem(f"{target} is the page of {other}; for {source} name another folder with -o")


def _place(path: Path) -> tuple[Path, str]:
    """Returns a notebook's lab, links resolved, and its path in there: two ways to one notebook have the same."""
    root = lab.root(path.parent)
    return Path(os.path.realpath(root)), os.path.relpath(os.path.abspath(path), root)


def _current_page(
    path: Path, root: Path, runs: Path, output: Path, wanted: Wanted, say: Callable[[str], object]
) -> Page | None:
    """Returns the page that a notebook should have, after executing the notebook where that is called for.

    A notebook without the files that it needs is not executed; without a run it has no page then.
    """
    source = notebook.read(Path(os.path.abspath(path)))
    page = choose(source, root, runs, output, wanted.given)
    if page.run is not None and (wanted.rerun == "never" or (wanted.rerun == "stale" and not page.stale)):
        return page
    lacking = needs.lacking(source, root)
    if lacking:
        say(f"{os.path.relpath(path)}: not executed, {lacking}")
        return page if page.run is not None else None
    _execute(source, runs, wanted, say)
    page = choose(source, root, runs, output, wanted.given)
    # Without a finished run, the page of the one that failed says so.
    return page if page.run is not None else replace(page, run=_newest(source, root, runs))


def choose(source: notebook.Notebook, root: Path, runs: Path, output: Path, given: params.Asked) -> Page:
    """Returns a notebook's page with the newest run that may stand for it: finished, full, as the parameters ask.

    One point of a sweep stands for it only where there is no other run.
    """
    declared = source.parameters()
    values = params.resolve(declared, given, source.path.name, source.computed())
    inside = os.path.relpath(source.path, root)
    target = output / index.page_name(root, inside)
    here = whereabouts(root, runs)
    point = None
    for run in reversed(every(runs)):
        try:
            manifest = run.read_manifest()
        except FolderProblem:
            continue
        if manifest["notebook"] != inside or not is_of(manifest, here):
            continue
        if manifest["kind"] != "run" or _is_no_result(run, manifest):
            continue
        if any(manifest["parameters"].get(name) != value for name, value in plain_json(values).items()):
            continue
        page = Page(source, target, run, stale_reasons(source, root, run, manifest))
        if not manifest.get("sweep"):
            return page
        point = point or page
    return point or Page(source, target, None)


def _newest(source: notebook.Notebook, root: Path, runs: Path) -> RunDir | None:
    """Returns the newest run of a notebook, whatever became of it."""
    inside, here = os.path.relpath(source.path, root), whereabouts(root, runs)
    for run in reversed(every(runs)):
        manifest = read_json(run.manifest) or {}
        if manifest.get("notebook") == inside and is_of(manifest, here) and not run.is_scratch:
            return run
    return None


def _is_no_result(run: RunDir, manifest: dict[str, Any]) -> bool:
    if any(label in NO_RESULT for label in manifest["labels"]):
        return True
    return not _is_finished(run)


def _is_finished(run: RunDir) -> bool:
    return (read_json(run.exit) or {}).get("status") == "finished"


def stale_reasons(source: notebook.Notebook, root: Path, run: RunDir, manifest: dict[str, Any]) -> tuple[str, ...]:
    """Returns in what a run differs from what the notebook would do now; nothing where it does not."""
    reasons = []
    declared = source.parameters()
    now = params.effective(declared, manifest["given"])
    for name, value in plain_json(now).items():
        then = manifest["parameters"].get(name)
        follows_git = name == VERSION and name not in manifest["given"]
        if then != value and not follows_git:
            reasons.append(f"{name} was {shown(then)}, is {shown(value)}")
    if manifest["source_sha256"] != source.sha256:
        reasons.insert(0, "the notebook changed")
    for name, module in (read_json(run.source / "modules.json") or {}).items():
        if not isinstance(module, dict) or not isinstance(module.get("path"), str):
            continue
        path = root / module["path"]
        if root in path.parents and ".." not in path.parts and fingerprint_file(path) != module.get("sha256"):
            reasons.append(f"module {name} {'changed' if path.exists() else 'is gone'}")
    return tuple(reasons)


def _execute(source: notebook.Notebook, runs: Path, wanted: Wanted, say: Callable[[str], object]) -> None:
    from labkit.workbench import terminal
    from labkit.workbench.running import execute, job

    progress = execute.Progress()
    with progress.stops:
        prepared = job.prepare(source.path, wanted.given, runs=runs, command=wanted.command)
        with terminal.live_line(prepared.directory, progress, quiet=False):
            ended = execute.execute(prepared, progress)
    if progress.stopping:
        raise SystemExit(130 if progress.stopping == "SIGINT" else 143)
    try:
        write_of_run(prepared.directory)  # as `labkit run` does: a run leads to its report
    except FolderProblem as error:
        say(f"labkit: {error}")
    if ended.state != "finished":
        say(f"{source.path.name}: {ended.state}: {ended.reason}; see {prepared.directory.path}")


def write_of_run(run: RunDir, is_public: bool = False) -> Path:
    """Writes a run's own report.html, or one for strangers beside it, and returns its path.

    Raises:
        FolderProblem: It cannot be written; an earlier one stays.
    """
    return _render(run, run.path / PUBLIC if is_public else run.report, is_public=is_public)


def _write(page: Page, say: Callable[[str], object]) -> bool:
    """Writes a page unless it is up to date; tells whether it was written."""
    assert page.run is not None
    stamp = _stamp(page)
    if page_stamp(page.target) == stamp:
        return False
    _make_folder(page.target.parent)
    _render(page.run, page.target, page.stale, stamp, page.is_public)
    say(os.path.relpath(page.target))
    return True


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderProblem(f"{folder} cannot be made: {error.strerror or error}") from error


def _render(run: RunDir, target: Path, stale: tuple[str, ...] = (), stamp: str = "", is_public: bool = False) -> Path:
    from labkit.workbench.pages import report  # slow to load, and not needed where all is up to date

    try:
        return report.write_report(run, target, stale, stamp, is_public)
    except OSError as error:
        raise FolderProblem(f"{target} cannot be written: {error.strerror or error}") from error


def _stamp(page: Page) -> str:
    """Returns what a page is made from: its notebook, the run's own files, why it is stale, the code that renders."""
    assert page.run is not None
    run = page.run
    files = [run.exit, run.notebook, run.kernel, *(path for _, path in record_files(run))]
    files += [trackers.outcome_file(run, name) for name in trackers.KNOWN]
    if (reproduced := reproductions.latest(run)) is not None:
        files.append(reproduced.path)
    facts = [page.run.id, list(page.stale), __version__, [fingerprint_file(path) for path in files], _renderer()]
    made_from = hashlib.sha256(dumps([*facts, page.is_public])).hexdigest()
    if page.is_public:
        return made_from  # the way to the notebook may lead through folders that a stranger is not told of
    root, inside = _place(page.source.path)
    return make_stamp(made_from, root / inside, page.target.parent)


def _renderer() -> list[str]:
    """Returns fingerprints of the code, the templates and the style."""
    workbench = Path(__file__).parents[1]
    return [fingerprint_file(path) for path in sorted((*workbench.rglob("*.py"), *looks.PAGE.iterdir()))]


def _write_index(output: Path, say: Callable[[str], object]) -> bool:
    """Writes the page of all pages unless it is up to date; tells whether it was written."""
    _make_folder(output)
    try:
        written = index.write_index(output)
    except OSError as error:
        raise FolderProblem(f"the index in {output} cannot be written: {error.strerror or error}") from error
    if written:
        say(os.path.relpath(output / index.NAME))
    return written
