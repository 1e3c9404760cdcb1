"""What a run claims of its numbers: bitwise, deterministic, seeded, approximate, and why."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import running
import torch
from records import made
from tiny import plain_environment, write

from labkit.kernel import claim, determinism
from labkit.kernel.claim import Settings, reasons
from labkit.record import claims, metrics
from labkit.record.claims import Claim, Reason
from labkit.record.files import read_json, write_json
from labkit.record.find import every
from labkit.record.rundir import RunDir
from labkit.record.summary import summarise
from labkit.workbench import terminal
from labkit.workbench.pages import report

DRAWN = 2**40  # a seed as torch.seed() draws it


@pytest.mark.parametrize(
    ("settings", "label", "said"),
    [
        (Settings(1), "bitwise", ""),
        (Settings(1, hash_seed="123"), "bitwise", ""),
        (Settings(1, benchmark=True, cublas_workspace=None), "bitwise", ""),  # without CUDA they decide over nothing
        (Settings(1, uses_cuda=True, cublas_workspace=":16:8"), "bitwise", ""),
        (Settings(None), "approximate", "no seed was set"),
        (Settings(1, operations=("put_",), mode="warns"), "approximate", "put_ has no deterministic form"),
        (Settings(1, seeded_by=DRAWN), "approximate", "seeded again at random"),
        (Settings(1, mode="off", was_on=False), "seeded", "deterministic algorithms are off"),
        (Settings(1, mode="off"), "seeded", "switched off after labkit.seed()"),
        (Settings(1, mode="off", hash_seed="random", compiled=True), "seeded", "algorithms"),
        (Settings(1, mode="warns"), "deterministic", "only warns"),
        (Settings(1, seeded_by=5), "deterministic", "seeded again by something else"),
        (Settings(1, hash_seed="random"), "deterministic", "PYTHONHASHSEED=0"),
        (Settings(1, hash_seed="unknown"), "deterministic", "PYTHONHASHSEED=0"),
        (Settings(1, uses_cuda=True, benchmark=True), "deterministic", "by time"),
        (Settings(1, uses_cuda=True, cublas_workspace=None), "deterministic", "CUBLAS_WORKSPACE_CONFIG=:4096:8"),
        (Settings(1, uses_cuda=True, cublas_workspace=":0:0"), "deterministic", "CUBLAS_WORKSPACE_CONFIG"),
        (Settings(1, uses_metal=True), "deterministic", "Metal"),
        (Settings(1, compiled=True), "deterministic", "torch.compile"),
        (Settings(1, processes=2), "deterministic", "2 processes"),
    ],
)
def test_settings_decide_over_the_label_and_the_gravest_reason_is_said_first(settings, label, said):
    made = Claim.of(reasons(settings))
    assert made.label == label and said in str(made.reasons[0] if made.reasons else made)
    assert str(made).startswith(f"{label}: ") and all(reason.remedy for reason in made.reasons)
    assert claims.read(json.loads(json.dumps(made.facts()))) == made


@pytest.mark.parametrize(
    "facts",
    [
        None,
        {},
        [],
        {"label": "bitwise"},
        {"label": "bitwise", "reasons": "none"},
        {"label": "bitwise", "reasons": [{"most": "seeded", "problem": "a", "remedy": "b"}]},
        {"label": "seeded", "reasons": []},
        {"label": "exact", "reasons": [{"most": "exact", "problem": "a", "remedy": "b"}]},
        {"label": "seeded", "reasons": [{"most": "seeded", "problem": 1, "remedy": None}]},
        {"label": "seeded", "reasons": [{"most": ["seeded"], "problem": "a", "remedy": "b"}]},
        {"label": "seeded", "reasons": [[], 1, {"else": 1}]},
    ],
)
def test_a_record_that_contradicts_itself_claims_nothing(facts):
    assert claims.read(facts) is None


# what a run with these attempts claims


HASH = Reason("deterministic", "the hash seed is random", "set it")
HERE: dict[str, Any] = {"cpu": "a", "threads": 2}


def attempt(
    run: RunDir, number: int, *found: Reason, final: bool = True, hardware: Any = HERE, **restored: Any
) -> None:
    folder = run.attempts / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "claim.json", Claim.of(found).facts() | {"hardware": hardware, "final": final})
    if restored:
        write_json(folder / "restored.json", restored)


def label(run: RunDir) -> str | None:
    found = claims.of_run(run)
    return None if found is None else found.label


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return made(tmp_path / "runs")


def test_a_run_without_a_claim_claims_nothing_and_so_does_one_whose_end_was_not_seen(run):
    assert label(run) is None
    attempt(run, 1, final=False)
    assert label(run) is None
    attempt(run, 1)
    assert label(run) == "bitwise"


def test_what_an_earlier_attempt_met_stays_unless_the_training_began_anew(run):
    attempt(run, 1, HASH, final=False)
    attempt(run, 2, checkpoint="000003.pt")
    assert claims.of_run(run) == Claim((HASH,))
    attempt(run, 2, checkpoint=None)
    assert label(run) == "bitwise"


def test_a_run_that_went_on_on_other_hardware_or_was_forced_to_is_not_bitwise(run):
    attempt(run, 1)
    attempt(run, 2, checkpoint="000003.pt", hardware={"cpu": "b", "threads": 2})
    assert label(run) == "deterministic" and "other hardware" in str(claims.of_run(run))
    attempt(run, 2, checkpoint="000003.pt")
    assert label(run) == "bitwise"
    write_json(run.resumption, {"forced": True, "differences": ["numpy was 1, is 2"]})
    assert label(run) == "deterministic" and "attempt 2 went on" in str(claims.of_run(run))


def test_work_by_hand_that_was_no_clean_run_is_approximate(run):
    attempt(run, 1)
    run.update_manifest(labels=["explored"])
    assert label(run) == "approximate" and "run.promote()" in str(claims.of_run(run))


def test_manifest_terminal_and_report_say_the_claim_with_its_reasons(run, capsys):
    attempt(run, 1, HASH, Reason("seeded", "off <b>", "on"))
    summarise(run)
    assert run.read_manifest()["claim"]["label"] == "seeded"
    assert terminal.facts(run)["claim"]["reasons"][1]["problem"] == HASH.problem
    terminal.print_facts(terminal.facts(run))
    assert "claim       seeded: off <b>; on · the hash seed is random; set it\n" in capsys.readouterr().out
    page = report.render(run)
    assert '<strong class="seeded">seeded</strong>' in page and "the hash seed is random; set it" in page
    assert "off &lt;b&gt;; on" in page and "<b>" not in page


def test_a_run_without_a_claim_shows_none(run, capsys):
    terminal.print_facts(terminal.facts(run))
    assert "\nclaim " not in capsys.readouterr().out and "<dt>Claim</dt>" not in report.render(run)


# the watch


@pytest.mark.slow
def test_a_look_costs_next_to_nothing_and_the_filter_can_be_sent_to_other_processes():
    with warnings.catch_warnings():
        try:
            determinism.seed(0)
            claim.watch.look()
            began = time.perf_counter()
            for _ in range(100):
                claim.watch.look()
            assert (time.perf_counter() - began) / 100 < 1e-3
            assert pickle.loads(pickle.dumps(warnings.filters))[0][0] == "default"
        finally:
            claim.watch.end()
            torch.use_deterministic_algorithms(False)
            torch.backends.cudnn.deterministic = False


def by_hand(folder: Path, code: str, **environment: str) -> tuple[list[RunDir], str]:
    """Run a script as a user does, and return its runs and what it wrote on standard error."""
    (folder / "runs").mkdir(exist_ok=True)
    (folder / "script.py").write_text(code)
    environment = plain_environment(**{"PYTHONHASHSEED": "0"} | environment)
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return every(folder / "runs"), done.stderr


BEGIN = "import labkit, torch, warnings\nrun = labkit.start()\nlabkit.seed(3)\n"
PUT = "def put(): torch.zeros(4).put_(torch.tensor([0, 0]), torch.ones(2))\n"
SAVE = "model = torch.nn.Linear(1, 1)\nrun.checkpoint(model=model, state={})\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "label", "said"),
    [
        (BEGIN, "bitwise", claims.PROMISE),
        ("import labkit\nlabkit.seed(3)\nrun = labkit.start()\n", "bitwise", claims.PROMISE),
        (BEGIN + "torch.seed()\n", "approximate", "at random"),
        (BEGIN + "torch.manual_seed(4)\n", "deterministic", "seeded again"),
        (BEGIN + "torch.compile(lambda x: x + 1, backend='eager')(torch.ones(2))\n", "deterministic", "torch.compile"),
        (
            BEGIN + f"torch.use_deterministic_algorithms(False)\n{SAVE}torch.use_deterministic_algorithms(True)\n",
            "seeded",
            "switched off",
        ),
        ("import labkit, torch\nrun = labkit.start()\ntorch.manual_seed(0)\n", "approximate", "no seed was set"),
        (BEGIN.replace("(3)", "(3, deterministic=False)"), "seeded", "are off; call labkit.seed("),
    ],
)
def test_what_a_script_does_decides_over_its_claim(tmp_path, code, label, said):
    [run], _ = by_hand(tmp_path, code)
    assert run.read_manifest()["claim"]["label"] == label
    assert said in str(claims.kept(run, run.read_manifest()))


@pytest.mark.slow
def test_an_operation_that_pytorch_warns_of_is_named_in_each_run_and_its_warning_still_shown(tmp_path):
    again = "torch.use_deterministic_algorithms(True, warn_only=True)\nput()\n"
    second = "run = labkit.start()\nlabkit.seed(3)\n"
    runs, said = by_hand(tmp_path, BEGIN + PUT + again + second + again + second)
    assert [read_json(run.claim)["operations"] for run in runs] == [["put_"], ["put_"], []]
    assert [run.read_manifest()["claim"]["label"] for run in runs] == ["approximate", "approximate", "bitwise"]
    assert "UserWarning: put_ does not have a deterministic implementation" in said


@pytest.mark.slow
def test_warnings_that_are_ignored_or_errors_are_heard_all_the_same(tmp_path):
    warn = "torch.use_deterministic_algorithms(True, warn_only=True)\n"
    ignored = "warnings.simplefilter('ignore')\nlabkit.seed(3)\n" + warn + "put()\n"
    later = warn + "warnings.simplefilter('error')\nlabkit.evaluate(model, [(x, x)], loss, device='cpu')\n"
    model = "model, x, loss = torch.nn.Linear(1, 1), torch.ones(2, 1), torch.nn.functional.mse_loss\n"
    caught = "try: put()\nexcept UserWarning: pass\n"
    runs, said = by_hand(
        tmp_path, BEGIN + PUT + ignored + "run = labkit.start()\nlabkit.seed(3)\n" + model + later + caught
    )
    assert [read_json(run.claim)["operations"] for run in runs] == [["put_"], ["put_"]]
    assert "put_" not in said


@pytest.mark.slow
def test_a_run_without_pytorch_claims_nothing_and_does_not_load_it(tmp_path):
    [run], _ = by_hand(
        tmp_path, "import labkit, sys\nrun = labkit.start()\nrun.finish()\nassert 'torch' not in sys.modules"
    )
    assert not run.claim.exists() and not run.read_manifest()["claim"]


@pytest.mark.slow
def test_text_hashed_at_random_is_not_bitwise(tmp_path):
    [run], _ = by_hand(tmp_path, BEGIN, PYTHONHASHSEED="random")
    assert run.read_manifest()["claim"]["label"] == "deterministic"


TRAINS = """\
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Dropout(0.3), torch.nn.Linear(16, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
for step in range(20):
    inputs = torch.randn(16, 8)
    loss = torch.nn.functional.mse_loss(model(inputs), inputs.sum(dim=1, keepdim=True))
    optimizer.zero_grad(); loss.backward(); optimizer.step()
    run.log(step, loss=loss, order=float(len(next(iter({'a', 'bb', 'ccc', 'dddd'})))))
"""


@pytest.mark.slow
def test_the_same_bitwise_run_twice_has_byte_equal_canonical_metrics(tmp_path):
    lab = running.make_lab(tmp_path)
    notebook = write(lab / "notebooks" / "twice.ipynb", BEGIN + "labkit.environment(run)", TRAINS)
    first, second = running.run(notebook), running.run(notebook)
    for ended in (first, second):
        assert (ended.status.state, ended.run.read_manifest()["claim"]["label"]) == ("finished", "bitwise"), ended.err
        assert read_json(ended.run.environment)["claim"] == Claim().facts()
    assert metrics.canonical(first.run.metrics) == metrics.canonical(second.run.metrics)
    assert metrics.canonical(first.run.metrics).count(b"\n") == 20


@pytest.mark.slow
def test_a_switch_in_one_cell_and_back_in_the_next_is_noticed_in_a_notebook(tmp_path):
    lab = running.make_lab(tmp_path)
    switched = "torch.use_deterministic_algorithms({})"
    cells = (BEGIN, switched.format(False), switched.format(True), switched.format("True, warn_only=True"))
    ended = running.run(write(lab / "notebooks" / "switches.ipynb", *cells, "labkit.environment(run)"))
    found = claims.kept(ended.run, ended.run.read_manifest())
    assert found.label == "seeded" and [reason.most for reason in found.reasons] == ["seeded", "deterministic"]
    shown = json.dumps(ended.notebook())
    assert "seeded, as of now" in shown and "at most deterministic: PyTorch only warns" in shown
