"""Runs: start one, go on with one, follow one, stop one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from labkit.cli.options import (
    dry_run_option,
    files_option,
    find_run,
    find_run_or_sweep,
    grace_option,
    json_option,
    on_option,
    parameters_option,
    report_option,
    runs_option,
    timeout_option,
)
from labkit.errors import BadInput

INTERRUPTED = {"SIGINT": 130}  # any other signal counts as SIGTERM
SIGTERM_STATUS = 143


@click.command()
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
    from labkit.workbench.running.stops import Stops

    if dry_run and not cluster:
        raise click.UsageError("--dry-run needs --on slurm")
    if cluster and detach:
        raise BadInput(f"--detach says nothing with --on {cluster}: a job goes on by itself; leave it out")
    with Stops() as stops:
        from labkit.record import lab, summary
        from labkit.workbench.notebooks import notebook as notebooks
        from labkit.workbench.notebooks import params
        from labkit.workbench.running import job
        from labkit.workbench.running import preflight as preflights
        from labkit.workbench.running import resume as resuming
        from labkit.workbench.slurm import slurm

        source = notebooks.read(Path(os.path.abspath(notebook)))
        asked = params.from_command_line(parameters, files)
        more: dict[str, Any] = {"kernel": kernel, "timeout_s": timeout_s, "grace_s": grace_s, "runs": runs}
        more["command"] = ["labkit", *sys.argv[1:]]
        resumed, newest, others = resuming.named(source, asked, lab.runs_folder(source.path.parent, runs))
        if cluster:
            extras = slurm.Extras(report, strict)
            more["grace"] = more.pop("grace_s")
            if resumed is not None and dry_run:
                raise BadInput(f"{resumed.name} would go on, as RESUME says; --dry-run shows the script of a new run")
            if resumed is not None:
                only = {name: more[name] for name in ("timeout_s", "grace", "command")}
                goes_on = slurm.resume(resumed, checkpoint=newest, trust_silence=newest is None, **only)
                return _submit(goes_on, extras, as_json)
            more["preflight"] = preflight
            if dry_run:
                return click.echo(slurm.preview(source, others, extras, **more), nl=False)
            return _submit(*slurm.prepare(source, others, extras, **more), as_json)
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


@click.command()
@click.argument("name", metavar="RUN", default="last")
@click.option("--force", is_flag=True, help="Go on although something is not what it was; it is recorded.")
@timeout_option
@grace_option
@report_option
@on_option
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
    cluster: str | None,
    runs: Path | None,
    as_json: bool,
) -> None:
    """Go on with a RUN that was stopped, from its newest checkpoint.

    \b
    labkit resume last
    labkit resume digits-cnn@last --timeout 3600
    labkit resume last --on slurm

    It ends with the same numbers as if it had never been stopped or killed, or failed. Where code, data or versions are
    not what they were, the differences are listed and nothing is started.
    """
    from labkit.workbench.running.stops import Stops

    with Stops() as stops:
        from labkit.workbench.running import resume as resuming
        from labkit.workbench.slurm import slurm, slurmqueue

        directory = find_run(name, runs)
        more: dict[str, Any] = {"force": force, "timeout_s": timeout_s, "command": ["labkit", *sys.argv[1:]]}
        if cluster:
            prepared = slurm.resume(directory, grace=grace_s, **more)
            return _submit(prepared, slurm.Extras(report, force=force), as_json)
        slurmqueue.refuse_waiting(directory)
        prepared = resuming.prepare(directory, grace_s=grace_s, **more)
        ctx.exit(_carry_out(prepared, stops, report, as_json))


@click.command()
@click.argument("name", metavar="RUN|SWEEP", default="last")
@runs_option
@click.pass_context
def watch(ctx: click.Context, name: str, runs: Path | None) -> None:
    """Follow RUN or SWEEP, which goes on elsewhere, to its end.

    Ctrl-C leaves it alone.

    \b
    labkit watch last
    labkit watch sweeps/last
    """
    from labkit.record.sweepdir import SweepDir
    from labkit.workbench import terminal
    from labkit.workbench.running import underway
    from labkit.workbench.sweeps import apart

    directory = find_run_or_sweep(name, runs)
    if isinstance(directory, SweepDir):
        ctx.exit(apart.tell(directory, apart.watch(directory)))
    ended = underway.watch(directory)
    terminal.print_end(directory, ended)
    ctx.exit(exit_status(ended.state, (ended.exit or {}).get("stop")))


@click.command()
@click.argument("name", metavar="RUN|SWEEP", default="last")
@click.option("--wait/--no-wait", default=True, help="Wait until it is over; default: yes.")
@runs_option
def stop(name: str, wait: bool, runs: Path | None) -> None:
    """Stop RUN or SWEEP, which goes on elsewhere, at its next step.

    As Ctrl-C does where it was started; `labkit resume RUN`, or `labkit sweep --continue SWEEP`, goes on with it.

    \b
    labkit stop last
    labkit stop sweeps/last
    """
    from labkit.record.files import read_json
    from labkit.record.sweepdir import SweepDir
    from labkit.workbench import terminal
    from labkit.workbench.running import underway
    from labkit.workbench.sweeps import apart

    directory = find_run_or_sweep(name, runs)
    if isinstance(directory, SweepDir):
        head = apart.stop(directory, wait=wait)["head"]
        return click.echo(f"{directory.name} was stopped: {head}" if wait else f"{directory.name} was asked to stop")
    ended = underway.stop(directory, wait=wait)
    click.echo(terminal.printable(f"{directory.name}: {ended}" if wait else f"{directory.name} was asked to stop"))
    if (sweep := (read_json(directory.manifest) or {}).get("sweep")) is not None:
        click.echo(terminal.printable(f"it is a point of sweeps/{sweep}, which goes on without it"), err=True)


def _leave(prepared: Any, as_json: bool) -> None:
    """Hands a prepared run to a supervisor of its own and prints where it is."""
    from labkit.workbench import terminal
    from labkit.workbench.running import execute

    execute.detach(prepared)
    if as_json:
        return terminal.print_json(terminal.facts(prepared.directory))
    name = prepared.directory.name
    click.echo(f"labkit: {name} goes on by itself: labkit watch {name[-6:]}, labkit stop {name[-6:]}", err=True)
    click.echo(prepared.directory.path)


def _submit(prepared: Any, extras: Any, as_json: bool) -> None:
    """Hands a prepared run to the cluster and prints where it is."""
    from labkit.workbench import terminal
    from labkit.workbench.slurm import slurm

    number = slurm.submit(prepared, extras)
    if as_json:
        return terminal.print_json(terminal.facts(prepared.directory))
    name = prepared.directory.name
    click.echo(f"labkit: {name} is job {number}: labkit watch {name[-6:]}, labkit stop {name[-6:]}", err=True)
    click.echo(prepared.directory.path)


def _carry_out(prepared: Any, stops: Any, report: bool, as_json: bool, is_last: bool = True) -> int:
    """Executes a prepared run, prints how it ended, and returns the exit status that says so."""
    from labkit.workbench import terminal
    from labkit.workbench.running import execute, notice

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
    from labkit.workbench.pages import reports

    try:
        reports.write_of_run(directory)
    except Exception as error:
        click.echo(f"labkit: the report could not be written: {type(error).__name__}: {error}", err=True)
