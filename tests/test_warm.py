"""Warm kernels: forked from a server with PyTorch imported, and in nothing else unlike cold ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager
from running import LABKIT, alive, make_lab, wait_for
from tiny import plain_environment, write
from warmth import READY_S, install, naming, served, sockets

from labkit.launch import warm
from labkit.record.find import every
from labkit.record.process import descendants
from labkit.record.rundir import RunDir
from labkit.record.status import status

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="warm kernels are forked on Linux")]

PROBE = """
import json, os, resource, sys, threading
hidden = ("LABKIT_RUN", "LABKIT_LOG", "JPY_", "_", "SHLVL", "OLDPWD", "PWD", "MPLBACKEND")
environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
limits = {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")}
import matplotlib, matplotlib.pyplot, numpy, torch
from threadpoolctl import threadpool_info
pools = sorted({(one["internal_api"], one["num_threads"]) for one in threadpool_info()})
print("PROBE", json.dumps({
    "environment": environment, "directory": os.getcwd(), "limits": limits, "umask": os.umask(0o22),
    "hash": hash("labkit"), "flags": str(sys.flags), "path": sys.path, "executable": sys.executable,
    "threads": [torch.get_num_threads(), torch.get_num_interop_threads()], "backend": matplotlib.get_backend(),
    "pools": pools, "cores": sorted(os.sched_getaffinity(0)),
    "encoding": [sys.stdout.encoding, sys.getfilesystemencoding()],
    "deterministic": torch.are_deterministic_algorithms_enabled(), "dtype": str(torch.get_default_dtype()),
    "argv": sys.argv[1:2], "signals": [str(__import__("signal").getsignal(n)).split(" at ")[0] for n in (2, 10, 15)],
}, sort_keys=True, default=str))
"""
DRAWS = """
import random, numpy, torch
print("DRAWN", [random.random(), float(numpy.random.random()), float(torch.rand(()))])
"""
WORKS = """
import torch
left, right = torch.rand(900, 900), torch.rand(900, 900)
layer = torch.nn.Conv2d(3, 16, 3)
optimizer = torch.optim.AdamW(layer.parameters())
loss = layer(torch.rand(16, 3, 40, 40)).sum() + (left @ right).sum()
loss.backward()
optimizer.step()
print("WORKED", torch.isfinite(loss).item())
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder for sockets that is these tests' own."""
    with sockets() as folder:
        yield folder


@pytest.fixture(scope="module")
def environment(place: Path) -> dict[str, str]:
    """The environment of programs whose kernels are warm."""
    return served(place)


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    return make_lab(tmp_path / "lab")


def run(lab: Path, environment: dict[str, str], *cells: str, **more: str) -> RunDir:
    """Run a notebook of these cells and return its run."""
    notebook = write(lab / "notebooks" / "n.ipynb", *cells)
    env = environment | {"LABKIT_RUNS": str(lab / "runs")} | more
    done = subprocess.run([*LABKIT, "run", str(notebook), "--no-report"], env=env, capture_output=True, text=True)
    made = every(lab / "runs")[-1]
    assert done.returncode == 0, done.stderr + made.log.read_text()
    return made


def is_warm(made: RunDir) -> bool:
    return json.loads(made.process.read_bytes())["warm"]


def printed(made: RunDir, word: str) -> Any:
    line = next(line for line in made.log.read_text().splitlines() if line.startswith(word))
    return json.loads(line.removeprefix(word).replace("True", "true"))


def test_a_probe_prints_the_same_under_a_warm_and_a_cold_kernel(lab: Path, environment: dict[str, str]) -> None:
    made = [run(lab, environment | {"LABKIT_WARM": switch}, PROBE) for switch in ("1", "0")]
    assert [is_warm(one) for one in made] == [True, False]
    first, second = (printed(one, "PROBE") for one in made)
    for found in (first, second):
        found["environment"].pop("LABKIT_WARM", None)
    assert first == second


def test_two_warm_kernels_without_a_seed_draw_different_numbers(lab: Path, environment: dict[str, str]) -> None:
    first, second = (printed(run(lab, environment, DRAWS), "DRAWN") for _ in range(2))
    assert all(one != other for one, other in zip(first, second, strict=True))


def test_a_warm_kernel_multiplies_in_parallel_goes_backward_and_steps(lab: Path, environment: dict[str, str]) -> None:
    for _ in range(3):
        made = run(lab, environment, WORKS)
        assert is_warm(made) and printed(made, "WORKED") is True


def test_a_seeded_run_has_the_same_bits_warm_and_cold(lab: Path, environment: dict[str, str]) -> None:
    shutil.copy(Path(__file__).parent / "notebooks" / "learns.ipynb", lab / "notebooks" / "learns.ipynb")
    found = []
    for switch in ("1", "0"):
        env = environment | {"LABKIT_RUNS": str(lab / switch), "LABKIT_WARM": switch}
        command = [*LABKIT, "run", str(lab / "notebooks" / "learns.ipynb"), "--no-report"]
        assert subprocess.run(command, env=env, capture_output=True).returncode == 0
        (made,) = every(lab / switch)
        found.append((is_warm(made), [{k: v for k, v in json.loads(line).items() if k != "t"}
                                      for line in made.metrics.read_text().splitlines()]))  # fmt: skip
    assert [one[0] for one in found] == [True, False]
    assert found[0][1] == found[1][1]


def test_an_edit_to_a_module_of_the_user_is_seen(lab: Path, environment: dict[str, str]) -> None:
    for value in (1, 2):
        (lab / "notebooks" / "mine.py").write_text(f"VALUE = {value}\n")
        made = run(lab, environment, "import mine\nprint('VALUE', mine.VALUE)")
        assert is_warm(made) and printed(made, "VALUE") == value


def test_a_variable_that_is_read_at_the_start_gets_no_kernel_of_that_server(
    lab: Path, environment: dict[str, str]
) -> None:
    made = run(lab, environment, "print('COLD', 1)", OMP_NUM_THREADS="1")
    assert not is_warm(made)
    assert json.loads(made.process.read_bytes())["cold"] == "no server is ready yet"


@pytest.mark.parametrize("killed", ["runner", "process"])
def test_a_warm_kernel_ends_with_its_runner_or_supervisor_and_all_below_it_too(
    lab: Path, environment: dict[str, str], killed: str
) -> None:
    starts = "import subprocess\nsubprocess.Popen(['setsid', 'sleep', '1000'])"
    notebook = write(lab / "notebooks" / "n.ipynb", starts, "import time; time.sleep(1000)")
    env = environment | {"LABKIT_RUNS": str(lab / "runs")}
    with subprocess.Popen([*LABKIT, "run", str(notebook), "--no-report"], env=env, stderr=subprocess.PIPE) as process:
        (made,) = wait_for(lambda: [one for one in every(lab / "runs") if one.process.exists()])
        facts = json.loads(made.process.read_bytes())
        pids = [facts["kernel"]["pid"], facts["process"]["pid"]]
        wait_for(lambda: descendants(pids[0]))
        pids += descendants(pids[0])
        os.kill(facts[killed]["pid"], signal.SIGKILL)
        process.communicate(timeout=60)
    wait_for(lambda: not alive(*pids), 20)
    assert status(made).state == "killed"


def test_a_server_leaves_when_it_is_idle_and_takes_its_socket_along() -> None:
    with sockets() as folder:
        env = plain_environment(XDG_RUNTIME_DIR=str(folder), LABKIT_WARM_IDLE_S="2")
        code = f"import os; from labkit.launch import warm; print(warm.wait_for(dict(os.environ), {READY_S}))"
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        assert done.stdout == "True\n"
        wait_for(lambda: not list(folder.rglob("*.socket")) and not naming(folder), 30, "the server's end")


def test_somebody_elses_folder_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / f"labkit-warm-{os.getuid()}").mkdir(mode=0o755)
    os.chmod(tmp_path / f"labkit-warm-{os.getuid()}", 0o755)
    with pytest.raises(warm.Cold, match="alone"):
        warm.folder()


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """Variables with which Jupyter finds the kernel that labkit installs."""
    return install(tmp_path / "jupyter")


def test_an_installed_kernel_is_interrupted_restarted_and_shut_down_as_ever(
    place: Path, environment: dict[str, str], installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**environment, **installed}.items():
        monkeypatch.setenv(name, value)
    seen = []
    for _ in range(2):  # the first asks for a server with these variables, the second has it
        manager = KernelManager(kernel_name="labkit-cpu")
        manager.start_kernel()
        client = manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        client.execute("import sys, os; warm = 'labkit.launch.forkserver' in sys.modules", reply=True, timeout=60)
        client.execute("import time; time.sleep(100)")
        time.sleep(0.5)
        manager.interrupt_kernel()
        assert client.get_shell_msg(timeout=30)["content"]["ename"] == "KeyboardInterrupt"
        assert client.execute("1 + 1", reply=True, timeout=30)["content"]["status"] == "ok"
        manager.restart_kernel(now=False)
        client.wait_for_ready(timeout=60)
        reply = client.execute("", user_expressions={"is_new": "'warm' not in globals()"}, reply=True, timeout=30)
        assert reply["content"]["user_expressions"]["is_new"]["data"]["text/plain"] == "True"
        loaded = "'labkit.launch.forkserver' in __import__('sys').modules"
        reply = client.execute("", user_expressions={"warm": loaded}, reply=True, timeout=30)
        seen.append(reply["content"]["user_expressions"]["warm"]["data"]["text/plain"])
        client.stop_channels()
        manager.shutdown_kernel()
        assert not manager.is_alive()
        wait_for(lambda: len(list(place.rglob("*.socket"))) > 1, READY_S, "the server for this kernel")
    assert seen[-1] == "True"


@pytest.mark.parametrize("program", ["papermill", "nbconvert"])
def test_an_installed_kernel_works_in_other_programs(
    program: str, tmp_path: Path, environment: dict[str, str], installed: dict[str, str]
) -> None:
    notebook = write(tmp_path / "n.ipynb", "import sys\nprint('SUM', 1 + 1)")
    made = tmp_path / "made.ipynb"
    command = {
        "papermill": ["-m", "papermill", "-k", "labkit-cpu", str(notebook), str(made)],
        "nbconvert": ["-m", "nbconvert", "--execute", "--to", "notebook", "--output", str(made), str(notebook),
                      "--ExecutePreprocessor.kernel_name=labkit-cpu"],
    }[program]  # fmt: skip
    env = environment | installed
    done = subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "SUM 2" in made.read_text()
