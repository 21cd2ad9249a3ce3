import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from sharpfit.theory import clipped_residuals, fit_geometry, generalisation_bound


def test_regression_by_hand():
    rng = np.random.default_rng(2)
    features = rng.random((60, 1))
    targets = np.sin(3 * features[:, 0]) + 0.05 * rng.normal(size=60)
    losses = clipped_residuals(np.sin(3 * features[:, 0]), targets, 2.0)
    geometry = fit_geometry(features, targets=targets, loss_bound=2.0, capacities=[1.0])
    bound = generalisation_bound(geometry, 3.0, losses=losses, method="transport")
    # The least scale of the grid that is at least 3 / 2.
    assert bound.scale == pytest.approx(2.0)
    half = geometry.reference
    pairs = 2.0 * cdist(features[half], features[~half])
    pairs += np.abs(targets[half][:, None] - targets[~half][None, :]) / 2.0
    cost = np.minimum(pairs, 1.0)
    assert bound.geometry_cost == pytest.approx(cost[linear_sum_assignment(cost)].mean())
    assert bound.empirical_risk == pytest.approx(losses.mean())
    assert bound.value == pytest.approx(
        losses.mean() + bound.geometry_cost + np.sqrt(np.log(65 / 0.05) / 60)
    )


def flattened(losses, steepness, scale):
    """The smallest loss that a network of this steepness is sure to bear at a scale."""
    return 1.0 - min(1.0, scale / steepness) * (1.0 - losses)


def test_a_loss_too_steep_for_a_scale_is_flattened():
    rng = np.random.default_rng(3)
    features, targets = rng.random((40, 1)), rng.random(40)
    slope, loss_bound = 7.0, 0.5
    losses = clipped_residuals(slope * features[:, 0], targets, loss_bound)
    for scale in (0.5, 5.0, 14.0, 40.0):
        flat = flattened(losses, slope / loss_bound, scale)
        metric = scale * cdist(features, features) + cdist(targets[:, None], targets[:, None]) / 0.5
        assert np.all(np.abs(flat[:, None] - flat) <= np.minimum(metric, 1.0) + 1e-12)
        assert np.all(flat >= losses - 1e-12)
        geometry = fit_geometry(
            features, targets=targets, loss_bound=loss_bound, scales=[scale], capacities=[1.0]
        )
        for method in ("transport", "variance"):
            bound = generalisation_bound(geometry, slope, losses=losses, method=method)
            rows = slice(None) if method == "transport" else geometry.reference
            mean = flat[rows].mean()
            assert mean - 1e-12 <= bound.empirical_risk <= 1.25 * mean + 0.05
            assert np.isfinite(bound.value)


@pytest.mark.parametrize("method", ["best", "transport", "variance"])
def test_networks_too_steep_for_every_scale_have_a_finite_bound_that_ranks_them(method):
    features = 1e-9 * np.random.default_rng(4).random((60, 2))
    targets = 1e9 * features.sum(axis=1)
    geometry = fit_geometry(features, targets=targets, loss_bound=4.0)
    good, bad = (
        generalisation_bound(geometry, 1e9, losses=np.full(60, loss), method=method).value
        for loss in (0.0, 0.9)
    )
    assert np.isfinite([good, bad]).all()
    assert good <= bad
    assert bad >= 0.9


def test_a_constant_prediction_needs_no_scale():
    targets = np.repeat([0.0, 1.0], 20)
    geometry = fit_geometry(np.ones((40, 1)), targets=targets, loss_bound=1.0, scales=[1e-3])
    bound = generalisation_bound(geometry, 0.0, losses=targets, method="transport")
    assert bound.empirical_risk == pytest.approx(0.5)
