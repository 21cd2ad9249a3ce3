import numpy as np
import pytest
import torch
from scipy.stats import binom

from sharpfit.linalg import DenseOperator, as_generator, top_eigenpairs
from sharpfit.linalg.krylov import KrylovSubspace
from sharpfit.linalg.random_chain import RandomChain
from tests.linalg.spectra import matrix_with_spectrum, operator_with_spectrum

BULK = np.random.default_rng(0).standard_normal(400) ** 3 * 0.02


def subspace_and_chain(n_before, n_steps, seed):
    """Return a subspace of some products, a chain beside it, and its dense complement."""
    matrix = matrix_with_spectrum(np.r_[[9, 7, 5, 4, 3, 2.5], np.linspace(-1, 1, 54)])
    subspace = KrylovSubspace(DenseOperator(matrix), 60, torch.float64)
    subspace.inject(torch.randn(60, generator=as_generator(seed)))
    for _ in range(n_before):
        subspace.expand(subspace.frontier[0])
    inside = subspace.vectors(np.eye(n_before))
    chain = RandomChain(subspace, as_generator(seed + 1))
    chain.extend()
    start = subspace.vectors(np.eye(n_before + 1)[:, -1:])[:, 0]
    for _ in range(n_steps - 1):
        chain.extend()
    projector = torch.eye(60, dtype=torch.float64) - inside @ inside.T
    return subspace, chain, projector @ matrix @ projector, start


@pytest.mark.parametrize("n_before", [0, 4, 12])
@pytest.mark.parametrize("n_steps", [1, 2, 5])
def test_chain_is_lanczos_outside_the_expanded_vectors(n_before, n_steps):
    _, chain, outside, start = subspace_and_chain(n_before, n_steps, seed=3)
    powers = [start]
    for _ in range(n_steps - 1):
        powers.append(outside @ powers[-1])
    basis, _ = torch.linalg.qr(torch.stack(powers, dim=1))
    expected = torch.linalg.eigvalsh(basis.T @ outside @ basis)
    np.testing.assert_allclose(chain.ritz_values(), expected, atol=1e-8)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_steps", [1, 3, 6])
def test_miss_probability_is_that_of_the_seen_components(n_steps, seed):
    n_before = 4
    _, chain, outside, start = subspace_and_chain(n_before, n_steps, seed)
    values, vectors = torch.linalg.eigh(outside)
    powers = [start]
    for _ in range(n_steps):
        powers.append(outside @ powers[-1])
    basis, _ = torch.linalg.qr(torch.stack(powers, dim=1))
    for end in (-1, 0):  # the largest and the smallest eigenvalue of what is left
        component = float((start @ vectors[:, end]).abs())
        seen = float(torch.linalg.vector_norm(basis.T @ vectors[:, end]))
        expected = min(1.0, (2 * (60 - n_before) / np.pi) ** 0.5 * component / seen)
        found = chain.miss_probability([float(values[end])])
        assert found == pytest.approx(expected, rel=1e-6)
    both = chain.miss_probability([float(values[0]), float(values[-1])])
    single = [chain.miss_probability([float(values[end])]) for end in (-1, 0)]
    assert both == pytest.approx(min(1.0, sum(single)))


def test_chain_does_not_disturb_the_couplings_of_the_subspace():
    subspace, _, _, _ = subspace_and_chain(12, 6, seed=0)
    pairs = subspace.ritz_pairs()
    vectors = subspace.vectors(pairs.coefficients)
    residuals = subspace.operator.matmat(vectors) - vectors * torch.as_tensor(pairs.values)
    true = torch.linalg.vector_norm(residuals, dim=0)
    np.testing.assert_allclose(pairs.residual_norms, true, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("multiplicity", [2, 5, 12])
def test_all_copies_are_found(multiplicity, dtype):
    spectrum = np.r_[np.repeat(20.0, multiplicity), [10.0, 6.0, 5.9, 3.0], BULK]
    operator = operator_with_spectrum(spectrum, dtype=dtype)
    for count in (multiplicity - 1, multiplicity + 3):
        pairs = top_eigenpairs(operator, count, random_state=1)
        expected = np.sort(spectrum)[::-1][:count]
        np.testing.assert_allclose(pairs.values, expected, rtol=1e-3)
        assert pairs.miss_probability <= 0.05


@pytest.mark.parametrize("which", ["smallest", "magnitude"])
def test_all_copies_are_found_at_the_other_ends(which):
    spectrum = np.r_[np.repeat(-20.0, 3), [-10.0, 6.0, 6.0, 3.0], BULK]
    pairs = top_eigenpairs(operator_with_spectrum(spectrum), 6, which=which, random_state=1)
    expected = {"smallest": [20, 20, 20, 10], "magnitude": [20, 20, 20, 10, 6, 6]}[which]
    np.testing.assert_allclose(pairs.values[: len(expected)].abs(), expected, rtol=1e-3)
    assert pairs.miss_probability <= 0.05


@pytest.mark.parametrize("gap", [1e-9, 1e-6, 1e-4, 1e-2])
def test_close_eigenvalues_are_told_apart(gap):
    spectrum = np.r_[20 * (1 - gap * np.arange(4)), [10.0, 8.0], BULK]
    pairs = top_eigenpairs(operator_with_spectrum(spectrum), 5, random_state=1)
    np.testing.assert_allclose(pairs.values, spectrum[:5], rtol=1e-3)


@pytest.mark.parametrize("missed", [[0], [2], [0, 1, 2]])
def test_start_orthogonal_to_eigenvectors_does_not_lose_them(missed):
    spectrum = np.r_[[20.0, 15.0, 12.0, 10.0, 8.0, 7.0, 6.0], BULK]
    matrix = torch.diag(torch.as_tensor(spectrum))
    kept = [place for place in range(7) if place not in missed]
    start = torch.zeros(len(spectrum), len(kept), dtype=torch.float64)
    start[kept, range(len(kept))] = 1.0
    pairs = top_eigenpairs(DenseOperator(matrix), 4, start=start, random_state=1)
    np.testing.assert_allclose(pairs.values, spectrum[:4], rtol=1e-3)
    blind = top_eigenpairs(
        DenseOperator(matrix), 4, start=start, check_multiplicity=False, random_state=1
    )
    assert blind.miss_probability == 1.0
    assert abs(float(blind.values[missed[0]]) / spectrum[missed[0]] - 1) > 0.1


def misses(top, trials):
    """Count how often the second of these eigenvalues is not found from the first and third."""
    matrix = torch.diag(torch.as_tensor(np.r_[top, np.linspace(-1, 1, 300)]))
    start = torch.zeros(len(matrix), 2, dtype=torch.float64)
    start[0, 0] = start[2, 1] = 1.0
    found = [
        top_eigenpairs(DenseOperator(matrix), 2, start=start, random_state=seed).values[1]
        for seed in range(trials)
    ]
    return sum(abs(float(value) / top[1] - 1) > 1e-2 for value in found)


def test_misses_are_as_rare_as_stated():
    # What is missed lies hardly beyond the last wanted value: the hardest place.
    assert misses([9.0, 3.1, 3.0, 2.8], trials=150) <= binom.ppf(0.999, 150, 0.05)
    assert misses([9.0, 9.0, 6.0, 2.0], trials=150) <= binom.ppf(0.999, 150, 0.002)


def test_what_cannot_be_excluded_is_said():
    operator = operator_with_spectrum(np.linspace(0, 1, 400))
    pairs = top_eigenpairs(operator, 5, random_state=0)
    unchecked = top_eigenpairs(operator, 5, check_multiplicity=False, random_state=0)
    assert pairs.n_products <= unchecked.n_products + 10
    assert 0.05 < pairs.miss_probability < 1.0
    stopped = top_eigenpairs(operator, 5, max_products=20, random_state=0)
    assert stopped.miss_probability == 1.0


def test_nothing_is_missed_in_the_whole_space():
    assert top_eigenpairs(operator_with_spectrum([3.0, 2.0, 2.0]), 2).miss_probability == 0.0
    low_rank = operator_with_spectrum(np.r_[[3.0, 2.0], np.zeros(98)])
    assert top_eigenpairs(low_rank, 2, random_state=0).miss_probability < 1e-3
