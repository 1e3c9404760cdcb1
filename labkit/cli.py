"""The command line: each command reads its arguments, calls one function, and prints what came of it."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from labkit import __version__
from labkit.errors import BadInput, LabkitError
from labkit.record import STATES

INTERRUPTED = {"SIGINT": 130}  # any other signal counts as SIGTERM
SIGTERM_STATUS = 143


class _Commands(click.Group):
    """The commands, with labkit's own errors turned into a message and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LabkitError as error:
            from labkit.workbench.terminal import printable

            message = "\n".join(map(printable, str(error).split("\n")))  # it may name what strangers named
            click.echo(f"labkit: {message}", err=True)
            ctx.exit(error.exit_status)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has seen enough
            ctx.exit(0)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED["SIGINT"])

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="labkit")
def main() -> None:
    """Run notebooks as experiments, and find every result again.

    \b
    labkit run notebooks/digits-cnn.ipynb -p EPOCHS=3
    labkit list
    labkit show last
    """


runs_option = click.option(
    "--runs", type=click.Path(path_type=Path), help="The folder of runs; default: runs/ in this lab, or $LABKIT_RUNS."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for a program to read.")
parameters_option = click.option(
    "-p", "--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="Set a parameter; NAME in any case."
)
files_option = click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Set the parameters in a YAML file; -p wins over -f.",
)


timeout_option = click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), help="Stop after this many seconds."
)
grace_option = click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(min=0),
    help="Seconds from a stop to the kill; default: 30, or the lab's setting.",
)
on_option = click.option("--on", "cluster", type=click.Choice(["slurm"]), help="Submit it as a job of this cluster.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Print the batch script that --on would submit.")
report_option = click.option("--report/--no-report", default=True, help="Write the run's report.html; default: yes.")


@main.command()
@click.argument("notebook", type=click.Path(path_type=Path))
@parameters_option
@files_option
@click.option("--kernel", help="The Jupyter kernel; default: the one that the notebook names.")
@timeout_option
@grace_option
@report_option
@click.option("--preflight", is_flag=True, help="First a run with DEBUG=True; the full run only when that finishes.")
@click.option("--strict", is_flag=True, help="Exit with status 1 unless every expectation held.")
@click.option("--detach", is_flag=True, help="Leave it to itself, and return at once: see labkit watch, log -f, stop.")
@on_option
@dry_run_option
@runs_option
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    notebook: Path,
    parameters: tuple[str, ...],
    files: tuple[Path, ...],
    kernel: str | None,
    timeout_s: float | None,
    grace_s: float | None,
    report: bool,
    preflight: bool,
    strict: bool,
    detach: bool,
    cluster: str | None,
    dry_run: bool,
    runs: Path | None,
    as_json: bool,
) -> None:
    """Execute NOTEBOOK and record the run.

    \b
    labkit run notebooks/digits-cnn.ipynb -p EPOCHS=3 -p LEARNING_RATE=1e-3
    labkit run notebooks/digits-cnn.ipynb -f params.yaml --timeout 3600 --preflight
    labkit run notebooks/digits-cnn.ipynb --on slurm --dry-run

    The last line printed is the run's directory. Ctrl-C stops at the next step; a second one at once.
    """
    from labkit.workbench.stops import Stops

    if (dry_run and not cluster) or (cluster and (preflight or strict or detach)):
        raise click.UsageError("--dry-run needs --on slurm, which goes without --preflight, --strict and --detach")
    with Stops() as stops:
        from labkit.record import lab, summary
        from labkit.workbench import job, params
        from labkit.workbench import notebook as notebooks
        from labkit.workbench import preflight as preflights
        from labkit.workbench import resume as resuming

        source = notebooks.read(Path(os.path.abspath(notebook)))
        asked = params.from_command_line(parameters, files)
        more: dict[str, Any] = {"kernel": kernel, "timeout_s": timeout_s, "grace_s": grace_s, "runs": runs}
        more["command"] = ["labkit", *sys.argv[1:]]
        resumed, newest, others = resuming.named(source, asked, lab.runs_folder(source.path.parent, runs))
        if cluster:
            if resumed is not None:
                raise BadInput(f"{resumed.name} would go on, which --on {cluster} cannot: labkit resume does it here")
            return _submit(source, others, more, dry_run, as_json)
        if preflight and resumed is None:
            trial = job.prepare(source, preflights.asked(source, others), labels=(preflights.LABEL,), **more)
            if status := _carry_out(trial, stops, report, as_json, is_last=False):
                click.echo("labkit: the preflight did not finish, so the full run was not started", err=True)
                ctx.exit(status)
            more["preflight"] = trial.directory.name
        if resumed is None:
            if others is not asked:
                click.echo("labkit: no run with these parameters has to go on; a new one begins", err=True)
            prepared = job.prepare(source, others, **more)
        else:
            click.echo(f"labkit: {resumed.name} goes on", err=True)
            only = {name: more[name] for name in ("timeout_s", "grace_s", "command")}
            prepared = resuming.prepare(resumed, checkpoint=newest, trust_silence=newest is None, **only)
        if detach:
            return _leave(prepared, as_json)
        status = _carry_out(prepared, stops, report, as_json)
        ctx.exit(status or int(strict and not summary.all_held(prepared.directory)))


@main.command()
@click.argument("name", metavar="RUN", default="last")
@click.option("--force", is_flag=True, help="Go on although something is not what it was; it is recorded.")
@timeout_option
@grace_option
@report_option
@runs_option
@json_option
@click.pass_context
def resume(
    ctx: click.Context,
    name: str,
    force: bool,
    timeout_s: float | None,
    grace_s: float | None,
    report: bool,
    runs: Path | None,
    as_json: bool,
) -> None:
    """Go on with a RUN that was stopped, from its newest checkpoint.

    \b
    labkit resume last
    labkit resume digits-cnn@last --timeout 3600

    It ends with the same numbers as if it had never been stopped or killed, or failed. Where code, data or versions are
    not what they were, the differences are listed and nothing is started.
    """
    from labkit.workbench.stops import Stops

    with Stops() as stops:
        from labkit.workbench import resume as resuming
        from labkit.workbench import slurm

        directory = _find(name, runs)
        slurm.refuse_waiting(directory)
        prepared = resuming.prepare(
            directory, force=force, timeout_s=timeout_s, grace_s=grace_s, command=["labkit", *sys.argv[1:]]
        )
        ctx.exit(_carry_out(prepared, stops, report, as_json))


def _leave(prepared: Any, as_json: bool) -> None:
    """Hands a prepared run to a supervisor of its own and prints where it is."""
    from labkit.workbench import execute, terminal

    execute.detach(prepared)
    if as_json:
        return terminal.print_json(terminal.facts(prepared.directory))
    name = prepared.directory.name
    click.echo(f"labkit: {name} goes on by itself: labkit watch {name[-6:]}, labkit stop {name[-6:]}", err=True)
    click.echo(prepared.directory.path)


def _submit(source: Any, asked: Any, more: dict[str, Any], dry_run: bool, as_json: bool) -> None:
    """Prepares a run, hands it to the cluster, and prints where it is; of a dry run the script, and nothing is left."""
    from labkit.workbench import job, slurm, terminal

    if more["grace_s"] is None:
        more["grace_s"] = slurm.grace_s(slurm.settings(source.path))
    if dry_run:
        return click.echo(slurm.preview(source, asked, **more), nl=False)
    prepared = job.prepare(source, asked, **more)
    number = slurm.submit(prepared)
    if as_json:
        return terminal.print_json(terminal.facts(prepared.directory))
    name = prepared.directory.name
    click.echo(f"labkit: {name} is job {number}: labkit watch {name[-6:]}, labkit stop {name[-6:]}", err=True)
    click.echo(prepared.directory.path)


def _carry_out(prepared: Any, stops: Any, report: bool, as_json: bool, is_last: bool = True) -> int:
    """Executes a prepared run, prints how it ended, and returns the exit status that says so."""
    from labkit.workbench import execute, notice, terminal

    progress = execute.Progress(stops=stops)
    with terminal.live_line(prepared.directory, progress, quiet=as_json):
        ended = execute.execute(prepared, progress)
    if report:
        _write_report(prepared.directory)
    notice.tell(prepared.directory, ended, Path(prepared.notebook))
    status = exit_status(ended.state, (ended.exit or {}).get("stop"))
    if not as_json:
        terminal.print_end(prepared.directory, ended)
    elif is_last or status:
        terminal.print_json(terminal.facts(prepared.directory))
    return status


def exit_status(state: str, stop: str | None) -> int:
    """Returns the exit status that says how a run ended."""
    if state == "interrupted":
        return INTERRUPTED.get(stop or "", SIGTERM_STATUS)
    return 0 if state == "finished" else 1


def _write_report(directory: Any) -> None:
    """Writes a run's report; a report that fails is said and changes nothing about the run."""
    from labkit.workbench import reports

    try:
        reports.write_of_run(directory)
    except Exception as error:
        click.echo(f"labkit: the report could not be written: {type(error).__name__}: {error}", err=True)


@main.command(name="list")
@click.argument("notebook", required=False)
@click.option("--status", "state", type=click.Choice(STATES), help="Only runs with this status.")
@click.option("-n", "count", type=click.IntRange(min=1), help="At most so many, the newest; 20, or with --all all.")
@click.option("--all", "everything", is_flag=True, help="All of them, scratch runs too.")
@runs_option
@json_option
def list_runs(
    notebook: str | None, state: str | None, count: int, everything: bool, runs: Path | None, as_json: bool
) -> None:
    """List runs, the newest last.

    \b
    labkit list
    labkit list digits-cnn --status finished -n 5
    """
    from labkit.record import lab
    from labkit.workbench import terminal

    folder = lab.runs_folder(Path.cwd(), runs)
    name = None if notebook is None else Path(notebook.removesuffix(".ipynb")).name
    most = count or (None if everything else 20)
    found = terminal.rows(folder, name, state, most, scratch=everything)
    terminal.print_json(found) if as_json else terminal.print_rows(found, folder)


@main.command()
@click.argument("name", metavar="RUN", default="last")
@runs_option
@json_option
def show(name: str, runs: Path | None, as_json: bool) -> None:
    """Show what is known of RUN.

    RUN is a directory, an id or its last characters, `last`, `digits-cnn@last`, or `digits-cnn@best:test_accuracy`
    (`best:-val_loss` for the lowest).

    \b
    labkit show last
    labkit show digits-cnn@best:test_accuracy --json
    """
    from labkit.workbench import terminal

    found = terminal.facts(_find(name, runs))
    terminal.print_json(found) if as_json else terminal.print_facts(found)


@main.command()
@click.argument("name", metavar="RUN", default="last")
@click.option("--to", "tracker", type=click.Choice(["tensorboard", "wandb"]), required=True, help="The tracker.")
@runs_option
def export(name: str, tracker: str, runs: Path | None) -> None:
    """Feed the metrics of RUN, which is over, to a tracker.

    Nothing comes twice, however often it is called. The files are in the run's directory, under trackers/; W&B is
    offline unless $WANDB_API_KEY or $WANDB_MODE says otherwise.

    \b
    labkit export last --to tensorboard
    labkit export digits-cnn@last --to wandb
    """
    from labkit.workbench import trackers

    click.echo(trackers.export(_find(name, runs), tracker))


@main.command()
@click.argument("name", metavar="RUN", default="last")
@runs_option
@click.pass_context
def watch(ctx: click.Context, name: str, runs: Path | None) -> None:
    """Follow RUN, which goes on elsewhere, to its end.

    Ctrl-C leaves it alone.

    \b
    labkit watch last
    """
    from labkit.workbench import terminal, underway

    directory = _find(name, runs)
    ended = underway.watch(directory)
    terminal.print_end(directory, ended)
    ctx.exit(exit_status(ended.state, (ended.exit or {}).get("stop")))


@main.command()
@click.argument("name", metavar="RUN", default="last")
@click.option("--wait/--no-wait", default=True, help="Wait until it is over; default: yes.")
@runs_option
def stop(name: str, wait: bool, runs: Path | None) -> None:
    """Stop RUN, which goes on elsewhere, at its next step.

    As Ctrl-C does where it was started; `labkit resume` goes on with it.

    \b
    labkit stop last
    """
    from labkit.workbench import terminal, underway

    directory = _find(name, runs)
    ended = underway.stop(directory, wait=wait)
    click.echo(terminal.printable(f"{directory.name}: {ended}" if wait else f"{directory.name} was asked to stop"))


@main.command()
@click.argument("name", metavar="RUN", default="last")
@click.option("--grep", help="Only lines that hold this text.")
@click.option(
    "--level",
    type=click.Choice(["debug", "info", "warning", "error", "critical"], case_sensitive=False),
    help="Only logged lines of this level or above.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on while the run does.")
@click.option("--attempt", type=click.IntRange(min=1), help="What this attempt of a resumed run printed, from 1.")
@runs_option
def log(name: str, grep: str | None, level: str | None, follow: bool, attempt: int | None, runs: Path | None) -> None:
    """Print everything that RUN printed.

    Of a resumed run, it is what the newest attempt printed, or the one that --attempt names.

    \b
    labkit log last --level warning
    labkit log last --attempt 1
    labkit log 3f9a1c --grep loss -f
    """
    from labkit.workbench import logview

    for line in logview.lines(_find(name, runs), grep=grep, level=level, follow=follow, attempt=attempt):
        click.echo(line, nl=False)


@main.command()
@click.argument("names", metavar="[RUN|NOTEBOOK]...", nargs=-1)
@parameters_option
@files_option
@click.option(
    "--rerun",
    type=click.Choice(["never", "stale", "always"]),
    default="never",
    show_default=True,
    help="Which notebooks to run again.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The folder for the pages; default: reports/ in this lab."
)
@click.option("--public", is_flag=True, help="For strangers: without the record, host, user and folders.")
@runs_option
@click.pass_context
def report(
    ctx: click.Context,
    names: tuple[str, ...],
    parameters: tuple[str, ...],
    files: tuple[Path, ...],
    rerun: str,
    output: Path | None,
    public: bool,
    runs: Path | None,
) -> None:
    """Write HTML reports of runs or notebooks.

    Without arguments: of every notebook in notebooks/. For a RUN its report.html is written anew. For a NOTEBOOK the
    newest finished run is rendered to reports/, and the notebook is executed only if it has none.

    A report carries the run's record, compressed, which `labkit unpack` writes out; with --public it does not.

    \b
    labkit report
    labkit report last 3f9a1c
    labkit report last --public
    labkit report notebooks/digits-cnn.ipynb -p EPOCHS=3 --rerun stale
    """
    from labkit.workbench import params, reports

    notebooks = [Path(name) for name in names if name.endswith(".ipynb")]
    directories = [_find(name, runs) for name in names if not name.endswith(".ipynb")]
    for directory in directories:
        click.echo(reports.write_of_run(directory, public))
    if notebooks or not names:
        asked = params.from_command_line(parameters, files)
        wanted = reports.Wanted(notebooks, asked, rerun, output, runs, ["labkit", *sys.argv[1:]], public)
        ctx.exit(reports.make(wanted, click.echo))


@main.command()
@click.argument("name", metavar="REPORT|RUN", default="last")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Where to: a new or empty folder.")
@runs_option
def unpack(name: str, output: Path, runs: Path | None) -> None:
    """Write out the record that a REPORT carries, or that of a RUN.

    Notebook, modules, parameters, packages, metrics, the data of figures, small data files. The folder becomes a lab
    of its own, with the record in record/. Nothing there is replaced, and nothing is executed.

    \b
    labkit unpack digits-cnn.html -o digits-again
    """
    from labkit.record import lab
    from labkit.workbench import terminal
    from labkit.workbench import unpack as unpacking

    packed = unpacking.opened(name, lab.runs_folder(Path.cwd(), runs))
    for line in unpacking.told(unpacking.lay_out(packed, output)):
        click.echo(terminal.printable(line))


env_option = click.option(
    "--env",
    "environment",
    type=click.Choice(["current", "rebuild"]),
    default="current",
    show_default=True,
    help="Where to execute: here as it is, or in an environment built from the recorded packages.",
)
data_option = click.option(
    "--data", type=click.Path(path_type=Path, exists=True, file_okay=False), help="A folder to look for data files in."
)
tolerance_option = click.option(
    "--tolerance",
    "tolerances",
    multiple=True,
    metavar="[METRIC=]NUMBER",
    help="How far final values may lie apart: a part of each, as 0.01, or one metric's difference.",
)


@main.command()
@click.argument("name", metavar="REPORT|RUN", default="last")
@env_option
@data_option
@tolerance_option
@click.option("--as-now", is_flag=True, help="Run the notebook as it is in this lab now: why does it differ today?")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the second run, in this new or empty folder.")
@click.option("--yes", is_flag=True, help="Execute what a report of elsewhere carries without asking.")
@runs_option
@json_option
@click.pass_context
def reproduce(
    ctx: click.Context,
    name: str,
    environment: str,
    data: Path | None,
    tolerances: tuple[str, ...],
    as_now: bool,
    keep: Path | None,
    yes: bool,
    runs: Path | None,
    as_json: bool,
) -> None:
    """Make a run again and judge whether it came to the same.

    All that it takes is in the REPORT, or in the RUN's record; by default the last run. The verdict is identical,
    within tolerance, diverged, or could not run; below it stands what was compared, and what the likely cause is.
    Neither git nor the repository is needed.

    \b
    labkit reproduce digits-cnn.html
    labkit reproduce digits-cnn@last --env rebuild
    labkit reproduce digits-cnn@last --as-now
    labkit reproduce digits-cnn.html --data ~/data --tolerance test_accuracy=0.005
    """
    from labkit.record import lab
    from labkit.workbench import again

    folder = lab.runs_folder(Path.cwd(), runs)
    wanted = again.Wanted(as_now, environment == "rebuild", data, again.tolerance(tolerances), folder, keep)

    def ask(question: str) -> bool:
        return sys.stdin.isatty() and click.confirm(question, err=True)

    ctx.exit(again.reproduce(name, wanted, yes=yes, as_json=as_json, ask=ask))


@main.command()
@click.argument("then", metavar="RUN")
@click.argument("now", metavar="[RUN]", default="last")
@tolerance_option
@runs_option
@json_option
def compare(then: str, now: str, tolerances: tuple[str, ...], runs: Path | None, as_json: bool) -> None:
    """Say why two runs did not come to the same.

    What is so in the first is so "then", in the second, by default the last run, "here". Exit status: 0 whatever is
    found.

    \b
    labkit compare 3f9a1c last
    labkit compare digits-cnn@best:test_accuracy digits-cnn@last --json
    """
    from labkit.record import metrics
    from labkit.workbench import again, terminal, verdictlines
    from labkit.workbench import compare as comparing

    tolerance = again.tolerance(tolerances)
    old, new = _find(then, runs), _find(now, runs)
    if old.path == new.path:
        raise BadInput(f"{then} and {now} are the same run, {old.name}; name another one to compare it with")
    again.require_results(tolerance, metrics.read(old.metrics).summary())
    found = comparing.compare(old, new, tolerance=tolerance)
    if not as_json:
        click.echo(f"then  {terminal.printable(old.name)}\nhere  {terminal.printable(new.name)}")
    verdictlines.print_comparison(found, as_json=as_json)


@main.command()
@click.argument("notebook", type=click.Path(path_type=Path))
@click.option("--seeds", type=click.IntRange(min=2), required=True, help="How many, from RANDOM_SEED on.")
@click.option(
    "--repeats", type=click.IntRange(min=0), default=1, show_default=True, help="More runs of the first seed."
)
@parameters_option
@files_option
@runs_option
@json_option
def repeat(
    notebook: Path,
    seeds: int,
    repeats: int,
    parameters: tuple[str, ...],
    files: tuple[Path, ...],
    runs: Path | None,
    as_json: bool,
) -> None:
    """Run NOTEBOOK with several seeds: how far do its results spread?

    The report then states them as mean ± spread, and `labkit reproduce` takes the spread for its tolerance where the
    hardware is another and equal bits cannot be expected.

    \b
    labkit repeat notebooks/digits-cnn.ipynb --seeds 5
    """
    from labkit.workbench import again, params, reports, terminal
    from labkit.workbench import repeat as repeating

    asked = params.from_command_line(parameters, files)
    wanted = repeating.Wanted(notebook, seeds, repeats, asked, runs, ["labkit", *sys.argv[1:]])
    found, made = repeating.repeat(wanted, again.executor(quiet=True), lambda line: click.echo(line, err=True))
    for run in made:
        reports.write_of_run(run)
    if as_json:
        terminal.print_json(found.facts())
    else:
        for line in repeating.lines(found):
            click.echo(terminal.printable(line))


@main.command()
@click.argument("notebook", type=click.Path(path_type=Path), required=False)
@click.option(
    "-p", "--parameter", "parameters", multiple=True, metavar="NAME=V1,V2", help="Values, or a range as 1..5, of NAME."
)
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Parameters in a YAML file, whose lists are swept; -p wins over -f.",
)
@click.option("--zip", "zipped", is_flag=True, help="Take first values together, then second ones, not each with each.")
@click.option("--continue", "name", metavar="SWEEP", help="Go on with this sweep; `last` for the newest.")
@click.option("--retry-failed", is_flag=True, help="With --continue: points that did not finish are tried again.")
@click.option("--jobs", type=click.IntRange(min=1, max=1024), help="How many runs at once.")
@click.option("--gpus", metavar="free|N|0,2|none", help="GPUs, one a run; default: all free ones, where there are any.")
@click.option("--wait", is_flag=True, help="Wait for GPUs that are in use.")
@click.option("--minimize", metavar="METRIC", help="The lowest is best.")
@click.option("--maximize", metavar="METRIC", help="The highest is best.")
@click.option("--kernel", help="The Jupyter kernel; default: the one that the notebook names.")
@timeout_option
@grace_option
@click.option("--report/--no-report", default=True, help="Write the report.html of each run; default: yes.")
@runs_option
@json_option
@click.pass_context
def sweep(
    ctx: click.Context,
    notebook: Path | None,
    parameters: tuple[str, ...],
    files: tuple[Path, ...],
    zipped: bool,
    name: str | None,
    retry_failed: bool,
    jobs: int | None,
    gpus: str | None,
    wait: bool,
    minimize: str | None,
    maximize: str | None,
    kernel: str | None,
    timeout_s: float | None,
    grace_s: float | None,
    report: bool,
    runs: Path | None,
    as_json: bool,
) -> None:
    """Run NOTEBOOK once for each combination of parameters.

    \b
    labkit sweep notebooks/digits-cnn.ipynb -p LEARNING_RATE=0.1,0.01 -p RANDOM_SEED=1..5
    labkit sweep notebooks/digits-cnn.ipynb -f sweep.yaml --jobs 4 --minimize val_loss
    labkit sweep --continue last

    Several runs go on at a time. The same command goes on with a sweep that was stopped or killed. Ctrl-C stops its
    runs at their next step; a second one at once. Exit status: 0 every run finished, 1 some did not.
    """
    from labkit.workbench.stops import Stops

    if (notebook is None) == (name is None):
        raise click.UsageError("name a NOTEBOOK, or a sweep with --continue")
    if name is not None and (parameters or files or zipped or minimize or maximize or kernel or timeout_s or grace_s):
        raise click.UsageError("--continue goes on with the points and settings that the sweep has")
    if retry_failed and name is None:
        raise click.UsageError("--retry-failed says what --continue does")
    if minimize and maximize:
        raise click.UsageError("either --minimize or --maximize")
    with Stops() as stops:
        from labkit.workbench import notebook as notebooks
        from labkit.workbench import points, slots, sweeping

        command = ["labkit", *sys.argv[1:]]
        source = notebooks.read(Path(os.path.abspath(notebook))) if notebook else None
        wanted = points.points(source, parameters, files, zipped=zipped) if source else []
        lowest = True if minimize else False if maximize else None
        settings = sweeping.Settings(kernel, timeout_s, grace_s, minimize or maximize, lowest, report)
        with slots.slots(jobs, gpus, wait=wait) as room:
            if source is None:
                opened = sweeping.reopen(str(name), runs)
            else:
                opened = sweeping.begin(source, wanted, settings, runs, command)
            found, stopping = sweeping.work(
                opened, room, stops, quiet=as_json, retry_failed=retry_failed, command=command
            )
        ctx.exit(sweeping.tell(opened, found, stopping, as_json=as_json))


@main.command()
@click.argument(
    "reports", metavar="[REPORT]...", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@env_option
@data_option
@tolerance_option
@click.option("--yes", is_flag=True, help="Execute what reports of elsewhere carry, too.")
@runs_option
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    reports: tuple[Path, ...],
    environment: str,
    data: Path | None,
    tolerances: tuple[str, ...],
    yes: bool,
    runs: Path | None,
    as_json: bool,
) -> None:
    """Make the runs of all reports of this lab again.

    Exit status, for a nightly job: 0 each came to the same, 1 one diverged or failed, 2 one could not be made. A report
    whose run is not in this lab is of elsewhere, and is executed with --yes only.

    \b
    labkit verify
    labkit verify reports/digits-cnn.html --json
    """
    from labkit.record import lab
    from labkit.workbench import again

    folder = lab.runs_folder(Path.cwd(), runs)
    wanted = again.Wanted(False, environment == "rebuild", data, again.tolerance(tolerances), folder)
    ctx.exit(again.verify(list(reports), wanted, yes=yes, as_json=as_json))


@main.command()
@click.argument("names", metavar="[NOTEBOOK|FOLDER]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--fix", is_flag=True, help="Mend ids, the order of keys, and what a run has left; never a source.")
@json_option
@click.pass_context
def check(ctx: click.Context, names: tuple[Path, ...], fix: bool, as_json: bool) -> None:
    """Check the structure of notebooks, and what git would store.

    Without arguments: all of notebooks/ and templates/. Outputs count only where git would store them.

    \b
    labkit check
    labkit check notebooks/digits-cnn.ipynb --fix
    """
    from labkit.workbench import check as checking
    from labkit.workbench import terminal

    found = list(checking.check(names, fix=fix))
    if as_json:
        terminal.print_json(checking.facts(found))
    else:
        click.echo("\n".join(map(terminal.printable, checking.told(found))))
    ctx.exit(int(any(one.problems for one in found)))


@main.command()
@click.argument("notebook", type=click.Path(path_type=Path))
@click.option("--dry-run", "dry", is_flag=True, help="Say what would be done, and write nothing.")
@click.option("--force", is_flag=True, help="Also where git could not bring back what is there now.")
def adopt(notebook: Path, dry: bool, force: bool) -> None:
    """Put labkit's structure into NOTEBOOK.

    That is headings of the sections, the tag of the parameters, the start of the run, and ids. Its code cells stay as
    they are, in their order.

    \b
    labkit adopt notebooks/old.ipynb --dry-run
    """
    from labkit.workbench import adopt as adopting
    from labkit.workbench.terminal import printable

    made = adopting.adopt(notebook, force=force, dry=dry)
    for line in made.done or ["nothing to do: it has labkit's structure"]:
        click.echo(printable(line))
    for line in made.undecided:
        click.echo(printable(f"left to you: {line}"))
    name = shlex.quote(str(notebook))
    click.echo(f"nothing was written; next: labkit adopt {name}" if dry else f"next: labkit check {name}", err=True)


@main.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Make a new lab in DIR.

    It has an environment, a Makefile, templates, one notebook, a test and CI. DIR is new or empty. The lock names what
    is installed here, labkit from where it came from; its wheel comes along.

    \b
    labkit init my-lab && cd my-lab && make report
    """
    from labkit.workbench import newlab

    made = newlab.init(folder)
    click.echo(made.path)
    click.echo(f"its first notebook is {os.path.relpath(made.notebook, made.path)}; {made.git}", err=True)
    click.echo(f"next: cd {shlex.quote(os.path.relpath(made.path))} && make setup report", err=True)


@main.command()
@click.argument("name", required=False)
@click.option("-t", "--template", default="experiment", show_default=True, help="The template to begin with.")
@click.option("--list", "listed", is_flag=True, help="List the templates, and write nothing.")
def new(name: str | None, template: str, listed: bool) -> None:
    """Write a new notebook, notebooks/NAME.ipynb, from a template.

    NAME is what is tried, in words: the title and the file name are made of it. Nothing is overwritten.

    \b
    labkit new "Does dropout help?"
    labkit new --list
    """
    from labkit.record import lab
    from labkit.workbench import template as making

    root = lab.root(Path.cwd())
    if listed:
        for known, where in making.templates(root).items():
            click.echo(f"{known:<24} {os.path.relpath(where)}")
        return
    if not name:
        raise click.UsageError('say what is tried: labkit new "Does dropout help?"')
    path = os.path.relpath(making.new(name, template, root))
    click.echo(path)
    click.echo(f"next: write its goal in JupyterLab; labkit run {shlex.quote(path)} -p DEBUG=true", err=True)


@main.command()
@click.option("--scratch", is_flag=True, help="Runs by hand that are over.")
@click.option("--yes", is_flag=True, help="Remove them; without it they are only shown.")
@runs_option
@click.pass_context
def prune(ctx: click.Context, scratch: bool, yes: bool, runs: Path | None) -> None:
    """Show runs that nobody needs any more, or remove them.

    Nothing is removed without --yes.

    \b
    labkit prune --scratch
    labkit prune --scratch --yes
    """
    from labkit.record import lab
    from labkit.workbench import prune as pruning
    from labkit.workbench import terminal

    if not scratch:
        raise click.UsageError("say what to prune: --scratch")
    found = pruning.scratch_runs(lab.runs_folder(Path.cwd(), runs))
    ctx.exit(terminal.print_pruned(found, pruning.remove(found) if yes else None))


@main.command()
@click.option("--remove", is_flag=True, help="Take git's settings out again.")
def setup(remove: bool) -> None:
    """Teach git about notebooks, and print the line for the PATH.

    Git in this clone then stores notebooks without outputs (the files keep theirs), and diffs and merges them cell by
    cell.

    \b
    eval "$(labkit setup)"
    labkit setup --remove
    """
    from labkit.errors import GitProblem
    from labkit.workbench import gitsetup

    try:
        said = (gitsetup.remove if remove else gitsetup.install)(Path.cwd())
    except GitProblem as error:
        said = [f"git's settings are as they were: {error}"]
    for text in said:
        click.echo(f"labkit: {text}", err=True)
    if not remove:
        click.echo(gitsetup.path_line())


@main.command()
@click.argument("base", default="main")
@click.option("--web", is_flag=True, help="Side by side in the browser, on this machine's loopback.")
@click.option("--all", "everything", is_flag=True, help="Tags, ids, attachments and other metadata too.")
def diff(base: str, web: bool, everything: bool) -> None:
    """Show what changed in notebooks since this branch left BASE.

    Uncommitted changes count too.

    \b
    labkit diff
    labkit diff dev --all
    """
    from labkit.workbench import gitdiff

    found = gitdiff.changed(Path.cwd(), gitdiff.start(Path.cwd(), base))
    if web and found:
        gitdiff.in_browser(found)
        return
    shown = [gitdiff.as_text(one, everything=everything, colour=sys.stdout.isatty()) for one in found]
    click.echo("".join(shown).rstrip("\n") or gitdiff.nothing(found, base))


@main.command()
@click.argument("notebooks", metavar="[NOTEBOOK]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--ours", "take", flag_value="ours", help="Take our side wherever both changed something.")
@click.option("--theirs", "take", flag_value="theirs", help="Take the other side there.")
@click.option("--both", "take", flag_value="both", help="Take both, one after the other, where that is possible.")
@click.option("--anew", is_flag=True, help="Start from git's versions again, whatever the file holds by now.")
@click.pass_context
def merge(ctx: click.Context, notebooks: tuple[Path, ...], take: Any, anew: bool) -> None:
    """Lead through notebooks that git could not merge.

    It asks what nobody else can decide. Exit status: 0 all is settled and added, 1 something is left, 2 bad input.

    \b
    labkit merge
    labkit merge notebooks/digits-cnn.ipynb --theirs
    """
    from labkit.workbench import asking

    ctx.exit(asking.lead(Path.cwd(), notebooks, take, anew=anew))


@main.group()
def kernels() -> None:
    """Jupyter kernels of this environment that start warm.

    There is one for each GPU, and one for the CPU.

    \b
    labkit kernels install
    """


@kernels.command(name="install")
def install_kernels() -> None:
    """Install them, for JupyterLab, papermill and nbconvert alike."""
    from labkit.workbench import kernels as known

    for kernel in known.install():
        click.echo(f"{kernel.name}: {kernel.shown}")


@kernels.command(name="list")
def list_kernels() -> None:
    """List those that Jupyter finds, and the servers that keep them warm."""
    from labkit.launch import warm
    from labkit.workbench import kernels as known
    from labkit.workbench import terminal

    for name, shown, python in known.installed():
        click.echo(terminal.printable(f"{name}: {shown}, {python}"))
    count = len(warm.servers())
    click.echo(f"{count or 'no'} server{'' if count == 1 else 's'} of warm kernels")


@kernels.command(name="remove")
def remove_kernels() -> None:
    """Remove them, and end the servers that keep them warm."""
    from labkit.workbench import kernels as known

    click.echo(f"removed: {', '.join(known.remove()) or 'none'}")


@main.command(name="doctor")
@json_option
@click.pass_context
def examine(ctx: click.Context, as_json: bool) -> None:
    """Check this environment and say what is off.

    Shown are versions, hardware, settings of determinism, and differences from the lock.

    \b
    labkit doctor
    labkit doctor --json
    """
    from labkit.workbench import doctor, terminal

    found = doctor.examine(Path.cwd())
    if as_json:
        terminal.print_json(found)
    else:
        for line in doctor.lines(found):
            click.secho(terminal.printable(line), fg="red" if line.startswith("✗") else None)
    ctx.exit(doctor.status(found))


def _find(name: str, runs: Path | None) -> Any:
    from labkit.record import find, lab

    return find.find(name, lab.runs_folder(Path.cwd(), runs))


if __name__ == "__main__":
    main()
