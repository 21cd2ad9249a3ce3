import numpy as np
import pytest
import torch

from sharpfit.linalg import DenseOperator, frobenius_norm_estimate, trace_estimate
from tests.linalg.spectra import matrix_with_spectrum, operator_with_spectrum

DECAYING = 50 * 0.9 ** np.arange(300)
FLAT = np.r_[np.linspace(-1, 3, 300), 40.0]


@pytest.mark.parametrize("method", ["xtrace", "hutchinson"])
@pytest.mark.parametrize("spectrum", [DECAYING, FLAT], ids=["decaying", "flat"])
def test_standard_errors_cover_the_true_trace(spectrum, method):
    operator = operator_with_spectrum(spectrum)
    estimates = [
        trace_estimate(operator, method=method, tol=0.0, max_products=40, random_state=seed)
        for seed in range(60)
    ]
    values = np.array([estimate.value for estimate in estimates])
    errors = np.array([estimate.standard_error for estimate in estimates])
    deviations = values - spectrum.sum()
    assert np.mean(np.abs(deviations) <= 3 * errors + 1e-9) >= 0.9
    assert abs(deviations.mean()) <= 4 * deviations.std() / np.sqrt(60)
    assert 0.6 < np.sqrt(np.mean(errors**2)) / deviations.std() < 1.7
    assert all(estimate.n_products == 40 and not estimate.converged for estimate in estimates)


def test_projection_beats_plain_probes_where_the_spectrum_decays():
    operator = operator_with_spectrum(DECAYING)
    errors = {
        method: np.median(
            [
                abs(
                    trace_estimate(
                        operator, method=method, tol=0.0, max_products=60, random_state=seed
                    ).value
                    - DECAYING.sum()
                )
                for seed in range(15)
            ]
        )
        for method in ("xtrace", "hutchinson")
    }
    assert errors["xtrace"] < 0.3 * errors["hutchinson"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("method", ["xtrace", "hutchinson"])
def test_tolerance_is_met(method, dtype):
    operator = operator_with_spectrum(DECAYING, dtype=dtype)
    estimate = trace_estimate(operator, method=method, tol=0.03, random_state=0)
    assert estimate.converged
    assert estimate.standard_error <= 0.03 * estimate.value
    assert abs(estimate.value - DECAYING.sum()) <= 4 * estimate.standard_error


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_low_rank_is_exact(dtype):
    operator = operator_with_spectrum(np.r_[[5.0, -2.0, 1.0], np.zeros(97)], dtype=dtype)
    estimate = trace_estimate(operator, random_state=0, tol=1e-4)
    assert estimate.converged
    assert estimate.value == pytest.approx(4.0, rel=1e-5)
    assert estimate.n_products <= 20


def test_zero_and_identity():
    zero = trace_estimate(DenseOperator(torch.zeros(100, 100)), random_state=0)
    assert (zero.value, zero.standard_error, zero.converged) == (0.0, 0.0, True)
    identity = DenseOperator(torch.eye(100, dtype=torch.float64))
    estimate = trace_estimate(identity, random_state=0)
    assert estimate.value == pytest.approx(100.0)
    assert estimate.standard_error == pytest.approx(0.0, abs=1e-10)
    assert frobenius_norm_estimate(identity, random_state=0).value == pytest.approx(10.0)


@pytest.mark.parametrize("size", [0, 1, 2, 40])
def test_small_operators_are_formed(size):
    matrix = torch.diag(torch.arange(size, dtype=torch.float64))
    estimate = trace_estimate(DenseOperator(matrix))
    assert estimate.method == "dense"
    assert estimate.value == size * (size - 1) / 2
    assert estimate.standard_error == 0.0
    norm = frobenius_norm_estimate(DenseOperator(matrix))
    assert norm.value == pytest.approx(float(torch.linalg.matrix_norm(matrix)) if size else 0.0)


def test_where_probes_have_no_more_room_the_operator_is_formed():
    spectrum = np.linspace(-1, 3, 51)
    operator = operator_with_spectrum(spectrum)
    estimate = trace_estimate(operator, tol=1e-8, random_state=0)
    assert estimate.method == "dense"
    assert estimate.converged
    assert estimate.value == pytest.approx(spectrum.sum())
    assert 51 < estimate.n_products <= 3 * 51
    assert not trace_estimate(operator, tol=1e-8, max_products=60, random_state=0).converged


def test_frobenius_norm_is_covered():
    operator = operator_with_spectrum(FLAT)
    true = np.sqrt(np.sum(FLAT**2))
    estimates = [frobenius_norm_estimate(operator, tol=0.05, random_state=s) for s in range(40)]
    assert all(e.converged and e.standard_error <= 0.0501 * e.value for e in estimates)
    within = [abs(e.value - true) <= 3 * e.standard_error for e in estimates]
    assert np.mean(within) >= 0.9


def test_same_seed_same_estimate():
    operator = operator_with_spectrum(FLAT)
    before = torch.get_rng_state()
    assert trace_estimate(operator, random_state=1) == trace_estimate(operator, random_state=1)
    assert torch.equal(before, torch.get_rng_state())


class Interrupted(DenseOperator):
    remaining = 0

    def matmat(self, vectors):
        if self.remaining == 0:
            raise KeyboardInterrupt
        self.remaining -= 1
        return super().matmat(vectors)


@pytest.mark.parametrize("method", ["xtrace", "hutchinson"])
def test_interruption_returns_what_is_there(method):
    operator = Interrupted(matrix_with_spectrum(FLAT))
    operator.remaining = 9
    estimate = trace_estimate(operator, method=method, tol=0.0, random_state=0)
    assert estimate.interrupted
    assert np.isfinite(estimate.value)
    operator.remaining = 1
    with pytest.raises(KeyboardInterrupt):
        trace_estimate(operator, method=method, tol=0.0, random_state=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "hutch"}, "method='hutch' must be"),
        ({"tol": -0.1}, "tol=-0.1 must be"),
        ({"max_products": 1}, "max_products=1 must be at least 4"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        trace_estimate(operator_with_spectrum(FLAT), **arguments)


def test_products_that_are_not_finite_are_refused():
    operator = operator_with_spectrum(FLAT)
    operator.matrix = operator.matrix * float("nan")
    with pytest.raises(ValueError, match="not finite"):
        trace_estimate(operator)


def test_verbose_reports_the_error(capsys):
    trace_estimate(operator_with_spectrum(FLAT), random_state=0, verbose=1)
    assert "±" in capsys.readouterr().out


def test_a_known_part_counts_for_the_tolerance():
    matrix = torch.randn(300, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    operator = DenseOperator(matrix + matrix.T)
    settings = {"method": "hutchinson", "tol": 0.05, "random_state": 0}
    alone = trace_estimate(operator, max_products=10, **settings)
    found = trace_estimate(operator, known=1e5, **settings)
    assert found.n_products == 10
    assert found.converged
    assert not alone.converged
    assert found.value == pytest.approx(1e5 + alone.value)
    assert found.standard_error == pytest.approx(alone.standard_error)
    small = DenseOperator(torch.eye(3))
    assert trace_estimate(small, known=2.0).value == 5.0


def test_automatic_method_changes_over():
    flat = torch.randn(400, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    operator = DenseOperator(flat + flat.T)
    few = trace_estimate(operator, method="auto", known=2e4, tol=0.01, random_state=0)
    assert (few.method, few.converged) == ("hutchinson", True)
    assert few.n_products <= 60
    many = trace_estimate(
        operator, method="auto", known=1e3, tol=0.01, max_products=700, random_state=0
    )
    assert (many.method, many.n_products) == ("xtrace", 10 + 400)
    assert abs(many.value - 1e3 - float(operator.matrix.trace())) < 4 * many.standard_error
    short = trace_estimate(operator, method="auto", tol=0.01, max_products=12, random_state=0)
    assert (short.method, short.n_products, short.converged) == ("hutchinson", 10, False)


@pytest.mark.parametrize("decay", ["geometric", "harmonic"])
@pytest.mark.parametrize("method", ["xtrace", "auto"])
def test_stated_errors_are_those_of_simulations(decay, method):
    ranks = torch.arange(120, dtype=torch.float64)
    spectrum = 0.8**ranks if decay == "geometric" else 1 / (1 + ranks)
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(120, 120, generator=generator, dtype=torch.float64)).Q
    operator = DenseOperator(basis @ torch.diag(spectrum) @ basis.T)
    ratios = []
    for seed in range(150):
        found = trace_estimate(operator, method=method, random_state=seed, max_products=100)
        ratios.append((found.value - float(spectrum.sum())) / found.standard_error)
    ratios = np.array(ratios)
    assert 0.8 < np.sqrt(np.mean(ratios**2)) < 1.3
    assert np.mean(np.abs(ratios) > 2) < 0.13
