"""Kernel smoothers against explicit refits, and the mimicked error against fresh errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist
from scipy.stats import kendalltau

from sharpfit.theory.smoothers import fit_smoothers, mimicked_error

PENALTIES = 10.0 ** np.arange(-7, 2.5, 0.5)


def ridge_with_constant(kernel, across, targets, penalty):
    """Solve for weights and constant as one linear system, and predict."""
    n = len(kernel)
    system = np.block([[kernel + penalty * np.eye(n), np.ones((n, 1))], [np.ones((1, n)), 0.0]])
    solution = np.linalg.solve(system, np.vstack([targets, np.zeros((1, targets.shape[1]))]))
    return across @ solution[:-1] + solution[-1]


@pytest.mark.parametrize("k", [1, 3])
def test_equals_refits_without_each_row(k):
    rng = np.random.default_rng(k)
    rows = rng.normal(size=(25, 4))
    targets = 5 + np.sin(rows[:, :1]) + 0.3 * rng.normal(size=(25, k))
    kernel = 1 / (1 + (cdist(rows, rows) / np.median(pdist(rows))) ** 2)
    smoothers = fit_smoothers(rows, targets)
    for fit, error, penalty in zip(
        smoothers.fits, smoothers.leave_one_out_errors, PENALTIES, strict=True
    ):
        assert fit == pytest.approx(ridge_with_constant(kernel, kernel, targets, penalty), abs=1e-6)
        left_out = np.empty_like(targets)
        for i in range(25):
            others = np.arange(25) != i
            left_out[i] = ridge_with_constant(
                kernel[np.ix_(others, others)], kernel[i, others], targets[others], penalty
            )
        assert error == pytest.approx(np.square(left_out - targets).sum(axis=1).mean(), rel=1e-5)


def test_what_the_smoother_does_not_reproduce_is_added():
    rng = np.random.default_rng(0)
    rows, targets = rng.normal(size=(40, 3)), rng.normal(size=(40, 2))
    smoothers = fit_smoothers(rows, targets)
    rest = 1e-3 * rng.normal(size=(40, 2))
    added = np.square(rest).sum(axis=1).mean()
    for fit, error in zip(smoothers.fits[8:14], smoothers.leave_one_out_errors[8:14], strict=True):
        assert mimicked_error(fit, smoothers) == error
        assert mimicked_error(fit + rest, smoothers) - error == pytest.approx(added, rel=1e-6)


def test_ranks_smoothers_by_their_error_on_fresh_rows():
    """Where a network is a kernel ridge regression, also of another kernel, the order is right."""
    rng = np.random.default_rng(0)
    rows, fresh = rng.uniform(-2, 2, (150, 2)), rng.uniform(-2, 2, (2000, 2))

    def truth(x):
        return np.sin(2 * x[:, :1]) + x[:, 1:]

    targets = truth(rows) + 0.5 * rng.normal(size=(150, 1))
    smoothers = fit_smoothers(rows, targets)
    estimates, errors = [], []
    for penalty in 10.0 ** np.arange(-4, 2.5, 0.5):
        kernel, across = (np.exp(-cdist(x, rows, "sqeuclidean") / 4) for x in (rows, fresh))
        estimates.append(
            mimicked_error(ridge_with_constant(kernel, kernel, targets, penalty), smoothers)
        )
        predictions = ridge_with_constant(kernel, across, targets, penalty)
        errors.append(np.mean((predictions - truth(fresh)) ** 2) + 0.25)
    assert kendalltau(estimates, errors).statistic > 0.8
    assert errors[np.argmin(estimates)] < 1.1 * min(errors)
    assert 0.7 < min(estimates) / min(errors) < 1.3


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    input_scale=st.floats(1e-4, 1e4),
    target_scale=st.floats(1e-4, 1e4),
    shift=st.floats(-5, 5),
)
def test_invariances(seed, input_scale, target_scale, shift):
    rng = np.random.default_rng(seed)
    rows, predictions, noise = rng.normal(size=(3, 20, 2))
    targets = predictions + noise
    value = mimicked_error(predictions, fit_smoothers(rows, targets))
    order = rng.permutation(20)
    changed = mimicked_error(
        target_scale * (predictions[order] + shift),
        fit_smoothers(input_scale * rows[order], target_scale * (targets[order] + shift)),
    )
    assert changed == pytest.approx(target_scale**2 * value, rel=1e-5)


def test_very_many_rows_are_thinned_evenly():
    rows = np.random.default_rng(0).normal(size=(2100, 1))
    smoothers = fit_smoothers(rows, rows)
    assert len(smoothers.rows) == 2000
    assert smoothers.rows[[0, -1]].tolist() == [0, 2099]
    assert np.diff(smoothers.rows).max() <= 2


def test_rows_that_coincide_are_told_the_mean_of_the_others():
    targets = np.array([[1.0], [2.0], [6.0]])
    smoothers = fit_smoothers(np.zeros((3, 2)), targets)
    assert smoothers.fits[:, :, 0] == pytest.approx(np.full((len(PENALTIES), 3), 3.0), abs=1e-5)
    expected = np.mean([(1 - 4) ** 2, (2 - 3.5) ** 2, (6 - 1.5) ** 2])
    assert smoothers.leave_one_out_errors == pytest.approx(expected, rel=1e-5)


def test_one_row_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        fit_smoothers(np.zeros((1, 3)), np.zeros((1, 1)))
