"""Arithmetic and norms that are rounded upwards, against exact values."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from sharpfit.jacobian.lipschitz.errors import CertificateError
from sharpfit.jacobian.lipschitz.rounding import (
    largest_eigenvalue_up,
    product_up,
    quotient_up,
    root_up,
    spectral_norm_up,
    sum_up,
)


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
