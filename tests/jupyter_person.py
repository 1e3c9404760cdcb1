"""JupyterLab as a person has it: a server, and somebody in front of the browser who clicks and types."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from running import wait_for
from tiny import plain_environment

LAUNCHER = "{'labkit.workbench.notebooks.launcher': True, 'jupyterlab_templates': False}"
IDLE = ".jp-Notebook-ExecutionIndicator[data-status='idle']"


@contextmanager
def serving(lab: Path, **environment: str) -> Iterator[str]:
    """Run a server in a lab; gives its address."""
    options = ["--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--IdentityProvider.token=secret"]
    options += [f"--ServerApp.port={free_port()}"]  # on the usual one, another server may answer
    log = (lab / "server.log").open("w")
    command = [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.jpserver_extensions={LAUNCHER}"]
    whole = plain_environment(
        JUPYTER_CONFIG_DIR=str(lab / "config"), JUPYTERLAB_SETTINGS_DIR=str(lab / "settings"),
        JUPYTERLAB_WORKSPACES_DIR=str(lab / "workspaces"), JUPYTER_RUNTIME_DIR=str(lab / "runtime"), **environment,
    )  # fmt: skip
    process = subprocess.Popen(command, cwd=lab, env=whole, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        told = wait_for(lambda: [p for p in (lab / "runtime").glob("jpserver-*.json") if p.stat().st_size], what="it")
        address = json.loads(told[0].read_text())["url"]
        wait_for(lambda: answers(address), what=address)
        yield address
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def answers(address: str) -> bool:
    try:
        return urlopen(address + "api", timeout=5).status == 200
    except OSError:
        return False


class Person:
    """Somebody in front of JupyterLab, who knows where things are."""

    def __init__(self, browser: Any, address: str, opens: str = "notebooks") -> None:
        self.page = browser.new_page(viewport={"width": 1400, "height": 900})
        self.page.set_default_timeout(60_000)
        self.page.goto(f"{address}lab/tree/{opens}?token=secret&reset")

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
        self.begins(place, source)
        self.page.wait_for_timeout(300)
        self.waits_until_idle()

    def begins(self, place: int, source: str | None = None) -> None:
        """Runs one cell, and does not wait for its end."""
        self.page.locator(".jp-Cell .cm-content").nth(place).click()
        if source is not None:
            self.page.keyboard.press("Control+A")
            self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Control+Enter")

    def waits_until_idle(self) -> None:
        self.page.wait_for_selector(IDLE)

    def sees(self, said: str) -> str:
        """Waits for an output that says so, and returns it."""
        output = self.page.locator(f".jp-OutputArea-output:has-text('{said}')").first
        output.wait_for()
        return str(output.inner_text()).strip()

    def restarts(self) -> None:
        self.clicks("Kernel", "Restart Kernel…")
        self.page.click(".jp-Dialog-button:has-text('Restart')")
        self.page.wait_for_timeout(500)
        self.waits_until_idle()

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
