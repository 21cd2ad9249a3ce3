"""Rules of dense layers and convolutions against the matrices of these layers."""

import itertools
import math

import pytest
import torch
from torch import nn

from sharpfit.jacobian.lipschitz.dense import largest_row_difference
from tests.jacobian.lipschitz_operators import ROUNDING, constant_of, operator_norm, randomise

# torch says once per process that it copies the input.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")


def test_linear_is_the_spectral_norm():
    for seed in range(5):
        layer = randomise(nn.Linear(7, 4), seed)
        exact = operator_norm(layer, (7,))
        assert exact <= constant_of(layer, (7,)) <= exact * (1 + ROUNDING)


def test_largest_row_difference():
    weight = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, -2.0]])
    assert largest_row_difference(weight) == pytest.approx(math.sqrt(17), rel=1e-12)
    assert largest_row_difference(weight[:1]) == pytest.approx(1.0, rel=1e-12)


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
