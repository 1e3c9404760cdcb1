"""The lock, pyproject.toml and environment.yml agree; the lock tool writes what it should."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DIRECT = [Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def locked() -> dict[str, Version]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [re.fullmatch(r"([a-z0-9-]+)==(\S+)", line) for line in lines if not line.startswith("#")]
    assert all(pins), "every line of the lock is name==version, the name normalised"
    return {pin[1]: Version(pin[2]) for pin in pins if pin}


@pytest.mark.parametrize("requirement", DIRECT, ids=str)
def test_the_lock_pins_each_direct_dependency_as_pyproject_allows(requirement: Requirement):
    version = locked().get(canonicalize_name(requirement.name))
    assert version is not None, f"{requirement.name} is missing in requirements.lock: make lock"
    assert requirement.specifier.contains(version), f"lock says {version}, pyproject {requirement}: make lock"


def test_torch_is_pinned_alike_in_pyproject_and_lock_and_to_no_build():
    (torch,) = [requirement for requirement in DIRECT if requirement.name == "torch"]
    assert str(torch.specifier) == f"=={locked()['torch']}"
    assert locked()["torch"].local is None


def test_the_lock_leaves_to_torch_what_a_cuda_build_brings():
    assert not [name for name in locked() if re.match(r"nvidia|cuda|triton|pytorch-triton", name)]


def test_the_lock_is_sorted_and_does_not_name_labkit():
    names = list(locked())
    assert names == sorted(names)
    assert "labkit" not in names


def test_installed_packages_of_the_lock_need_nothing_that_it_does_not_pin():
    pinned = set(locked())
    for name in sorted(pinned - {"torch"}):
        try:
            needs = [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:
            continue
        here = [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
        missing = {canonicalize_name(need.name) for need in here} - pinned - {"setuptools"}
        assert not missing, f"{name} needs {missing}: make lock"


def test_freezing_drops_builds_tools_and_what_cuda_brings():
    freeze = """\
labkit @ file:///home/ada/labkit
nvidia-cublas==13.1.1.3
nvidia_nccl_cu13==2.29.7
cuda-bindings==13.5.0
setuptools==80.9.0
torch==2.13.0+cu130
triton==3.7.1
Jinja2==3.1.6
ruamel.yaml==0.19.1
"""
    assert script("lock").pins(freeze) == ["jinja2==3.1.6", "ruamel-yaml==0.19.1", "torch==2.13.0"]


def test_freezing_refuses_a_package_that_no_version_pins():
    with pytest.raises(ValueError, match="name==version"):
        script("lock").pins("thing @ file:///home/ada/thing\n")


def test_environment_yml_brings_python_and_pip_and_leaves_the_rest_to_the_lock():
    environment = YAML(typ="safe").load(ROOT / "environment.yml")
    assert environment["name"] == "labkit"
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    *conda, pip = environment["dependencies"]
    assert [re.split(r"[=<>]", line)[0] for line in conda] == ["python", "pip"]
    assert pip == {"pip": ["-r requirements.lock", "-e ."]}
    python = conda[0].partition("=")[2]
    newest = f"{python}.99"  # conda takes the newest of that series
    assert SpecifierSet(PROJECT["requires-python"]).contains(newest)
    header = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()[0]
    assert f"with Python {python};" in header, "conda users get the Python that the lock was made with"


def test_the_oldest_python_is_the_same_in_the_set_up_script():
    text = (ROOT / "scripts" / "environment.sh").read_text(encoding="utf-8")
    assert f">=3.{re.search(r'^oldest=([0-9.]+)', text, re.M)[1]}" == PROJECT["requires-python"]
