import numpy as np
import pytest
import torch

from sharpfit.linalg import DenseOperator, spectral_density
from tests.linalg.spectra import matrix_with_spectrum, operator_with_spectrum

SPECTRUM = np.r_[np.random.default_rng(0).uniform(-1, 1, 600), np.linspace(4, 8, 20)]


def smoothed(spectrum, grid, width):
    gaussians = np.exp(-0.5 * ((grid[:, None] - spectrum) / width) ** 2)
    return gaussians.mean(axis=1) / (width * np.sqrt(2 * np.pi))


def test_density_is_the_smoothed_spectrum_within_its_error():
    result = spectral_density(
        operator_with_spectrum(SPECTRUM), n_probes=10, n_steps=50, width=0.3, random_state=0
    )
    true = smoothed(SPECTRUM, result.grid, 0.3)
    error = np.abs(result.density - true)
    assert not result.exact
    assert result.n_products == 500
    allowed = 4 * result.standard_error + result.quadrature_change + 1e-3
    assert np.mean(error <= allowed) > 0.98
    mass = result.density.sum() * (result.grid[1] - result.grid[0])
    assert mass == pytest.approx(1.0, abs=2e-3)
    np.testing.assert_allclose(result.weights.sum(axis=1), 1.0)


def test_standard_errors_cover_counts():
    operator = operator_with_spectrum(SPECTRUM)
    true = np.sum(SPECTRUM < -0.3)
    inside = []
    for seed in range(20):
        result = spectral_density(operator, n_probes=8, n_steps=60, random_state=seed)
        count, error = result.count_below(-0.3)
        inside.append(abs(count - true) <= 3 * error + 0.02 * len(SPECTRUM))
    assert np.mean(inside) >= 0.9


def test_errors_of_counts_see_the_quadrature():
    # Two hundred eigenvalues next to zero on either side, and a few steps.
    spectrum = np.concatenate([np.linspace(-0.1, 0.3, 1500), np.linspace(1, 30, 20)])
    operator = operator_with_spectrum(spectrum)
    ratios, plain = [], []
    for seed in range(10):
        result = spectral_density(operator, n_probes=5, n_steps=24, random_state=seed)
        for value in (-0.05, 0.0, 0.05, 0.15, 0.25):
            count, error = result.count_below(value)
            missed = abs(count - np.sum(spectrum < value))
            ratios.append(missed / error)
            shares = np.where(result.nodes < value, result.weights, 0.0).sum(axis=1)
            plain.append(missed / (result.size * shares.std(ddof=1) / 5**0.5))
    assert np.mean(np.array(ratios) < 2) > 0.8
    assert np.mean(np.array(plain) < 2) < 0.5


def test_quadrature_change_falls_with_the_steps():
    operator = operator_with_spectrum(SPECTRUM)
    few = spectral_density(operator, n_steps=8, width=0.05, random_state=0)
    many = spectral_density(operator, n_steps=100, width=0.05, random_state=0)
    assert many.quadrature_change.max() < 0.5 * few.quadrature_change.max()


@pytest.mark.parametrize("size", [1, 2, 150])
def test_small_operators_are_exact(size):
    spectrum = np.linspace(-1, 2, size)
    result = spectral_density(operator_with_spectrum(spectrum), n_probes=5, n_steps=40)
    assert result.exact
    assert result.n_products == size
    np.testing.assert_allclose(result.nodes[0], spectrum, atol=1e-12)
    assert result.count_below(-1e-6) == pytest.approx((np.sum(spectrum < -1e-6), 0.0))
    assert not result.standard_error.any()
    np.testing.assert_allclose(
        result.density, smoothed(spectrum, result.grid, result.width), atol=1e-9
    )


def test_invariant_subspaces_end_the_recurrence():
    result = spectral_density(DenseOperator(torch.eye(300)), n_steps=20, random_state=0)
    np.testing.assert_allclose(result.weights[:, 0], 1.0)
    np.testing.assert_allclose(result.nodes[:, 0], 1.0, rtol=1e-6)
    assert result.n_products == 5
    assert result.width > 0


def test_float32_basis_agrees():
    operator = operator_with_spectrum(SPECTRUM, dtype=torch.float32)
    wide = spectral_density(operator, width=0.3, random_state=0)
    short = spectral_density(operator, width=0.3, random_state=0, memory_budget=1)
    np.testing.assert_allclose(short.density, wide.density, atol=1e-4)


class Interrupted(DenseOperator):
    remaining = 0

    def matvec(self, vector):
        if self.remaining == 0:
            raise KeyboardInterrupt
        self.remaining -= 1
        return super().matvec(vector)


def test_interruption_keeps_finished_probes():
    operator = Interrupted(matrix_with_spectrum(SPECTRUM))
    operator.remaining = 65
    result = spectral_density(operator, n_steps=20, random_state=0)
    assert result.interrupted
    assert result.nodes.shape == (3, 20)
    assert result.n_products == 60
    operator.remaining = 30
    with pytest.raises(KeyboardInterrupt):
        spectral_density(operator, n_steps=20, random_state=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_probes": 1}, "n_probes=1 must be at least 2"),
        ({"n_steps": 2}, "n_steps=2 must be at least 4"),
        ({"n_points": 1}, "n_points=1 must be at least 2"),
        ({"width": 0.0}, "width=0.0 must be positive"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        spectral_density(operator_with_spectrum(SPECTRUM), **arguments)


def test_empty_operator_is_refused():
    with pytest.raises(ValueError, match="size 0"):
        spectral_density(DenseOperator(torch.zeros(0, 0)))


def test_verbose_reports_probes(capsys):
    spectral_density(operator_with_spectrum(SPECTRUM), random_state=0, verbose=1)
    assert "probe 5 of 5" in capsys.readouterr().out
