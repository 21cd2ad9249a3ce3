import numpy as np
import pytest
from scipy.stats import binom

from sharpfit.theory import fit_geometry, random_halves
from tests.theory.coverage_simulation import DISTRIBUTIONS, WORST_FORMS, search, worst_network


def violations(distribution, n_data_sets, n_rows, confidence=0.95):
    outcomes = [search(distribution, n_rows, seed, confidence) for seed in range(n_data_sets)]
    return {
        kind: sum(outcome[kind].error > outcome[kind].bound for outcome in outcomes)
        for kind in ("certified", "empirical")
    }, outcomes


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_search_by_bound_is_covered(distribution):
    counts, outcomes = violations(distribution, 4, 80)
    assert counts["certified"] == 0
    assert all(0.0 <= outcome["certified"].error < 0.6 for outcome in outcomes)


def check_worst_networks(n_data_sets, confidence):
    outcomes = [worst_network(200, seed, confidence) for seed in range(n_data_sets)]
    counts = {
        form: sum(outcome[form].error > outcome[form].bound for outcome in outcomes)
        for form in WORST_FORMS
    }
    assert max(counts.values()) <= binom.isf(0.025, n_data_sets, 1 - confidence)
    # The simulation can fail: the bound is near enough to the error for that.
    assert min(counts[form] for form in ("one_sided", "covering", "exceptions")) > 0
    assert all(outcome[form].bound < 1 for outcome in outcomes for form in WORST_FORMS)


def test_the_worst_network_is_covered_and_not_always():
    check_worst_networks(100, 0.7)


@pytest.mark.slow
@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95])
def test_violations_of_the_worst_network_stay_below_the_level(confidence):
    check_worst_networks(1000, confidence)


@pytest.mark.slow
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_violations_stay_below_the_level(distribution, record_property):
    n_data_sets = 1000
    counts, _ = violations(distribution, n_data_sets, 120)
    # Plain numbers: others cannot be sent between the processes of a parallel run.
    record_property("violations", {kind: int(count) for kind, count in counts.items()})
    # As many violations as a true level of 5 % makes likely.
    assert counts["certified"] <= binom.isf(0.025, n_data_sets, 0.05)


@pytest.mark.parametrize("n_rows", [10, 50, 200])
@pytest.mark.parametrize("delta", [0.05, 0.3])
def test_deviation_of_the_transport_term(n_rows, delta):
    # P puts mass p on one point and 1 - p on another, at distance s D >= 1 within a class. Then
    # T(P, P_n) = |p - p_n| and the cost between halves is the difference of their frequencies.
    rng = np.random.default_rng(0)
    half = n_rows // 2
    n_samples = 40_000
    for p in (0.1, 0.5):
        in_u, in_v = rng.binomial(half, p, size=(2, n_samples))
        true = np.abs(p - (in_u + in_v) / n_rows)
        seen = np.abs(in_u - in_v) / half
        failed = np.count_nonzero(true > seen + np.sqrt(np.log(1 / delta) / n_rows))
        assert failed <= binom.isf(1e-4, n_samples, delta)


def test_the_simulated_transport_term_is_the_computed_one():
    points = np.random.default_rng(1).integers(0, 2, 40)
    geometry = fit_geometry(
        10.0 * points[:, None], np.zeros(40), scales=[1.0], capacities=[1.0], random_state=2
    )
    half = random_halves(40, 1, 2)[0]
    expected = abs(points[half].sum() - points[~half].sum()) / 20
    assert geometry.transport_costs[0, 0] == pytest.approx(expected)


def test_expected_distance_to_the_nearest_reference():
    # Nearest of k uniform points of [0, 1]: (k + 3) / (2 (k + 1)(k + 2)).
    rng = np.random.default_rng(3)
    k = 5
    distances = []
    for _ in range(200):
        mask = np.arange(k + 200) < k
        geometry = fit_geometry(
            rng.random((k + 200, 1)), np.zeros(k + 200), reference=mask, scales=[1.0]
        )
        distances.append(geometry.nearest_distances.mean())
    expected = (k + 3) / (2 * (k + 1) * (k + 2))
    assert np.mean(distances) == pytest.approx(
        expected, abs=5 * np.std(distances) / np.sqrt(len(distances))
    )
