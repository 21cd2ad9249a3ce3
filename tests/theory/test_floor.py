import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.spatial.distance import cdist

from sharpfit.theory import (
    bound_floor,
    clipped_residuals,
    fit_geometry,
    generalisation_bound,
    logit_margins,
    ramp_loss,
)
from sharpfit.theory.floor import conflict_radii, least_risks


def random_margins(features, labels, rng):
    """Margins of a network of one-Lipschitz logits, hence margins with constant 2."""
    anchors = rng.normal(size=(8, features.shape[1])) * 2
    owners = rng.integers(0, labels.max() + 1, 8)
    distances = cdist(features, anchors)
    logits = np.stack(
        [
            np.min(distances[:, owners != c], axis=1) if np.any(owners != c) else distances[:, 0]
            for c in range(labels.max() + 1)
        ],
        axis=1,
    )
    return logit_margins(logits, labels)


def nearest_neighbour_margins(features, labels):
    """Margins of the classifier that has the largest radii: constant 2, no training error."""
    distances = cdist(features, features)
    return np.array(
        [
            row[labels != label].min() - row[labels == label].min()
            for row, label in zip(distances, labels, strict=True)
        ]
    )


@pytest.mark.parametrize("distance", [0.25, 1.0, 1.5, 3.0])
def test_two_points_of_different_classes(distance):
    points, labels = np.array([[0.0], [distance]]), np.array([0, 1])
    risk = least_risks(points, labels, np.array([1.0]), task="classification")[0]
    assert risk == pytest.approx(np.clip(2.0 - distance, 0.0, 1.0) / 2.0)


def test_two_classes_against_the_linear_program():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(14, 2)), rng.integers(0, 2, 14)
    scales = np.array([0.3, 0.8, 2.0])
    found = least_risks(features, labels, scales, task="classification")
    first, second = np.nonzero(np.triu(labels[:, None] != labels[None, :]))
    distances = np.linalg.norm(features[first] - features[second], axis=1)
    pairs = np.zeros((len(first), 14))
    pairs[np.arange(len(first)), first] = pairs[np.arange(len(first)), second] = -1.0
    for scale, risk in zip(scales, found, strict=True):
        needed = np.clip(2.0 - scale * distances, 0.0, 1.0)
        solution = linprog(np.ones(14), A_ub=pairs, b_ub=-needed, bounds=(0, 1))
        assert risk == pytest.approx(solution.fun / 14)


@pytest.mark.parametrize("n_classes", [2, 3, 6])
def test_no_network_gets_below(n_classes):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(60, 2))
    labels = rng.integers(0, n_classes, 60)
    geometry = fit_geometry(features, labels)
    floors = bound_floor(geometry, features, labels)
    risks = least_risks(features, labels, geometry.scales, task="classification")
    conflicts = conflict_radii(features, labels)
    networks = [random_margins(features, labels, rng) for _ in range(20)]
    networks.append(nearest_neighbour_margins(features, labels))
    for margins in networks:
        for constant in (2.0, 20.0):
            mean = [ramp_loss(margins, constant / scale).mean() for scale in geometry.scales]
            assert np.all(mean >= risks - 1e-9)
            radii = np.maximum(margins, 0.0) / constant
            for radius in (0.05, 0.2, 1.0):
                assert np.sum(radii < radius) >= np.sum(conflicts < radius)
            for form in ("transport", "variance", "covering", "exceptions"):
                bound = generalisation_bound(geometry, constant, margins=margins, method=form)
                assert bound.value >= floors[form] - 1e-9
            assert generalisation_bound(geometry, constant, margins=margins).value >= (
                floors["best"] - 1e-9
            )


def test_the_constant_network_reaches_the_floor_of_small_scales():
    # At scales so small that nothing can vary, all but the largest class are errors.
    labels = np.repeat([0, 1, 2], 20)
    features = np.random.default_rng(2).normal(size=(60, 2))
    risk = least_risks(features, labels, np.array([1e-6]), task="classification")[0]
    assert risk == pytest.approx(2 / 3, abs=1e-4)


def test_regression_floor():
    rng = np.random.default_rng(3)
    features = rng.random((40, 1))
    targets = 4.0 * (features[:, 0] > 0.5) + 0.1 * rng.normal(size=40)
    geometry = fit_geometry(features, targets=targets, loss_bound=2.0)
    floors = bound_floor(geometry, features, targets=targets)
    assert set(floors) == {"transport", "variance", "best"}
    for slope in (0.0, 1.0, 10.0, 200.0):
        predictions = np.clip(2.0 + slope * (features[:, 0] - 0.5), 0.0, 4.0)
        losses = clipped_residuals(predictions, targets, 2.0)
        bound = generalisation_bound(geometry, slope, losses=losses, method="transport")
        assert bound.value >= floors["transport"] - 1e-9
        scale = np.array([max(slope, 1e-3) / 2.0])
        least = least_risks(features, targets[:, None] / 2.0, scale, task="regression")[0]
        assert losses.mean() >= least - 1e-9
    assert least_risks(features, targets[:, None] / 2.0, np.array([1e-9]), task="regression") > 0.4


def test_the_floor_allows_for_steep_networks_and_is_reached_by_one():
    # Targets five clipping residuals apart at distance 1: slope 10 fits them, and at scale 4.5
    # its losses of zero are flattened to 1 - 4.5 / 5.
    features = np.repeat([[0.0], [1.0]], 20, axis=0)
    targets = 10.0 * features[:, 0]
    geometry = fit_geometry(features, targets=targets, loss_bound=2.0, scales=[4.5])
    bound = generalisation_bound(geometry, 10.0, losses=np.zeros(40), method="transport")
    least = least_risks(features, targets[:, None] / 2.0, geometry.scales, task="regression")
    assert bound.empirical_risk == pytest.approx(0.1)
    assert least[0] == pytest.approx(0.1)


def test_given_half_leaves_the_one_sided_floors():
    rng = np.random.default_rng(4)
    features, labels = rng.normal(size=(60, 2)), rng.integers(0, 2, 60)
    half = np.arange(60) % 2 == 0
    geometry = fit_geometry(features, labels, reference=half)
    floors = bound_floor(geometry, features, labels)
    assert set(floors) == {"one_sided", "variance", "covering", "exceptions", "best"}
    margins = nearest_neighbour_margins(features, labels)
    for form in ("one_sided", "exceptions"):
        bound = generalisation_bound(geometry, 2.0, margins=margins, method=form)
        assert bound.value >= floors[form] - 1e-9


def test_one_class_has_no_conflicts():
    features = np.random.default_rng(5).normal(size=(10, 2))
    assert np.all(conflict_radii(features, np.zeros(10)) == np.inf)
