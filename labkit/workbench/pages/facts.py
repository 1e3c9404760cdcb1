"""What the first screen of a report says about its run, read from whatever of the record is there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from labkit.errors import FolderProblem
from labkit.record import attempts, claims, counts, spread
from labkit.record import metrics as recorded_metrics
from labkit.record.claims import Claim
from labkit.record.expectations import Verdict
from labkit.record.files import read_json
from labkit.record.rundir import RunDir
from labkit.record.spread import Spread
from labkit.record.status import status
from labkit.record.summary import kept_verdicts
from labkit.record.text import counted
from labkit.workbench.reproducing import reproductions
from labkit.workbench.running import trackers
from labkit.workbench.wording import date, detail, duration, mean_and_spread, number, short

STATES = {  # state: how grave it is, and how a reader is told
    "finished": ("good", "finished"),
    "failed": ("bad", "This run failed."),
    "killed": ("bad", "This run was killed."),
    "timeout": ("bad", "This run reached its time limit."),
    "interrupted": ("warn", "This run was interrupted."),
    "unknown": ("warn", "What became of this run is not known."),
    "running": ("info", "This run had not ended when this page was made."),
    "queued": ("info", "This run had not started when this page was made."),
}
LABELS = {
    "debug": "Debug run: small data and few steps, no result.",
    "stand-in": "Stand-in data: the numbers say nothing about the real data.",
    "explored": "Explored by hand: cells ran out of order or were changed; a clean run may give another result.",
}
MAIN_NUMBERS = 4
NAMES = {  # of the environment check, where they are not words
    "python": "Python", "torch": "PyTorch", "cuda": "CUDA", "cuda_usable": "CUDA usable", "blas": "BLAS", "cpu": "CPU",
    "gpus": "GPUs", "isa": "CPU instructions", "memory_gib": "memory, GiB", "hash_seed": "PYTHONHASHSEED",
    "cublas_workspace": "CUBLAS workspace",
}  # fmt: skip


@dataclass(frozen=True)
class Band:
    """A line across the top of the page: `bad`, `warn` or `info`, and what there is to say.

    One says what became of the run; where that was in a cell, it leads there.
    """

    grade: str
    text: str
    is_state: bool = False


@dataclass(frozen=True)
class Metric:
    """One metric: its last, lowest and highest value as text, and its course.

    Where the run was repeated with other seeds, `spread` says what they came to.
    """

    name: str
    last: str
    lowest: str
    highest: str
    count: int
    values: Sequence[float] = ()
    spread: str = ""


@dataclass(frozen=True)
class Parameter:
    """One parameter as text, and whether it was given for this run."""

    name: str
    value: str
    given: bool


@dataclass
class Facts:
    """What is known of one run; empty where nothing is.

    Attributes:
        title: The experiment's name.
        state: One of the states of a run; empty for a notebook without one.
        failed_cell: The place of the cell that ended the run, from 1; 0 where none is recorded.
        labels: Why the run is no result: `debug`, `stand-in`, `explored`.
        bands: What a reader must know before any number.
        metrics: All metrics, the main ones first.
        parameters: In the notebook's order.
        about: Names and values of the summary: author, date, hardware.
        details: Names and values of the environment, for the end of the page.
        verdicts: What became of what was expected and concluded.
        problems: Parts of the record that could not be read.
        stale: What has changed since the run.
    """

    title: str = ""
    state: str = ""
    failed_cell: int = 0
    labels: list[str] = field(default_factory=list)
    bands: list[Band] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    parameters: list[Parameter] = field(default_factory=list)
    about: list[tuple[str, str]] = field(default_factory=list)
    details: list[tuple[str, str]] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)

    @property
    def main(self) -> list[Metric]:
        """The numbers that stand for the result: of the test, else of the validation, else any."""
        names = recorded_metrics.main(metric.name for metric in self.metrics)
        return [metric for metric in self.metrics if metric.name in names][:MAIN_NUMBERS]


def facts_of(run: RunDir, stale: Iterable[str] = ()) -> Facts:
    """Returns what there is to say about a run; what cannot be read is named, never raised."""
    facts = Facts()
    try:
        manifest = run.read_manifest()
    except FolderProblem as error:
        manifest = {}
        facts.problems.append(f"run.json: {str(error).removeprefix(str(run.path)).strip('/ ')}")
    ended = _dict(read_json(inside(run, run.exit)))
    environment = _dict(read_json(inside(run, run.environment)))
    found = status(run)
    written = counts.read(run, is_over=found.is_over)
    facts.title = short(manifest.get("title")) or short(manifest.get("name")) or run.path.parent.name
    facts.state = found.state
    failed_cell = _dict(ended.get("error")).get("cell")
    facts.failed_cell = failed_cell if isinstance(failed_cell, int) else 0
    facts.labels = _labels(manifest)
    facts.metrics, torn = _metrics(run)
    facts.parameters = _parameters(manifest)
    facts.verdicts = [_readable(one) for one in kept_verdicts(run, manifest)]
    facts.stale = [short(reason) for reason in stale]
    facts.bands = [
        *_state_bands(found.state, found.reason, ended),
        *(Band("warn", _label_text(label, manifest)) for label in facts.labels),
        *_source_bands(run, environment),
        *_lost_bands(written, torn),
        *_stale_bands(facts.stale),
    ]
    facts.bands.sort(key=lambda band: band.grade != "bad")
    facts.about = _about(run, manifest, ended, environment, found.duration_s)
    facts.details = _details(environment)
    if not ended and found.state not in {"running", "queued"}:
        facts.problems.append("how the run ended was not recorded (attempts/*/exit.json)")
    if not environment:
        facts.problems.append("environment.json is missing or unreadable")
    return facts


def inside(run: RunDir, path: Path) -> Path:
    """Returns `path`, or a path that does not exist where a link leads it out of the run."""
    try:
        if path.resolve().is_relative_to(run.path.resolve()) and not path.is_symlink():
            return path
    except (OSError, RuntimeError):
        pass
    return run.path / "leads out of the run" / "nothing"


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _metrics(run: RunDir) -> tuple[list[Metric], int]:
    read = recorded_metrics.read(inside(run, run.metrics))
    found, seeds = [], spread.read(run) if inside(run, run.path / spread.NAME).name == spread.NAME else None
    for name, column in read.columns.items():
        is_finite = math.isfinite(sum(column.values))  # quick where there is neither NaN nor infinity
        finite = column.values if is_finite else [value for value in column.values if math.isfinite(value)]
        low, high = (min(finite), max(finite)) if finite else (None, None)
        last = column.values[-1] if column.values else None
        of_seeds = _over_seeds(seeds, name)
        texts = (number(last), number(low), number(high))
        found.append(Metric(short(name), *texts, len(column.values), column.values, of_seeds))
    rank = {"test": 0, "val": 1}
    found.sort(key=lambda metric: rank.get(metric.name.lower().partition("_")[0], 2))
    return found, read.torn


def _over_seeds(found: Spread | None, metric: str) -> str:
    """Returns what a metric came to over several seeds, as `0.9903 ± 0.0021 over 5 seeds`."""
    if found is None or metric not in found.metrics:
        return ""
    facts = found.metrics[metric]
    return f"{mean_and_spread(facts['mean'], facts.get('std'))} over {counted(len(found.seeds), 'seed')}"


def _parameters(manifest: dict[str, Any]) -> list[Parameter]:
    given = _dict(manifest.get("given"))
    return [
        Parameter(short(name), short(value if isinstance(value, str) else repr(value)), name in given)
        for name, value in _dict(manifest.get("parameters")).items()
    ]


def _state_bands(state: str, reason: str, ended: dict[str, Any]) -> list[Band]:
    grade, sentence = STATES.get(state, ("warn", f"State: {short(state)}."))
    if grade == "good":
        return [Band("bad", f"{reason[:1].upper()}{short(reason[1:])}.", is_state=True)] if reason else []
    error = _dict(ended.get("error"))
    why = short(reason) or (f"{short(error.get('ename'))}: {short(error.get('evalue'))}" if error else "")
    return [Band(grade, f"{sentence} {why[:1].upper()}{why[1:]}".strip(), is_state=True)]


def _labels(manifest: dict[str, Any]) -> list[str]:
    labels = manifest.get("labels")
    found = [label for label in labels if isinstance(label, str)] if isinstance(labels, list) else []
    if _dict(manifest.get("parameters")).get("DEBUG") is True and "debug" not in found:
        found.insert(0, "debug")
    return [label for label in dict.fromkeys(found) if label in LABELS]


def _label_text(label: str, manifest: dict[str, Any]) -> str:
    why = short(manifest.get("explored")) if label == "explored" else ""
    return f"{LABELS[label]} ({why})" if why else LABELS[label]


def _readable(one: Verdict) -> Verdict:
    """Returns a verdict with texts of a length for a page, the value and the reason in one of them."""
    parts = [f"it was {number(one.value)}" if one.value is not None else "", short(one.reason)]
    parts += [f"{short(name)} {number(value)}" for name, value in list(_dict(one.evidence).items())[:8]]
    parts.append("stated after the first metric" if one.late else "")
    return Verdict(short(one.text), short(one.condition), one.verdict, None, "; ".join(filter(None, parts)))


def _git(run: RunDir, environment: dict[str, Any]) -> dict[str, Any]:
    return _dict(read_json(inside(run, run.source / "git.json"))) or _dict(environment.get("git"))


def _source_bands(run: RunDir, environment: dict[str, Any]) -> list[Band]:
    if _git(run, environment).get("dirty") is True:
        return [Band("warn", "The source had changes that were not committed; the run keeps them as a patch.")]
    return []


def _lost_bands(written: dict[str, Any], torn: int) -> list[Band]:
    lost = []
    for part, what in (
        ("metrics", "metric record"),
        ("log", "printed byte"),
        ("figures", "figure"),
        ("statements", "statement"),
        ("checkpoints", "checkpoint"),
        ("notebook", "saved notebook"),
    ):
        for kind, happened in (("refused", "not accepted"), ("lost", "lost")):
            count = _dict(written.get(part)).get(kind)
            if isinstance(count, int) and count > 0:
                lost.append(f"{counted(count, what)} {'was' if count == 1 else 'were'} {happened}")
    if torn:
        lost.append(f"{counted(torn, 'line')} of metrics could not be read")
    return [Band("bad", f"Data are incomplete: {'; '.join(lost)}.")] if lost else []


def _stale_bands(reasons: list[str]) -> list[Band]:
    if not reasons:
        return []
    return [Band("warn", f"Stale: since this run, {'; '.join(reasons[:8])}{'; …' if len(reasons) > 8 else ''}.")]


def _about(
    run: RunDir, manifest: dict[str, Any], ended: dict[str, Any], environment: dict[str, Any], seconds: float | None
) -> list[tuple[str, str]]:
    git = _git(run, environment)
    commit = short(git.get("commit"))[:12]
    if commit and git.get("dirty") is True:
        commit += " with uncommitted changes"
    rows = [
        ("Author", short(manifest.get("author")) or short(manifest.get("user"))),
        ("Date", date(manifest.get("created")) if manifest.get("created") else ""),
        ("Duration", duration(ended.get("duration_s", seconds))),
        ("Attempts", str(attempts.of_run(run))),
        ("Hardware", _hardware(environment)),
        ("PyTorch", short(environment.get("torch"))),
        ("Commit", commit),
        ("Trackers", _trackers(run, manifest)),
        ("Claim", _claim(claims.kept(run, manifest))),
        ("Reproduced", _reproduced(run)),
        ("Notebook", short(manifest.get("notebook"))),
        ("Run", run.name),
        (
            "Sweep",
            short(f"point {manifest.get('point')} of sweeps/{sweep}") if (sweep := manifest.get("sweep")) else "",
        ),
    ]
    return [(name, value) for name, value in rows if value]


def _trackers(run: RunDir, manifest: dict[str, Any]) -> str:
    """Returns what became of each tracker that was asked for or fed."""
    found = {name: read_json(inside(run, trackers.outcome_file(run, name))) for name in trackers.KNOWN}
    said = {name: one for name, one in found.items() if one is not None}
    return "; ".join(map(short, trackers.told(said, trackers.asked(_dict(manifest.get("parameters"))))))


def _claim(claim: Claim | None) -> str:
    """Returns how far the run gives the same numbers again, and a line for each reason why not further."""
    if claim is None:
        return ""
    lines = [short(str(reason)) for reason in claim.reasons] or [claims.PROMISE]
    said = Markup("").join(Markup('<span class="why">{}</span>').format(line) for line in lines)
    return Markup('<strong class="{0}">{0}</strong> {1}').format(claim.label, said)


def _reproduced(run: RunDir) -> str:
    """Returns what came of the last time that the run was made again."""
    found = reproductions.latest(run)
    return short(str(found)) if found is not None else ""


def _hardware(environment: dict[str, Any]) -> str:
    gpus = environment.get("gpus")
    names = [short(_dict(gpu).get("name")) for gpu in gpus] if isinstance(gpus, list) else []
    if names:
        return ", ".join(
            f"{names.count(name)} × {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)
        )
    cores = environment.get("cores")
    cpu = short(environment.get("cpu"))
    return f"{cpu}, {counted(cores, 'core')}" if cpu and isinstance(cores, int) else cpu


def _details(environment: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for key, value in environment.items():
        if key == "claim":
            continue  # as it was then; the one of the whole run stands above
        if isinstance(value, dict):
            rows += [(f"{_name(key)}: {_name(name)}", detail(item)) for name, item in value.items()]
        else:
            rows.append((_name(key), date(value) if key == "time" else detail(value)))
    return [(short(name), text) for name, text in rows if text][:60]


def _name(key: str) -> str:
    return NAMES.get(key, key.replace("_", " "))
