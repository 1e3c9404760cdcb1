"""A run is made again from its record, and where it does not come to the same, the cause is named."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from running import LABKIT, fixture, make_lab
from tiny import plain_environment

pytestmark = pytest.mark.slow

SCALING = '''"""Scales inputs."""

from labtiny import VALUE


def scaled(inputs):
    return VALUE * (inputs - inputs.mean(dim=0)) / inputs.std(dim=0)
'''


def points(order: int = 1) -> str:
    rows = [f"{(7 * n) % 50 / 10},{(3 * n) % 70 / 10},{int((7 * n) % 50 > (3 * n) % 70)}" for n in range(200)]
    return "\n".join(["x,y,label", *rows[::order]]) + "\n"


def new_lab(folder: Path) -> Path:
    """Make a lab with a notebook, a module that it imports, data that it reads, and a package beside it."""
    lab = make_lab(folder)
    (lab / "data").mkdir()
    (lab / "data" / "points.csv").write_text(points())
    (lab / "notebooks" / "scaling.py").write_text(SCALING)
    fixture(lab, "reproduces")
    return lab


def labkit(lab: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = plain_environment(LABKIT_RUNS=str(lab / "runs"), **environment)
    return subprocess.run([*LABKIT, *arguments], cwd=lab, env=env, capture_output=True, text=True, timeout=300)


def verdict(lab: Path, *arguments: str, **environment: str) -> dict[str, Any]:
    """Make the last run again and return the verdict."""
    done = labkit(lab, "reproduce", *arguments, "--json", **environment)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert done.returncode == found["exit_status"], done.stderr
    return found | {"stderr": done.stderr}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab with one run."""
    lab = new_lab(tmp_path_factory.mktemp("reproduce") / "Ada's lab")
    done = labkit(lab, "run", "notebooks/reproduces.ipynb", PYTHONPATH=str(site(lab, "1.0", "0.5")))
    assert done.returncode == 0, done.stderr
    return lab


def site(lab: Path, version: str, value: str) -> Path:
    """Make a folder with a package of some version that the notebook's module may import."""
    folder = lab.parent / f"{lab.name} site" / version
    if not folder.exists():
        (folder / f"labtiny-{version}.dist-info").mkdir(parents=True)
        (folder / f"labtiny-{version}.dist-info" / "METADATA").write_text(f"Name: labtiny\nVersion: {version}\n")
        (folder / "labtiny.py").write_text(f"VALUE = {value}\n")
    return folder


@pytest.fixture
def lab(recorded: Path, tmp_path: Path) -> Path:
    """The lab, to change something in it."""
    return Path(shutil.copytree(recorded, tmp_path / "lab", symlinks=True))


def report(lab: Path, to: Path) -> Path:
    """Put the report of the last run into an empty folder."""
    assert labkit(lab, "report", "last").returncode == 0
    to.mkdir()
    (made,) = (lab / "runs").glob("reproduces/*Z-*/report.html")
    return Path(shutil.copy(made, to / "report.html"))


def test_a_report_alone_is_enough_to_make_its_run_again_with_the_same_bits(recorded: Path, tmp_path: Path) -> None:
    alone = report(recorded, tmp_path / "empty")
    found = verdict(alone.parent, "report.html", "--yes", PYTHONPATH=str(site(recorded, "1.0", "0.5")))
    assert found["verdict"] == "identical", found
    assert {one["state"] for one in found["chain"]} == {"equal"}, found["chain"]
    assert found["expected"] == "equal bits are to be expected"
    assert (alone.parent / "report.reproduced.html").exists()


def test_nothing_of_a_strange_report_is_executed_unless_somebody_agrees(recorded: Path, tmp_path: Path) -> None:
    alone = report(recorded, tmp_path / "empty")
    done = subprocess.run(
        [*LABKIT, "reproduce", "report.html"],
        cwd=alone.parent, env=plain_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "nothing was executed" in done.stderr
    assert [path.name for path in alone.parent.iterdir()] == ["report.html"]


def test_a_truncated_report_is_refused(recorded: Path, tmp_path: Path) -> None:
    alone = report(recorded, tmp_path / "empty")
    alone.write_bytes(alone.read_bytes()[:-5000])
    done = labkit(alone.parent, "reproduce", "report.html", "--yes")
    assert done.returncode == 2 and "cut short" in done.stderr, done.stderr


def test_data_that_are_missing_are_named_and_nothing_is_run(lab: Path, tmp_path: Path) -> None:
    large(lab)
    (lab / "data" / "points.csv").unlink()
    found = verdict(lab, name(lab))
    assert (found["verdict"], found["exit_status"]) == ("could not run", 2)
    assert "data/points.csv" in found["cause"] and "--data" in found["cause"]


def name(lab: Path) -> str:
    """The id of the one run."""
    (made,) = (lab / "runs").glob("reproduces/*Z-*")
    return made.name


def large(lab: Path) -> None:
    """Let the record not carry the data, as if they were large."""
    (inputs,) = (lab / "runs").glob("reproduces/*Z-*/inputs.json")
    facts = json.loads(inputs.read_bytes())
    assert set(facts["files"]) == {"data/points.csv"}
    (manifest,) = (lab / "runs").glob("reproduces/*Z-*/run.json")
    elsewhere = json.loads(manifest.read_bytes()) | {"lab": "/nowhere", "lab_from_runs": "../nowhere"}
    manifest.write_text(json.dumps(elsewhere))


def test_data_are_looked_for_in_the_folder_that_is_named(lab: Path, tmp_path: Path) -> None:
    large(lab)
    shutil.move(lab / "data" / "points.csv", tmp_path / "points.csv")
    found = verdict(lab, name(lab), "--data", str(tmp_path), PYTHONPATH=str(site(lab, "1.0", "0.5")))
    assert found["verdict"] == "identical", found


def test_a_failed_run_cannot_be_made_again(tmp_path: Path) -> None:
    lab = new_lab(tmp_path / "lab")
    (lab / "data" / "points.csv").write_text("x,y\n")
    assert labkit(lab, "run", "notebooks/reproduces.ipynb").returncode == 1
    done = labkit(lab, "reproduce")
    assert done.returncode == 2 and "did not finish" in done.stderr


@dataclass(frozen=True)
class Change:
    """Something that is other than it was.

    Attributes:
        make: Changes the lab.
        verdict: What must come of it.
        cause: What must stand in the cause.
        link: The first link that differs.
        environment: Variables.
    """

    make: Callable[[Path], object]
    verdict: str = "diverged"
    cause: str = ""
    link: str = "source"
    environment: dict[str, str] = field(default_factory=dict)


def cell(name: str, old: str, new: str) -> Callable[[Path], object]:
    """Change a cell of the notebook."""

    def change(lab: Path) -> None:
        path = lab / "notebooks" / "reproduces.ipynb"
        notebook = json.loads(path.read_bytes())
        (found,) = [one for one in notebook["cells"] if one["id"] == name]
        source = "".join(found["source"])
        assert old in source
        found["source"] = source.replace(old, new)
        path.write_text(json.dumps(notebook))

    return change


def module(old: str, new: str) -> Callable[[Path], object]:
    """Change the module."""

    def change(lab: Path) -> None:
        path = lab / "notebooks" / "scaling.py"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


def data(old: str, new: str) -> Callable[[Path], object]:
    """Change the data file."""

    def change(lab: Path) -> None:
        path = lab / "data" / "points.csv"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return change


def both(*changes: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda lab: [change(lab) for change in changes]


def extra_module(lab: Path) -> None:
    (lab / "notebooks" / "shift.py").write_text("BY = 0.5\n")
    module("return VALUE", "from shift import BY\n\n    return BY + VALUE")(lab)


CHANGES = {
    "nothing": Change(lambda lab: None, "identical", "every number is the same"),
    "a comment": Change(cell("loop", "# The loop.", "# A loop."), "identical", "comments"),
    "a line of source": Change(cell("loop", "loss.backward()", "(2 * loss).backward()"), cause=r"cell 6 \(loop\)"),
    "a module": Change(module("inputs.mean(dim=0)", "inputs.mean()"), cause=r"scaling.*line 7"),
    "a parameter": Change(
        cell("parameters", "LEARNING_RATE: float = 0.05", "LEARNING_RATE: float = 0.06"),
        cause="LEARNING_RATE.*0.06.*0.05|LEARNING_RATE.*0.05.*0.06", link="settings",
    ),
    "the seed": Change(
        cell("parameters", "RANDOM_SEED: int = 3", "RANDOM_SEED: int = 4"), cause="RANDOM_SEED", link="settings"
    ),
    "a value of the data": Change(data("0.7,0.3,1", "0.8,0.3,1"), cause=r"data/points\.csv", link="data"),
    "the order of the rows": Change(
        lambda lab: (lab / "data" / "points.csv").write_text(points(-1)), cause=r"data/points\.csv", link="data"
    ),
    "the number of threads": Change(
        lambda lab: None, "", "threads|OMP_NUM_THREADS", "settings", {"OMP_NUM_THREADS": "1"}
    ),
    "deterministic mode": Change(
        cell("seed", "labkit.seed(RANDOM_SEED)", "labkit.seed(RANDOM_SEED, deterministic=False)"), "", "seed"
    ),
    "the dtype": Change(cell("data", "dtype=torch.float32", "dtype=torch.float16).float("), cause=r"cell 4 \(data\)"),
    "a variable": Change(
        lambda lab: None, "", "ATEN_CPU_CAPABILITY|instructions|isa", "hardware", {"ATEN_CPU_CAPABILITY": "default"}
    ),
    "a missing file": Change(lambda lab: (lab / "data" / "points.csv").unlink(), "could not run", "points.csv", ""),
    "an initial weight": Change(
        cell("model", "optimizer =", "torch.nn.init.zeros_(model[0].bias)\noptimizer ="), cause=r"cell 5 \(model\)"
    ),
    "an untracked module": Change(extra_module, cause="shift|scaling"),
    "a package": Change(lambda lab: None, "diverged", "labtiny 2.0 here, 1.0 then", "packages", {"SITE": "2.0"}),
    "two at once": Change(
        both(module("inputs.mean(dim=0)", "inputs.mean()"), data("0.7,0.3,1", "0.8,0.3,1")),
        cause=r"scaling.*points\.csv",
    ),
    "what no record shows": Change(
        cell("start", "import labkit\n", "import labkit\n"), "diverged", "unknown", "steps", {"CHANCE": "1"}
    ),
}  # fmt: skip


def looked_at(lab: Path, change: Change) -> dict[str, Any]:
    change.make(lab)
    environment = dict(change.environment)
    version = environment.pop("SITE", "1.0")
    return verdict(
        lab, "--as-now", PYTHONPATH=str(site(lab, version, "0.25" if version == "2.0" else "0.5")), **environment
    )


@pytest.fixture(scope="module")
def looked(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What came of each change, two at a time."""
    base = tmp_path_factory.mktemp("changes")

    def one(name: str) -> dict[str, Any]:
        own = Path(shutil.copytree(recorded, base / name.replace(" ", "-"), symlinks=True))
        (manifest,) = (own / "runs").glob("reproduces/*Z-*/run.json")
        manifest.write_text(json.dumps(json.loads(manifest.read_bytes()) | {"lab": str(own)}))
        return looked_at(own, CHANGES[name])

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(CHANGES, pool.map(one, CHANGES), strict=True))


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", CHANGES)
def test_the_cause_of_each_single_change_is_named(looked: dict[str, dict[str, Any]], name: str) -> None:
    change, found = CHANGES[name], looked[name]
    told = f"{found['cause']}\n{json.dumps(found['chain'], indent=1)}\n{found['stderr']}"
    assert not change.verdict or found["verdict"] == change.verdict, told
    assert re.search(change.cause, told if found["verdict"] == "identical" else found["cause"]), told
    first = found["first_difference"]
    assert first is None or not change.link or found["verdict"] == "identical" or first["link"] == change.link, told
