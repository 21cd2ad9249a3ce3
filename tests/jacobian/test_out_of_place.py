"""Networks whose first layer works in place: right norms, and rows that stay as they are."""

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
