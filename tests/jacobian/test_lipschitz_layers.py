"""Every rule against the matrix, or the derivative, of the layer it bounds."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from sharpfit.jacobian.lipschitz.activations import slope_interval
from sharpfit.jacobian.lipschitz.dense import largest_row_difference
from sharpfit.jacobian.lipschitz.errors import CertificateError
from sharpfit.jacobian.lipschitz.registry import apply_rule
from sharpfit.jacobian.lipschitz.rounding import (
    largest_eigenvalue_up,
    product_up,
    quotient_up,
    root_up,
    spectral_norm_up,
    sum_up,
)

ROUNDING = 1e-10
# torch says once per process that it copies the input.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")


def constant_of(layer, shape):
    return apply_rule(layer.eval(), shape, "layer")[0]


def operator_norm(layer, shape):
    """Spectral norm of an affine layer from its values at the unit vectors, in float64."""
    layer = layer.double().eval()
    size = math.prod(shape)
    with torch.no_grad():
        units = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
        rows = layer(units) - layer(torch.zeros(1, *shape, dtype=torch.float64))
    return float(torch.linalg.matrix_norm(rows.reshape(size, -1), 2)) if rows.numel() else 0.0


def randomise(layer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return layer


# Rounding -----------------------------------------------------------------------------------


def test_arithmetic_rounds_upwards():
    generator = np.random.default_rng(0)
    for a, b, c in generator.lognormal(sigma=5, size=(200, 3)).tolist():
        assert Fraction(product_up(a, b)) >= Fraction(a) * Fraction(b)
        assert Fraction(quotient_up(a, b)) * Fraction(b) >= Fraction(a)
        assert Fraction(sum_up([a, b, c])) >= Fraction(a) + Fraction(b) + Fraction(c)
        assert Fraction(root_up(a)) ** 2 >= Fraction(a)
    assert product_up(0.5, 1.0) == 0.5
    assert root_up(4.0) == 2.0


@pytest.mark.parametrize("order", [1, 2, 8, 64])
def test_spectral_norm_is_bounded_where_it_is_known_exactly(order):
    hadamard = torch.ones(1, 1, dtype=torch.float64)
    while len(hadamard) < order:
        hadamard = torch.cat(
            [torch.cat([hadamard, hadamard], 1), torch.cat([hadamard, -hadamard], 1)]
        )
    bound = spectral_norm_up(hadamard * 3)
    assert 3 * math.sqrt(order) <= bound <= 3 * math.sqrt(order) * (1 + 1e-12)


def test_spectral_norm_is_bounded_in_extended_precision():
    mpmath = pytest.importorskip("mpmath")
    generator = torch.Generator().manual_seed(1)
    for shape in [(1, 7), (5, 5), (12, 4), (3, 20)]:
        matrix = torch.randn(shape, generator=generator, dtype=torch.float64)
        with mpmath.workdps(40):
            exact = max(mpmath.svd_r(mpmath.matrix(matrix.tolist()), compute_uv=False))
            bound = spectral_norm_up(matrix)
            assert exact <= mpmath.mpf(bound) <= exact * (1 + mpmath.mpf("1e-12"))


def test_spectral_norm_of_tiny_huge_zero_and_complex_matrices():
    matrix = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    for scale in (1e-200, 1.0, 1e200):
        assert spectral_norm_up(matrix * scale) == pytest.approx(5.0 * scale, rel=1e-12)
    assert spectral_norm_up(torch.zeros(3, 2)) == 0.0
    stack = torch.stack([torch.eye(2), torch.tensor([[0.0, 2.0], [0.0, 0.0]])]) * (0.6 + 0.8j)
    assert spectral_norm_up(stack) == pytest.approx(2.0, rel=1e-6)
    with pytest.raises(CertificateError, match="not finite"):
        spectral_norm_up(torch.tensor([[math.nan]]))


def test_largest_eigenvalue_covers_the_error_of_the_entries():
    matrix = torch.diag(torch.tensor([1.0, 2.0], dtype=torch.float64))[None]
    assert largest_eigenvalue_up(matrix, entry_error=0.5) >= 2.5


# Dense --------------------------------------------------------------------------------------


def test_linear_is_the_spectral_norm():
    for seed in range(5):
        layer = randomise(nn.Linear(7, 4), seed)
        exact = operator_norm(layer, (7,))
        assert exact <= constant_of(layer, (7,)) <= exact * (1 + ROUNDING)


def test_largest_row_difference():
    weight = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, -2.0]])
    assert largest_row_difference(weight) == pytest.approx(math.sqrt(17), rel=1e-12)
    assert largest_row_difference(weight[:1]) == pytest.approx(1.0, rel=1e-12)


# Convolutions -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("size", [5, 8, 12])
def test_every_one_dimensional_convolution_is_bounded(size, groups, mode):
    n_checked = 0
    for kernel, stride, padding, dilation in itertools.product(
        (1, 2, 3, 4), (1, 2, 3), (0, 1, 2, 4), (1, 2, 3)
    ):
        if size + 2 * padding <= dilation * (kernel - 1):
            continue
        layer = randomise(
            nn.Conv1d(2, 4, kernel, stride, padding, dilation, groups, padding_mode=mode),
            n_checked,
        )
        exact = operator_norm(layer, (2, size))
        bound = constant_of(layer, (2, size))
        assert exact <= bound
        outputs = size + 2 * padding - dilation * (kernel - 1)
        if mode == "circular" and outputs == size and size % stride == 0:
            assert bound <= exact * (1 + ROUNDING)
        n_checked += 1
    assert n_checked >= 100


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
def test_every_two_dimensional_convolution_is_bounded(mode):
    options = list(
        itertools.product(
            ((3, 3), (2, 3), (1, 2)),
            ((1, 1), (2, 1), (2, 3)),
            ((0, 0), (1, 1), (2, 0)),
            ((1, 1), (1, 2)),
            (1, 2),
        )
    )
    for seed, (kernel, stride, padding, dilation, groups) in enumerate(options):
        layer = randomise(
            nn.Conv2d(2, 2, kernel, stride, padding, dilation, groups, padding_mode=mode), seed
        )
        assert operator_norm(layer, (2, 6, 5)) <= constant_of(layer, (2, 6, 5))


def test_circular_convolution_is_exact_in_two_dimensions():
    layer = randomise(nn.Conv2d(3, 2, 3, stride=(2, 1), padding=1, padding_mode="circular"))
    exact = operator_norm(layer, (3, 6, 5))
    assert exact <= constant_of(layer, (3, 6, 5)) <= exact * (1 + ROUNDING)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_zero_padded_convolution_bound_is_close_on_large_inputs(stride):
    layer = randomise(nn.Conv1d(3, 5, 4, stride, padding=2, dilation=2))
    exact = operator_norm(layer, (3, 96))
    assert exact <= constant_of(layer, (3, 96)) <= exact * 1.02


def test_same_and_valid_padding():
    for padding, kernel in itertools.product(("same", "valid"), (2, 3, 4)):
        layer = randomise(nn.Conv1d(2, 3, kernel, padding=padding, dilation=2))
        assert operator_norm(layer, (2, 9)) <= constant_of(layer, (2, 9))


def test_three_dimensional_convolution_is_bounded():
    layer = randomise(nn.Conv3d(1, 2, (2, 3, 2), stride=(1, 2, 1), padding=1))
    assert operator_norm(layer, (1, 4, 3, 4)) <= constant_of(layer, (1, 4, 3, 4))


@pytest.mark.parametrize("groups", [1, 2])
def test_every_transposed_convolution_is_bounded(groups):
    n_checked = 0
    for kernel, stride, padding, dilation, extra in itertools.product(
        (1, 2, 3), (1, 2, 3), (0, 1, 2), (1, 2), (0, 1)
    ):
        size = 5
        output = (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + extra + 1
        if extra >= max(stride, dilation) or output < 1:
            continue
        layer = randomise(
            nn.ConvTranspose1d(2, 4, kernel, stride, padding, extra, groups, dilation=dilation),
            n_checked,
        )
        assert operator_norm(layer, (2, size)) <= constant_of(layer, (2, size))
        n_checked += 1
    assert n_checked >= 60
    layer = randomise(nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1))
    exact = operator_norm(layer, (2, 6, 6))
    assert exact <= constant_of(layer, (2, 6, 6)) <= 1.2 * exact


# Activations --------------------------------------------------------------------------------

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


# Pooling ------------------------------------------------------------------------------------


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


# Normalisation, padding and reshaping -------------------------------------------------------


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
