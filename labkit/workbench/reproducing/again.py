"""What `labkit reproduce` and `labkit verify` do around a reproduction: find, ask, execute, store, print."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from labkit.errors import BadInput, LabkitError
from labkit.record import lab, metrics
from labkit.record.capsule import Capsule
from labkit.record.files import write_atomic, write_json
from labkit.record.rundir import RunDir
from labkit.record.text import counted
from labkit.workbench import terminal
from labkit.workbench.reproducing import reproductions, unpack, verdictlines
from labkit.workbench.reproducing.chain import mapping
from labkit.workbench.reproducing.compare import NOT_RUN, Comparison
from labkit.workbench.reproducing.own import own_run
from labkit.workbench.reproducing.reproduce import Wanted, reproduced
from labkit.workbench.reproducing.tolerance import Tolerance
from labkit.workbench.running import execute
from labkit.workbench.running.job import Job
from labkit.workbench.wording import short


def tolerance(texts: tuple[str, ...]) -> Tolerance | None:
    """Returns what `--tolerance` asks for: `0.01`, a part of each value; `METRIC=0.002`, of one metric as it stands.

    Raises:
        BadInput: It is neither.
    """
    relative, absolute = None, dict[str, float]()
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            raise BadInput(f"--tolerance {text!r} is neither a number from 0 up nor METRIC=NUMBER")
        if name:
            absolute[name] = value
        else:
            relative = value
    return Tolerance(relative, absolute, "--tolerance") if texts else None


def require_results(asked: Tolerance | None, summary: object) -> None:
    """Requires that the metrics which a tolerance names are among the results that the verdict goes by.

    Args:
        asked: The tolerance.
        summary: That of the recorded run; nothing is required where it names no metric.

    Raises:
        BadInput: The verdict does not go by one of them.
    """
    results = metrics.main(mapping(mapping(summary).get("metrics")))
    strange = [name for name in (asked.absolute if asked is not None else ()) if name not in results]
    if results and strange:
        raise BadInput(f"--tolerance names {strange[0]!r}; the verdict goes by {', '.join(map(short, results))}")


def reproduce(name: str, wanted: Wanted, *, yes: bool, as_json: bool, ask: Callable[[str], bool]) -> int:
    """Makes a run again, stores and prints the verdict, and returns the exit status.

    Args:
        name: A report's file, or any name of a run.
        wanted: How to.
        yes: Execute what a file of elsewhere carries without asking.
        as_json: Print the verdict for a program.
        ask: Asks a question.

    Raises:
        BadInput: There is no such record, it cannot be made again, or nobody agreed.
    """
    packed = unpack.opened(name, wanted.runs)
    require_results(wanted.tolerance, packed.json("run.json").get("summary"))
    own = own_run(packed, wanted.runs)
    is_file = name.endswith((".html", ".htm")) and Path(name).is_file()
    if own is None and not yes and not ask(_question(name, packed, wanted)):
        raise BadInput(f"nothing was executed: {name} is of elsewhere, and nobody agreed; --yes agrees")

    def say(line: str) -> None:
        print(f"labkit: {terminal.printable(line)}", file=sys.stderr)

    with _ending_in_order(), reproduced(packed, wanted, executor(as_json), say) as verdict:
        page = _store(verdict, own, Path(name) if is_file else None)
        verdictlines.print_comparison(verdict, as_json=as_json)
        if page is not None and not as_json:
            print(f"page: {os.path.relpath(page)}")
        if verdict.now is None and verdict.exit_status == 1 and wanted.keep is None:
            say("the run that failed is gone; `--keep DIR` keeps it, with its log")
    return verdict.exit_status


def _question(name: str, packed: Capsule, wanted: Wanted) -> str:
    manifest = packed.json("run.json")
    who = " ".join(str(manifest.get(key) or "") for key in ("author", "created")).strip()
    code = sum(path.endswith((".py", ".ipynb")) and not path.startswith(unpack.LABKIT) for path in packed.files)
    packages = "; the packages that it names would be installed, and labkit as it carries it" * wanted.rebuild
    return terminal.printable(
        f"{name} comes from elsewhere ({who or 'unknown'}). Its notebook and modules, {counted(code, 'file')}, would "
        f"be executed with your rights{packages}. Execute them?"
    )


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Lets a signal that asks to end run the ends of what is under way: scratch folders go, and so does what runs."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def executor(quiet: bool) -> Callable[[Job], str]:
    """Returns what executes a prepared run, shows how far it is unless `quiet`, and tells how it ended."""

    def carry_out(prepared: Job) -> str:
        progress = execute.Progress()
        with progress.stops, terminal.live_line(prepared.directory, progress, quiet=quiet):
            ended = execute.execute(prepared, progress)
        if progress.stopping:
            raise SystemExit(130 if progress.stopping == "SIGINT" else 143)
        return ended.state

    return carry_out


def _store(verdict: Comparison, own: RunDir | None, report: Path | None) -> Path | None:
    """Keeps the verdict beside the run, or beside the report's file; returns its page."""
    from labkit.workbench.reproducing import verdictpage

    try:
        if own is not None:
            return reproductions.store(replace(verdict, then=own), own).page
        if report is None:
            return None
        beside = report.with_name(f"{report.stem}.reproduced")
        page = beside.with_name(f"{beside.name}.html")
        write_atomic(page, verdictpage.render(verdict).encode("utf-8", "replace"))
        write_json(beside.with_name(f"{beside.name}.json"), verdict.facts())
        return page
    except (OSError, LabkitError) as error:
        print(f"labkit: the verdict was not stored: {error}", file=sys.stderr)
        return None


def verify(reports: list[Path], wanted: Wanted, *, yes: bool, as_json: bool) -> int:
    """Makes the runs of a lab's reports again, one after the other, and returns the highest exit status.

    Args:
        reports: Their files; all in reports/ where none are given.
        wanted: How to.
        yes: Execute what files of elsewhere carry.
        as_json: Print the verdicts for a program.

    Raises:
        BadInput: There is no report.
    """
    from labkit.record.files import dumps

    found = reports or _pages(lab.root(Path.cwd()) / "reports")
    if not found:
        raise BadInput("there are no reports in reports/; make some with `labkit report`, or name them")
    verdicts, status = {}, 0
    quiet = as_json or not sys.stderr.isatty()
    for path in found:
        name = os.path.relpath(path)
        try:
            packed = unpack.opened(str(path), wanted.runs)
            own = own_run(packed, wanted.runs)
            if own is None and not yes:
                raise BadInput("it is of elsewhere, and nothing of it was executed; --yes executes such reports too")
            with _ending_in_order(), reproduced(packed, wanted, executor(quiet), lambda line: None) as verdict:
                _store(verdict, own, path)
                facts, ended = verdict.facts(), verdict.exit_status
        except LabkitError as error:
            facts, ended = {"verdict": NOT_RUN, "cause": str(error)}, error.exit_status
        verdicts[name], status = facts, max(status, ended)
        if not as_json:
            print(terminal.printable(f"{name}: {facts['verdict']}: {facts['cause']}"), flush=True)
    if as_json:
        sys.stdout.write(dumps(verdicts, pretty=True).decode("utf-8", "replace") + "\n")
    return status


def _pages(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*.html")) if folder.is_dir() else []
    return [path for path in found if path.name != "index.html" and not re.search(r"\.reproduced\.html$", path.name)]
