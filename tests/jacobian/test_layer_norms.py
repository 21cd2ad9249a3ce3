"""Layer norms against dense matrices, and alignment against its closed form."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sharpfit.jacobian import layer_norms


def _inputs(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_dense_layers_and_activations():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(6, 3))
    net = net.double()
    inputs = _inputs(9, 4)
    found = layer_norms(net, inputs, batch_size=4)
    assert found.names == ("0", "1", "2", "3")
    assert found.kinds == ("Linear", "ReLU", "Dropout", "Linear")
    first, last = (net[i].weight.detach().numpy() for i in (0, 3))
    np.testing.assert_allclose(found.norms[0], np.linalg.norm(first, 2))
    np.testing.assert_allclose(found.norms[3], np.linalg.norm(last, 2))
    np.testing.assert_array_equal(found.norms[2], 1.0)
    masks = (net[0](inputs) > 0).numpy()
    np.testing.assert_array_equal(found.norms[1], masks.any(axis=1).astype(float))
    total = [np.linalg.norm(last @ (mask[:, None] * first), 2) for mask in masks]
    np.testing.assert_allclose(found.total, total)
    np.testing.assert_allclose(found.alignment, found.total / found.norms.prod(axis=0))
    assert np.all(found.alignment <= 1 + 1e-12)


def test_aligned_deep_linear_net_has_alignment_one():
    u, _, v = (torch.as_tensor(m) for m in np.linalg.svd(_inputs(5, 5).numpy()))
    scales = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.1]).double()
    net = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5)).double()
    for layer, weight in zip(net, (u, u @ torch.diag(scales) @ u.T, v), strict=True):
        layer.weight.data = weight.clone()
    inputs = _inputs(3, 5)
    np.testing.assert_allclose(layer_norms(net, inputs).alignment, 1.0)
    net[1].weight.data = (u * scales) @ u.T
    net[2].weight.data = torch.diag(scales) @ torch.roll(u.T, 1, dims=0)
    # The largest factor of one layer now meets the smallest of the next.
    assert layer_norms(net, inputs).alignment.max() < 0.9


class FunctionalConvolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(2, 3, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        return self.head(self.pool(self.convolution(x)).flatten(1))


def test_convolution_and_pooling_match_dense_jacobians():
    torch.manual_seed(0)
    net, inputs = FunctionalConvolution().double(), _inputs(4, 2, 8, 8)
    found = layer_norms(net, inputs, tol=1e-9)
    assert found.names == ("convolution", "pool", "head")
    row = inputs[:1]
    dense = torch.autograd.functional.jacobian(net.convolution, row).reshape(48, 128)
    np.testing.assert_allclose(found.norms[0], np.linalg.norm(dense.numpy(), 2), rtol=1e-7)
    np.testing.assert_allclose(found.norms[1], 1.0, rtol=1e-9)  # windows do not overlap
    assert found.alignment is not None  # flattening is a view


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.mix = nn.Bilinear(3, 3, 2)

    def forward(self, x):
        x = x + self.layer(x)
        return self.mix(x, self.layer(x))


def test_branching_nets_have_no_alignment_and_layers_may_repeat():
    net, inputs = Residual().double(), _inputs(4, 3)
    before = copy.deepcopy(net.state_dict())
    found = layer_norms(net, inputs)
    assert found.names == ("layer", "layer")
    assert found.skipped == ("mix",)
    assert found.alignment is None
    assert found.norms.shape == (2, 4)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not net.layer._forward_hooks


def test_dead_network_has_alignment_zero():
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    net[0].weight.data.zero_()
    net[0].bias.data.fill_(-1.0)
    np.testing.assert_array_equal(layer_norms(net, _inputs(2, 3)).alignment, 0.0)


def test_bad_inputs_are_refused():
    with pytest.raises(ValueError, match="at least one row"):
        layer_norms(nn.Linear(2, 1), torch.zeros(0, 2))
