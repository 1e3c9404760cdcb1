"""Gradient flow: what each layer's gradient is, and which layers' vanish."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import labkit
from labkit.errors import RunProblem
from labkit.kernel import figures
from labkit.kernel.figures import load_data, picture, save_data


def after_backward(model, inputs):
    model(inputs).square().mean().backward()
    return figures.gradient_flow_data(model)


def test_a_layers_gradient_is_the_mean_and_the_greatest_over_its_weights_and_biases():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    table = after_backward(model, torch.randn(5, 3))
    assert list(table.columns) == ["layer", "mean_abs", "max_abs"]
    assert table["layer"].tolist() == ["0", "2"]
    own = torch.cat([model[0].weight.grad.flatten(), model[0].bias.grad]).abs()
    assert table["mean_abs"][0] == pytest.approx(own.mean().item(), rel=1e-6)
    assert table["max_abs"][0] == own.max().item()
    assert labkit.vanishing_layers(table) == []


def test_a_deep_stack_of_sigmoids_vanishes_in_its_first_layers():
    torch.manual_seed(0)
    model = nn.Sequential(*(part for _ in range(12) for part in (nn.Linear(8, 8), nn.Sigmoid())))
    table = after_backward(model, torch.randn(16, 8))
    vanished = labkit.vanishing_layers(table)
    assert vanished == table["layer"].tolist()[: len(vanished)] and 0 < len(vanished) < 12
    assert labkit.vanishing_layers(table, threshold=0.0) == []


def test_a_layer_out_of_reach_is_zero_a_frozen_one_is_left_out_and_a_shared_one_counts_once():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused, self.frozen = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
            self.again = self.used
            self.tied = nn.Linear(2, 2, bias=False)
            self.tied.weight = self.used.weight
            self.frozen.requires_grad_(False)

        def forward(self, x):
            return self.tied(self.frozen(self.used(x)))

    table = after_backward(Net(), torch.ones(3, 2))
    assert table["layer"].tolist() == ["used", "unused"]
    assert table.loc[1, "mean_abs"] == table.loc[1, "max_abs"] == 0
    assert labkit.vanishing_layers(table, threshold=0.0) == ["unused"]


def test_a_gradient_that_is_not_finite_is_told_and_does_not_vanish():
    model = nn.Linear(2, 1)
    (model(torch.tensor([[math.nan, 1.0]])).sum()).backward()
    table = figures.gradient_flow_data(model)
    assert table["layer"].tolist() == ["(model)"] and math.isnan(table["max_abs"][0])
    assert labkit.vanishing_layers(table) == []


def test_half_precision_and_sparse_gradients_are_summed_whole():
    embedding = nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1, 1])).sum().backward()
    assert figures.gradient_flow_data(embedding)[["mean_abs", "max_abs"]].to_numpy().tolist() == [[0.5, 2.0]]
    half = nn.Linear(300, 300, bias=False).half()
    half.weight.grad = torch.full((300, 300), 100.0, dtype=torch.float16)
    assert figures.gradient_flow_data(half)["mean_abs"][0] == 100


def test_before_a_backward_pass_there_is_no_gradient_flow():
    with pytest.raises(RunProblem, match=r"Linear has no gradients: call this after loss.backward\(\)"):
        figures.gradient_flow_data(nn.Linear(1, 1))


@pytest.mark.slow
@pytest.mark.parametrize("means", [[1e-3, 1e-9, 0.0, math.nan], [0.0], list(np.logspace(-8, 0, 90))])
def test_the_figure_is_drawn_from_its_file_whatever_the_gradients(tmp_path, means):
    names = [f"block.{number}.conv" for number in range(len(means))]
    table = pd.DataFrame({"layer": names, "mean_abs": means, "max_abs": np.array(means) * 9})
    back = load_data(save_data(tmp_path / "flow", table))
    assert picture(back, figures.gradient_flow) == picture(table, figures.gradient_flow)
