"""What every test may use: a lab in an awkward place, a browser, and who runs when."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import labkit.workbench  # noqa: F401  (first of all: it keeps nbformat from loading what takes a second)

# isort: split
from tiny import plain_environment

from labkit.launch import warm

PLACE = pytest.StashKey[Path]()
ON_REQUEST = {"slow", "browser", "faults"}  # left out of a bare `pytest`
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Chromium must not look for updates or synchronise; root, as in containers, has no sandbox.
BROWSER_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# The machine may be busy with other things: an example has no time limit of its own.
settings.register_profile("labkit", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("labkit")


def pytest_configure(config: pytest.Config) -> None:
    """Takes the caller's own settings of labkit away: a test has those that it makes, and servers of the tests' own."""
    for name in [name for name in os.environ if name.startswith("LABKIT_") and name != "LABKIT_REQUIRE_BROWSER"]:
        del os.environ[name]
    if not hasattr(config, "workerinput"):  # what pytest-xdist starts has them from here
        config.stash[PLACE] = Path(tempfile.mkdtemp(prefix="labkit-tests-"))  # short, for the names of sockets
        for name in ("XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
            folder = config.stash[PLACE] / name.lower()
            folder.mkdir(mode=0o700)
            os.environ[name] = str(folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    if PLACE in config.stash:
        warm.stop_all()
        shutil.rmtree(config.stash[PLACE], ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def warm_kernels(request: pytest.FixtureRequest) -> None:
    """Warm kernels for what slow tests run, as a user has them who works with sweeps."""
    if any(item.get_closest_marker("slow") for item in request.session.items):
        from warmth import WAIT

        subprocess.run([sys.executable, "-c", WAIT], env=plain_environment(), check=True, stdout=subprocess.DEVNULL)


# A shell's `&` and nohup hand down ignored signals, which the programs that tests start would ignore as well.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    if config.option.markexpr or named:
        return
    kept = [item for item in items if ON_REQUEST.isdisjoint(mark.name for mark in item.iter_markers())]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("browser") and (lacking := without_browser()):
        if os.environ.get("LABKIT_REQUIRE_BROWSER") == "1":
            pytest.fail(f"LABKIT_REQUIRE_BROWSER=1, but {lacking}", pytrace=False)
        pytest.skip(lacking)
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def without_browser() -> str:
    """Why no browser test can run; empty when one can."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed (make env)"
    return "" if find_browser() else f"none of {', '.join(BROWSERS)} is on the PATH"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty lab, the working directory, in a folder whose name has a space and a quote."""
    folder = tmp_path / "Ada's lab"
    (folder / "notebooks").mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """A file system of its own that takes a megabyte."""
    folder.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of one test."""
    with mounted(tmp_path / "small disk") as folder:
        yield folder


@pytest.fixture(scope="module")
def lasting_small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small disk that several tests have in common."""
    with mounted(tmp_path_factory.mktemp("disk") / "small disk") as folder:
        yield folder


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """A headless Chromium, as playwright's Browser; mark the test `browser`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_browser(), args=BROWSER_OPTIONS)
        yield chromium
        chromium.close()
