"""A day in JupyterLab: from the launcher's template to a clean run, as a person clicks and types it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_person import Person, serving
from running import alive, labkit, wait_for
from tiny import markdown, notebook, parameters
from warmth import install, sockets

from labkit.record.find import every
from labkit.record.rundir import RunDir
from labkit.record.status import status

pytestmark = pytest.mark.browser

TEMPLATE = notebook(
    markdown("# Halving\n\n## Goal"),
    parameters("LR: float = 0.5  # step size"),
    "import labkit\nrun = labkit.start()\nrun.expect('low', 'loss < 0.3')",
    "for step in range(4):\n    run.log(step, loss=LR / (step + 1))",
    "print('last', run.verdicts().value[0])",
)


TOLD = "import os, sys\nprint('kernel', os.getpid(), 'warm' if 'labkit.launch.forkserver' in sys.modules else 'cold')"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for the sockets of warm kernels; afterwards nothing of them is left."""
    with sockets() as folder:
        yield folder


@pytest.fixture
def server(lab: Path) -> Iterator[str]:
    """JupyterLab's address, in a lab that has one template."""
    folder = lab / "templates" / "mine"
    folder.mkdir(parents=True)
    (folder / "small.ipynb").write_text(json.dumps(TEMPLATE))
    with serving(lab) as address:
        yield address


def is_clean(run: RunDir) -> bool:
    return run.read_manifest()["kind"] == "run"


def test_from_the_launcher_by_hand_out_of_order_to_a_clean_run_and_its_report(
    lab: Path, server: str, browser: Any
) -> None:
    person = Person(browser, server)
    person.opens_the_template()
    person.saves_as("halving")
    path = lab / "notebooks" / "halving.ipynb"
    wait_for(path.exists)
    person.runs_all("last 0.125")
    (first,) = every(lab / "runs")
    assert first.read_manifest()["notebook"] == f"notebooks/{path.name}"
    journal = [json.loads(line)["cell"] for line in wait_for(lambda: first.journal.read_bytes()).splitlines()]
    assert journal == [cell["id"] for cell in json.loads(path.read_text())["cells"]][2:]

    person.runs(4, "print('again', run.verdicts().value[0])")
    person.runs(3, "for step in range(8):\n    run.log(step, loss=LR / (step + 1))")
    person.saves(path)
    person.runs(2)  # the next run; the first is closed
    label = first.read_manifest()["explored"]
    assert label == "cells 3, 4, 5, 5, 4"
    assert "finished (explored, scratch)" in labkit("list", "--all", "--runs", str(lab / "runs")).stdout

    person.runs(4, "print(run.promote())")
    person.saves(path)
    person.runs(4)
    clean = wait_for(lambda: [run for run in every(lab / "runs") if is_clean(run)])[0]
    wait_for(lambda: clean.report.exists() and status(clean).is_over)
    manifest = clean.read_manifest()
    assert (status(clean).state, manifest["labels"], manifest["verdicts"][0]["verdict"]) == ("finished", [], "held")
    assert manifest["summary"]["metrics"]["loss"]["count"] == 8
    shutil.copy(clean.report, lab / "report.html")
    person.page.goto((lab / "report.html").as_uri())
    assert "Halving" in person.page.inner_text("h1") and "held" in person.page.inner_text(".verdicts")


def test_a_warm_kernel_opens_runs_is_interrupted_restarted_and_shut_down(
    lab: Path, browser: Any, place: Path, tmp_path: Path
) -> None:
    content = notebook(TOLD, "import time\nseen = print('waits')\ntime.sleep(1000)", "print('knows', seen)")
    content["metadata"]["kernelspec"] = {"name": "labkit-cpu", "display_name": "labkit (CPU)", "language": "python"}
    (lab / "notebooks" / "warm.ipynb").write_text(json.dumps(content))
    environment = install(tmp_path / "jupyter") | {"LABKIT_WARM_IDLE_S": "60"}
    with serving(lab, XDG_RUNTIME_DIR=str(place), **environment) as address:
        person = Person(browser, address, opens="notebooks/warm.ipynb")
        person.waits_until_idle()  # this one is cold, and asks for the server
        wait_for(lambda: list(place.rglob("*.socket")), 90, "the server of warm kernels")
        person.restarts()
        person.runs(0)
        first = person.sees("kernel ").split()
        assert first[2] == "warm"
        person.begins(1)
        person.sees("waits")
        person.clicks("Kernel", "Interrupt Kernel")
        person.sees("KeyboardInterrupt")
        person.runs(2)
        person.sees("knows None")
        person.restarts()
        wait_for(lambda: not alive(int(first[1])), what="the end of the kernel before")
        person.runs(2)
        person.sees("NameError")
        person.runs(0)
        second = person.sees("kernel ").split()
        assert second[2] == "warm" and second[1] != first[1]
        person.clicks("Kernel", "Shut Down Kernel")
        wait_for(lambda: not alive(int(second[1])), what="the end of the kernel")
