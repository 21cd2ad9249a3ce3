"""Kriging against explicit refits, and the penalised error against errors on redrawn targets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist

from sharpfit.theory.covariance_penalty import fit_kriging, penalised_squared_error

NUGGETS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def refitted(rows, values):
    """Leave each row out of the kriging system in turn, for every nugget."""
    kernel = np.exp(-0.5 * (cdist(rows, rows) / (2 * np.median(pdist(rows)))) ** 2)
    centred = values - values.mean(axis=0)
    best, smallest = None, np.inf
    for nugget in NUGGETS:
        predicted = np.empty_like(values)
        for i in range(len(rows)):
            others = np.arange(len(rows)) != i
            system = kernel[np.ix_(others, others)] + nugget * np.eye(len(rows) - 1)
            predicted[i] = kernel[i, others] @ np.linalg.solve(system, centred[others])
        size = np.mean((predicted - centred) ** 2)
        if size < smallest:
            best, smallest = predicted + values.mean(axis=0), size
    return best


@pytest.mark.parametrize("k", [1, 3])
def test_leave_one_out_equals_refits(k):
    rng = np.random.default_rng(k)
    rows, noise = rng.normal(size=(25, 4)), rng.normal(size=(25, k))
    values = np.sin(rows[:, :1]) + 0.3 * noise
    assert fit_kriging(rows).leave_one_out(values) == pytest.approx(
        refitted(rows, values), rel=1e-6, abs=1e-6
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_estimates_the_error_on_redrawn_targets(share):
    """A network that takes up a share c of the noise errs by (1 + c^2) sigma^2 on new targets."""
    rng = np.random.default_rng(0)
    rows = rng.uniform(-2, 2, (500, 1))
    kriging = fit_kriging(rows)
    truth, estimates = np.sin(rows), []
    for _ in range(40):
        noise = 0.5 * rng.normal(size=truth.shape)
        estimates.append(penalised_squared_error(truth + share * noise, truth + noise, kriging))
    standard_error = np.std(estimates) / np.sqrt(40)
    assert np.mean(estimates) == pytest.approx(0.25 * (1 + share**2), abs=4 * standard_error + 0.01)


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
    value = penalised_squared_error(predictions, targets, fit_kriging(rows))
    order = rng.permutation(20)
    changed = penalised_squared_error(
        target_scale * (predictions[order] + shift),
        target_scale * (targets[order] + shift),
        fit_kriging(input_scale * rows[order]),
    )
    assert changed == pytest.approx(target_scale**2 * value, rel=1e-5)


def test_very_many_rows_are_thinned_evenly():
    rows = np.random.default_rng(0).normal(size=(2100, 1))
    kriging = fit_kriging(rows)
    assert len(kriging.rows) == 2000
    assert kriging.rows[0] == 0
    assert kriging.rows[-1] == 2099
    assert np.diff(kriging.rows).max() <= 2


def test_rows_that_coincide_tell_each_other_their_mean():
    # Each of four coinciding rows is told by the other three, whose centred values sum to minus
    # its own: -v / (3 + nugget), and the nugget 1 leaves the least surprise.
    predicted = fit_kriging(np.zeros((4, 2))).leave_one_out(np.array([[1.0], [3.0], [1.0], [3.0]]))
    assert predicted[:, 0] == pytest.approx([2.25, 1.75, 2.25, 1.75])


def test_one_row_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        fit_kriging(np.zeros((1, 3)))
