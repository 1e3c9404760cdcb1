"""Settings of a lab and of its user: where each comes from, and what they cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import quick

from labkit.errors import ConfigProblem
from labkit.record import config, lab


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_without_a_file_every_setting_has_its_default(tmp_path: Path) -> None:
    assert {one.origin for one in config.settings(tmp_path).values()} == {"default"}


def test_the_users_file_wins_over_the_labs(tmp_path: Path, home: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.labkit]\nruns = "there"\ngrace_s = 5\n')
    (home / "labkit.toml").write_text("grace_s = 7.5\n")
    found = config.settings(tmp_path)
    assert (found["runs"].value, found["runs"].origin) == ("there", str(tmp_path / "pyproject.toml"))
    assert (found["grace_s"].value, found["grace_s"].origin) == (7.5, str(home / "labkit.toml"))


def test_a_table_of_settings_is_taken_name_by_name(tmp_path: Path, home: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.labkit.slurm]\npartition = "gpu"\ntime = "1:00:00"\n')
    (home / "labkit.toml").write_text('[slurm]\naccount = "mine"\ntime = "2:00:00"\nlines = ["#SBATCH --qos=long"]\n')
    found = config.settings(tmp_path)
    assert found["slurm.partition"].value == "gpu" and found["slurm.account"].value == "mine"
    assert (found["slurm.time"].value, found["slurm.time"].origin) == ("2:00:00", str(home / "labkit.toml"))
    assert found["slurm.lines"].value == ["#SBATCH --qos=long"] and found["slurm.gpus"].value == 0


def test_the_folder_of_runs_is_the_option_the_variable_the_setting_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lab.runs_folder(tmp_path) == tmp_path / "runs"
    (tmp_path / "pyproject.toml").write_text('[tool.labkit]\nruns = "../there"\n')
    assert lab.runs_folder(tmp_path).resolve() == (tmp_path.parent / "there").resolve()
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "variable"))
    assert lab.runs_folder(tmp_path) == tmp_path / "variable"
    assert lab.runs_folder(tmp_path, tmp_path / "option") == tmp_path / "option"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[tool.labkit]\nrun = 'x'", "no setting 'run', did you mean runs?"),
        ("[tool.labkit]\nruns = 3", "runs = 3 cannot be: the folder of runs"),
        ("[tool.labkit]\ngrace_s = -1", "grace_s = -1 cannot be"),
        ("[tool.labkit]\ngrace_s = true", "grace_s = True cannot be"),
        ("[tool.labkit]\ngrace_s = nan", "grace_s = nan cannot be"),
        ("[tool.labkit]\ngrace_s = 1" + "0" * 400, "cannot be"),
        ('[tool.labkit]\nruns = ""', "runs = '' cannot be"),
        ('[tool.labkit]\nruns = "a\\u0000b"', "cannot be"),
        ("[tool]\nlabkit = 3", "is no table"),
        ("[tool.labkit\n", "is not TOML"),
        ("[tool.labkit]\nslurm = 3", "slurm is no table; write [tool.labkit.slurm]"),
        ("[tool.labkit.slurm]\npartitions = 'x'", "no setting 'slurm.partitions', did you mean slurm.partition?"),
        ("[tool.labkit.slurm]\ntime = 30", "slurm.time = 30 cannot be: the time limit of a job"),
        ("[tool.labkit.slurm]\nwarn_s = 5", "slurm.warn_s = 5 cannot be"),
        ("[tool.labkit.slurm]\nmodules = 'cuda'", "slurm.modules = 'cuda' cannot be: a list"),
        ("[tool.labkit.slurm]\nlines = [3]", "slurm.lines = [3] cannot be"),
        ('[tool.labkit.slurm]\naccount = "a\\nrm -r x"', "cannot be: the account"),
    ],
)
def test_what_cannot_be_set_is_refused_with_the_file_and_what_is_known(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(ConfigProblem, match=r"pyproject\.toml") as raised:
        config.settings(tmp_path)
    assert problem in str(raised.value)


def test_a_home_that_there_is_not_is_refused_with_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.labkit]\nruns = "~nobody7/x"\n')
    with pytest.raises(ConfigProblem, match=r"pyproject\.toml: runs = '~nobody7/x': there is no such home folder"):
        lab.runs_folder(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without a home")
def test_a_user_without_a_home_has_no_file_of_settings(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from labkit.record import config, lab
os.setuid(54321)
print(config.user_file(), lab.runs_folder(Path(sys.argv[1])))
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CONFIG_HOME")}
    command = [sys.executable, "-c", code, "/nowhere"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert said == "None /nowhere/runs\n"


def test_a_broken_file_of_another_tool_is_not_labkits_business(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project\n")
    assert config.settings(tmp_path)["runs"].value == "runs"


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: ("[tool.labkit]\n" + text).encode()))
@quick
def test_any_file_is_read_or_refused(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "pyproject.toml").write_bytes(data)
        try:
            assert set(config.settings(Path(folder))) == set(config.KEYS)
        except ConfigProblem as error:
            assert "pyproject.toml" in str(error)
