import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpfit.linalg import DenseOperator, SymmetricOperator, as_generator, top_eigenpairs
from tests.linalg.spectra import matrix_with_spectrum, operator_with_spectrum

OUTLIERS = [50, 30, 22, 18, 15, 12, 10, 8, 7, 6, 5.2, 4.5, 4, 3.5]


def network_like(size=600, seed=0):
    """Outliers above a heavy-tailed bulk of both signs, as in the Hessian of a network."""
    bulk = np.random.default_rng(seed).standard_normal(size - len(OUTLIERS)) ** 3 * 0.02
    return np.r_[OUTLIERS, bulk]


def wanted_of(spectrum, which, count):
    spectrum = np.asarray(spectrum, dtype=np.float64)
    key = {"largest": spectrum, "smallest": -spectrum, "magnitude": np.abs(spectrum)}[which]
    return spectrum[np.argsort(-key, kind="stable")][:count]


class CountingOperator(DenseOperator):
    """Counts its products and can be interrupted after some of them."""

    def __init__(self, matrix, interrupt_after=math.inf):
        super().__init__(matrix)
        self.n_products = 0
        self.interrupt_after = interrupt_after

    def matvec(self, vector):
        if self.n_products >= self.interrupt_after:
            raise KeyboardInterrupt
        self.n_products += 1
        return super().matvec(vector)


SPECTRA = {
    "network": network_like(),
    "kronecker": np.r_[np.repeat([50, 30, 10], 5), np.linspace(0, 1, 285)],
    "double top": np.r_[[10, 10, 9.5, 9.0], np.linspace(0, 6, 200)],
    "close top": np.r_[[10, 9.999, 9.998, 9.0], np.linspace(-3, 3, 200)],
    "identity": np.ones(40),
    "zero": np.zeros(40),
    "rank three": np.r_[[3.0, 2.0, -1.0], np.zeros(97)],
    "uniform": np.linspace(0, 1, 200),
    "negative": -np.linspace(1, 2, 150),
    "two points": np.repeat([1.0, -1.0], 20),
    "single": np.array([3.0]),
    "pair": np.array([3.0, -2.0]),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
@pytest.mark.parametrize("name", SPECTRA)
def test_values_are_right_and_within_their_error(name, which, dtype):
    spectrum = SPECTRA[name]
    operator = operator_with_spectrum(spectrum, dtype=dtype)
    count = min(6, operator.size)
    pairs = top_eigenpairs(operator, count, which=which, random_state=0)
    assert pairs.converged.all()
    assert not pairs.interrupted
    expected, found = wanted_of(spectrum, which, count), pairs.values.numpy()
    if which == "magnitude":  # +t and -t tie
        expected, found = np.abs(expected), np.abs(found)
    scale = np.abs(spectrum).max()
    error = np.abs(found - expected)
    assert (error <= 1e-3 * np.maximum(np.abs(expected), scale / 100) + 1e-15).all()
    slack = 10 * torch.finfo(dtype).eps * scale
    assert (error <= pairs.error_bounds.numpy() + slack).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_residual_norms_are_the_true_ones(dtype):
    matrix = matrix_with_spectrum(network_like())
    operator = DenseOperator(matrix.to(dtype))
    pairs = top_eigenpairs(operator, 8, tol=1e-2, random_state=0)
    vectors = pairs.vectors.to(torch.float64)
    true = torch.linalg.vector_norm(
        operator.matrix.double() @ vectors - vectors * pairs.values, dim=0
    )
    slack = 20 * torch.finfo(dtype).eps * 50
    torch.testing.assert_close(pairs.residual_norms, true, rtol=1e-3, atol=slack)
    identity = torch.eye(8, dtype=torch.float64)
    torch.testing.assert_close(
        vectors.T @ vectors, identity, rtol=0, atol=50 * torch.finfo(dtype).eps
    )
    assert pairs.vectors.dtype == dtype
    assert pairs.values.dtype == torch.float64


@given(
    spectrum=st.lists(
        st.sampled_from([-3.0, -1.0, -0.5, 0.0, 0.25, 1.0, 1.5, 2.0, 2.001, 5.0]),
        min_size=1,
        max_size=40,
    ),
    which=st.sampled_from(["largest", "smallest", "magnitude"]),
    seed=st.integers(0, 5),
    data=st.data(),
)
@settings(max_examples=80, deadline=None)
def test_any_multiset_of_eigenvalues_is_found_with_multiplicity(spectrum, which, seed, data):
    count = data.draw(st.integers(1, len(spectrum)))
    operator = operator_with_spectrum(spectrum, seed=seed)
    pairs = top_eigenpairs(operator, count, which=which, tol=1e-6, random_state=seed)
    expected, found = wanted_of(spectrum, which, count), pairs.values.numpy()
    if which == "magnitude":
        expected, found = np.abs(expected), np.abs(found)
    np.testing.assert_allclose(found, expected, atol=2e-6 * max(np.abs(spectrum)) + 1e-14)


def test_repeated_eigenvalues_are_missed_without_the_check():
    operator = operator_with_spectrum(SPECTRA["double top"])
    single = top_eigenpairs(operator, 3, check_multiplicity=False, random_state=0)
    assert single.n_probes == 0
    assert single.values[1] < 9.6
    checked = top_eigenpairs(operator, 3, random_state=0)
    assert checked.n_probes >= 1
    assert checked.values[1] > 9.99


def test_start_inside_a_small_invariant_subspace_is_escaped():
    matrix = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64))
    start = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    pairs = top_eigenpairs(DenseOperator(matrix), 2, start=start, random_state=0)
    torch.testing.assert_close(pairs.values, torch.tensor([5.0, 4.0], dtype=torch.float64))


def test_network_like_spectrum_takes_few_products():
    operator = CountingOperator(matrix_with_spectrum(network_like(1500)))
    pairs = top_eigenpairs(operator, 10, random_state=0)
    assert pairs.n_products == operator.n_products
    assert pairs.n_products <= 35


def test_warm_start_saves_products():
    matrix = matrix_with_spectrum(network_like())
    cold = top_eigenpairs(DenseOperator(matrix), 5, tol=1e-6, random_state=0)
    change = matrix_with_spectrum(np.linspace(-1e-3, 1e-3, len(matrix)), seed=1)
    moved = DenseOperator(matrix + change)
    warm = top_eigenpairs(moved, 5, start=cold.vectors, check_multiplicity=False, random_state=0)
    again = top_eigenpairs(moved, 5, check_multiplicity=False, random_state=0)
    assert warm.n_products <= 6 < again.n_products
    expected = torch.linalg.eigvalsh(moved.matrix).flip(0)[:5]
    torch.testing.assert_close(warm.values, expected, rtol=1e-3, atol=0)
    single = top_eigenpairs(moved, 1, start=cold.vectors[:, 0], check_multiplicity=False)
    assert single.n_products <= 2


@pytest.mark.parametrize("count", [1, 5])
def test_small_memory_budget_restarts_and_agrees(count):
    spectrum = np.linspace(0, 1, 500) ** 2
    matrix = matrix_with_spectrum(spectrum)
    pairs = top_eigenpairs(
        DenseOperator(matrix), count, memory_budget=1, tol=1e-5, random_state=0, max_products=3000
    )
    assert pairs.converged.all()
    assert pairs.n_products > 2 * (count + 10)
    np.testing.assert_allclose(pairs.values, np.sort(spectrum)[::-1][:count], rtol=1e-4)


def test_floor_of_low_precision_is_recognised():
    operator = operator_with_spectrum(network_like(), dtype=torch.float32)
    pairs = top_eigenpairs(operator, 3, tol=1e-12, random_state=0)
    assert not pairs.converged.any()
    assert pairs.n_products < 100
    error = (pairs.values - torch.tensor([50.0, 30.0, 22.0], dtype=torch.float64)).abs()
    assert (error <= pairs.error_bounds + 1e-5).all()
    assert (pairs.error_bounds < 1e-3).all()


def test_zero_tolerance_ends_at_rounding():
    operator = operator_with_spectrum(network_like(300))
    pairs = top_eigenpairs(operator, 3, tol=0.0, random_state=0)
    assert pairs.n_products < 100
    np.testing.assert_allclose(pairs.values, OUTLIERS[:3], rtol=1e-12)


def test_budget_ends_the_work_and_is_not_exceeded():
    operator = CountingOperator(matrix_with_spectrum(np.linspace(0, 1, 400)))
    pairs = top_eigenpairs(operator, 4, tol=1e-8, max_products=12, random_state=0)
    assert operator.n_products == pairs.n_products == 12
    assert not pairs.converged.any()
    assert not pairs.interrupted
    assert (pairs.residual_norms > 1e-6).all()


def test_interruption_returns_what_is_there():
    matrix = matrix_with_spectrum(network_like())
    pairs = top_eigenpairs(CountingOperator(matrix, interrupt_after=9), 5, random_state=0)
    assert pairs.interrupted
    assert pairs.n_products == 9
    assert pairs.values.shape == (5,)
    assert abs(float(pairs.values[0]) - 50) <= float(pairs.residual_norms[0])
    few = top_eigenpairs(CountingOperator(matrix, interrupt_after=2), 5, random_state=0)
    assert few.interrupted
    assert few.values.shape == (2,)
    with pytest.raises(KeyboardInterrupt):
        top_eigenpairs(CountingOperator(matrix, interrupt_after=0), 5, random_state=0)


def test_same_seed_same_result_and_global_state_untouched():
    operator = operator_with_spectrum(network_like(200))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = top_eigenpairs(operator, 3, random_state=7)
    second = top_eigenpairs(operator, 3, random_state=as_generator(7))
    top_eigenpairs(operator, 3)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.vectors, second.vectors)


def test_half_precision_products_are_accepted():
    matrix = matrix_with_spectrum(np.r_[[8.0, 4.0], np.linspace(0, 1, 60)])
    pairs = top_eigenpairs(DenseOperator(matrix.to(torch.bfloat16)), 2, tol=0.1, random_state=0)
    np.testing.assert_allclose(pairs.values, [8.0, 4.0], rtol=0.05)
    assert pairs.vectors.dtype == torch.bfloat16


class NotFinite(SymmetricOperator):
    size, dtype, device = 5, torch.float32, torch.device("cpu")

    def matvec(self, vector):
        return vector * float("nan")


def test_products_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="product number 1 of the operator is not finite"):
        top_eigenpairs(NotFinite(), 1)


class WrongShape(NotFinite):
    def matvec(self, vector):
        return vector[:-1]


def test_products_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"product has shape \(4,\), expected \(5,\)"):
        top_eigenpairs(WrongShape(), 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_eigenvalues": 0}, "n_eigenvalues=0 must be between 1 and"),
        ({"n_eigenvalues": 6}, "n_eigenvalues=6 must be between 1 and the operator's size, 5"),
        ({"which": "top"}, "which='top' must be"),
        ({"tol": -1.0}, "tol=-1.0 must be"),
        ({"tol": float("nan")}, "tol=nan must be"),
        ({"n_eigenvalues": 3, "max_products": 2}, "max_products=2 cannot give n_eigenvalues=3"),
        ({"start": torch.ones(4)}, r"start has shape \(4,\)"),
        ({"start": torch.zeros(5)}, "start has no non-zero vector"),
        ({"start": torch.full((5,), float("inf"))}, "start has entries that are not finite"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    operator = operator_with_spectrum([1.0, 2.0, 3.0, 4.0, 5.0])
    with pytest.raises(ValueError, match=message):
        top_eigenpairs(operator, **{"n_eigenvalues": 1, **arguments})


def test_too_many_start_vectors_are_refused():
    operator = operator_with_spectrum(np.linspace(0, 1, 300))
    with pytest.raises(ValueError, match="start has 90 vectors"):
        top_eigenpairs(operator, 1, start=torch.randn(300, 90))


def test_types_are_checked():
    operator = operator_with_spectrum([1.0, 2.0])
    with pytest.raises(TypeError, match="n_eigenvalues must be an int"):
        top_eigenpairs(operator, 1.5)
    with pytest.raises(TypeError, match="random_state must be"):
        top_eigenpairs(operator, 1, random_state="seed")


def test_empty_operator_is_refused():
    with pytest.raises(ValueError, match="size 0"):
        top_eigenpairs(DenseOperator(torch.zeros(0, 0)), 1)


def test_verbose_reports_progress(capsys):
    operator = operator_with_spectrum(network_like(200))
    top_eigenpairs(operator, 2, random_state=0, verbose=5)
    assert "5 products" in capsys.readouterr().out
    top_eigenpairs(operator, 2, random_state=0)
    assert capsys.readouterr().out == ""
