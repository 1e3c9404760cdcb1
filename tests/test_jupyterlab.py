"""A day in JupyterLab: from the launcher's template to a clean run, as a person clicks and types it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from running import labkit, wait_for
from tiny import markdown, notebook, parameters, plain_environment

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
LAUNCHER = "{'labkit.workbench.launcher': True, 'jupyterlab_templates': False}"
IDLE = ".jp-Notebook-ExecutionIndicator[data-status='idle']"


@pytest.fixture
def server(lab: Path) -> Iterator[str]:
    """JupyterLab's address, in a lab that has one template."""
    folder = lab / "templates" / "mine"
    folder.mkdir(parents=True)
    (folder / "small.ipynb").write_text(json.dumps(TEMPLATE))
    options = ["--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--IdentityProvider.token=secret"]
    log = (lab / "server.log").open("w")
    command = [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.jpserver_extensions={LAUNCHER}"]
    environment = plain_environment(
        JUPYTER_CONFIG_DIR=str(lab / "config"), JUPYTERLAB_SETTINGS_DIR=str(lab / "settings"),
        JUPYTERLAB_WORKSPACES_DIR=str(lab / "workspaces"), JUPYTER_RUNTIME_DIR=str(lab / "runtime"),
    )  # fmt: skip
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        told = wait_for(lambda: [p for p in (lab / "runtime").glob("jpserver-*.json") if p.stat().st_size], what="it")
        address = json.loads(told[0].read_text())["url"]
        wait_for(lambda: answers(address), what=address)
        yield address
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def is_clean(run: RunDir) -> bool:
    return run.read_manifest()["kind"] == "run"


def answers(address: str) -> bool:
    try:
        return urlopen(address + "api", timeout=5).status == 200
    except OSError:
        return False


class Person:
    """Somebody in front of JupyterLab, who knows where things are."""

    def __init__(self, browser: Any, address: str) -> None:
        self.page = browser.new_page(viewport={"width": 1400, "height": 900})
        self.page.set_default_timeout(60_000)
        self.page.goto(f"{address}lab/tree/notebooks?token=secret&reset")

    def opens_the_template(self) -> None:
        self.page.click(".jp-LauncherCard:has-text('Template')")
        self.page.click(".jp-Dialog-button.jp-mod-accept:has-text('GO')")
        self.page.wait_for_selector("#jupyterlab-statusbar-plugin, #jp-main-statusbar :text('| Idle')")
        self.page.wait_for_timeout(2000)  # before it is ready it calls the notebook read-only

    def clicks(self, menu: str, entry: str) -> None:
        self.page.click(f".lm-MenuBar-itemLabel:text-is('{menu}')")
        self.page.click(f".lm-Menu-itemLabel:text-is('{entry}')")

    def runs_all(self, until: str) -> None:
        self.clicks("Run", "Run All Cells")
        output = self.page.locator(f".jp-OutputArea-output:has-text('{until}')")
        kernel = self.page.locator(".jp-Dialog-button.jp-mod-accept:has-text('Select')")  # asked for now and then
        output.or_(kernel).first.wait_for()
        if kernel.is_visible():
            kernel.click()
        output.wait_for()

    def runs(self, place: int, source: str | None = None) -> None:
        """Runs one cell, after writing something else into it."""
        self.page.locator(".jp-Cell .cm-content").nth(place).click()
        if source is not None:
            self.page.keyboard.press("Control+A")
            self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Control+Enter")
        self.page.wait_for_timeout(300)
        self.page.wait_for_selector(IDLE)

    def saves_as(self, name: str) -> None:
        """Saves for the first time, which asks for a name."""
        self.page.keyboard.press("Control+S")
        self.page.wait_for_selector(".jp-Dialog:has-text('Rename')")
        self.page.keyboard.insert_text(name)
        self.page.click(".jp-Dialog-button.jp-mod-accept")

    def saves(self, path: Path) -> None:
        before = path.stat().st_mtime_ns
        self.page.keyboard.press("Control+S")
        wait_for(lambda: path.stat().st_mtime_ns > before)


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
