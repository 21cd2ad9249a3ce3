"""Networks that work in place: right norms, and rows that stay as they are."""

import numpy as np
import pytest
import torch
from torch import nn

from sharpfit.jacobian import jacobian_norms, layer_jacobians, layer_norms, local_variation


def in_place(n_outputs):
    torch.manual_seed(0)
    module = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(60, n_outputs)).double()
    inputs = torch.randn(6, 60, dtype=torch.float64)
    jacobians = (module[1].weight * (inputs > 0).unsqueeze(1)).detach().numpy()
    return module, inputs, jacobians


@pytest.mark.parametrize("n_outputs", [2, 100])
@pytest.mark.parametrize("method", ["auto", "exact", "krylov"])
def test_norms(n_outputs, method):
    module, inputs, jacobians = in_place(n_outputs)
    kept = inputs.clone()
    found = jacobian_norms(module, inputs, method=method)
    expected = np.linalg.norm(jacobians, 2, axis=(1, 2))
    assert found.spectral == pytest.approx(expected, rel=2e-3)
    assert torch.equal(inputs, kept)
    assert module[0].inplace


def test_layers():
    module, inputs, jacobians = in_place(3)
    kept = inputs.clone()
    found = layer_jacobians(module, inputs)
    assert found.product() == pytest.approx(jacobians)
    layer_norms(module, inputs)
    local_variation(module, inputs)
    assert torch.equal(inputs, kept)
    assert module[0].inplace


class Overwrites(nn.Module):
    """What its activation overwrites is used again."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(4, 4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, inputs):
        hidden = self.dense(inputs)
        return torch.tanh(self.relu(hidden)) + 3 * hidden


def test_what_is_overwritten_stays_so():
    torch.manual_seed(0)
    module = Overwrites().double()
    inputs = torch.randn(5, 4, dtype=torch.float64)
    step = 1e-6 * torch.eye(4, dtype=torch.float64)
    with torch.no_grad():
        columns = [(module(inputs + move) - module(inputs - move)) / 2e-6 for move in step.unbind()]
    expected = np.linalg.norm(torch.stack(columns, dim=2).numpy(), 2, axis=(1, 2))
    assert jacobian_norms(module, inputs).spectral == pytest.approx(expected, rel=1e-3)
