"""Training, evaluation, prediction and the layer table, on real models."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn

from labkit.errors import RunProblem
from labkit.kernel.data import batches
from labkit.kernel.datasets import digits
from labkit.kernel.determinism import fingerprint
from labkit.kernel.layers import layer_table
from labkit.kernel.parts import Copies, load_into, state_of
from labkit.kernel.training import EpochSums, evaluate, move, predict, settings, train_one_epoch

LOSS = nn.CrossEntropyLoss()


@pytest.fixture
def small():
    """A model without randomness in it, and 50 samples of three classes."""
    torch.manual_seed(0)
    inputs = torch.randn(50, 4)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), inputs, inputs[:, :3].argmax(dim=1)


def sgd(model, lr=0.1):
    return torch.optim.SGD(model.parameters(), lr=lr)


def test_an_epoch_equals_the_loop_written_out(small):
    model, inputs, targets = small
    twin = copy.deepcopy(model)
    optimizer = sgd(twin)
    losses = []
    for start in range(0, 50, 16):
        loss = LOSS(twin(inputs[start : start + 16]), targets[start : start + 16])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    seen = []
    train_one_epoch(
        model,
        batches(inputs, targets, batch_size=16),
        LOSS,
        sgd(model),
        device="cpu",
        on_step=lambda step, loss: seen.append((step, loss.item())),
    )
    assert fingerprint(model) == fingerprint(twin)
    assert seen == list(enumerate(losses))


def test_means_weigh_samples_not_batches(small):
    model, inputs, targets = small
    whole = evaluate(model, batches(inputs, targets, batch_size=50), LOSS, device="cpu")
    uneven = evaluate(model, batches(inputs, targets, batch_size=49), LOSS, device="cpu")
    assert whole.samples == uneven.samples == 50
    assert uneven.loss == pytest.approx(whole.loss, rel=1e-6)
    assert uneven.accuracy == whole.accuracy == (model(inputs).argmax(1) == targets).double().mean().item()
    trained = train_one_epoch(model, batches(inputs, targets, batch_size=49), LOSS, sgd(model, 0), device="cpu")
    assert trained.loss == pytest.approx(whole.loss, rel=1e-6)
    assert str(whole).startswith("loss ") and "(50 samples in" in str(whole)


@pytest.mark.parametrize(("batch_size", "accumulate"), [(10, 5), (7, 3), (16, 4), (50, 1), (1, 50)])
def test_accumulated_batches_give_the_gradient_of_one_large_batch(small, batch_size, accumulate):
    model, inputs, targets = small
    twin = copy.deepcopy(model)
    large = batches(inputs, targets, batch_size=batch_size * accumulate)
    train_one_epoch(twin, large, LOSS, sgd(twin), device="cpu")
    steps = []
    parts = batches(inputs, targets, batch_size=batch_size)
    train_one_epoch(
        model, parts, LOSS, sgd(model), device="cpu", accumulate=accumulate, on_step=lambda s, loss: steps.append(s)
    )
    assert len(steps) == len(large)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_long_gradient_is_scaled_down_and_a_short_one_left(small):
    model, inputs, targets = small
    start = [parameter.clone() for parameter in model.parameters()]
    train_one_epoch(model, batches(inputs, targets, batch_size=50), LOSS, sgd(model, 1.0), device="cpu", clip_norm=0.01)
    moved = torch.cat([(a - b).flatten() for a, b in zip(model.parameters(), start, strict=True)]).norm().item()
    assert moved == pytest.approx(0.01, rel=1e-3)


def test_the_schedule_follows_the_steps(small):
    model, inputs, targets = small
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    parts = batches(inputs, targets, batch_size=10)
    train_one_epoch(model, parts, LOSS, optimizer, device="cpu", scheduler=scheduler, accumulate=2)
    assert scheduler.get_last_lr() == [0.1 * 0.5**3]


def test_bf16_learns_too(small):
    model, inputs, targets = small
    parts = batches(inputs, targets, batch_size=10)
    results = [train_one_epoch(model, parts, LOSS, sgd(model, 0.5), device="cpu", precision="bf16") for _ in range(10)]
    assert results[-1].loss < results[0].loss * 0.7
    assert model[0].weight.dtype == torch.float32


def test_fp16_unscales_before_clipping_and_skips_an_overflowing_step_and_its_schedule(small):
    model, inputs, targets = small
    optimizer = sgd(model, 1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    whole = batches(inputs, targets, batch_size=50)
    fp16 = {"device": "cpu", "precision": "fp16", "scaler": scaler, "clip_norm": 0.01, "scheduler": scheduler}
    start = [parameter.clone() for parameter in model.parameters()]
    train_one_epoch(model, whole, LOSS, optimizer, **fp16)
    moved = torch.cat([(a - b).flatten() for a, b in zip(model.parameters(), start, strict=True)]).norm().item()
    assert moved == pytest.approx(0.01, rel=1e-2)  # the norm of the scaled gradient is 256 times as long

    before, rate = fingerprint(model), scheduler.get_last_lr()
    bad = batches(inputs * 1e30, targets, batch_size=50)
    train_one_epoch(model, bad, LOSS, optimizer, **fp16)
    assert fingerprint(model) == before and scheduler.get_last_lr() == rate


@pytest.mark.parametrize("scaler", [None, torch.amp.GradScaler("cpu", enabled=False)])
def test_fp16_without_a_scaler_is_refused(small, scaler):
    model, inputs, targets = small
    with pytest.raises(RunProblem, match="GradScaler"):
        train_one_epoch(model, [(inputs, targets)], LOSS, sgd(model), device="cpu", precision="fp16", scaler=scaler)


def test_wrong_settings_and_an_empty_loader_are_errors(small):
    model, inputs, targets = small
    with pytest.raises(RunProblem, match="known: float32, bf16, fp16"):
        train_one_epoch(model, [(inputs, targets)], LOSS, sgd(model), device="cpu", precision="int8")
    with pytest.raises(RunProblem, match="accumulate 0"):
        train_one_epoch(model, [(inputs, targets)], LOSS, sgd(model), device="cpu", accumulate=0)
    for run in (
        lambda: train_one_epoch(model, [], LOSS, sgd(model), device="cpu"),
        lambda: evaluate(model, [], LOSS, device="cpu"),
        lambda: predict(model, [], device="cpu"),
    ):
        with pytest.raises(RunProblem, match="batch"):
            run()


def test_regression_has_no_accuracy_and_segmentation_counts_pixels():
    x = torch.randn(6, 2)
    result = evaluate(nn.Linear(2, 1), [(x, torch.randn(6, 1))], nn.MSELoss(), device="cpu")
    assert result.accuracy is None and "accuracy" not in str(result)
    images, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    result = evaluate(nn.Identity(), [(images, labels)], LOSS, device="cpu")
    assert result.samples == 2 and result.accuracy == (images.argmax(1) == labels).double().mean().item()


def test_evaluation_leaves_every_module_in_its_mode_also_after_an_error(small):
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    _, inputs, targets = small
    model[1].eval()  # a frozen part
    before = fingerprint(model)
    evaluate(model, [(inputs, targets)], LOSS, device="cpu")
    assert [m.training for m in model.modules()] == [True, True, False, True]
    assert fingerprint(model) == before
    with pytest.raises(RuntimeError):
        evaluate(model, [(inputs[:, :2], targets)], LOSS, device="cpu")
    assert model.training and torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_predictions_come_back_in_order_and_can_be_used_for_more_training(small):
    model, inputs, targets = small
    outputs, labels = predict(model, batches(inputs, targets, batch_size=7), device="cpu")
    assert torch.equal(labels, targets) and outputs.shape == (50, 3)
    torch.testing.assert_close(outputs, model(inputs).detach())
    nn.Linear(3, 1)(outputs).sum().backward()


def test_batches_of_any_structure_are_moved():
    from collections import namedtuple

    Pair = namedtuple("Pair", "x y")
    made = move({"a": [torch.zeros(1), "text"], "b": Pair(torch.ones(1), None)}, "meta")
    assert made["a"][0].device.type == made["b"].x.device.type == "meta"
    assert made["a"][1] == "text" and made["b"].y is None


@pytest.mark.parametrize("loop", ["train", "evaluate", "predict"])
def test_a_stop_request_is_acted_on_between_steps(small, monkeypatch, loop):
    from labkit.launch import signals

    model, inputs, targets = small
    steps = []

    def walk():
        for start in range(0, 50, 10):
            if start == 30:
                monkeypatch.setattr(signals, "_requested", "SIGTERM")
            steps.append(start)
            yield inputs[start : start + 10], targets[start : start + 10]

    runs = {
        "train": lambda: train_one_epoch(model, walk(), LOSS, sgd(model), device="cpu"),
        "evaluate": lambda: evaluate(model, walk(), LOSS, device="cpu"),
        "predict": lambda: predict(model, walk(), device="cpu"),
    }
    with pytest.raises(signals.StopRequested):
        runs[loop]()
    assert steps == [0, 10, 20, 30]


def test_settings_of_optimizer_and_schedule_are_plain_facts(small):
    from labkit.record.files import dumps

    model, *_ = small
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.2)
    facts = settings(optimizer, torch.optim.lr_scheduler.StepLR(optimizer, step_size=3))
    assert facts["optimizer"] == "AdamW" and facts["groups"][0]["weight_decay"] == 0.2
    assert facts["scheduler"] == "StepLR" and facts["schedule"]["step_size"] == 3
    assert dumps(facts)


def test_the_layer_table_shows_shapes_and_counts_each_parameter_once():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(), nn.Linear(144, 2))
    model.train()
    before, generator = fingerprint(model), torch.get_rng_state()
    table = layer_table(model, torch.randn(5, 1, 8, 8, generator=torch.Generator()))
    assert table["output shape"].tolist()[:2] == ["(5, 4, 6, 6)"] * 2
    assert table["parameters"].iloc[-1] == sum(p.numel() for p in model.parameters()) == 338
    assert table["name"].tolist() == ["0", "1", "2", "3", "4", "total"]
    assert model.training and fingerprint(model) == before
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_layer_table_knows_shared_unused_lazy_and_nested_layers():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.LazyLinear(3)
            self.tied = nn.Linear(3, 3)
            self.again = self.tied
            self.unused = nn.Linear(2, 2)
            self.attention = nn.MultiheadAttention(3, 1, batch_first=True)
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x, mask):
            x = self.again(self.tied(self.first(x))) * self.scale
            return {"out": self.attention(x, x, x)[0], "mask": mask}

    model = Odd()
    table = layer_table(model, (torch.zeros(2, 5, 4), torch.ones(2))).set_index("name")
    assert table.loc["unused", "output shape"] == "not called"
    assert table.loc["total", "output shape"] == "out (2, 5, 3), mask (2,)"
    assert table.loc["total", "parameters"] == sum(p.numel() for p in model.parameters())
    model.train()
    model(torch.zeros(2, 5, 4), torch.ones(2))["out"].sum().backward()  # a lazy layer has become trainable
    assert model.first.weight.grad is not None


def test_the_layer_table_verifies_the_shapes_that_are_stated():
    model = nn.Sequential(OrderedDict(body=nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()), head=nn.Linear(144, 2)))
    images = torch.zeros(5, 1, 8, 8)
    stated = {"body": ("batch", 144), "body.0": ("batch", 4, "side", "side"), "(model)": ("batch", 2)}
    table = layer_table(model, images, stated).set_index("name")
    assert table["verified"].to_dict() == {
        "body": "(batch, 144)",
        "body.0": "(batch, 4, side, side)",
        "body.1": "",
        "head": "",
        "total": "(batch, 2)",
    }
    assert table["output shape"]["body.0"] == "(5, 4, 6, 6)" and table["parameters"]["total"] == 330
    assert "verified" not in layer_table(model, images)
    for wrong, said in (
        ({"body.0": ("batch", 8, 6, 6)}, r"output of body\.0: axis 1 has the size 4, not 8"),
        ({"body": ("batch", 144), "head": ("side", 2), "body.0": ("batch", 4, "side", 6)}, r"axis 2 \(side\)"),
        ({"(model)": (5, 10)}, "output of the model: axis 1"),
        ({"bodi": (5, 10)}, "no module 'bodi'; did you mean 'body'"),
    ):
        with pytest.raises(RunProblem, match=said):
            layer_table(model, images, wrong)


def test_an_output_that_is_no_tensor_or_was_not_made_cannot_be_verified():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.LSTM(2, 3), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)[0]

    with pytest.raises(RunProblem, match=r"output of used is no tensor: \(4, 1, 3\), \(1, 1, 3\)"):
        layer_table(Pair(), torch.zeros(4, 1, 2), {"used": (4, 1, 3)})
    with pytest.raises(RunProblem, match="unused: the model did not call it"):
        layer_table(Pair(), torch.zeros(4, 1, 2), {"unused": (4, 2)})


def test_an_error_in_the_model_leaves_no_hook_behind():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(3, 3))
    with pytest.raises(RuntimeError):
        layer_table(model, torch.zeros(1, 2))
    assert not any(module._forward_hooks for module in model.modules()) and model.training


@pytest.mark.slow
def test_a_small_network_learns_the_digits():
    torch.manual_seed(0)
    made = digits()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    train = batches(*made.train, batch_size=64, shuffle=True)
    for _ in range(20):
        train_one_epoch(model, train, LOSS, optimizer, device="cpu")
    assert evaluate(model, batches(*made.test, batch_size=512), LOSS, device="cpu").accuracy > 0.95


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_epoch_that_goes_on_in_the_middle_has_the_result_of_a_whole_one(accumulate):
    def made():
        torch.manual_seed(0)
        model = nn.Linear(64, 10)
        data = digits().train
        walk = batches(data[0][:100].flatten(1), data[1][:100], batch_size=10, shuffle=True, seed=1)
        return {
            "model": model,
            "optimizer": torch.optim.AdamW(model.parameters()),
            "batches": walk,
            "sums": EpochSums(),
        }

    def train(parts, on_step=None):
        given = [parts[name] for name in ("model", "batches")]
        more = {"device": "cpu", "sums": parts["sums"], "on_step": on_step, "accumulate": accumulate}
        result = train_one_epoch(*given, nn.CrossEntropyLoss(), parts["optimizer"], **more)
        return result.loss, result.accuracy, result.samples

    saved = {}

    def save(step, _):
        if step == 3:
            saved.update(Copies().of({name: state_of(part, name) for name, part in whole.items()}, "all"))

    whole, again = made(), made()
    first = train(whole, save)
    for name, part in again.items():
        load_into(part, saved[name], name)
    assert train(again) == first
    assert train(again) == train(whole)


def test_an_epoch_that_goes_on_without_its_sums_is_refused():
    walk = batches(torch.rand(10, 3), torch.zeros(10).long(), batch_size=2)
    walk.load_state_dict({"epoch": 0, "batch": 2})
    model = nn.Linear(3, 2)
    with pytest.raises(RunProblem, match="lack the beginning"):
        train_one_epoch(model, walk, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), 0.1), device="cpu")
