"""Constants of activations against slopes on fine grids."""

import numpy as np
import pytest
import torch
from torch import nn

from sharpfit.jacobian.lipschitz.activations import slope_interval
from sharpfit.jacobian.lipschitz.errors import CertificateError
from tests.jacobian.lipschitz_operators import constant_of

ACTIVATIONS = [
    nn.ReLU(),
    nn.ReLU6(),
    nn.LeakyReLU(0.1),
    nn.LeakyReLU(-1.5),
    nn.PReLU(3, init=1.25),
    nn.RReLU(0.1, 0.4),
    nn.ELU(),
    nn.ELU(1.7),
    nn.ELU(-0.4),
    nn.CELU(0.7),
    nn.SELU(),
    nn.GELU(),
    nn.GELU(approximate="tanh"),
    nn.SiLU(),
    nn.Mish(),
    nn.Tanh(),
    nn.Hardtanh(-2, 3),
    nn.Sigmoid(),
    nn.Hardsigmoid(),
    nn.Hardswish(),
    nn.Softplus(),
    nn.Softplus(beta=2.5),
    nn.Softsign(),
    nn.LogSigmoid(),
    nn.Tanhshrink(),
    nn.Softshrink(0.3),
    nn.Threshold(0.5, 0.5),
]


def extreme_slopes(layer):
    """Smallest and largest slope of an activation on a fine grid.

    By one-sided differences of second order, because extremes lie on one side of a kink, and of
    the function's values, because torch differentiates some with constants in float32.
    """
    layer = layer.double().eval()
    step = 2.0**-17

    def values(points):
        points = torch.as_tensor(points, dtype=torch.float64)
        with torch.no_grad():
            return layer(points.reshape(1, 1, -1).repeat(1, 3, 1))[0, 0].numpy()

    def slopes(points, side):
        points, h = np.asarray(points), side * step
        return (4 * values(points + h) - 3 * values(points) - values(points + 2 * h)) / (2 * h)

    # Between neighbours a smooth slope rises by less than 1e-9 above the larger of the two.
    grid = np.concatenate([np.linspace(-8, 8, 320_001), [-40, -20, 20, 40]])
    if np.abs(values([-1e5, 1e5])).max() < 10:
        grid = np.append(grid, [-1e5, 1e5])
    found = np.concatenate([slopes(grid, side) for side in (-1, 1)])
    return found.min(), found.max()


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=str)
def test_activation_constants_to_nine_digits(layer):
    low, high = slope_interval(layer)
    smallest, largest = extreme_slopes(layer)
    assert smallest == pytest.approx(low, abs=1e-9)
    assert largest == pytest.approx(high, abs=1e-9)
    assert constant_of(layer, (3, 4)) == max(abs(low), abs(high))


def test_activations_that_jump_are_refused():
    for layer, reason in [
        (nn.Threshold(0.0, 1.0), "jumps"),
        (nn.Softplus(threshold=2), "jump"),
        (nn.CELU(-1.0), "positive"),
        (nn.Hardshrink(), "no Lipschitz rule"),
        (nn.GLU(), "no Lipschitz rule"),
    ]:
        with pytest.raises(CertificateError, match=reason):
            constant_of(layer, (4,))


def test_softmax_attains_one_half_and_log_softmax_the_root_of_the_classes():
    logits = torch.tensor([40.0, 40.0, 0.0, 0.0], dtype=torch.float64)
    for layer, point, constant in [
        (nn.Softmax(dim=1), logits, 0.5),
        (nn.Softmin(dim=-1), -logits, 0.5),
        (nn.LogSoftmax(dim=1), torch.eye(4, dtype=torch.float64)[0] * 60, 2.0),
    ]:
        jacobian = torch.autograd.functional.jacobian(lambda z, f=layer: f(z[None])[0], point)
        norm = float(torch.linalg.matrix_norm(jacobian, 2))
        assert constant_of(layer, (4,)) == pytest.approx(constant, rel=1e-12)
        assert norm == pytest.approx(constant, rel=1e-9)
    generator = torch.Generator().manual_seed(0)
    for point in 3 * torch.randn(50, 4, generator=generator, dtype=torch.float64):
        for layer in (nn.Softmax(dim=1), nn.LogSoftmax(dim=1)):
            jacobian = torch.autograd.functional.jacobian(lambda z, f=layer: f(z[None])[0], point)
            assert torch.linalg.matrix_norm(jacobian, 2) <= constant_of(layer, (4,))
    with pytest.raises(CertificateError, match="batch"):
        constant_of(nn.Softmax(dim=0), (4,))
    assert constant_of(nn.LogSoftmax(dim=1), (1,)) == 0.0
