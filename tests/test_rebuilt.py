"""An environment is built from a record once, whole, by one process; what a stranger wrote there is no option."""

from __future__ import annotations

import bz2
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import LABKIT, alive, make_lab, wait_for
from tiny import ROOT, parameters, plain_environment, write
from twins import recorded

from labkit.errors import BadInput
from labkit.record import wheel
from labkit.record.files import write_json
from labkit.record.process import descendants
from labkit.record.rundir import RunDir
from labkit.workbench.reproducing import installable, rebuilt
from labkit.workbench.running import child

WHEEL = "labkit-0.1.0-py3-none-any.whl"
FAKE_PYTHON = "#!/bin/sh\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run that carries labkit."""
    made = recorded(tmp_path / "runs")
    (made.source / WHEEL).write_bytes(b"PK")
    name_wheel(made, WHEEL)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return made


def name_wheel(run: RunDir, name: object) -> None:
    write_json(run.source / "labkit.json", {"version": "0.1.0", "sha256": "a" * 64, "wheel": name})


Answer = Callable[[list[str]], tuple[int, list[str]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would be executed to build an environment; the text of a file of requirements in place of its name."""
    return answering(monkeypatch, lambda command: (0, []))


def answering(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> list[list[str]]:
    found: list[list[str]] = []

    def run(command: list[str], env: dict[str, str], **_: Any) -> tuple[int, list[str]]:
        if command[1:3] == ["-m", "venv"]:
            (Path(command[-1]) / "bin").mkdir(parents=True)
            (Path(command[-1]) / "bin" / "python").write_text(FAKE_PYTHON)
            (Path(command[-1]) / "bin" / "python").chmod(0o755)
        elif "--requirement" in command:
            command = [*command[:-1], Path(command[-1]).read_text()]
        found.append(command)
        time.sleep(0.02)
        return answer(command)

    monkeypatch.setattr(child, "run", run)
    return found


def silent(_: str) -> None:
    pass


def test_an_environment_is_built_once_also_by_several_at_the_same_time(run: RunDir, calls: list[list[str]]) -> None:
    threads = [threading.Thread(target=rebuilt.python, args=(run, silent)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 3
    assert rebuilt.python(run, silent).exists() and len(calls) == 3


def test_what_a_build_that_was_killed_has_left_is_built_anew(run: RunDir, calls: list[list[str]]) -> None:
    python = rebuilt.python(run, silent)
    (python.parents[1] / rebuilt.WHOLE).unlink()
    (python.parents[1] / "half").touch()
    assert rebuilt.python(run, silent) == python
    assert len(calls) == 6 and not (python.parents[1] / "half").exists()


def test_an_environment_whose_python_was_removed_is_built_anew(run: RunDir, calls: list[list[str]]) -> None:
    python = rebuilt.python(run, silent)
    python.unlink()
    python.symlink_to("/nowhere/python3")
    assert rebuilt.python(run, silent) == python and len(calls) == 6


def test_another_list_of_packages_is_another_environment(run: RunDir, calls: list[list[str]]) -> None:
    first = rebuilt.python(run, silent)
    run.requirements.write_text("torch==2.12.0\n")
    assert rebuilt.python(run, silent) != first and first.exists()


def test_how_far_pip_is_names_packages_and_no_scratch_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuilt, "TOLD_S", 0.0)
    said: list[str] = []
    take = rebuilt._told(said.append, 2)
    for line in ("Collecting torch==2.13.0 (from -r /tmp/.building-x/requirements.txt (line 1))", "  Using cached x"):
        take(line)
    take("Installing collected packages: numpy, torch")
    assert said == ["1 of 2 packages: torch==2.13.0", "installing 2 packages"]


def test_a_failed_build_leaves_nothing_and_says_what_pip_said(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    said = ["Collecting torch", "ERROR: no space left on the device", "[notice] a new pip"]
    answering(monkeypatch, lambda command: (1, said) if "--requirement" in command else (0, []))
    with pytest.raises(BadInput, match=r"no space left on the device$"):
        rebuilt.python(run, silent)
    cache = Path(os.environ["XDG_CACHE_HOME"], "labkit", "environments")
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


@pytest.mark.parametrize("name", [f"../../x/{WHEEL}", f"/tmp/{WHEEL}", "evil-1-py3-none-any.whl", "", None, ["x"]])
def test_a_wheel_of_another_name_or_place_is_not_installed(run: RunDir, calls: list[list[str]], name: object) -> None:
    outside = run.source / ".." / ".." / "x"
    outside.mkdir()
    (outside / WHEEL).write_bytes(b"PK")
    (run.source / "evil-1-py3-none-any.whl").write_bytes(b"PK")
    name_wheel(run, name)
    with pytest.raises(BadInput, match="does not carry labkit"):
        rebuilt.python(run, silent)
    assert not calls


HOSTILE = """\
--index-url https://example.org/simple
-i https://example.org/simple
--extra-index-url=https://example.org
-e ./evil
-e==git
-r /etc/passwd
-r==/etc/passwd
--find-links /tmp
--trusted-host==x
evil @ https://example.org/evil.whl
evil2==1.0 @ file:///tmp/evil.whl
git+https://example.org/evil.git
https://example.org/evil.whl
./evil.whl
/tmp/evil.whl
$HOME==1
evil3==https://example.org/x.whl
evil4==1.0/../../x
evil5==*
evil6>=1.0
..==1
-==1
NumPy==2.4.6 --hash=sha256:abc \\
    --config-settings x=y
rich[jupyter]==14.1.0 ; python_version > "3.0"
torch==2.13.0+cpu
nvidia-cublas-cu12==12.1.3.1
labkit==0.1.0
pip==23.2.1
here==1.0
"""


def test_only_names_and_exact_versions_are_passed_to_pip(run: RunDir, calls: list[list[str]]) -> None:
    run.requirements.write_text(HOSTILE)
    write_json(
        run.source / "packages.json", {"python": sys.version.split()[0], "packages": {"here": {"origin": "editable"}}}
    )
    rebuilt.python(run, silent)
    (asked,) = [command for command in calls if "--requirement" in command]
    assert asked[-1] == "torch==2.13.0+cpu\nevil2==1.0\nnumpy==2.4.6\nrich==14.1.0\n"
    assert all("example.org" not in part and "passwd" not in part for command in calls for part in command)


@pytest.mark.parametrize("packages", [["numpy"], None, 3, {"numpy": 4}])
def test_a_damaged_list_of_origins_stops_nothing(run: RunDir, packages: object) -> None:
    run.requirements.write_text("numpy==2.4.6\n")
    write_json(run.source / "packages.json", {"packages": packages})
    assert installable.requirements(run) == {"numpy": "2.4.6"}


def test_a_record_without_packages_is_refused(run: RunDir) -> None:
    run.requirements.write_text("-r /etc/passwd\n")
    with pytest.raises(BadInput, match="does not say which packages"):
        rebuilt.python(run, silent)


def test_what_no_index_has_is_taken_without_its_local_part_or_left_out_and_said(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.requirements.write_text("numpy==2.4.6\nours==1.0\ntorch==2.13.0+cpu\n")

    def answer(command: list[str]) -> tuple[int, list[str]]:
        missing = next((pin for pin in ("torch==2.13.0+cpu", "ours==1.0") if f"{pin}\n" in command[-1]), None)
        return (1, [f"ERROR: No matching distribution found for {missing}"]) if missing else (0, [])

    calls, said = answering(monkeypatch, answer), list[str]()
    rebuilt.python(run, said.append)
    asked = [command[-1] for command in calls if "--requirement" in command]
    assert asked[-1] == "numpy==2.4.6\ntorch==2.13.0\n" and len(asked) == 3
    assert "no index has torch 2.13.0+cpu; 2.13.0 is taken" in said
    assert any("ours 1.0" in line and "left out" in line for line in said)


def test_the_python_of_the_record_is_looked_for_by_its_minor_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match=r"ran on Python 3\.98\.1, and there is no python3\.98"):
        rebuilt._interpreter("3.98.1")
    (tmp_path / "python3.98").write_text(FAKE_PYTHON)
    (tmp_path / "python3.98").chmod(0o755)
    assert rebuilt._interpreter("3.98.1") == str(tmp_path / "python3.98")
    assert os.path.realpath(rebuilt._interpreter(f"3.{sys.version_info[1]}.0")) == os.path.realpath(sys.executable)
    for odd in ("", "2.7.1", "3.x", "../../evil", "4.11/../evil"):
        with pytest.raises(BadInput, match="does not say which Python"):
            rebuilt._interpreter(odd)


def test_what_an_outer_environment_says_of_itself_does_not_reach_the_rebuilt_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaking = (
        "PYTHONPATH PYTHONHOME PYTHONSTARTUP VIRTUAL_ENV_PROMPT CONDA_PREFIX JUPYTER_PATH JUPYTER_CONFIG_DIR "
        "JUPYTER_DATA_DIR IPYTHONDIR JPY_SESSION_NAME LABKIT_RUNS PIP_TARGET PIP_CONSTRAINT PIP_REQUIREMENT"
    ).split()
    for name in leaking:
        monkeypatch.setenv(name, "/outer")
    monkeypatch.setenv("VIRTUAL_ENV", "/outer")
    for name, value in {"PYTHONHASHSEED": "0", "PIP_INDEX_URL": "https://example.org", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    found = rebuilt.environment(tmp_path)
    assert not set(leaking) & found.keys()
    assert found["VIRTUAL_ENV"] == str(tmp_path) and found["PATH"].startswith(f"{tmp_path}/bin:")
    assert (found["PYTHONHASHSEED"], found["PIP_INDEX_URL"], found["OMP_NUM_THREADS"]) == (
        "0",
        "https://example.org",
        "1",
    )


def test_a_notebook_that_no_rebuilt_environment_could_run_is_refused_first(tmp_path: Path) -> None:
    path = write(tmp_path / "x.ipynb", parameters("NAMES: dict = {}"), "print(1)")
    rebuilt.refuse(path, {"NAMES": {"a": 1}})
    with pytest.raises(BadInput, match="NAMES"):
        rebuilt.refuse(path, {"NAMES": {0: "cat"}})
    content = json.loads(path.read_text())
    content["metadata"] = {"kernelspec": {"name": "ir", "language": "R", "display_name": "R"}}
    path.write_text(json.dumps(content))
    with pytest.raises(BadInput, match="R; an environment is rebuilt for Python only"):
        rebuilt.refuse(path, {})


def test_the_carried_wheel_comes_back_and_a_damaged_one_does_not(tmp_path: Path) -> None:
    path = tmp_path / wheel.name()
    path.write_bytes(wheel.packed())
    assert wheel.read(path) == wheel.content() and wheel.NAMED.fullmatch(path.name)
    for damaged in (path.read_bytes()[:-100], b"no archive", b""):
        path.write_bytes(damaged)
        assert wheel.read(path) is None


def test_a_wheel_that_unfolds_to_far_more_is_not_unfolded(tmp_path: Path) -> None:
    path = tmp_path / wheel.name()
    path.write_bytes(bz2.compress(b"\0" * (wheel.LARGEST_BYTES + 1)))
    assert wheel.read(path) is None


STUB = """\
import os, signal, sys, time
open(sys.argv[0] + ".env", "w").write(os.environ.get("PYTHONPATH", ""))
def leave(*_):
    open(sys.argv[0] + ".left", "w").close()
    sys.exit(1)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, leave)
open(sys.argv[0] + ".part", "w").write(str(os.getpid()))
os.rename(sys.argv[0] + ".part", sys.argv[0] + ".pid")
time.sleep(60)
"""
PARENT = """\
import sys
from pathlib import Path
from labkit.workbench.reproducing import again, rebuilt
stub, runs = map(Path, sys.argv[1:])
with again._ending_in_order():
    rebuilt.run(stub, Path("x.ipynb"), {}, runs, [str(runs.parent / "src")])
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stop_that_reaches_this_process_alone_ends_the_run_in_the_other_environment(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    (tmp_path / "lab" / "runs").mkdir(parents=True)
    (tmp_path / "stub.py").write_text(STUB)
    (tmp_path / "bin").mkdir()
    stub = tmp_path / "bin" / "python"
    stub.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path / "stub.py"}" "$@"\n')
    stub.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(stub), str(tmp_path / "lab" / "runs")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), "/outer"])},
        stderr=subprocess.DEVNULL,
    )
    noted = tmp_path / "stub.py.pid"
    pid = int(wait_for(lambda: noted.exists() and noted.read_text()))
    process.send_signal(number)
    assert process.wait(30) == status
    wait_for(lambda: not alive(pid), 10, "the end of the run")
    assert (tmp_path / "stub.py.left").exists()
    assert (tmp_path / "stub.py.env").read_text() == str(tmp_path / "lab" / "src")


INSTALLING = """\
from labkit.workbench.running import child
command = ["sh", "-c", "echo Collecting; sleep 60 & sleep 60"]
child.run(command, {"PATH": "/usr/bin:/bin"}, on_line=lambda line: print(line, flush=True))
"""


def test_a_stop_while_pip_installs_ends_all_that_it_started() -> None:
    process = subprocess.Popen([sys.executable, "-c", INSTALLING], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None and process.stdout.readline() == "Collecting\n"
    below = wait_for(lambda: len(found := descendants(process.pid)) >= 3 and found)
    process.terminate()
    assert process.wait(30) == 143
    process.stdout.close()
    wait_for(lambda: not alive(*below), 10, "the end of all")


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_the_digits_report_is_made_again_in_an_environment_of_its_own(tmp_path: Path) -> None:
    lab = make_lab(tmp_path / "lab")
    shutil.copy(ROOT / "notebooks" / "digits-cnn.ipynb", lab / "notebooks")
    env = plain_environment(LABKIT_RUNS=str(lab / "runs"))
    command = [*LABKIT, "run", "notebooks/digits-cnn.ipynb", "-p", "EPOCHS=2"]
    done = subprocess.run(command, cwd=lab, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (tmp_path / "empty").mkdir()
    shutil.copy(Path(done.stdout.strip()) / "report.html", tmp_path / "empty" / "digits.html")
    command = [*LABKIT, "reproduce", "digits.html", "--yes", "--json", "--env", "rebuild"]
    env = plain_environment(XDG_CACHE_HOME=str(tmp_path / "cache"), JUPYTER_PATH="/nowhere", PYTHONPATH="/nowhere")
    for builds in (True, False):
        done = subprocess.run(command, cwd=tmp_path / "empty", env=env, capture_output=True, text=True)
        found = json.loads(done.stdout)
        assert found["verdict"] == "identical" and done.returncode == 0, done.stderr
        links = {one["link"]: one["state"] for one in found["chain"]}
        assert links.pop("packages") in ("equal", "differs"), found  # pip's own version, and what no index has
        assert set(links.values()) == {"equal"}, found["chain"]
        assert ("building the recorded environment" in done.stderr) == builds
