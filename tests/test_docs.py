"""What the documents name exists."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from tiny import ROOT, parameters, plain_environment, write

import labkit
from labkit.cli import main
from labkit.cli.sweeping import IN_FILES
from labkit.workbench.notebooks import notebook
from labkit.workbench.sweeps import points

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/sweeps.md", "docs/reproducing.md")
OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def code(text: str) -> list[str]:
    """Every span and every line of every block of code, in the order of the text."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()] + spans


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_make_target_in_the_documents_exists(name: str):
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.M))
    named = {target for line in code(read(name)) for target in re.findall(r"\bmake(?: -s)? ([a-z]+)", line)}
    assert named <= targets


def test_the_file_of_a_sweep_in_the_documents_makes_the_points_that_are_shown_there(tmp_path: Path):
    (text,) = re.findall(r"^```yaml\n(.*?)^```", read("docs/sweeps.md"), re.M | re.S)
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    assert len(points.points(notebook.read(ROOT / "notebooks" / "digits-cnn.ipynb"), [], [file])) == 10
    assert points.options(file) == {"--maximize": "test_accuracy", "--jobs": 2} and set(IN_FILES) >= {
        "--maximize",
        "--jobs",
    }


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_and_option_in_the_documents_exists(name: str):
    for line in code(read(name)):
        for command, rest in re.findall(r"(?<!from )(?<![\w.-])labkit ([a-z]+)([^|;&#\n]*)", line):
            assert command in main.commands, line
            options = main.commands[command].params
            known = {text for option in options for text in option.opts + option.secondary_opts}
            assert set(OPTION.findall(rest)) <= known | {"--help"}, line


def test_every_command_is_in_the_readme_and_shows_an_example_in_its_help():
    named = {command for line in code(read("README.md")) for command in re.findall(r"^labkit ([a-z]+)", line)}
    for name, command in main.commands.items():
        assert name in named
        description = command.get_help(click.Context(command)).split("Options:")[0]
        assert f"labkit {name}" in description.partition("\n")[2]


def test_the_list_of_commands_says_of_each_in_a_whole_sentence_what_it_does():
    cut = [name for name, command in main.commands.items() if command.get_short_help_str(80 - 17).endswith("...")]
    assert cut == []


def test_every_target_is_in_a_document():
    text = "\n".join(read(name) for name in DOCUMENTS)
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.M)) - {"help"}
    assert {target for target in targets if f"make {target}" not in text} == set()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_point_to_files_that_exist(name: str):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", read(name)):
        if "://" not in target:
            assert (ROOT / Path(name).parent / target).exists(), target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_names_of_labkit_in_the_documents_exist(name: str):
    found = {
        attribute
        for line in code(read(name))
        for attribute in re.findall(r"(?<!tool\.)\blabkit\.([a-z_]+)\b(?!/)", line)
    }
    named = found - {"toml"}  # a file
    assert {attribute for attribute in named if not hasattr(labkit, attribute)} == set()


def test_the_version_is_one():
    newest = re.search(r"^## (\S+)", read("CHANGELOG.md"), re.M)
    assert newest
    assert newest[1] == labkit.__version__ == tomllib.loads(read("pyproject.toml"))["project"]["version"]
    assert f"labkit-{labkit.__version__}-py3" in read("README.md")


@pytest.mark.slow
def test_the_notebook_in_the_readme_runs_as_it_is_shown(lab: Path) -> None:
    section = read("README.md").partition("## In the notebook")[2].partition("\n## ")[0]
    declared, *cells = re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)
    path = write(lab / "notebooks" / "readme.ipynb", parameters(declared), *cells)
    command = [sys.executable, "-m", "labkit.cli", "run", str(path), "-p", "EPOCHS=1", "--json"]
    done = subprocess.run(command, env=plain_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"test_accuracy"' in done.stdout and list(lab.glob("runs/readme/*/figures/learning-curves.png"))
