"""Replaced layers against PyTorch's own values and derivatives."""

import itertools

import pytest
import torch
from torch import nn

from sharpfit.jacobian import jacobian_norms
from sharpfit.jacobian.faster_layers import (
    FoldedConv2d,
    FrozenBatchNorm2d,
    replace_slow_layers,
)

SETTINGS = [
    {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    for kernel, stride, padding, dilation in itertools.product(
        [1, 3, (2, 3)], [1, 2], [0, 1, (0, 2)], [1, 2]
    )
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_values_and_both_products_match(channels, settings):
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, 4, **settings).double().requires_grad_(False)
    inputs = torch.randn(2, channels, 7, 8, dtype=torch.float64, requires_grad=True)
    outputs, truth = FoldedConv2d(layer)(inputs), layer(inputs)
    torch.testing.assert_close(outputs, truth)
    cotangent = torch.randn_like(truth).requires_grad_()
    pulled = torch.autograd.grad(outputs, inputs, cotangent, create_graph=True)[0]
    torch.testing.assert_close(pulled, torch.autograd.grad(truth, inputs, cotangent.detach())[0])
    # Differentiating the transposed product in its cotangent gives the convolution itself.
    tangent = torch.randn_like(inputs)
    pushed = torch.autograd.grad(pulled, cotangent, tangent)[0]
    linear = nn.functional.conv2d(
        tangent, layer.weight, None, layer.stride, layer.padding, layer.dilation
    )
    torch.testing.assert_close(pushed, linear)


def test_only_fitting_convolutions_are_replaced():
    layers = [
        nn.Conv2d(1, 2, 3),
        nn.Conv2d(4, 2, 3),
        nn.Conv2d(2, 2, 3, groups=2),
        nn.Conv2d(1, 2, 3, padding="same"),
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"),
    ]
    hooked = nn.Conv2d(1, 2, 3)
    hooked.register_forward_hook(lambda layer, args, output: 2 * output)
    net = nn.Sequential(*layers, hooked)
    replace_slow_layers(net)
    assert [type(layer) is FoldedConv2d for layer in net] == [True] + 5 * [False]


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_in_evaluation_mode(affine):
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(3, affine=affine).double()
    layer(1 + 2 * torch.randn(20, 3, 4, 4, dtype=torch.float64))
    if affine:
        layer.weight.data.normal_()
        layer.bias.data.normal_()
    net = nn.Sequential(layer, nn.BatchNorm2d(3, track_running_stats=False)).eval()
    inputs = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    truth = layer(inputs)
    replace_slow_layers(net)
    assert type(net[0]) is FrozenBatchNorm2d
    assert type(net[1]) is nn.BatchNorm2d
    torch.testing.assert_close(net[0](inputs), truth)


@pytest.mark.parametrize("method", ["exact", "krylov"])
def test_norms_of_the_users_network_do_not_change(method):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(144, 3))
    net, inputs = net.double(), torch.randn(4, 3, 6, 6, dtype=torch.float64)
    found = jacobian_norms(net, inputs, method=method, tol=1e-10)
    for row, norm in zip(inputs, found.spectral, strict=True):
        dense = torch.autograd.functional.jacobian(net, row[None]).reshape(3, 108)
        assert norm == pytest.approx(torch.linalg.matrix_norm(dense, 2).item(), rel=1e-8)
    assert type(net[0]) is nn.Conv2d
