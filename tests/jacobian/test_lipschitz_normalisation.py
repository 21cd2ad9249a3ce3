"""Rules of normalisation, padding and layers that move entries."""

import math

import pytest
import torch
from torch import nn

from sharpfit.jacobian.lipschitz.errors import CertificateError
from tests.jacobian.lipschitz_operators import ROUNDING, constant_of, operator_norm, randomise


def test_batch_norm_is_exact():
    generator = torch.Generator().manual_seed(0)
    for layer, shape in [
        (nn.BatchNorm1d(4), (4,)),
        (nn.BatchNorm2d(3), (3, 2, 2)),
        (nn.BatchNorm1d(3, affine=False), (3, 2)),
        (nn.InstanceNorm1d(3, affine=True, track_running_stats=True), (3, 2)),
    ]:
        randomise(layer)
        layer.running_mean.copy_(torch.randn(layer.running_mean.shape, generator=generator))
        layer.running_var.copy_(torch.rand(layer.running_var.shape, generator=generator))
        exact = operator_norm(layer, shape)
        assert exact <= constant_of(layer, shape) <= exact * (1 + ROUNDING)


def test_batch_norm_without_running_statistics_is_refused():
    with pytest.raises(CertificateError, match="track_running_stats=True"):
        constant_of(nn.BatchNorm1d(3, track_running_stats=False), (3,))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.LayerNorm(5, eps=0.3), (5,)),
        (nn.LayerNorm((2, 3), eps=0.1, elementwise_affine=False), (2, 3)),
        (nn.GroupNorm(2, 4, eps=0.2), (4, 3)),
        (nn.RMSNorm(5, eps=0.2), (5,)),
        (nn.InstanceNorm1d(2, eps=0.1, affine=True), (2, 4)),
    ],
)
def test_layer_norm_bound_holds_and_is_attained_without_scales(layer, shape):
    bound = constant_of(layer, shape)
    layer = layer.double()

    def norm_at(point):
        jacobian = torch.autograd.functional.jacobian(lambda x: layer(x[None])[0], point)
        return float(torch.linalg.matrix_norm(jacobian.reshape(math.prod(shape), -1), 2))

    assert norm_at(torch.zeros(shape, dtype=torch.float64)) == pytest.approx(bound, rel=1e-9)
    randomise(layer)
    bound = constant_of(layer, shape)
    generator = torch.Generator().manual_seed(0)
    for scale in (0.01, 0.3, 3.0):
        for _ in range(20):
            point = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
            assert norm_at(point) <= bound


def test_normalisation_without_eps_is_refused():
    with pytest.raises(CertificateError, match="eps"):
        constant_of(nn.LayerNorm(3, eps=0.0), (3,))
    with pytest.raises(CertificateError, match="eps"):
        constant_of(nn.RMSNorm(3), (3,))


def test_padding_layers_are_exact():
    for layer, shape in [
        (nn.ZeroPad2d((1, 2, 0, 1)), (1, 3, 4)),
        (nn.ConstantPad1d((1, -2), 3.5), (2, 5)),
        (nn.ReflectionPad1d((1, 3)), (2, 4)),
        (nn.ReflectionPad2d((2, 1, 1, 1)), (1, 3, 4)),
        (nn.ReplicationPad2d((2, 0, 1, 3)), (1, 3, 4)),
        (nn.CircularPad1d((4, 4)), (1, 4)),
    ]:
        exact = operator_norm(layer, shape)
        assert exact <= constant_of(layer, shape) <= exact * (1 + ROUNDING)


def test_layers_that_move_entries_have_constant_one():
    for layer, shape in [
        (nn.Identity(), (3,)),
        (nn.Dropout(0.5), (3,)),
        (nn.AlphaDropout(0.5), (3,)),
        (nn.Flatten(), (2, 3)),
        (nn.Unflatten(1, (2, 3)), (6,)),
        (nn.PixelShuffle(2), (4, 2, 2)),
        (nn.ChannelShuffle(2), (4, 2)),
    ]:
        assert constant_of(layer, shape) == 1.0 == pytest.approx(operator_norm(layer, shape))
    with pytest.raises(CertificateError, match="start_dim"):
        constant_of(nn.Flatten(0), (2, 3))
