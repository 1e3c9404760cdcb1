"""A secret stands in no record: as a parameter it is refused, and of the environment nothing is written down."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import labkit
from tiny import parameters, write

pytestmark = pytest.mark.slow

SECRET = "ghp_0123456789abcdefABCDEF"
PLAIN = "correct horse battery staple"  # a secret by its name alone


def holding(folder: Path, *texts: str) -> list[Path]:
    """The files below a folder that hold one of these texts."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(text.encode() in path.read_bytes() for text in texts)]


@pytest.mark.parametrize(("name", "value"), [("API_KEY", PLAIN), ("NOTE", SECRET)])
@pytest.mark.parametrize("by", ["-p", "-f"])
def test_a_parameter_that_looks_like_a_secret_is_refused_and_stands_nowhere(
    lab: Path, tmp_path: Path, name: str, value: str, by: str
) -> None:
    notebook = write(lab / "notebooks" / "keys.ipynb", parameters("API_KEY: str = ''\nNOTE: str = ''"), "print(1)")
    (tmp_path / "secrets.yaml").write_text(f"{name}: {value}\n")
    given = f"{name}={value}" if by == "-p" else str(tmp_path / "secrets.yaml")
    done = labkit("run", str(notebook), by, given)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{name} looks like a secret" in done.stderr and "os.environ" in done.stderr
    assert value not in done.stderr
    assert holding(lab, value) == []


def test_a_secret_in_the_environment_is_used_and_stands_in_no_record_and_no_report(lab: Path) -> None:
    uses = "import os, labkit\nrun = labkit.start()\nprint(len(os.environ['TOKEN']), len(os.environ['WORDS']))"
    notebook = write(lab / "notebooks" / "uses.ipynb", uses, "labkit.environment(run)")
    secrets = {"TOKEN": SECRET, "WORDS": PLAIN}
    done = labkit("run", str(notebook), **secrets)
    assert done.returncode == 0, done.stderr
    run = Path(done.stdout.strip())
    assert f"{len(SECRET)} {len(PLAIN)}\n" in (run / "output.log").read_text()
    assert (run / "report.html").exists() and (run / "environment.json").exists()
    reported, shown = labkit("report", str(notebook), **secrets), labkit("show", str(run), "--json", **secrets)
    assert (reported.returncode, shown.returncode) == (0, 0) and (lab / "reports" / "uses.html").exists()
    assert holding(lab, SECRET, PLAIN) == []
    for said in (done, reported, shown):
        assert SECRET not in said.stdout + said.stderr and PLAIN not in said.stdout + said.stderr
