"""Constants of pooling against dense matrices and attained effects."""

import itertools
import math

import pytest
import torch
from torch import nn

from sharpfit.jacobian.lipschitz.errors import CertificateError
from tests.jacobian.lipschitz_operators import ROUNDING, constant_of, operator_norm


@pytest.mark.parametrize(
    ("layer", "shape", "constant"),
    [
        (nn.MaxPool2d(3, 2), (1, 8, 8), 2.0),
        (nn.MaxPool1d(2, 2, dilation=2), (1, 8), math.sqrt(2)),
        (nn.AvgPool2d(2), (1, 8, 8), 0.5),
        (nn.AvgPool2d(3, 1, 1, count_include_pad=False), (1, 8, 8), 1.0145372),
        (nn.AvgPool2d(3, 2, 1), (1, 8, 8), 0.5035654),
    ],
)
def test_known_constants_of_pooling(layer, shape, constant):
    assert constant_of(layer, shape) == pytest.approx(constant, abs=1e-7)


def test_every_average_pooling_is_exact():
    for kernel, stride, padding, ceil_mode, include in itertools.product(
        (2, 3), (1, 2, 3), (0, 1), (False, True), (False, True)
    ):
        layer = nn.AvgPool1d(kernel, stride, padding, ceil_mode, include)
        exact = operator_norm(layer, (2, 8))
        assert exact <= constant_of(layer, (2, 8)) <= exact * (1 + ROUNDING)
        for divisor in (None, 3, -2):
            layer = nn.AvgPool2d(
                (kernel, 2), (stride, 1), (padding, 0), ceil_mode, include, divisor
            )
            exact = operator_norm(layer, (1, 7, 5))
            assert exact <= constant_of(layer, (1, 7, 5)) <= exact * (1 + ROUNDING)
    layer = nn.AvgPool3d(2, 1, 1, count_include_pad=False)
    exact = operator_norm(layer, (1, 3, 4, 3))
    assert exact <= constant_of(layer, (1, 3, 4, 3)) <= exact * (1 + ROUNDING)


def test_adaptive_average_pooling_is_exact():
    for layer, shape in [
        (nn.AdaptiveAvgPool1d(3), (2, 8)),
        (nn.AdaptiveAvgPool1d(5), (2, 3)),
        (nn.AdaptiveAvgPool2d((3, None)), (1, 7, 4)),
        (nn.AdaptiveAvgPool2d(1), (2, 4, 4)),
        (nn.AdaptiveAvgPool3d(2), (1, 3, 4, 5)),
    ]:
        exact = operator_norm(layer, shape)
        assert exact <= constant_of(layer, shape) <= exact * (1 + ROUNDING)


def largest_effect_of_one_entry(layer, shape):
    """Norm of what raising one entry from zero does, at its largest over the entries."""
    layer = layer.double()
    size = math.prod(shape)
    units = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    return float(layer(units).reshape(size, -1).norm(dim=1).max())


def test_every_max_pooling_constant_is_attained():
    for kernel, stride, dilation, padding, ceil_mode in itertools.product(
        (1, 2, 3, 4, 5), (1, 2, 3, 4), (1, 2, 3), (0, 1), (False, True)
    ):
        if padding > kernel // 2:
            continue
        layer = nn.MaxPool1d(kernel, stride, padding, dilation, ceil_mode=ceil_mode)
        attained = largest_effect_of_one_entry(layer, (1, 60))
        assert constant_of(layer, (1, 60)) == pytest.approx(attained, rel=1e-12)
    for layer, shape in [
        (nn.MaxPool2d((3, 2), (2, 1)), (1, 9, 9)),
        (nn.MaxPool3d(3, 2), (1, 7, 7, 7)),
        (nn.AdaptiveMaxPool1d(3), (1, 7)),
        (nn.AdaptiveMaxPool2d((4, None)), (1, 6, 5)),
        (nn.AdaptiveMaxPool3d(2), (1, 3, 4, 5)),
    ]:
        attained = largest_effect_of_one_entry(layer, shape)
        assert constant_of(layer, shape) == pytest.approx(attained, rel=1e-12)
    with pytest.raises(CertificateError, match="return_indices"):
        constant_of(nn.MaxPool1d(2, return_indices=True), (1, 4))
