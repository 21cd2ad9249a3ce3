"""Coverage statements simulated on distributions with known masses."""

import numpy as np
import pytest
from scipy.stats import binom

from sharpfit.theory.coverage import coverage, held_out_exceedance, held_out_maximum

N_DATA_SETS = 1000


def _within(violations, probability):
    """Two-sided interval in which a count with this probability lies, but for one in 10^4."""
    low, high = binom.ppf([5e-5, 1 - 5e-5], N_DATA_SETS, probability)
    return low <= violations <= high


def _uncovered_mass(reference, radii):
    """P(dist(x, U) > r) for x uniform on [0, 1], from the gaps between the points of U."""
    ordered = np.sort(reference)
    ends = np.maximum(np.array([ordered[0], 1 - ordered[-1]])[:, None] - radii, 0).sum(axis=0)
    return ends + np.maximum(np.diff(ordered)[:, None] - 2 * radii, 0).sum(axis=0)


@pytest.mark.parametrize(("n", "confidence"), [(20, 0.9), (60, 0.8)])
def test_violation_rates_of_both_statements(n, confidence):
    rng = np.random.default_rng(n)
    curve_violations = tail_violations = 0
    for _ in range(N_DATA_SETS):
        points = rng.uniform(size=n)
        found = coverage(points[:, None], confidence=confidence, random_state=int(rng.integers(99)))
        reference = points[found.reference]
        # Between two observed distances the truth falls and the limit is flat.
        radii = np.append(0.0, found.distances)
        curve_violations += np.any(_uncovered_mass(reference, radii) > found.uncovered(radii))
        tail = _uncovered_mass(reference, np.array([found.tail_radius]))[0]
        tail_violations += tail > found.tail_mass
    delta = 1 - confidence
    assert curve_violations <= binom.ppf(1 - 1e-4, N_DATA_SETS, delta)
    assert curve_violations > 0.2 * delta * N_DATA_SETS  # nearly sharp, not merely safe
    assert _within(tail_violations, delta)  # exact for a continuous distribution


def test_violation_rates_of_the_held_out_statements():
    """Norms uniform on [0, 1]: the probability to exceed a level is known."""
    rng = np.random.default_rng(0)
    delta, m, level = 0.1, 40, 0.9
    counts = np.zeros(3)
    for _ in range(N_DATA_SETS):
        norms = rng.uniform(size=m)
        largest, probability = held_out_maximum(norms, confidence=1 - delta)
        counts[0] += 1 - largest > probability
        counts[1] += held_out_exceedance(norms, level, confidence=1 - delta) < 1 - level
        levels = np.append(0.0, np.sort(norms))
        limits = held_out_exceedance(norms, levels, confidence=1 - delta, simultaneous=True)
        counts[2] += np.any(limits < 1 - levels)
    assert _within(counts[0], delta)
    # Exceedances are binomial: the limit fails for the counts it excludes, whose mass is known.
    excluded = [held_out_exceedance(np.arange(m), m - 1 - k, confidence=0.9) for k in range(m)]
    failing = binom.pmf(np.flatnonzero(np.array(excluded) < 1 - level), m, 1 - level).sum()
    assert failing <= delta
    assert _within(counts[1], failing)
    assert counts[2] <= binom.ppf(1 - 1e-4, N_DATA_SETS, delta)
    assert counts[2] > 0.2 * delta * N_DATA_SETS


def test_distances_and_curve_by_hand():
    points = np.array([[0.0], [10.0], [1.0], [13.0]])
    found = coverage(points, confidence=0.5, reference=np.array([True, True, False, False]))
    np.testing.assert_array_equal(found.distances, [1.0, 3.0])
    deviation = np.sqrt(np.log(2) / 4)
    np.testing.assert_allclose(
        found.uncovered([0.5, 1.0, 2.9, 3.0]), [1.0, 0.5 + deviation, 0.5 + deviation, deviation]
    )
    radii, masses = found.curve()
    np.testing.assert_array_equal(radii, [1.0, 3.0])
    np.testing.assert_allclose(masses, [0.5 - deviation, 1 - deviation])
    np.testing.assert_array_equal(
        found.radius([0.0, 0.05, 0.5, 1 - deviation + 1e-9]), [0.0, 1.0, 3.0, np.inf]
    )
    assert found.tail_radius == 3.0
    assert found.tail_mass == pytest.approx(1 - np.sqrt(0.5))
    np.testing.assert_allclose(found.jacobian_bound(2.0, 10.0, [0.05, 0.5]), [12.0, 32.0])


def test_jacobian_statement_holds_for_a_smooth_function():
    """g(x) = sin(3 x) on [0, 1]: |g'| has Lipschitz constant 9."""
    rng = np.random.default_rng(1)
    points = rng.uniform(size=400)
    found = coverage(points[:, None])
    norms = np.abs(3 * np.cos(3 * points))
    bound = found.jacobian_bound(norms[found.reference].max(), 9.0, 0.8)
    fresh = np.abs(3 * np.cos(3 * rng.uniform(size=10_000)))
    assert np.mean(fresh <= bound) >= 0.8
    assert bound < 3.5


def test_images_are_flattened_and_the_split_is_repeatable():
    images = np.random.default_rng(0).normal(size=(30, 2, 4, 4))
    first, again = coverage(images, random_state=3), coverage(images, random_state=3)
    np.testing.assert_array_equal(first.distances, again.distances)
    half = images.reshape(30, -1)[first.reference]
    rest = images.reshape(30, -1)[~first.reference]
    truth = np.linalg.norm(rest[:, None] - half, axis=2).min(axis=1)
    np.testing.assert_allclose(first.distances, np.sort(truth), rtol=1e-12)
    assert not np.array_equal(first.reference, coverage(images, random_state=4).reference)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": np.full((4, 1), np.nan)}, "NaN or infinity"),
        ({"inputs": np.zeros((1, 1))}, "at least 2 rows"),
        ({"confidence": 0.3}, r"confidence=0.3 must lie in \[0.5, 1\)"),
        ({"confidence": 1.0}, "must lie in"),
        ({"reference": np.ones(4, dtype=bool)}, "both sides"),
        ({"reference": np.arange(4)}, "boolean mask"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        coverage(**{"inputs": np.zeros((4, 1)), **arguments})


def test_bad_statements_are_refused():
    found = coverage(np.arange(8.0)[:, None])
    with pytest.raises(ValueError, match="mass"):
        found.radius(1.5)
    with pytest.raises(ValueError, match="smoothness"):
        found.jacobian_bound(1.0, np.inf, 0.5)
    with pytest.raises(ValueError, match="norms must be"):
        held_out_maximum([])
    for function in (held_out_maximum, lambda norms, **_: coverage(np.eye(4), confidence=95)):
        with pytest.raises(ValueError, match="confidence=95 must lie in"):
            function([1.0], confidence=95)
