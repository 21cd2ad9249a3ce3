import dataclasses
import itertools

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import beta

from sharpfit.theory import (
    curve_table,
    exception_counts,
    exceptions_form,
    fit_geometry,
    generalisation_bound,
    kl_inverse,
    random_halves,
    transport_cost,
)
from sharpfit.theory.chunks import chunks
from sharpfit.theory.covering_bound import exception_levels


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 61)
    features = rng.normal(size=(61, 2)) + 3.0 * labels[:, None]
    margins = (2.0 * labels - 1.0) * (features.sum(axis=1) - 3.0)
    return features, labels, margins, np.sqrt(2.0)


def test_identical_rows_and_a_perfect_network_leave_the_deviation():
    geometry = fit_geometry(np.ones((100, 3)), np.zeros(100), scales=[2.0], capacities=[1.0])
    bound = generalisation_bound(geometry, 1.0, margins=np.ones(100), method="transport")
    assert bound.value == pytest.approx(0.1730818, abs=5e-8)
    assert bound.value == pytest.approx(bound.deviation)


def test_two_points_in_uneven_halves():
    # The seed of the split is searched for, so that the halves hold 30 and 20 of the 50 points.
    ones = np.arange(100) % 2
    seed = next(s for s in range(2000) if ones[random_halves(100, 1, s)[0]].sum() == 30)
    geometry = fit_geometry(
        5.0 * ones[:, None], np.zeros(100), scales=[1.0], capacities=[1.0], random_state=seed
    )
    assert geometry.transport_costs[0, 0] == pytest.approx(0.2)
    bound = generalisation_bound(geometry, 1.0, margins=np.ones(100), method="transport")
    assert bound.value == pytest.approx(0.3730818, abs=5e-8)


def test_transport_form_by_hand(blobs):
    features, labels, margins, constant = blobs
    n = len(labels)
    geometry = fit_geometry(features, labels, n_splits=2, random_state=3)
    bound = generalisation_bound(
        geometry, constant, margins=margins, method="transport", confidence=0.9
    )
    cost = 0.0
    for half in random_halves(n, 2, 3):
        pairs = [(~half, half), (half, ~half)]
        for sources, targets in pairs:
            cost += (targets.sum() / n / 2) * transport_cost(
                features[sources],
                labels[sources],
                features[targets],
                labels[targets],
                scale=bound.scale,
                capacity=bound.capacity,
            )
    risk = np.clip(1.0 - margins * bound.scale / constant, 0.0, 1.0).mean()
    n_pairs = 65 * 4
    deviation = np.sqrt(np.log(n_pairs / 0.1) / (2 * 30))
    assert bound.ramp_width == pytest.approx(constant / bound.scale)
    assert bound.empirical_risk == pytest.approx(risk)
    assert bound.geometry_cost == pytest.approx(cost, abs=1e-9)
    assert bound.deviation == pytest.approx(deviation)
    assert bound.value == pytest.approx(bound.capacity * risk + cost + deviation)


def test_two_sided_costs_weigh_the_halves_by_their_sizes():
    rng = np.random.default_rng(8)
    features, labels = rng.normal(size=(5, 1)), np.zeros(5)
    capacities = [1.0, 1.5, 2.0, np.inf]
    geometry = fit_geometry(features, labels, scales=[0.7], capacities=capacities)
    half = geometry.reference
    assert half.sum() == 2

    def cost(sources, targets, capacity):
        return transport_cost(
            features[sources],
            labels[sources],
            features[targets],
            labels[targets],
            scale=0.7,
            capacity=capacity,
        )

    expected = [0.4 * cost(~half, half, c) + 0.6 * cost(half, ~half, c) for c in capacities]
    assert cost(~half, half, np.inf) != pytest.approx(cost(half, ~half, np.inf), rel=0.05)
    np.testing.assert_allclose(geometry.transport_costs[0], expected, atol=1e-9)


def one_sided_terms(blobs, geometry, scale, capacity):
    features, labels, margins, constant = blobs
    half = geometry.reference
    risk = np.clip(1.0 - margins[half] * scale / constant, 0.0, 1.0).mean()
    cost = transport_cost(
        features[~half], labels[~half], features[half], labels[half], scale=scale, capacity=capacity
    )
    return risk, cost


def test_one_sided_form_by_hand(blobs):
    features, labels, margins, constant = blobs
    half = np.arange(61) % 3 == 0
    geometry = fit_geometry(features, labels, reference=half, scales=[0.5, 1.0, 2.0])
    bound = generalisation_bound(geometry, constant, margins=margins, method="one_sided")
    risk, cost = one_sided_terms(blobs, geometry, bound.scale, bound.capacity)
    assert bound.empirical_risk == pytest.approx(risk)
    assert bound.geometry_cost == pytest.approx(cost, abs=1e-9)
    assert bound.deviation == pytest.approx(np.sqrt(np.log(12 / 0.05) / (2 * (~half).sum())))
    with pytest.raises(ValueError, match="not available"):
        generalisation_bound(geometry, constant, margins=margins, method="transport")


def test_variance_form_by_hand(blobs):
    features, labels, margins, constant = blobs
    geometry = fit_geometry(features, labels, scales=[0.7])
    bound = generalisation_bound(geometry, constant, margins=margins, method="variance")
    risk, _ = one_sided_terms(blobs, geometry, 0.7, 1.0)
    # 0 and a grid of ratio 1.25 that starts below 1/30.
    levels = [0.0] + [1.25**-k for k in range(16, -1, -1)]
    level = min(r for r in levels if r >= risk)
    psi = min(
        capacity * level + one_sided_terms(blobs, geometry, 0.7, capacity)[1]
        for capacity in (1.0, 2.0, 4.0)
    )
    budget = np.log(len(levels) / 0.05) / 31
    assert bound.value == pytest.approx(float(kl_inverse(psi, budget)), abs=1e-9)
    assert bound.value == pytest.approx(
        bound.capacity * bound.empirical_risk + bound.geometry_cost + bound.deviation
    )


def test_covering_form_by_hand(blobs):
    features, labels, margins, constant = blobs
    geometry = fit_geometry(features, labels)
    correct = np.abs(margins)
    bound = generalisation_bound(geometry, constant, margins=correct, method="covering")
    half = geometry.reference
    distances = cdist(features[~half], features[half])
    distances[labels[~half][:, None] != labels[half][None, :]] = np.inf
    radius = correct[half].min() / constant
    uncovered = np.mean(distances.min(axis=1) >= radius)
    assert bound.radius == pytest.approx(radius)
    expected = min(1.0, uncovered + np.sqrt(np.log(20) / (2 * 31)))
    assert bound.value == pytest.approx(expected)


def test_covering_form_at_low_confidence(blobs):
    # The inequality behind it is proved up to a failure probability of one half.
    features, labels, margins, constant = blobs
    geometry = fit_geometry(features, labels)
    even, low = (
        generalisation_bound(
            geometry, constant, margins=np.abs(margins), method="covering", confidence=confidence
        )
        for confidence in (0.5, 0.2)
    )
    assert even.deviation == pytest.approx(np.sqrt(np.log(2) / (2 * 31)))
    assert low.value == even.value


def test_infinite_capacity_alone(blobs):
    features, labels, margins, constant = blobs
    geometry = fit_geometry(features, labels, scales=[0.05], capacities=[np.inf])
    for method in ("transport", "variance"):
        wrong = generalisation_bound(geometry, constant, margins=margins, method=method)
        assert wrong.value == np.inf
        right = generalisation_bound(geometry, 0.0, margins=np.abs(margins), method=method)
        assert right.empirical_risk == 0.0
        assert right.value == pytest.approx(right.geometry_cost + right.deviation)


def test_exceptions_form_by_hand(blobs):
    features, labels, margins, constant = blobs
    geometry = fit_geometry(features, labels, radii=[0.8])
    bound = generalisation_bound(geometry, constant, margins=margins, method="exceptions")
    half = geometry.reference
    radii = np.maximum(margins[half], 0) / constant
    q = int(np.sum(radii < 0.8))
    near = cdist(features[~half], features[half]) < 0.8
    near &= labels[~half][:, None] == labels[half][None, :]
    sizes = near.sum(axis=1)
    scores = (near / np.maximum(sizes, 1)[:, None]).sum(axis=0)
    count = int(np.floor((sizes == 0).sum() + np.sort(scores)[::-1][:q].sum() + 1e-9))
    levels = exception_levels(half.sum())
    assert q in levels
    shares = [0.5 / ((q + 1) * (q + 2)), 0.5 / len(levels)]
    expected = beta.ppf(1 - 0.05 * max(shares), count + 1, 31 - count)
    assert bound.n_exceptions == q
    assert bound.value == pytest.approx(expected)


def test_spoilt_points_never_exceed_the_count():
    # All bad sets of every size, by brute force, against the count that bounds them.
    rng = np.random.default_rng(1)
    distances = rng.random((12, 6))
    order = np.argsort(distances, axis=1)
    counts = exception_counts(np.take_along_axis(distances, order, axis=1), order, 0.3)
    near = distances < 0.3
    for q in range(7):
        worst = max(
            sum(set(np.flatnonzero(row)) <= set(bad) for row in near)
            for bad in itertools.combinations(range(6), q)
        )
        assert worst <= counts[min(q, len(counts) - 1)]
    assert counts[0] == (~near.any(axis=1)).sum()


def test_best_is_the_smallest_of_the_forms_with_shared_delta(blobs):
    features, labels, margins, constant = blobs
    geometry = fit_geometry(np.tile(features, (12, 1)), np.tile(labels, 12))
    margins = np.tile(margins, 12)
    best = generalisation_bound(geometry, constant, margins=margins)
    shares = {"transport": 0.2, "variance": 0.2, "covering": 0.1, "exceptions": 0.5}
    values = {
        form: generalisation_bound(
            geometry, constant, margins=margins, method=form, confidence=1 - 0.05 * share
        ).value
        for form, share in shares.items()
    }
    assert best.value == pytest.approx(min(values.values()))
    assert best.value < 1
    assert values[best.form] == pytest.approx(best.value)
    table = curve_table(best.curves)
    assert set(table["form"]) == set(shares)


def test_two_blobs_with_bad_points_order_the_forms():
    # 2 % of the rows are misclassified outliers; capacity and exceptions deal with them.
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 2000)
    features = rng.normal(size=(2000, 2)) * 0.3 + np.where(labels, 4.0, -4.0)[:, None]
    bad = rng.random(2000) < 0.02
    features[bad] *= -1.0
    margins = (2 * labels - 1) * features.sum(axis=1) / np.sqrt(2)
    geometry = fit_geometry(features, labels, capacities=[1.0, 3.0])
    plain = dataclasses.replace(
        geometry,
        capacities=geometry.capacities[:1],
        transport_costs=geometry.transport_costs[:, :1],
        one_sided_costs=geometry.one_sided_costs[:, :1],
    )

    def value(geometry, method):
        return generalisation_bound(geometry, 1.0, margins=margins, method=method).value

    assert value(geometry, "transport") < value(plain, "transport") < 0.25
    exceptions = generalisation_bound(geometry, 1.0, margins=margins, method="exceptions")
    assert exceptions.n_exceptions == np.count_nonzero(
        margins[geometry.reference] < exceptions.radius
    )
    assert 0.02 < exceptions.value < 0.1
    assert value(geometry, "covering") == 1.0


def test_constant_networks_and_constant_labels():
    rng = np.random.default_rng(4)
    features = rng.normal(size=(200, 3))
    labels = np.repeat([0, 1], [150, 50])
    margins = np.where(labels == 0, 0.4, -0.4)
    geometry = fit_geometry(features, labels)
    bound = generalisation_bound(geometry, 0.0, margins=margins, method="transport")
    # No variation at all: the error is the frequency of the smaller class.
    assert bound.empirical_risk == pytest.approx(0.25)
    assert 0.25 <= bound.value < 0.6
    single = fit_geometry(features, np.zeros(200))
    bound = generalisation_bound(single, 0.0, margins=np.ones(200), method="transport")
    assert bound.value == pytest.approx(bound.deviation, abs=1e-3)
    bound = generalisation_bound(single, 0.0, margins=np.ones(200), method="covering")
    assert bound.radius == np.inf
    assert bound.value == pytest.approx(np.sqrt(np.log(20) / 200))


def test_smallest_samples_and_a_class_in_one_half_only():
    geometry = fit_geometry([[0.0], [1.0]], [0, 1])
    bound = generalisation_bound(geometry, 1.0, margins=[1.0, 1.0])
    assert bound.vacuous
    np.testing.assert_array_equal(geometry.transport_costs, 1.0)
    half = np.array([True, True, False, False])
    geometry = fit_geometry(np.zeros((4, 1)), [0, 0, 0, 1], reference=half, scales=[1.0])
    np.testing.assert_allclose(geometry.one_sided_costs, 0.5)
    assert geometry.nearest_distances[-1] == np.inf


def test_certified_radii_replace_the_constant(blobs):
    features, labels, margins, constant = blobs
    geometry = fit_geometry(np.tile(features, (12, 1)), np.tile(labels, 12))
    margins = np.tile(margins, 12)
    radii = np.maximum(margins, 0.0) / constant
    direct = generalisation_bound(geometry, constant, margins=margins, method="exceptions")
    given_radii = generalisation_bound(
        geometry, None, margins=margins, radii=radii, method="exceptions"
    )
    assert given_radii.value == direct.value
    assert given_radii.lipschitz_constant is None
    smaller = generalisation_bound(geometry, None, margins=margins, radii=radii / 1e4)
    assert generalisation_bound(geometry, None, margins=margins, radii=radii).value < smaller.value
    # A radius at a misclassified point means nothing.
    same = np.where(margins > 0, radii, 7.0)
    assert generalisation_bound(geometry, None, margins=margins, radii=same).value == (
        generalisation_bound(geometry, None, margins=margins, radii=radii).value
    )


def test_chunks_are_valid_and_cost_more():
    rng = np.random.default_rng(5)
    features, labels = rng.normal(size=(400, 2)), rng.integers(0, 2, 400)
    whole = fit_geometry(features, labels)
    cut = fit_geometry(features, labels, chunk_size=25)
    assert whole.optimal
    assert not cut.optimal
    # About 100 rows a class and half are halved until they are at most 25.
    assert (whole.n_chunks, cut.n_chunks) == (1, 8)
    assert np.all(cut.transport_costs >= whole.transport_costs - 1e-9)
    assert np.all(cut.transport_costs <= 1.0)
    np.testing.assert_array_equal(cut.nearest_distances, whole.nearest_distances)
    parallel = fit_geometry(features, labels, chunk_size=25, n_jobs=2)
    np.testing.assert_allclose(parallel.transport_costs, cut.transport_costs)


@pytest.mark.parametrize(("n_sources", "n_targets"), [(100, 100), (101, 97), (64, 9), (5, 1)])
def test_chunks_are_a_partition_in_common_places(n_sources, n_targets):
    rng = np.random.default_rng(6)
    features = rng.random((n_sources + n_targets, 2))
    rows = rng.permutation(len(features))
    pieces = list(chunks(features, rows[:n_sources], rows[n_sources:], 8))
    for index, whole in ((0, rows[:n_sources]), (1, rows[n_sources:])):
        joined = np.concatenate([piece[index] for piece in pieces])
        np.testing.assert_array_equal(np.sort(joined), np.sort(whole))
    assert all(min(len(sources), len(targets)) > 0 for sources, targets in pieces)
    if n_targets > 90:
        assert max(len(piece) for pair in pieces for piece in pair) <= 8
        widths = [np.ptp(features[sources], axis=0).max() for sources, _ in pieces]
        assert max(widths) < 0.8


def test_exceptions_of_every_number_are_monotone(blobs):
    features, labels, _, _ = blobs
    geometry = fit_geometry(features, labels, radii=[0.8])
    limits = [
        exceptions_form(geometry, np.repeat([0.0, 9.0], [q, 30 - q]), 0.05).values[0]
        for q in range(31)
    ]
    assert np.all(np.diff(limits) >= -1e-12)
    assert limits[-1] == 1.0
