"""The reference regression against refits without each row, finite differences and fresh rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from sharpfit.theory.kernel_regression import (
    _best_regression,
    _root_mean_square_derivatives,
    fit_kernel_regression,
)


def sample(seed, n=25, d=4, k=2):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d))
    targets = 5 + np.sin(2 * rows[:, :1]) + 0.2 * rng.normal(size=(n, k))
    return rows, targets


def refit(regression, rows, targets, points):
    """Solve for weights and constant as one linear system, at the settings found, and predict."""

    def kernel(a, b):
        scale = regression.feature_scales / regression.bandwidth
        return 1 / (1 + cdist(a * scale, b * scale) ** 2)

    n = len(rows)
    system = np.block(
        [
            [kernel(rows, rows) + regression.penalty * np.eye(n), np.ones((n, 1))],
            [np.ones((1, n)), 0.0],
        ]
    )
    solution = np.linalg.solve(system, np.vstack([targets, np.zeros((1, targets.shape[1]))]))
    return kernel(points, rows) @ solution[:-1] + solution[-1]


@pytest.mark.parametrize("k", [1, 3])
def test_equals_refits_without_each_row(k):
    rows, targets = sample(k, k=k)
    points = np.random.default_rng(9).normal(size=(7, 4))
    regression = fit_kernel_regression(rows, targets)
    assert regression.predict(points) == pytest.approx(
        refit(regression, rows, targets, points), abs=1e-7
    )
    left_out = np.empty_like(targets)
    for i in range(len(rows)):
        others = np.arange(len(rows)) != i
        left_out[i] = refit(regression, rows[others], targets[others], rows[i : i + 1])[0]
    assert regression.leave_one_out == pytest.approx(left_out, abs=1e-6)
    assert regression.leave_one_out_error == pytest.approx(
        np.square(left_out - targets).sum(axis=1).mean(), rel=1e-6
    )


def test_derivatives_equal_finite_differences():
    rows, targets = sample(0)
    regression = _best_regression(rows, targets, np.array([1.0, 0.5, 2.0, 0.1]), np.arange(25))
    step = 1e-5
    expected = []
    for shift in step * np.eye(4):
        difference = regression.predict(rows + shift) - regression.predict(rows - shift)
        expected.append(np.sqrt(np.square(difference / (2 * step)).sum(axis=1).mean()))
    assert _root_mean_square_derivatives(regression) == pytest.approx(expected, rel=1e-5)


def test_features_that_do_not_matter_are_scaled_down_and_cost_less_on_fresh_rows():
    rng = np.random.default_rng(0)
    rows, fresh = rng.normal(size=(200, 12)), rng.normal(size=(2000, 12))

    def truth(x):
        return np.sin(2 * x[:, :1]) + x[:, 1:2]

    targets = truth(rows) + 0.2 * rng.normal(size=(200, 1))
    regression = fit_kernel_regression(rows, targets)
    assert regression.feature_scales[:2].min() > 1.5 * regression.feature_scales[2:].max()
    plain = _best_regression(rows, targets, np.ones(12), np.arange(200))
    errors = [np.mean((each.predict(fresh) - truth(fresh)) ** 2) for each in (regression, plain)]
    assert errors[0] < 0.7 * errors[1]
    # Settings are chosen by it, so it is a little below the error on fresh rows.
    assert 0.6 < regression.leave_one_out_error / (errors[0] + 0.04) < 1.1


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    input_scale=st.floats(1e-3, 1e3),
    target_scale=st.floats(1e-3, 1e3),
    shift=st.floats(-5, 5),
)
def test_invariances(seed, input_scale, target_scale, shift):
    rows, targets = sample(seed)
    regression = fit_kernel_regression(rows, targets)
    order = np.random.default_rng(seed).permutation(len(rows))
    changed = fit_kernel_regression(
        input_scale * rows[order], target_scale * (targets[order] + shift)
    )
    assert changed.predict(input_scale * rows) == pytest.approx(
        target_scale * (regression.predict(rows) + shift), rel=1e-4, abs=1e-4 * target_scale
    )


def test_indicators_of_classes_are_answered_by_shares_that_sum_to_one():
    rows, _ = sample(0)
    indicators = np.eye(3)[np.random.default_rng(0).integers(3, size=25)]
    regression = fit_kernel_regression(rows, indicators)
    assert regression.predict(2 * rows).sum(axis=1) == pytest.approx(np.ones(25))


def test_of_very_many_rows_a_sample_is_used_whatever_their_order():
    rows, targets = sample(0, n=31)
    regression = fit_kernel_regression(rows, targets, largest_number=11)
    used = regression.indices
    assert len(np.unique(used)) == 11
    expected = fit_kernel_regression(rows[used], targets[used])
    assert regression.predict(rows) == pytest.approx(expected.predict(rows))
    with pytest.raises(ValueError, match="largest_number=1"):
        fit_kernel_regression(rows, targets, largest_number=1)


@pytest.mark.parametrize("period", [2, 3, 4, 10])
def test_classes_in_turn_are_all_sampled(period):
    """Every second row of rows that alternate would be of one class."""
    labels = np.arange(400) % period
    regression = fit_kernel_regression(
        np.random.default_rng(0).normal(size=(400, 2)), np.eye(period)[labels], largest_number=200
    )
    counts = np.bincount(labels[regression.indices], minlength=period)
    assert counts.min() > 0.5 * 200 / period


def test_rows_that_coincide_are_told_the_mean():
    targets = np.array([[1.0], [2.0], [6.0]])
    regression = fit_kernel_regression(np.zeros((3, 2)), targets)
    assert regression.predict(np.zeros((1, 2))) == pytest.approx(3.0, abs=1e-5)
    assert regression.leave_one_out[:, 0] == pytest.approx([4, 3.5, 1.5], abs=1e-5)


def test_constant_targets_are_told():
    regression = fit_kernel_regression(sample(0)[0], np.full((25, 1), 2.0))
    assert regression.predict(np.zeros((1, 4))) == pytest.approx(2.0)
    assert regression.leave_one_out_error == pytest.approx(0.0)


def test_one_row_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        fit_kernel_regression(np.zeros((1, 3)), np.zeros((1, 1)))
