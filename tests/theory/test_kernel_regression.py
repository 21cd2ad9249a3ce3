"""The reference regression against refits without each row, finite differences and fresh rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from sharpfit.theory.kernel_regression import (
    LinearFeatures,
    _directions,
    _feature_scales,
    _learn,
    fit_kernel_regression,
)
from sharpfit.theory.patch_features import PatchFeatures
from sharpfit.theory.ridge_path import RidgePath


def sample(seed, n=25, d=4, k=2):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d))
    targets = 5 + np.sin(2 * rows[:, :1]) + 0.2 * rng.normal(size=(n, k))
    return rows, targets


def refit(rows, targets, points, bandwidth, penalty):
    """Solve for weights and constant as one linear system, and predict."""

    def kernel(a, b):
        return 1 / (1 + cdist(a / bandwidth, b / bandwidth) ** 2)

    n = len(rows)
    system = np.block(
        [
            [kernel(rows, rows) + penalty * np.eye(n), np.ones((n, 1))],
            [np.ones((1, n)), 0.0],
        ]
    )
    solution = np.linalg.solve(system, np.vstack([targets, np.zeros((1, targets.shape[1]))]))
    return kernel(points, rows) @ solution[:-1] + solution[-1]


@pytest.mark.parametrize("setting", [7, 20, 35])
def test_a_path_equals_refits_without_each_row(setting):
    rows, targets = sample(setting, k=3)
    path = RidgePath(rows, targets, bandwidths=[0.5, 2.0, 1.0])
    solution = path.solve(setting)
    median = np.median(cdist(rows, rows)[np.triu_indices(len(rows), 1)])
    assert solution.bandwidth == pytest.approx(median * [0.5, 2.0, 1.0][setting // 17])
    for i in range(len(rows)):
        others = np.arange(len(rows)) != i
        answer = refit(
            rows[others], targets[others], rows[i : i + 1], solution.bandwidth, solution.penalty
        )
        assert targets[i] - solution.residuals[i] == pytest.approx(answer[0], abs=1e-6)
        assert path.squared_residuals[setting, i] == pytest.approx(
            np.square(answer[0] - targets[i]).sum(), rel=1e-5, abs=1e-8
        )


@pytest.mark.parametrize("seed", [1, 3])
def test_predictions_are_those_of_one_linear_system(seed):
    rows, targets = sample(seed)
    points = np.random.default_rng(9).normal(size=(7, 4))
    regression = fit_kernel_regression(rows, targets)
    assert regression.predict(points) == pytest.approx(
        refit(
            regression.features(rows),
            targets,
            regression.features(points),
            regression.bandwidth,
            regression.penalty,
        ),
        abs=1e-6,
    )
    assert regression.leave_one_out_error == pytest.approx(
        np.square(regression.leave_one_out - targets).sum(axis=1).mean(), rel=1e-6
    )


@pytest.mark.parametrize("shape", [(4,), (4, 3)])
def test_gradients_equal_finite_differences(shape):
    rows, targets = sample(0)
    features = LinearFeatures(np.random.default_rng(1).normal(size=shape))
    path = RidgePath(features(rows), targets, bandwidths=[1.0])
    best = path.solve(int(path.squared_residuals.mean(axis=1).argmin()))
    found = np.stack([features.pull_back(each) for each in path.gradients()], axis=-1)
    step = 1e-5
    for i, shift in enumerate(step * np.eye(4)):
        both = [
            refit(
                features(rows), targets, features(rows + way * shift), best.bandwidth, best.penalty
            )
            for way in (1, -1)
        ]
        expected = (both[0] - both[1]) / (2 * step)
        assert found[:, i] * 2 / best.bandwidth**2 == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("d", [4, 40])
def test_metrics_are_moments_of_the_gradients(d):
    """Wide rows too, where the directions are found among combinations of the rows."""
    rows, targets = sample(2, d=d)
    path = RidgePath(rows, targets, bandwidths=[1.0])
    gradients = np.concatenate(list(path.gradients()))
    outer = gradients.T @ gradients
    scales = _feature_scales(path.gradients(), rows)
    assert scales**2 * outer.diagonal().max() == pytest.approx(outer.diagonal())
    matrix = _directions(path.gradients(), rows)
    largest = np.linalg.eigvalsh(outer)[-1]
    assert matrix @ matrix.T * largest == pytest.approx(outer, abs=1e-8 * largest)
    flat = RidgePath(rows, np.ones((25, 1)), bandwidths=[1.0])
    assert _feature_scales(flat.gradients(), rows) is None
    assert _directions(flat.gradients(), rows) is None


def fresh_errors(truth, d, n=200):
    """Of the regression found, and of the one on inputs as they are; its leave-one-out error."""
    rng = np.random.default_rng(0)
    rows, fresh = rng.normal(size=(n, d)), rng.normal(size=(2000, d))
    targets = truth(rows) + 0.2 * rng.normal(size=(n, 1))
    regression = fit_kernel_regression(rows, targets)
    path = RidgePath(rows, targets, bandwidths=[0.3, 1.0, 3.0])
    plain = path.solve(int(path.squared_residuals.mean(axis=1).argmin()))
    answers = [
        regression.predict(fresh),
        refit(rows, targets, fresh, plain.bandwidth, plain.penalty),
    ]
    return regression, [np.mean((answer - truth(fresh)) ** 2) for answer in answers]


def test_features_that_do_not_matter_are_scaled_down_and_cost_less_on_fresh_rows():
    regression, errors = fresh_errors(lambda x: np.sin(2 * x[:, :1]) + np.cos(2 * x[:, 1:2]), 12)
    scales = regression.features.matrix
    assert scales.shape == (12,)
    assert scales[:2].min() > 3 * scales[2:].max()
    assert errors[0] < 0.5 * errors[1]
    assert 0.7 < regression.leave_one_out_error / (errors[0] + 0.04) < 1.3


def test_directions_that_do_not_matter_are_scaled_down_and_cost_less_on_fresh_rows():
    direction = np.full((8, 1), 8**-0.5)
    regression, errors = fresh_errors(lambda x: np.cos(2 * x @ direction), 8)
    matrix = regression.features.matrix
    assert matrix.ndim == 2
    assert np.linalg.norm(direction.T @ matrix) > 0.9 * np.linalg.norm(matrix)
    assert errors[0] < 0.1 * errors[1]


@pytest.mark.parametrize("d", [20, 60])
def test_what_a_metric_has_learned_by_heart_is_not_counted_as_success(d):
    """Targets are noise: a metric fits them, and the rows it was learned from confirm it."""
    rng = np.random.default_rng(d)
    rows, targets = rng.normal(size=(80, d)), rng.normal(size=(80, 1))
    path = RidgePath(rows, targets, bandwidths=[0.3, 1.0, 3.0])
    learned = _learn(_directions, rows, targets, path)
    by_heart = RidgePath(learned(rows), targets, bandwidths=[0.3, 1.0, 3.0])
    assert by_heart.squared_residuals.mean(axis=1).min() < 0.9 * targets.var()
    assert fit_kernel_regression(rows, targets).leave_one_out_error > 0.95 * targets.var()


def test_things_anywhere_in_a_signal_are_found_by_patterns():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=600)
    signals = 0.3 * rng.normal(size=(600, 2, 40))
    at = rng.integers(36, size=600)[:, None] + np.arange(4)
    thing = np.where(labels[:, None] == 1, [1, 1, -1, -1], [1, -1, 1, -1])
    signals[np.arange(600)[:, None], 1, at] += thing
    rows, targets = signals.reshape(600, -1), np.eye(2)[labels]
    regression = fit_kernel_regression(rows[:150], targets[:150], shape=(2, 40))
    assert isinstance(regression.features, PatchFeatures)
    blind = fit_kernel_regression(rows[:150], targets[:150])
    wrong = [
        np.mean(each.predict(rows[150:]).argmax(axis=1) != labels[150:])
        for each in (regression, blind)
    ]
    assert wrong[0] < 0.1
    assert wrong[1] > 0.3


def test_things_in_their_place_are_not():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(100, 20))
    regression = fit_kernel_regression(rows, rows[:, 3:4], shape=(1, 20))
    assert isinstance(regression.features, LinearFeatures)


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
        target_scale * (regression.predict(rows) + shift), rel=1e-3, abs=1e-3 * target_scale
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
