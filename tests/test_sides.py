"""Imports go one way: the record is light, the workbench never loads torch, the kernel never papermill."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from tiny import ROOT, plain_environment

PACKAGE = ROOT / "labkit"
AROUND_THE_KERNEL = {"papermill", "nbconvert", "nbdime", "nbformat", "nbclient"}
OFFERED = {"blake3", "orjson"}  # what the record may have beside the standard library


def modules(*folders: str) -> list[str]:
    """The modules in folders of labkit, by name."""
    files = sorted(file for folder in folders for file in (PACKAGE / folder).rglob("*.py"))
    return [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]


def loaded(*names: str) -> set[str]:
    """What a fresh interpreter has loaded after importing modules, beyond what it starts with."""
    code = (
        "import importlib, json, sys; before = set(sys.modules)\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print(json.dumps([n for n, m in sys.modules.items() if m is not None and n not in before]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=plain_environment(), cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def packages(found: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in found}


def foreign(found: set[str]) -> set[str]:
    """What is neither labkit's nor the standard library's."""
    return packages(found) - sys.stdlib_module_names - {"labkit"}


def test_importing_labkit_loads_nothing_but_itself():
    found = loaded("labkit")
    assert {name for name in found if name.startswith("labkit")} == {"labkit"}
    assert foreign(found) == set()
    assert len(found) < 30


def test_the_record_is_standard_library_and_a_fast_json():
    assert foreign(loaded(*modules("record"))) <= OFFERED


def test_the_supervisor_is_standard_library_a_fast_json_and_the_record():
    found = loaded("labkit.launch.supervise")
    assert foreign(found) <= OFFERED
    own = {name for name in found if name.startswith("labkit.")}
    assert all(name.startswith(("labkit.launch", "labkit.record", "labkit.errors")) for name in own)


def test_the_launcher_loads_neither_side():
    found = loaded(*modules("launch"))
    assert not {name for name in found if name.startswith(("labkit.kernel", "labkit.workbench"))}
    assert not packages(found) & (AROUND_THE_KERNEL | {"torch"})


def test_the_whole_workbench_and_the_command_line_load_no_torch():
    found = loaded("labkit.cli", *modules("workbench"))
    assert "torch" not in packages(found)
    assert not {name for name in found if name.startswith("labkit.kernel")}


@pytest.mark.slow
def test_the_kernel_side_loads_nothing_of_what_runs_notebooks():
    found = loaded(*modules("kernel"))
    assert not packages(found) & AROUND_THE_KERNEL
    assert not {name for name in found if name.startswith("labkit.workbench")}


def test_the_command_line_loads_little_before_it_knows_the_command():
    assert foreign(loaded("labkit.cli")) <= {"click"}


# by syntax tree: also what is imported inside of functions

ALLOWED = {  # folder: the parts of labkit that its modules may import
    "record": {"errors", "record"},
    "launch": {"errors", "record", "launch"},
    "kernel": {"errors", "record", "launch", "kernel"},
    "workbench": {"errors", "record", "launch", "workbench"},
    "cli": {"errors", "record", "launch", "workbench", "cli"},
}
FORBIDDEN = {
    "record": {"torch", "numpy", "pandas", "matplotlib", "IPython", "ipykernel", "rich", "click", "ruamel"}
    | AROUND_THE_KERNEL,
    "launch": {"torch", "numpy", "pandas", "matplotlib", "rich", "click"} | AROUND_THE_KERNEL,
    "kernel": AROUND_THE_KERNEL | {"click", "ruamel"},
    "workbench": {"torch", "torchvision"},
}


@cache
def imported(file: Path) -> set[str]:
    """Every module that a file imports, wherever in it; not what only a type checker sees."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= (
                {f"{node.module}.{alias.name}" for alias in node.names}
                if node.module == "labkit"
                else {node.module or ""}
            )
    return found


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_the_parts_of_labkit_import_one_way(folder: str):
    for file in (PACKAGE / folder).rglob("*.py"):
        own = {name.split(".")[1] for name in imported(file) if name.startswith("labkit.")} - {"__version__"}
        assert own <= ALLOWED[folder], f"{file.relative_to(ROOT)} imports {own - ALLOWED[folder]}"


@pytest.mark.parametrize("folder", sorted(FORBIDDEN))
def test_no_part_imports_what_belongs_to_another_side(folder: str):
    for file in (PACKAGE / folder).rglob("*.py"):
        found = {name.partition(".")[0] for name in imported(file)}
        assert not found & FORBIDDEN[folder], f"{file.relative_to(ROOT)} imports {found & FORBIDDEN[folder]}"


def test_nothing_imports_the_command_line():
    for file in set(PACKAGE.rglob("*.py")) - set((PACKAGE / "cli").rglob("*.py")):
        assert not {name for name in imported(file) if name.startswith("labkit.cli")}, file


def test_there_is_no_drawer_for_odds_and_ends():
    names = {part.stem for part in PACKAGE.rglob("*")}
    assert not names & {"utils", "util", "core", "common", "helpers", "misc", "base"}
