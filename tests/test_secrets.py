"""A secret stands in no record: as a parameter it is refused, and of the environment nothing is written down."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from blake3 import blake3
from running import labkit
from tiny import parameters, plain_environment, write

from labkit.record import capsule

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


CELL = "EPOCHS: int = 3\nL: list = []\nD: dict = {}\nAPI_KEY: str = ''"
FILES = {
    "nested.yaml": f"D:\n  deep: [1, {{api_key: {PLAIN}}}]\n",
    "twice.yaml": f"API_KEY: {PLAIN}\nAPI_KEY: {SECRET}\n",
    "broken.yaml": f"D: {{password: {PLAIN}\nL: {SECRET}: {SECRET}\n",
    "tagged.yaml": f"L: !{SECRET} 1\n",
    "list.yaml": f"- {SECRET}\n",
    "key.yaml": f"D: {{{SECRET}: 1}}\n",
}


@pytest.mark.parametrize(
    "options",
    [
        *(["-f", name] for name in FILES),
        ["-f", f"API_KEY={PLAIN}"],
        ["-p", SECRET],
        ["-p", f"{SECRET}=1"],
        ["-p", f"L=[a, {SECRET}]"],
        ["-p", f"D={{token: {PLAIN}}}"],
        ["-p", f"D={{token: {PLAIN}"],
        ["-p", f"EPOCHS=5 # {SECRET}"],
        ["-p", f"EPOCHS={SECRET}", "-p", f"EPOCHS={SECRET}"],
    ],
    ids=lambda options: " ".join(options).replace(SECRET, "KEY").replace(PLAIN, "WORDS"),
)
@pytest.mark.parametrize("command", ["run", "report"])
def test_a_refused_call_leaves_its_secret_neither_on_the_screen_nor_in_the_lab(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, options: list[str]
) -> None:
    notebook = write(lab / "notebooks" / "keys.ipynb", parameters(CELL), "print(1)")
    (tmp_path / "given").mkdir()
    for name, text in FILES.items():
        (tmp_path / "given" / name).write_text(text)
    monkeypatch.chdir(tmp_path / "given")
    done = labkit(command, str(notebook), *options)
    assert done.returncode == 2 and done.stdout + done.stderr != ""
    assert SECRET not in done.stdout + done.stderr and PLAIN not in done.stdout + done.stderr
    assert holding(lab, SECRET, PLAIN) == []


def test_a_notebook_with_a_secret_for_a_default_is_not_run_and_a_check_names_the_line(lab: Path) -> None:
    cell = f"EPOCHS: int = 3  # passes\nNOTE: str = '{SECRET}'  # a note"
    start = "import labkit\nrun = labkit.start()"
    notebook = write(lab / "notebooks" / "keys.ipynb", parameters(cell), start)
    (lab / "runs").mkdir()
    done, checked = labkit("run", str(notebook)), labkit("check", str(notebook))
    assert done.returncode == 2 and "line 2 of the parameters: the default of NOTE looks like a secret" in done.stderr
    assert checked.returncode == 1 and "line 2: the default of NOTE looks like a secret; read it" in checked.stdout
    assert SECRET not in done.stdout + done.stderr + checked.stdout + checked.stderr
    assert holding(lab, SECRET) == [notebook] and list((lab / "runs").iterdir()) == []


def test_work_by_hand_records_the_name_of_a_secret_and_not_its_value(lab: Path) -> None:
    script = lab / "by-hand.py"
    script.write_text(
        "import os, labkit\nAPI_KEY = os.environ['WORDS']\nEPOCHS = 3\nrun = labkit.start()\nprint(run.path)"
    )
    environment = plain_environment(WORDS=PLAIN)
    done = subprocess.run([sys.executable, script], env=environment, cwd=lab, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    recorded = json.loads((Path(done.stdout.split("\n")[-2]) / "run.json").read_bytes())["parameters"]
    assert recorded == {"API_KEY": "not recorded: a secret", "EPOCHS": 3}
    assert holding(lab, PLAIN) == []


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


CANARIES = {
    "variable": "canary-variable-7d1f",  # in one that nothing may record
    "allowed": "sk-ant-api03-canary0allowed0123456789",  # in one whose name may be recorded
    "argument": "ghp_canaryargument0123456789",
    "remote": "canary-remote-52aa",
    "package": "canary-package-93cc",
    "dotenv": "canary-dotenv-11",
    "netrc": "canary-netrc-22",
    "settings": "canary-settings-33",
}
READS = """\
import json, os
import labkit

run = labkit.start()
labkit.seed(0)
found = [open(f"../{name}").read() for name in (".env", ".netrc", "settings.yaml", "points.csv")]
assert all(found) and os.environ["SERVICE_PASS"]
labkit.environment(run)
run.log(0, loss=0.5)
"""


def lab_with_secrets(lab: Path) -> dict[str, str]:
    """Put a canary into every place, and return the environment."""
    (lab / ".env").write_text(f"SERVICE={CANARIES['dotenv']}\n")
    (lab / ".netrc").write_text(f"machine x login ada password {CANARIES['netrc']}\n")
    (lab / "settings.yaml").write_text(f"password: {CANARIES['settings']}\n")
    (lab / "points.csv").write_text("x,y\n1,2\n")
    info = lab / "site" / "ours-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: ours\nVersion: 1.0\n")
    url = {
        "url": f"https://ada:{CANARIES['package']}@example.org/ours.git",
        "vcs_info": {"vcs": "git", "commit_id": "a1"},
    }
    (info / "direct_url.json").write_text(json.dumps(url))
    git = ["git", "-C", str(lab), "-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    remote = f"https://ada:{CANARIES['remote']}@example.org/lab.git"
    for arguments in (
        ["init", "-q"],
        ["remote", "add", "origin", remote],
        ["add", "notebooks"],
        ["commit", "-qm", "x"],
    ):
        subprocess.run([*git, *arguments], check=True)
    return {
        "SERVICE_PASS": CANARIES["variable"],
        "TORCH_HUB_AUTH": CANARIES["allowed"],
        "PYTHONPATH": str(lab / "site"),
    }


def unfolded(folder: Path) -> dict[str, bytes]:
    """The content of all files of a run, with what reports carry taken out of them."""
    found = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in [name for name in found if name.endswith(".html")]:
        found |= {f"{name}: {inside}": content for inside, content in capsule.read(Path(name)).files.items()}
    return found


def test_no_secret_of_the_lab_its_repository_its_packages_or_the_environment_gets_into_a_record(
    lab: Path, tmp_path: Path
) -> None:
    notebook = write(lab / "notebooks" / "reads.ipynb", parameters("NOTE: str = ''"), READS)
    environment = lab_with_secrets(lab)
    refused = labkit("run", str(notebook), "-p", f"NOTE={CANARIES['argument']}", **environment)
    assert refused.returncode == 2 and CANARIES["argument"] not in refused.stdout + refused.stderr
    done = labkit("run", str(notebook), **environment)
    assert done.returncode == 0, done.stderr
    run = Path(done.stdout.strip())
    shown = labkit("show", str(run), "--json", **environment)
    out = tmp_path / "out"
    unpacked = labkit("unpack", str(run / "report.html"), "-o", str(out), **environment)
    assert unpacked.returncode == 0, unpacked.stderr
    contents = unfolded(run) | unfolded(out)
    assert any(name.endswith("run.json") and "report.html: " in name for name in contents) and len(contents) > 40
    for what, canary in CANARIES.items():
        holders = [name for name, content in contents.items() if canary.encode() in content]
        assert not holders, f"the canary {what} is in {holders}"
        assert canary not in done.stdout + done.stderr + shown.stdout, what
    packages = json.loads((run / "source" / "packages.json").read_bytes())["packages"]
    assert packages["ours"]["origin"] == "https://example.org/ours.git@a1"


def test_the_fingerprint_of_a_short_secret_is_recorded_nowhere(lab: Path) -> None:
    notebook = write(lab / "notebooks" / "reads.ipynb", READS)
    done = labkit("run", str(notebook), **lab_with_secrets(lab))
    assert done.returncode == 0, done.stderr
    run = Path(done.stdout.strip())
    recorded = json.loads((run / "inputs.json").read_bytes())
    assert recorded["left_out"] == dict.fromkeys([".env", ".netrc"], "it may hold a password or a key")
    assert set(recorded["files"]) == {"settings.yaml", "points.csv"}
    for name in (".env", ".netrc"):
        mark = blake3((lab / name).read_bytes()).hexdigest().encode()
        files = [path for path in (lab / "runs").rglob("*") if path.is_file()]
        assert not [path for path in files if mark[:16] in path.read_bytes()]
    carried = capsule.read(run / "report.html")
    assert "data/points.csv" in carried.files and "data/settings.yaml" not in carried.files
    assert {one.path: one.fingerprint for one in carried.left_out if "settings" in one.path} == {
        "data/settings.yaml": ""
    }
