"""Where runs of a sweep have room: cores with threads that do not fight, GPUs that nobody else uses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack

import pytest
from tiny import plain_environment

from labkit.errors import BadInput
from labkit.record import gpus
from labkit.record.gpus import Gpu, is_order_unknown, usable, visible
from labkit.workbench.running import slots
from labkit.workbench.running.slots import THREADS, VISIBLE, claim, of_cores, read_wanted, take

GPUS = [Gpu(0, "GPU-aaaa-1"), Gpu(1, "GPU-aabb-2", (4711,)), Gpu(2, "GPU-cccc-3")]


@pytest.mark.parametrize(
    ("jobs", "cores", "given", "expected", "threads"),
    [
        (None, 8, {}, 8, "1"),
        (2, 8, {}, 2, "4"),
        (3, 8, {}, 3, "2"),
        (16, 8, {}, 16, "1"),
        (None, 8, {"OMP_NUM_THREADS": "4"}, 2, None),
        (None, 2, {"OMP_NUM_THREADS": "4"}, 1, None),
        (None, 8, {"OMP_NUM_THREADS": "many"}, 8, None),
    ],
)
def test_runs_share_the_cores_and_what_a_user_has_set_stays(
    jobs: int | None, cores: int, given: dict[str, str], expected: int, threads: str | None
):
    made = of_cores(jobs, cores, given)
    assert len(made) == expected
    assert all(one.get("OMP_NUM_THREADS") == threads for one in made)
    assert all(set(one) == set(THREADS) - set(given) for one in made)


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "1;2", ",", "0.5", "1,x"])
def test_gpus_that_nobody_can_mean_are_refused(text: str):
    with pytest.raises(BadInput, match="write free"):
        read_wanted(text)


@pytest.mark.parametrize(
    ("named", "indices"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("2,0", [2, 0]),
        ("GPU-cccc-3", [2]),
        ("GPU-a", []),
        ("0,7,2", [0]),
        ("-1", []),
        ("0,0", [0]),
    ],
)
def test_the_gpus_that_may_be_used_are_those_that_cuda_sees(named: str | None, indices: list[int]):
    assert [gpu.index for gpu in visible(GPUS, named)] == indices


@pytest.mark.parametrize(
    ("there", "named", "names"),
    [
        (GPUS, "MIG-1a,MIG-2b", ["MIG-1a", "MIG-2b"]),
        (GPUS, "0,7", ["GPU-aaaa-1"]),
        (GPUS, "GPU-a", []),
        (GPUS, "-1", []),
        ([], "0,1,0", ["0", "1"]),
        ([], "-1", []),
        ([], "NoDevFiles", []),
        ([], "", []),
        ([], None, []),
    ],
)
def test_what_the_driver_does_not_know_is_used_by_its_name(there: list[Gpu], named: str | None, names: list[str]):
    assert [gpu.uuid for gpu in usable(there, named)] == names


def test_a_part_of_a_gpu_is_one_slot_and_not_one_for_each_core(monkeypatch: pytest.MonkeyPatch):
    name = f"MIG-{os.getpid()}"
    monkeypatch.setattr(slots, "every", lambda: GPUS)
    monkeypatch.setenv(VISIBLE, name)
    with slots.slots() as room:
        assert [one[VISIBLE] for one in room.environments] == [name]
        with pytest.raises(BadInput, match="claimed by another sweep"):
            slots.slots()


def test_a_gpu_whose_users_the_driver_does_not_tell_is_not_free(monkeypatch: pytest.MonkeyPatch):
    handle = gpus.ctypes.c_void_p()
    assert gpus._users(lambda *_: 3, handle) is None and gpus._users(None, handle) is None
    assert gpus._users(lambda _, count, __: setattr(count._obj, "value", 0) or 0, handle) == ()
    silent = [Gpu(0, f"GPU-silent-{os.getpid()}", None)]
    with ExitStack() as claims:
        found, problem = take(silent, "free", claims)
        assert not found and "does not say who uses it" in problem
        assert take(silent, "0,", claims) == (silent, "")


def test_numbers_of_gpus_of_several_models_are_taken_only_in_the_order_of_the_bus(monkeypatch: pytest.MonkeyPatch):
    mixed = [Gpu(0, "GPU-old", (), "T4"), Gpu(1, "GPU-new", (), "H200")]
    assert not is_order_unknown(GPUS, "0", None) and not is_order_unknown(mixed, "GPU-new", None)
    assert not is_order_unknown(mixed, None, None) and not is_order_unknown(mixed, "0", "PCI_BUS_ID")
    monkeypatch.setattr(slots, "every", lambda: mixed)
    monkeypatch.setenv(VISIBLE, "0")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    with pytest.raises(BadInput, match="CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        slots.slots()


def test_free_gpus_are_those_without_processes_of_others():
    with ExitStack() as claims:
        found, problem = take(GPUS, "free", claims)
        assert [gpu.index for gpu in found] == [0, 2] and not problem
    with ExitStack() as claims:
        found, problem = take(GPUS, "1", claims)
        assert [gpu.index for gpu in found] == [0] and not problem
    with ExitStack() as claims:
        found, problem = take(GPUS, "0,1", claims)
        assert problem == "2 GPUs wanted, 1 free: GPU 1 is used by process 4711"
    with ExitStack() as claims, pytest.raises(BadInput, match=r"there is no GPU 3 here; there are: 0, 1, 2"):
        take(GPUS, "0,3", claims)


def test_a_gpu_has_one_claim_until_its_process_is_gone():
    name = f"GPU-test-{os.getpid()}"
    code = (
        "import sys, time; from contextlib import ExitStack; from labkit.workbench.running.slots import claim\n"
        f"print(claim({name!r}, ExitStack()), flush=True); time.sleep(60)"
    )
    keeper = "stack = ExitStack()"
    code = code.replace("print(claim", f"{keeper}\nprint(claim").replace(", ExitStack())", ", stack)")
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=plain_environment())
    try:
        assert other.stdout is not None and other.stdout.readline() == "True\n"
        with ExitStack() as claims:
            assert not claim(name, claims)
            found, problem = take([Gpu(0, name)], "free", claims)
            assert not found and "claimed by another sweep" in problem
        other.send_signal(signal.SIGKILL)
        other.wait()
        with ExitStack() as claims:
            assert claim(name, claims) and not claim(name, claims)
        with ExitStack() as claims:
            assert claim(name, claims)
    finally:
        other.kill()
        other.communicate()


def test_gpu_slots_name_their_gpu_and_give_it_back(monkeypatch: pytest.MonkeyPatch):
    mine = [Gpu(gpu.index, f"{gpu.uuid}-{os.getpid()}", gpu.users) for gpu in GPUS]
    monkeypatch.setattr(slots, "every", lambda: mine)
    monkeypatch.delenv(VISIBLE, raising=False)
    with slots.slots() as room:
        assert [one[VISIBLE] for one in room.environments] == [mine[0].uuid, mine[2].uuid]
        with pytest.raises(BadInput, match="--wait waits"):
            slots.slots()
        with slots.slots(2, "none") as cores:
            assert len(cores.environments) == 2 and VISIBLE not in cores.environments[0]
    with slots.slots(4, "2") as room:
        assert [one[VISIBLE] for one in room.environments] == [mine[0].uuid, mine[2].uuid] * 2


def test_without_a_driver_there_is_no_gpu_and_none_can_be_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpus, "LIBRARY", "libthere-is-none.so.1")
    assert slots.every() == []
    with pytest.raises(BadInput, match="1 GPU wanted, 0 free: there are 0"):
        slots.slots(gpus="free")


@pytest.mark.gpu
def test_the_gpus_are_those_that_torch_sees_and_a_process_on_one_shows():
    import torch

    found = visible(slots.every(), os.environ.get(VISIBLE))
    assert len(found) == torch.cuda.device_count()
    assert {str(torch.cuda.get_device_properties(place).uuid) for place in range(len(found))} == {
        gpu.uuid.removeprefix("GPU-") for gpu in found
    }
    held = torch.zeros(1, device="cuda:0")
    assert slots.every()[0].users or held.is_cuda  # in a container, numbers of processes may be hidden
