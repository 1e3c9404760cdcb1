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
from labkit.launch.forkserver import Door
from labkit.record.find import every
from labkit.record.process import descendants, is_detached
from labkit.record.rundir import RunDir
from labkit.record.status import status

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="warm kernels are forked on Linux")]

PROBE = """
import json, os, resource, sys, threading
BY_ADDRESS = ("p_cycle", "backend")
hidden = ("LABKIT_RUN", "LABKIT_LOG", "JPY_", "_", "SHLVL", "OLDPWD", "PWD", "MPLBACKEND")
environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
limits = {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")}
import matplotlib, matplotlib.pyplot, numpy, torch, tqdm
from pathlib import Path
from threadpoolctl import threadpool_info
pools = sorted({(one["internal_api"], one["num_threads"]) for one in threadpool_info()})
print("PROBE", json.dumps({
    "environment": environment, "directory": os.getcwd(), "limits": limits, "umask": os.umask(0o22),
    "hash": hash("labkit"), "flags": str(sys.flags), "path": sys.path, "executable": sys.executable,
    "threads": [torch.get_num_threads(), torch.get_num_interop_threads()], "backend": matplotlib.get_backend(),
    "tqdm": tqdm.tqdm([]).disable, "name": Path("/proc/self/comm").read_text(), "orig_argv": sys.orig_argv[:3],
    "settings": sorted((k, str(v)) for k, v in matplotlib.rcParams.items() if k[-7:] != "p_cycle"),
    "first_settings": sorted((k, str(v)) for k, v in matplotlib.rcParamsOrig.items() if k[-7:] not in BY_ADDRESS),
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

LEAVES = """
import atexit, pathlib, tempfile
atexit.register(pathlib.Path(left, "hook").write_text, "ran")
folder = tempfile.TemporaryDirectory(dir=left)
file = open(left + "/open", "w")
file.write("written")
"""
ASKS = """
from pathlib import Path
from labkit.launch import warm
from labkit.record.rundir import RunDir
from labkit.workbench.running.execute import kernel_environment
try:
    warm.launch(kernel_environment(RunDir(Path("x"))), start=False).close()
except warm.Cold:
    raise SystemExit(1)
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


def test_what_lies_beside_the_notebook_and_in_the_environment_reaches_a_warm_kernel_as_a_cold_one(lab: Path) -> None:
    folder = lab / "notebooks"
    (folder / "matplotlibrc").write_text("lines.linewidth: 7\nfigure.figsize: 3, 2\n")
    with sockets() as place:
        own = {"PYTHONPATH": f"{folder}{os.pathsep}{lab}", "TQDM_DISABLE": "1", "PANDAS_COPY_ON_WRITE": "1"}
        environment = served(place, **own)
        made = [run(lab, environment, PROBE, LABKIT_WARM=switch) for switch in ("1", "0")]
    assert [is_warm(one) for one in made] == [True, False]
    logs = [one.log.read_text().replace('"LABKIT_WARM": "0"', '"LABKIT_WARM": "1"') for one in made]
    assert logs[0] == logs[1].replace(made[1].id, made[0].id)
    found = printed(made[0], "PROBE")
    assert str(folder) in found["path"] and found["tqdm"] is True
    assert dict(found["settings"])["lines.linewidth"] == dict(found["first_settings"])["lines.linewidth"] == "7.0"


def test_a_folder_of_modules_as_seen_from_the_notebook_makes_a_cold_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(warm.Cold, match="PYTHONPATH"):
        warm.address({**os.environ, "PYTHONPATH": f"/usr/lib{os.pathsep}src"})


def test_a_saved_file_and_another_session_keep_their_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    before = warm.address(os.environ | {"XDG_SESSION_ID": "1"})
    (tmp_path / "saved.py").write_text("")
    os.utime(tmp_path, (0, 0))
    assert warm.address(os.environ | {"XDG_SESSION_ID": "2", "TERM": "dumb", "CUDA_VISIBLE_DEVICES": "3"}) == before
    for name in ("SCIPY_ARRAY_API", "NPY_DISABLE_CPU_FEATURES", "OMP_NUM_THREADS", "ANY_OTHER"):
        assert warm.address(os.environ | {name: "1"}) != before


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


def test_a_server_that_should_leave_stays_until_its_kernels_have_ended(lab: Path) -> None:
    starts = "import subprocess\nsubprocess.Popen(['setsid', 'sleep', '1000'])"
    notebook = write(lab / "notebooks" / "n.ipynb", starts, "import time; time.sleep(1000)")
    with sockets() as place:
        env = served(place) | {"LABKIT_RUNS": str(lab / "runs")}
        with subprocess.Popen(
            [*LABKIT, "run", str(notebook), "--no-report"], env=env, stderr=subprocess.PIPE
        ) as runner:
            (made,) = wait_for(lambda: [one for one in every(lab / "runs") if one.process.exists()])
            facts = json.loads(made.process.read_bytes())
            below = wait_for(lambda: descendants(facts["kernel"]["pid"]))
            stop = "from labkit.launch import warm; print(warm.stop_all())"
            assert subprocess.run([sys.executable, "-c", stop], env=env, capture_output=True).stdout == b"1\n"
            assert not list(place.rglob("*.socket")) and not list(place.rglob("*.lock")), "another one cannot start"
            assert is_warm(made) and alive(*below)
            os.kill(facts["process"]["pid"], signal.SIGKILL)
            runner.communicate(timeout=60)
        wait_for(lambda: not alive(*below), 20, "the end of what a killed supervisor left")


def test_a_server_is_not_idle_while_it_has_a_kernel(lab: Path) -> None:
    notebook = write(lab / "notebooks" / "n.ipynb", "import time\nfor _ in range(8): time.sleep(1)")
    with sockets() as place:
        env = served(place, LABKIT_WARM_IDLE_S="2") | {"LABKIT_RUNS": str(lab / "runs")}
        command = [*LABKIT, "run", str(notebook), "--no-report"]
        with subprocess.Popen(command, env=env, stderr=subprocess.PIPE) as runner:
            (made,) = wait_for(lambda: [one for one in every(lab / "runs") if one.process.exists()])
            time.sleep(6)
            assert runner.poll() is None and is_warm(made) and list(place.rglob("*.socket"))
        wait_for(lambda: not naming(place), 30, "the server's end")


def test_the_end_of_a_kernel_leaves_a_server_that_was_started_below_it(
    lab: Path, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = write(lab / "notebooks" / "endless.ipynb", "import time\nfor _ in range(1000): time.sleep(0.1)")
    starts = (
        "import os\nfrom labkit.launch import warm\nfrom labkit.record.rundir import RunDir\n"
        "from labkit.workbench.running.execute import kernel_environment\nfrom pathlib import Path\n"
        f"print(warm.wait_for(kernel_environment(RunDir(Path('x'))), {READY_S}))"
    )
    monkeypatch.setenv("JUPYTER_PATH", installed["JUPYTER_PATH"])
    with sockets() as place:
        env = plain_environment(XDG_RUNTIME_DIR=str(place), LABKIT_RUNS=str(lab / "runs"))
        manager = KernelManager(kernel_name="labkit-cpu")
        manager.start_kernel(env=env | {"LABKIT_WARM": "0"})
        client = manager.blocking_client()
        client.start_channels()
        # As a sweep in a cell does: it starts the server with what the user has set, below this kernel.
        begin = f"import os, subprocess, sys\nenv = {env | {'PYTHONHASHSEED': '0'}!r}\n"
        begin += f"said = subprocess.run([sys.executable, '-c', {starts!r}], env=env, capture_output=True, text=True)\n"
        begin += "assert said.stdout == 'True\\n', said"
        assert client.execute_interactive(begin, timeout=READY_S)["content"]["status"] == "ok"
        command = [*LABKIT, "run", str(endless), "--no-report"]
        with subprocess.Popen(command, env=env | {"PYTHONHASHSEED": "0"}, stderr=subprocess.PIPE) as runner:
            (made,) = wait_for(lambda: [one for one in every(lab / "runs") if one.process.exists()])
            assert is_warm(made)
            client.stop_channels()
            manager.shutdown_kernel()
            time.sleep(1)
            assert status(made).state == "running" and list(place.rglob("*.socket"))
            runner.send_signal(signal.SIGTERM)
            runner.communicate(timeout=60)
        assert status(made).state == "interrupted"


def test_a_server_is_detached_and_its_kernels_are_not(lab: Path, environment: dict[str, str], place: Path) -> None:
    tells = "import os\nfrom labkit.record.process import is_detached\nprint('IS', [is_detached(os.getpid())])"
    made = run(lab, environment, tells)
    assert is_warm(made) and "IS [False]" in made.log.read_text()
    assert any(is_detached(pid) for pid in naming(place))


@pytest.mark.faults
def test_of_many_servers_the_least_used_leave() -> None:
    with sockets() as place:
        first = served(place)
        others = [served(place, SOMETHING=str(number)) for number in range(warm.MOST - 1)]
        assert len(list(place.rglob("*.socket"))) == warm.MOST
        subprocess.run([sys.executable, "-c", ASKS], env=first, check=True)
        served(place, SOMETHING="else")
        wait_for(lambda: len(list(place.rglob("*.socket"))) == warm.MOST, what="the end of the least used server")
        ready = [subprocess.run([sys.executable, "-c", ASKS], env=env).returncode == 0 for env in (first, *others)]
        assert ready == [True, False, True]


def test_a_server_leaves_the_door_of_another_one_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.socket"
    lock = path.with_suffix(".lock")
    late = Door.at(path, os.open(lock, os.O_CREAT | os.O_RDWR), path.with_suffix(".1"))
    lock.unlink()  # all servers were asked to end while this one was importing
    ready = Door.at(path, os.open(lock, os.O_CREAT | os.O_RDWR), path.with_suffix(".2"))
    assert ready.open() and not late.open()
    late.close()
    assert path.exists() and lock.exists()
    ready.close()
    assert not path.exists() and not lock.exists()


def test_whatever_keeps_a_server_from_being_asked_makes_a_cold_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sockets() as place:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
        environment = dict(os.environ)
        lock = warm.address(environment).with_suffix(".lock")
        lock.mkdir()
        with pytest.raises(warm.Cold, match="no server can be asked"):
            warm.launch(environment, start=True)
        lock.rmdir()
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(warm.Cold):
        warm.launch(environment, start=False)


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


def hear(client: Any, text: str) -> None:
    """Waits until a kernel has printed something."""
    while True:
        message = client.get_iopub_msg(timeout=60)
        if message["msg_type"] == "stream" and text in message["content"]["text"]:
            return


def test_an_installed_kernel_is_interrupted_restarted_and_shut_down_as_ever(
    place: Path, environment: dict[str, str], installed: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {**environment, **installed}.items():
        monkeypatch.setenv(name, value)
    seen = []
    left = tmp_path / "left"
    left.mkdir()
    for _ in range(2):  # the first asks for a server with these variables, the second has it
        manager = KernelManager(kernel_name="labkit-cpu")
        manager.start_kernel()
        info = manager.get_connection_info()
        made = [os.path.exists(f"{info['ip']}-{info[name]}") for name in info if name.endswith("_port")]
        client = manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        client.execute("import sys, os; warm = 'labkit.launch.forkserver' in sys.modules", reply=True, timeout=60)
        client.execute("import time; print('sleeps', flush=True); time.sleep(100)")
        hear(client, "sleeps")
        manager.interrupt_kernel()
        assert client.get_shell_msg(timeout=30)["content"]["ename"] == "KeyboardInterrupt"
        while client.execute("1 + 1", reply=True, timeout=30)["content"]["status"] == "aborted":
            pass  # what comes right behind an interrupt is
        manager.restart_kernel(now=False)
        client.wait_for_ready(timeout=60)
        reply = client.execute("", user_expressions={"is_new": "'warm' not in globals()"}, reply=True, timeout=30)
        assert reply["content"]["user_expressions"]["is_new"]["data"]["text/plain"] == "True"
        loaded = "'labkit.launch.forkserver' in __import__('sys').modules"
        reply = client.execute("", user_expressions={"warm": loaded}, reply=True, timeout=30)
        seen.append(reply["content"]["user_expressions"]["warm"]["data"]["text/plain"])
        assert client.execute(f"left = {str(left)!r}{LEAVES}", reply=True, timeout=30)["content"]["status"] == "ok"
        client.stop_channels()
        manager.shutdown_kernel()
        assert not manager.is_alive()
        assert {path.name: path.read_text() for path in left.iterdir()} == {"hook": "ran", "open": "written"}
        shutil.rmtree(left)
        left.mkdir()
        wait_for(lambda: len(list(place.rglob("*.socket"))) > 1, READY_S, "the server for this kernel")
    assert seen[-1] == "True"
    assert made == [True] * 5  # so that a client need not try twice to reach a warm kernel


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
    assert "Ctrl-C will not work" not in done.stdout + done.stderr


def test_a_cell_of_a_warm_kernel_stops_at_a_breakpoint_as_jupyterlab_sets_it(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_PATH", installed["JUPYTER_PATH"])
    with sockets() as place:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
        for is_asking in (True, False):  # the first kernel asks for a server, the second has it
            manager = KernelManager(kernel_name="labkit-cpu")
            manager.start_kernel()
            client = manager.blocking_client()
            client.start_channels()
            try:
                client.wait_for_ready(timeout=60)
                if is_asking:
                    wait_for(lambda: list(place.rglob("*.socket")), READY_S, "the server for this kernel")
                else:
                    stop_at_a_breakpoint(client)
            finally:
                client.stop_channels()
                manager.shutdown_kernel()


def stop_at_a_breakpoint(client: Any) -> None:
    """Debugs a cell of two lines through the kernel's control channel."""
    loaded = "'labkit.launch.forkserver' in __import__('sys').modules"
    reply = client.execute("", user_expressions={"warm": loaded}, reply=True, timeout=30)
    assert reply["content"]["user_expressions"]["warm"]["data"]["text/plain"] == "True"

    def ask(number: int, command: str, **arguments: Any) -> dict[str, Any]:
        content = {"type": "request", "seq": number, "command": command, "arguments": arguments}
        sent = client.session.msg("debug_request", content)
        client.control_channel.send(sent)
        while True:
            answer = client.control_channel.get_msg(timeout=30)
            if answer["parent_header"].get("msg_id") == sent["header"]["msg_id"]:
                assert answer["content"]["success"], answer["content"]
                return answer["content"].get("body") or {}

    cell = "kept = 41\nkept += 1\n"
    ask(1, "initialize", clientID="test", adapterID="", pathFormat="path", linesStartAt1=True)
    ask(2, "attach")
    source = ask(3, "dumpCell", code=cell)["sourcePath"]
    ask(4, "setBreakpoints", source={"path": source}, breakpoints=[{"line": 2}])
    ask(5, "configurationDone")
    client.execute(cell)
    while (event := client.get_iopub_msg(timeout=30))["content"].get("event") != "stopped":
        pass
    thread = event["content"]["body"]["threadId"]
    frame = ask(6, "stackTrace", threadId=thread)["stackFrames"][0]
    assert (frame["line"], frame["source"]["path"]) == (2, source)
    ask(7, "continue", threadId=thread)
    assert client.get_shell_msg(timeout=30)["content"]["status"] == "ok"
