"""Make requirements.lock from pyproject.toml: resolve in a new environment, then write down what came.

Standard library only: it has to work where the environment does not.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HEADER = """\
# Made by `make lock` from pyproject.toml (dependencies and the dev extra) with Python {python}; do not edit.
# Versions without hashes. What a build of torch brings for itself (CUDA libraries, triton) is not pinned:
# pip resolves torch's own needs, so that a CPU build stays one and a CUDA build gets its own.
"""
# Names as normalised by `canonical`; the tools of a virtual environment are not dependencies.
LEFT_TO_TORCH = re.compile(r"(nvidia|cuda)-.+|triton|pytorch-triton(-.+)?")
NOT_PINNED = {"labkit", "pip", "setuptools", "wheel"}


def canonical(name: str) -> str:
    """The name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(freeze: str) -> list[str]:
    """The lines of the lock from the output of `pip freeze`, sorted by name.

    Raises:
        ValueError: a package was not installed from an index, so no version pins it.
    """
    found: dict[str, str] = {}
    for line in freeze.splitlines():
        name, equals, version = line.partition("==")
        name = canonical(name.partition(" @ ")[0])
        if name in NOT_PINNED or LEFT_TO_TORCH.fullmatch(name):
            continue
        if not equals:
            raise ValueError(f"pip freeze says {line!r}; known: name==version")
        found[name] = f"{name}=={version.partition('+')[0]}"  # torch 2.13.0+cpu is one build of 2.13.0
    return [found[name] for name in sorted(found)]


def resolve(requirements: list[str]) -> str:
    """Install the requirements into a new environment and return what `pip freeze` says there."""
    with tempfile.TemporaryDirectory(prefix="labkit-lock-") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [str(Path(folder, "bin", "python")), "-m", "pip", "--disable-pip-version-check"]
        # torch first: afterwards nothing asks the index for another build of it.
        torch = [requirement for requirement in requirements if requirement.startswith("torch==")]
        subprocess.run([*pip, "install", "--quiet", *torch], check=True)
        subprocess.run([*pip, "install", "--quiet", *requirements], check=True)
        return subprocess.run([*pip, "freeze"], check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Write requirements.lock beside pyproject.toml."""
    root = Path(__file__).resolve().parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    print(f"resolving with Python {python}; this downloads the whole environment", flush=True)
    lines = pins(resolve(project["dependencies"] + project["optional-dependencies"]["dev"]))
    lock = HEADER.format(python=python) + "".join(f"{line}\n" for line in lines)
    (root / "requirements.lock").write_text(lock, encoding="utf-8")
    print(f"requirements.lock: {len(lines)} packages; `git diff requirements.lock` shows what changed")


if __name__ == "__main__":
    main()
