"""A parameter names a model, a loss, a data set; nothing but names is followed, and the lab's own code is recorded."""

from __future__ import annotations

import math
import os
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import quick
from running import run
from tiny import parameters, write

import labkit
from labkit.errors import RunProblem
from labkit.kernel.byname import by_name
from labkit.record import provenance
from labkit.record.files import read_json

MODEL = """
import helper


class SimpleCNN:
    size = helper.SIZE

    @staticmethod
    def small():
        return 1
"""


@pytest.fixture
def modules(lab: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab with modules beside the notebooks and at its top, none of them imported yet or left over."""
    monkeypatch.chdir(lab / "notebooks")
    monkeypatch.setenv("JPY_SESSION_NAME", str(lab / "notebooks" / "choose.ipynb"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    (lab / "notebooks" / "simple_models.py").write_text(MODEL)
    (lab / "helper.py").write_text("SIZE = 16\n")
    (lab / "nets" / "deep").mkdir(parents=True)
    (lab / "nets" / "deep" / "__init__.py").write_text("")
    (lab / "nets" / "deep" / "resnet.py").write_text("class ResNet:\n    pass\n")
    (lab / "broken.py").write_text("import no_such_module_at_all\n")
    (lab / "invalid.py").write_text("def f(:\n")
    return lab


def test_a_name_is_its_object_wherever_the_module_ends():
    assert by_name("math.pi") is math.pi
    assert by_name("math") is math
    assert by_name("xml.etree.ElementTree.Element") is xml.etree.ElementTree.Element
    assert by_name("xml.etree.ElementTree:Element.__name__") == "Element"
    assert by_name("labkit.by_name") is by_name is labkit.by_name


def test_modules_beside_the_notebook_and_in_the_lab_are_found_with_what_they_import(modules: Path):
    assert by_name("simple_models.SimpleCNN").size == 16
    assert by_name("simple_models.SimpleCNN.small")() == 1
    assert by_name("nets.deep.resnet.ResNet").__name__ == "ResNet"
    assert by_name("nets.deep.resnet:ResNet") is by_name("nets.deep.resnet.ResNet")
    named = {"simple_models", "helper", "nets.deep", "nets.deep.resnet"}
    assert set(provenance.first_party(modules)) >= named
    assert named <= set(provenance.modules(modules)[0])


def test_the_labs_own_module_comes_before_an_installed_one(modules: Path, tmp_path: Path):
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "helper.py").write_text("SIZE = 1\n")
    sys.path.insert(0, str(tmp_path / "installed"))
    assert by_name("helper.SIZE") == 16
    by_name("helper.SIZE")
    assert [sys.path.count(str(folder)) for folder in (modules, modules / "notebooks")] == [1, 1]


PROBLEMS = {
    "maths.pi": r"there is no module 'maths'; did you mean 'math'\?",
    "math.pie": r"math has no name 'pie'; did you mean 'pi'\?",
    "simple_models.simplecnn": r"simple_models has no name 'simplecnn'; did you mean 'SimpleCNN'\?",
    "simple_model.SimpleCNN": r"there is no module 'simple_model'; did you mean 'simple_models'\?",
    "nets.deep.resnt.ResNet": r"nets.deep has no name 'resnt'; did you mean 'resnet'\?",
    "nets.deap:ResNet": r"nets has no module 'deap'; did you mean 'deep'\?",
    "math.pi:real": r"math has no module 'pi'",
    "CrossEntropyLoss": r"there is no module 'CrossEntropyLoss'; begin with the module: 'torch.nn.ReLU'",
    "broken.Model": r"importing broken raised ModuleNotFoundError: No module named 'no_such_module_at_all'",
    "invalid.Model": r"importing invalid raised SyntaxError",
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_is_not_there_is_said_with_the_nearest_name(modules: Path, name: str):
    with pytest.raises(RunProblem, match=PROBLEMS[name]) as raised:
        by_name(name)
    assert repr(name) in str(raised.value)


def test_an_error_of_the_module_itself_is_kept_with_its_traceback(modules: Path):
    with pytest.raises(RunProblem) as raised:
        by_name("broken.Model")
    assert isinstance(raised.value.__cause__, ModuleNotFoundError)


def test_a_module_written_a_moment_ago_is_found(modules: Path):
    with pytest.raises(RunProblem):
        by_name("written_later.A")
    (modules / "notebooks" / "written_later.py").write_text("A = 1\n")
    assert by_name("written_later.A") == 1


EXPRESSIONS = [
    "__import__('os').mkdir('made')",
    "math.pi + 1",
    "math.pi()",
    "a b",
    "",
    ".",
    "math.",
    ".math",
    "math..pi",
]
EXPRESSIONS += ["math:", ":pi", "math:pi:real", "math.pi;1", "math/pi", "../models.A", "math\n.pi", "\0", "math.1"]


@pytest.mark.parametrize("name", [*EXPRESSIONS, None, 5, ["math"], "x." * 10**5], ids=lambda name: repr(name)[:30])
def test_what_is_no_name_is_refused_and_nothing_runs(modules: Path, name: object):
    before = set(sys.modules)
    with pytest.raises(RunProblem, match="write a dotted name") as raised:
        by_name(name)
    assert len(str(raised.value)) < 200
    assert set(sys.modules) == before and "made" not in os.listdir()


@quick
@given(st.text(st.sampled_from("ab._:() 'π\n"), max_size=12))
def test_any_text_is_a_name_of_something_or_a_problem(name: str):
    before = list(sys.path)
    try:
        by_name(name)
    except RunProblem:
        pass
    finally:
        sys.path[:] = before


@pytest.mark.slow
def test_one_notebook_serves_several_models_and_the_chosen_ones_source_is_in_the_run(lab: Path) -> None:
    (lab / "runs").mkdir()
    (lab / "nets.py").write_text("def small():\n    return 'small'\n\n\ndef large():\n    return 'large'\n")
    cell = parameters('MODEL: str = "nets.small"  # a function of no arguments')
    path = write(lab / "notebooks" / "choose.ipynb", cell, "import labkit", "print(labkit.by_name(MODEL)())")
    ended = run(path, "-p", "model=nets.large")
    assert ended.log == "large\n"
    recorded = read_json(ended.run.source / "modules.json")
    assert recorded is not None and recorded["nets"]["path"] == "nets.py"
    assert (ended.run.source / "modules" / "nets.py").exists()
