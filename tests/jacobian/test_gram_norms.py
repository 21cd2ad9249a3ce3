"""Norms from Gram matrices against singular values of dense matrices in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from sharpfit.jacobian import jacobian_norms
from sharpfit.jacobian.gram import GramNorms, largest_eigenvalues, matrix_norms


def _matrices(singular_values, n_columns=24, seed=0):
    """Random matrices, in random bases, with the singular values of each row."""
    generator = np.random.default_rng(seed)
    rows, size = singular_values.shape
    left, _ = np.linalg.qr(generator.normal(size=(rows, size, size)))
    right, _ = np.linalg.qr(generator.normal(size=(rows, n_columns, size)))
    return torch.as_tensor((left * singular_values[:, None]) @ right.transpose(0, 2, 1))


def _spectra(size):
    """Spectra that a power iteration finds easy, hard and impossible to tell apart."""
    generator = np.random.default_rng(1)
    clustered = [1.0, 1.0 - 1e-3, 1.0 - 1e-6, 1.0 - 1e-9, 1.0 - 1e-13]
    spectra = [
        np.sort(generator.uniform(size=size))[::-1],
        np.r_[1.0, np.full(size - 1, 1e-9)],
        np.r_[1.0, np.zeros(size - 1)],
        np.r_[np.ones(2), generator.uniform(size=size - 2)],
        np.r_[np.ones(4), np.zeros(size - 4)],
        np.ones(size),
        np.r_[clustered, generator.uniform(size=size - 5)],
        np.zeros(size),
        1e-12 * np.arange(size, 0, -1.0),
        1e9 * np.arange(size, 0, -1.0),
    ]
    return np.stack([*spectra, *(np.r_[1.0, gap, np.zeros(size - 2)] for gap in _GAPS)])


_GAPS = 1.0 - np.geomspace(1e-16, 0.9, 60)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [6, 8, 10, 20, 21])
def test_norms_match_dense_singular_values(size, dtype):
    matrices = _matrices(_spectra(size)).to(dtype)
    truth = np.linalg.svd(matrices.double().numpy(), compute_uv=False)
    spectral, frobenius = matrix_norms(matrices)
    relative = 40 * torch.finfo(dtype).eps
    assert spectral.dtype == torch.float64
    np.testing.assert_allclose(spectral, truth[:, 0], rtol=relative)
    np.testing.assert_allclose(frobenius, np.sqrt(np.square(truth).sum(axis=1)), rtol=relative)
    tall, _ = matrix_norms(matrices.mT)
    np.testing.assert_allclose(tall, truth[:, 0], rtol=relative)


@pytest.mark.parametrize("tol", [1e-3, 1e-8, 1e-15])
@pytest.mark.parametrize("squarings", [(0,), (1, 1), (5, 3), (2, 2, 2)])
def test_enclosures_keep_their_tolerance(tol, squarings):
    spectra = np.square(_spectra(9))
    gram = _matrices(np.sqrt(spectra))
    gram = gram @ gram.mT
    found = largest_eigenvalues(gram, tol=tol, squarings=squarings).numpy()
    truth = np.linalg.eigvalsh(gram.numpy())[:, -1]
    assert np.all(np.abs(found - truth) <= (tol + 1e-14) * truth)


def test_squares_beyond_the_range_of_float32_are_seen():
    """Saturated probabilities have Jacobians whose squares are no float32 numbers."""
    matrices = _matrices(np.arange(10, 0, -1.0)[None]).float()
    for scale in (1e-25, 1e-19, 1e18, 1e25):
        spectral, frobenius = matrix_norms(matrices * scale)
        np.testing.assert_allclose(spectral, 10 * scale, rtol=1e-6)
        np.testing.assert_allclose(frobenius, np.sqrt(385.0) * scale, rtol=1e-6)
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 3))
    net[1].bias.data = torch.tensor([60.0, 0.0, 0.0])
    inputs = torch.zeros(1, 2)
    small = jacobian_norms(net, inputs, output="probabilities").spectral
    exact = jacobian_norms(net.double(), inputs.double(), output="probabilities").spectral
    assert 0 < exact[0] < 1e-22
    np.testing.assert_allclose(small, exact, rtol=1e-5)


def test_chunks_of_all_lengths_keep_their_order():
    matrices = _matrices(np.random.default_rng(0).uniform(size=(2500, 9)), n_columns=9).float()
    matrices[1300] *= 1e-25  # takes float64, in a batch with others
    collected = GramNorms()
    start = 0
    for length in (1, 700, 1623, 1, 175):
        collected.add(matrices[start : start + length])
        start += length
    spectral, frobenius = collected.norms()
    truth = np.linalg.svd(matrices.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(spectral, truth[:, 0], rtol=1e-6)
    np.testing.assert_allclose(frobenius, np.sqrt(np.square(truth).sum(axis=1)), rtol=1e-6)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_matrices_without_numbers_are_refused(value):
    matrices = torch.ones(3, 9, 12)
    matrices[1, 2, 3] = value
    with pytest.raises(ValueError, match="NaN or infinity"):
        matrix_norms(matrices)


def test_half_precision_is_multiplied_in_single():
    matrices = _matrices(np.arange(10, 0, -1.0)[None]).half()
    truth = np.linalg.svd(matrices.double().numpy(), compute_uv=False)[:, 0]
    np.testing.assert_allclose(matrix_norms(matrices)[0], truth, rtol=1e-6)
