"""A run made again is compared with the recorded one: each change is named, and none that there is not."""

from __future__ import annotations

import json
import math
import shutil
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import quick
from twins import CELLS, MODULE, SEEDED, change, drift, recorded, reprint, twin, write_module, write_notebook

from labkit.record import machine as machine_of_any
from labkit.record.files import dumps, write_json
from labkit.record.metrics import canonical
from labkit.record.rundir import RunDir
from labkit.workbench.reproducing.changedsteps import walk
from labkit.workbench.reproducing.compare import Comparison, compare, could_not_run
from labkit.workbench.reproducing.tolerance import Tolerance


@pytest.fixture
def then(tmp_path: Path) -> RunDir:
    return recorded(tmp_path / "runs")


def states(found: Comparison) -> dict[str, str]:
    """The state of each link that is not equal."""
    return {one.name: one.state for one in found.chain if one.state != "equal"}


def cell(name: str, old: str, new: str) -> Any:
    return lambda run: write_notebook(run, CELLS | {name: CELLS[name].replace(old, new)})


def machine(*keys: str, to: Any) -> Any:
    return lambda run: change(run.path / "machine.json", *keys, to=to)


def parameter(name: str, to: Any) -> Any:
    return lambda run: change(run.manifest, "parameters", name, to=to)


def package(name: str, to: Any) -> Any:
    return lambda run: change(run.source / "packages.json", "packages", name, "version", to=to)


def file(to: Any) -> Any:
    return lambda run: change(run.path / "inputs.json", "files", "data/x.csv", to=to)


def test_a_run_is_identical_with_itself(then: RunDir) -> None:
    found = compare(then, twin(then))
    assert (found.verdict, found.exit_status, states(found)) == ("identical", 0, {})
    assert found.cause == "every number is the same, bit for bit"
    assert found.expected == "equal bits are to be expected"
    assert found.facts()["first_difference"] is None


PLANTED = {
    "a line of source": (cell("training", "train(x, LR)", "train(x, 2 * LR)"), "source", "cell 4 (training), line 3: "),
    "a magic": (cell("training", "%matplotlib inline", "%matplotlib agg"), "source", "cell 4 (training), line 1"),
    "a local module": (
        lambda run: write_module(run, MODULE.replace("16", "17")),
        "source",
        "module scaling, scaling.py line 3: `return x / 17` here, `return x / 16` then",
    ),
    "an extra module": (
        lambda run: write_module(run, "x = 1\n", "extra"),
        "source",
        "module extra (extra.py) is imported here, and was not then",
    ),
    "an extra cell": (lambda run: write_notebook(run, CELLS | {"more": "x = 0"}), "source", "cell 5 (more) is new"),
    "cells in another order": (
        lambda run: write_notebook(run, {name: CELLS[name] for name in ("goal", "parameters", "training", "data")}),
        "source",
        "the cells are in another order, from cell 3 (training) on",
    ),
    "labkit": (
        lambda run: change(run.source / "labkit.json", "sha256", to="b" * 64),
        "source",
        "labkit 0.1.0 has other code here than then",
    ),
    "a package": (package("scikit-learn", "1.8.0"), "packages", "scikit-learn 1.8.0 here, 1.9.0 then"),
    "Python": (
        lambda run: change(run.source / "packages.json", "python", to="3.12.1"),
        "packages",
        "Python 3.12.1 here, 3.11.7 then",
    ),
    "a package that nothing imports": (package("tornado", "6.6"), "packages", "perhaps tornado 6.6 here, 6.5 then"),
    "a library": (machine("libraries", "mkl", to="2025.1"), "packages", "MKL 2025.1 here, 2024.2 then"),
    "the CPU": (machine("hardware", "isa", to="AVX2"), "hardware", "vector instructions AVX2 here, AVX512 then"),
    "a parameter": (parameter("LR", 0.2), "settings", "LR = 0.2 here, 0.1 then"),
    "a parameter's type": (parameter("RANDOM_SEED", False), "settings", "RANDOM_SEED = False here, 0 then"),
    "the seed": (parameter("RANDOM_SEED", 1), "settings", "RANDOM_SEED = 1 here, 0 then"),
    "the seed in a cell": (machine("settings", "seed", to=7), "settings", "the seed 7 here, 0 then"),
    "threads": (machine("settings", "threads", to=1), "settings", "threads 1 here, 4 then"),
    "deterministic mode": (
        machine("settings", "deterministic", to=False),
        "settings",
        "deterministic algorithms off here, on then",
    ),
    "dtype": (
        machine("settings", "default_dtype", to="torch.float64"),
        "settings",
        "the default dtype torch.float64 here, torch.float32 then",
    ),
    "an environment variable": (
        machine("variables", "ATEN_CPU_CAPABILITY", to="avx2"),
        "settings",
        "ATEN_CPU_CAPABILITY 'avx2' here, not set then",
    ),
    "the language": (machine("variables", "LANG", to="de_DE"), "settings", "perhaps LANG 'de_DE' here, 'C.UTF-8' then"),
    "a data value": (
        file({"blake3": "9" * 64, "bytes": 120}),
        "data",
        "data/x.csv has other content of the same size: other values, or another order",
    ),
    "a row more": (file({"blake3": "9" * 64, "bytes": 1240}), "data", "data/x.csv has other content: 1,240 bytes"),
    "a missing file": (file(None), "data", "data/x.csv was read then, and was missing or not read here"),
    "rows in another order": (
        lambda run: reprint(run, 0, fingerprint="9" * 16),
        "data",
        "the data differ: training data (1,000 samples, as then), though nothing recorded before it does",
    ),
    "an initial weight": (
        lambda run: reprint(run, 1, fingerprint="9" * 16),
        "initial weights",
        "the initial weights of model differ, though nothing recorded before it does",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_change_is_named(then: RunDir, name: str) -> None:
    plant, where, cause = PLANTED[name]
    found = compare(then, twin(then, plant, drift))
    assert (found.verdict, found.exit_status) == ("diverged", 1)
    assert found.first is not None and found.first.name == where
    assert found.cause.startswith(cause)
    assert set(states(found)) == {where, "steps", "final weights", "metrics"}
    first = found.facts()["first_difference"]
    assert (first["link"], first["metric"], first["step"], first["line"]) == (where, "loss", 3, 4)
    assert (first["then"], first["now"]) == (0.25, 0.25 + 1e-9)


@pytest.mark.parametrize("name", [name for name in PLANTED if name not in ("an initial weight",)])
def test_a_change_that_changed_no_number_is_told_all_the_same(then: RunDir, name: str) -> None:
    plant, where, cause = PLANTED[name]
    found = compare(then, twin(then, plant))
    assert (found.verdict, found.exit_status, set(states(found))) == ("identical", 0, {where})
    assert found.first is not None and found.facts()["first_difference"] is None
    assert f"although {cause.partition(', though')[0].removeprefix('perhaps ')}" in found.cause


HARMLESS = {
    "a comment": cell("training", "# one step", "# a step"),
    "layout": cell("training", "train(x, LR)", "train( x,\n      LR )"),
    "text": cell("goal", "How well?", "How badly?"),
    "a comment in a module": lambda run: write_module(run, MODULE.replace("to one", "to 1")),
    "a cell of comments": lambda run: write_notebook(run, CELLS | {"more": "# nothing"}),
    "the version": parameter("VERSION", "1.1"),
    "cores": machine("hardware", "cores", to=64),
    "a default that is not used": cell("parameters", "0.1", "0.5"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_change_is_no_cause(then: RunDir, name: str) -> None:
    found = compare(then, twin(then, HARMLESS[name]))
    assert (found.verdict, list(states(found).values())) == ("identical", ["harmless"])
    assert "although" not in found.cause
    assert compare(then, twin(then, HARMLESS[name], drift)).cause.startswith("unknown: nothing that was recorded")


def test_labkits_own_modules_are_compared_only_where_both_runs_were_in_its_clone(then: RunDir) -> None:
    in_clone = twin(then, lambda run: write_module(run, "x = 1\n", "labkit"))
    listed = json.loads((in_clone.source / "modules.json").read_bytes())
    script = {"labkit/launch/kernel.py": {"path": "labkit/launch/kernel.py", "sha256": "1" * 64}}
    write_json(in_clone.source / "modules.json", listed | script)
    for one, other in ((then, in_clone), (in_clone, then)):
        found = compare(one, other)
        assert (found.verdict, states(found)) == ("identical", {})
    found = compare(in_clone, twin(in_clone, lambda run: write_module(run, "x = 2\n", "labkit"), drift))
    assert found.cause == "module labkit, labkit.py line 1: `x = 2` here, `x = 1` then"


def test_two_changes_are_both_named(then: RunDir) -> None:
    found = compare(then, twin(then, PLANTED["a line of source"][0], package("numpy", "2.5.0"), drift))
    assert found.cause.startswith("cell 4 (training), line 3: ")
    assert found.cause.endswith("; and numpy 2.5.0 here, 2.4.6 then")
    found = compare(then, twin(then, machine("settings", "threads", to=1), PLANTED["an initial weight"][0], drift))
    assert found.cause == "the initial weights of model differ; and threads 1 here, 4 then"


def test_of_many_changes_the_likeliest_are_named(then: RunDir) -> None:
    plants = [PLANTED[name][0] for name in ("the CPU", "threads", "a package", "a parameter", "a local module")]
    assert compare(then, twin(then, *plants, drift)).cause == (
        "module scaling, scaling.py line 3: `return x / 17` here, `return x / 16` then; LR = 0.2 here, 0.1 then; "
        "scikit-learn 1.8.0 here, 1.9.0 then; threads 1 here, 4 then; and 1 more difference"
    )


def test_what_follows_from_a_change_is_no_cause(then: RunDir) -> None:
    seed = [parameter("RANDOM_SEED", 1), machine("settings", "seed", to=1), PLANTED["rows in another order"][0]]
    found = compare(then, twin(then, *seed, PLANTED["an initial weight"][0], drift))
    assert found.cause == "RANDOM_SEED = 1 here, 0 then, so the data and the initial weights differ"
    found = compare(then, twin(then, package("scikit-learn", "1.8.0"), PLANTED["rows in another order"][0], drift))
    assert found.cause == "scikit-learn 1.8.0 here, 1.9.0 then, so the data differ"
    plants = machine("settings", "threads", to=1), PLANTED["a parameter"][0], PLANTED["rows in another order"][0]
    found = compare(then, twin(then, *plants, drift))
    assert found.cause == "LR = 0.2 here, 0.1 then, so the data differ; besides, threads 1 here, 4 then"


def test_threads_that_a_variable_set_are_named_once(then: RunDir) -> None:
    plants = machine("settings", "threads", to=1), machine("variables", "OMP_NUM_THREADS", to="1")
    assert compare(then, twin(then, *plants, drift)).cause == "threads 1 here, 4 then"


def test_what_cannot_be_explained_is_unknown(then: RunDir) -> None:
    assert compare(then, twin(then, drift)).cause == "unknown: nothing that was recorded differs"


def test_a_claim_that_promises_less_is_the_likely_cause(tmp_path: Path) -> None:
    then = recorded(tmp_path / "runs", SEEDED)
    found = compare(then, twin(then, drift))
    assert found.cause.endswith("as the run is only seeded, it may be this: deterministic algorithms are off")
    assert found.expected == (
        "equal bits are not to be expected: the run is only seeded (deterministic algorithms are off)"
    )
    found = compare(then, twin(then, PLANTED["an initial weight"][0], drift))
    said = "the initial weights of model differ, though nothing recorded before it does; as the run is only seeded"
    assert found.cause.startswith(said)


def test_other_hardware_promises_no_equal_bits(then: RunDir) -> None:
    expected = compare(then, twin(then, PLANTED["the CPU"][0])).expected
    assert expected == "equal bits are not to be expected: hardware differs"


def test_other_weights_alone_are_a_divergence(then: RunDir) -> None:
    found = compare(then, twin(then, lambda run: reprint(run, 3, fingerprint="9" * 16)))
    assert (found.verdict, states(found)) == ("diverged", {"final weights": "differs"})
    found = compare(then, twin(then, lambda run: reprint(run, 2, fingerprint="9" * 16)))
    assert (found.verdict, states(found)) == ("diverged", {"steps": "differs"})


def test_another_verdict_is_a_divergence(then: RunDir) -> None:
    found = compare(then, twin(then, lambda run: drift(run, final=0.5)))
    assert "“good” not held here, held then" in found.chain[-1].told


def test_another_end_is_a_divergence(then: RunDir) -> None:
    failed = twin(then, lambda run: write_json(run.exit, {"status": "failed", "reason": ""}))
    found = compare(then, failed, tolerance=Tolerance(relative=1.0))
    assert (found.verdict, found.chain[-1].told[0]) == ("diverged", "the run failed here, and finished then")


def test_final_values_may_lie_within_a_tolerance(then: RunDir) -> None:
    now = twin(then, lambda run: drift(run, final=0.94))
    within = compare(then, now, tolerance=Tolerance(relative=0.02, origin="--tolerance"))
    assert (within.verdict, within.exit_status) == ("within tolerance", 0)
    assert within.tolerance == "each within 2 % (from --tolerance)"
    assert compare(then, now, tolerance=Tolerance(relative=0.01)).verdict == "diverged"
    assert compare(then, now).verdict == "diverged"
    noise = Tolerance.of_noise({"test_accuracy": 0.004}, "5 seeds")
    found = compare(then, now, tolerance=noise)
    assert (found.verdict, found.tolerance) == ("within tolerance", "test_accuracy ± 0.01131 (from 5 seeds)")


def test_a_tolerance_without_the_metric_asks_for_equality() -> None:
    tolerance = Tolerance.of_noise({"a": 1.0}, "")
    assert tolerance.allows("b", 1.0, 1.0) and not tolerance.allows("b", 1.0, 1.1)
    assert Tolerance(relative=0.1).allows("a", math.nan, math.nan)
    assert not Tolerance(relative=0.1).allows("a", math.nan, 1.0)
    assert not Tolerance(relative=0.1).allows("a", math.inf, 1.0)


def test_what_could_not_run_is_told(then: RunDir) -> None:
    found = could_not_run(then, "the record was cut short", 2)
    facts = found.facts()
    assert (facts["verdict"], facts["cause"], facts["now"]) == ("could not run", "the record was cut short", None)
    assert {one["state"] for one in facts["chain"]} == {"unknown"}
    assert found.exit_status == 2


FILES = (
    "run.json",
    "machine.json",
    "environment.json",
    "inputs.json",
    "fingerprints.jsonl",
    "metrics.jsonl",
    "stated.json",
    "attempts",
    "source",
    "source/notebook.ipynb",
    "source/modules.json",
    "source/modules",
    "source/packages.json",
    "source/labkit.json",
)
DAMAGE = (b"", b"\0\xff{", b"[]", b"{}", b'{"cells": [1, {"source": 3}], "files": [], "packages": 1}', b'{"a":' * 5000)


@pytest.mark.parametrize("name", FILES)
def test_what_is_missing_is_unknown(then: RunDir, name: str) -> None:
    now = twin(then)
    path = now.path / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    for found in (compare(then, now), compare(now, then), compare(now, now)):
        json.loads(dumps(found.facts()))
    elsewhere = "environment.json", "source/notebook.ipynb", "source/packages.json"  # another file says it too
    nothing = "inputs.json", "fingerprints.jsonl"  # where there was nothing to write, they are not there
    is_needed = name not in (*elsewhere, *nothing, "source/modules", "stated.json")
    assert ("unknown" in states(compare(now, now)).values()) == is_needed


def test_of_runs_that_never_loaded_pytorch_nothing_is_unknown(then: RunDir) -> None:
    write_json(then.machine, machine_of_any.facts())
    for name in ("inputs.json", "fingerprints.jsonl", "environment.json"):
        (then.path / name).unlink(missing_ok=True)
    write_json(then.inputs, {"files": {}, "left_out": {}})
    then.claim.unlink()
    assert states(compare(then, twin(then))) == {}


@pytest.mark.parametrize("name", [name for name in FILES if "." in name])
def test_damage_stops_no_comparison(then: RunDir, name: str) -> None:
    for damage in DAMAGE:
        now = twin(then)
        (now.path / name).write_bytes(damage)
        for found in (compare(then, now), compare(now, then)):
            json.loads(dumps(found.facts()))


@pytest.mark.slow
def test_values_of_any_kind_stop_no_comparison(then: RunDir) -> None:
    """Each value in each JSON file of the record is replaced by something of another kind."""
    for name in [name for name in FILES if name.endswith(".json")]:
        path = then.path / name
        content = json.loads(path.read_bytes()) if path.exists() else {}
        for key in content:
            for value in (None, [[]], {"a": None, "b": {}}, "x", 10**30, True):
                now = twin(then)
                write_json(now.path / name, content | {key: value})
                compare(then, now), compare(now, then)
                shutil.rmtree(now.path)


def test_lines_that_cannot_be_read_are_no_difference(then: RunDir) -> None:
    now = twin(then)
    lines = now.metrics.read_bytes().splitlines(keepends=True)
    now.metrics.write_bytes(b"".join([*lines[:5], b'{"step": 5, "lo\n', *lines[6:]]))
    found = compare(then, now)
    assert (found.verdict, states(found)) == ("within tolerance", {"steps": "unknown"})
    assert found.cause == "equal as far as both can be read: 1 line of the metrics here could not be read"


def test_a_record_without_metrics_is_compared_with_nothing(then: RunDir) -> None:
    now = twin(then)
    then.metrics.unlink()
    found = compare(then, now)
    assert (found.verdict, found.exit_status) == ("could not run", 2)
    assert "nothing to compare with" in found.cause


def test_a_run_that_read_no_data_has_no_file_of_them(then: RunDir) -> None:
    now = twin(then, lambda run: (run.path / "inputs.json").unlink(), drift)
    assert compare(then, now).cause.startswith("data/x.csv was read then, and was missing or not read here")
    assert compare(now, twin(now)).chain[4].state == "equal"


def test_an_old_record_is_compared_by_what_it_has(then: RunDir) -> None:
    for name in ("machine.json", "inputs.json", "fingerprints.jsonl", "source/packages.json", "source/labkit.json"):
        (then.path / name).unlink()
    checked = {"cpu": "Xeon", "isa": "AVX512", "threads": 4, "python": "3.11.7", "determinism": {"seed": 0}}
    write_json(then.environment, checked)
    now = twin(then, lambda run: change(run.environment, "threads", to=1), drift)
    found = compare(then, now)
    assert found.cause == "threads 1 here, 4 then"
    assert states(found)["data"] == "unknown"


def test_no_link_out_of_a_run_is_followed(then: RunDir, tmp_path: Path) -> None:
    now = twin(then, lambda run: write_module(run, "x = 2\n"))
    (tmp_path / "secret.py").write_text("x = 1\n")
    shutil.rmtree(now.source / "modules")
    (now.source / "modules").symlink_to(tmp_path)
    change(now.source / "modules.json", "scaling", "path", to="secret.py")
    assert compare(then, now).cause.endswith("module scaling differs (secret.py; where, is not recorded)")
    change(now.source / "modules.json", "scaling", "path", to="../../../../secret.py")
    assert "x = 1" not in compare(then, now).cause


numbers = st.one_of(
    st.sampled_from([0.0, -0.0, 0, 1, 1.0, math.nan, math.inf, -math.inf, 2**63, -(2**70), 10**25, 1e25]),
    st.floats(),
    st.integers(-(2**80), 2**80),
)
logged = st.lists(
    st.tuples(st.integers(-3, 3), st.dictionaries(st.sampled_from(["a", "b", "é"]), numbers, max_size=3)), max_size=5
)


def written(path: Path, lines: list[tuple[int, dict[str, Any]]], t: float) -> list[bytes]:
    """Writes lines as a run does, and returns their canonical form with names in order."""
    records = [{"step": step, **values, "t": t} for step, values in lines]
    path.write_bytes(b"".join(dumps(record) + b"\n" for record in records))
    return [dumps(dict(sorted({"step": step, **values}.items()))) for step, values in lines]


@pytest.mark.slow
@given(then=logged, now=logged, common=logged)
@quick
def test_the_first_difference_is_where_the_canonical_lines_first_differ(
    tmp_path_factory: pytest.TempPathFactory, then: Any, now: Any, common: Any
) -> None:
    folder = tmp_path_factory.mktemp("walk")
    old, new = written(folder / "a", common + then, 1.5), written(folder / "b", common + now, 2.5)
    place = next((n for n, pair in enumerate(zip_longest(old, new), 1) if pair[0] != pair[1]), None)
    found = walk(folder / "a", folder / "b").first
    assert (found.line if found is not None else None) == place
    assert found is None or str(found)
    if canonical(folder / "a") == canonical(folder / "b"):
        assert found is None
    if found is not None and found.metric is not None:
        values = [(common + side)[found.line - 1][1].get(found.metric) for side in (then, now)]
        assert repr(values) == repr([found.then, found.now])
