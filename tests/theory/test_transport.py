import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.spatial.distance import cdist

from sharpfit.theory import optimal_plan, transport_cost


def whole_program(cost, capacity):
    """Transport of equal masses onto targets of limited capacity as one dense linear program."""
    n, m = cost.shape
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    solution = linprog(
        cost.ravel(),
        A_eq=rows,
        b_eq=np.full(n, 1 / n),
        A_ub=columns,
        b_ub=np.full(m, min(capacity, m) / m),
    )
    assert solution.success
    return solution.fun


def cost_matrix(x, y, u, w, scale):
    within = np.minimum(1.0, scale * cdist(x, u))
    return np.where(np.equal.outer(y, w), within, 1.0)


@pytest.mark.parametrize(("capacity", "expected"), [(1.0, 0.3), (1.5, 0.05), (2.0, 0.0)])
def test_identical_inputs_leave_the_class_frequencies(capacity, expected):
    sources, targets = np.repeat([0, 1, 2], [2, 5, 3]), np.repeat([0, 1, 2], [5, 3, 2])
    zeros = np.zeros((10, 1))
    cost = transport_cost(zeros, sources, zeros, targets, scale=3.0, capacity=capacity)
    assert cost == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("distance", [0.3, 5.0])
@pytest.mark.parametrize(("half", "mean"), [(2, 1 / 3), (3, 0.4)])
def test_mean_over_all_splits_of_two_points(half, mean, distance):
    # One class, half of the rows at 0 and half at `distance`.
    points = np.repeat([0.0, distance], half)[:, None]
    costs = []
    for chosen in itertools.combinations(range(2 * half), half):
        mask = np.isin(np.arange(2 * half), chosen)
        labels = np.zeros(half)
        costs.append(transport_cost(points[~mask], labels, points[mask], labels, scale=1.0))
    assert np.mean(costs) == pytest.approx(mean * min(1.0, distance))


def test_equispaced_halves_move_one_step():
    step = 0.01
    even, odd = 2 * step * np.arange(50), 2 * step * np.arange(50) + step
    zeros = np.zeros(50)
    cost = transport_cost(even[:, None], zeros, odd[:, None], zeros, scale=3.0)
    assert cost == pytest.approx(3.0 * step)


@pytest.mark.parametrize(("n_rows", "expected"), [(2, 1 / 3), (4, 4 / 15)])
def test_uniform_halves(n_rows, expected):
    rng = np.random.default_rng(0)
    labels = np.zeros(n_rows // 2)
    costs = [
        transport_cost(
            rng.random((n_rows // 2, 1)), labels, rng.random((n_rows // 2, 1)), labels, scale=0.5
        )
        for _ in range(4000)
    ]
    assert np.mean(costs) == pytest.approx(
        0.5 * expected, abs=5 * np.std(costs) / np.sqrt(len(costs))
    )


@settings(max_examples=60, deadline=None)
@given(
    n_sources=st.integers(1, 7),
    n_targets=st.integers(1, 7),
    capacity=st.sampled_from([1.0, 1.3, 1.5, 2.0, 3.0, np.inf]),
    scale=st.floats(0.05, 20.0),
    seed=st.integers(0, 2**16),
)
def test_cost_is_that_of_the_whole_linear_program(n_sources, n_targets, capacity, scale, seed):
    rng = np.random.default_rng(seed)
    x, u = rng.normal(size=(n_sources, 2)).round(1), rng.normal(size=(n_targets, 2)).round(1)
    y, w = rng.integers(0, 3, n_sources), rng.integers(0, 3, n_targets)
    expected = whole_program(cost_matrix(x, y, u, w, scale), capacity)
    assert transport_cost(x, y, u, w, scale=scale, capacity=capacity) == pytest.approx(
        expected, abs=1e-7
    )


def test_brute_force_over_permutations():
    rng = np.random.default_rng(1)
    x, u, labels = rng.normal(size=(6, 2)), rng.normal(size=(6, 2)), np.zeros(6)
    cost = np.minimum(1.0, 0.8 * cdist(x, u))
    best = min(cost[range(6), order].mean() for order in itertools.permutations(range(6)))
    assert transport_cost(x, labels, u, labels, scale=0.8) == pytest.approx(best)


def test_against_pot():
    ot = pytest.importorskip("ot")
    rng = np.random.default_rng(2)
    x, u = rng.normal(size=(60, 3)), rng.normal(size=(60, 3)) + 0.3
    y, w = rng.integers(0, 2, 60), rng.integers(0, 2, 60)
    uniform = np.full(60, 1 / 60)
    for scale in (0.1, 0.5, 2.0):
        expected = ot.emd2(uniform, uniform, cost_matrix(x, y, u, w, scale))
        assert transport_cost(x, y, u, w, scale=scale) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("n", "m"), [(120, 121), (121, 120), (40, 200), (200, 40)])
@pytest.mark.parametrize("capacity", [1.0, 1.5, 2.0])
def test_large_uneven_plans_are_feasible_and_nearly_optimal(n, m, capacity):
    rng = np.random.default_rng(3)
    gains = np.maximum(1.0 - rng.random((n, m)) * 3.0, 0.0)
    plan = optimal_plan(gains, 1 / n, capacity / m)
    sent = np.bincount(plan.sources, weights=plan.masses, minlength=n)
    received = np.bincount(plan.targets, weights=plan.masses, minlength=m)
    assert sent.max() <= 1 / n + 1e-12
    assert received.max() <= capacity / m + 1e-12
    exact = 1.0 - whole_program(1.0 - gains, capacity)
    assert exact - 1.5 / min(n, m) <= plan.gain(gains) <= exact + 1e-9


def test_sparse_and_dense_assignments_agree():
    rng = np.random.default_rng(4)
    points, others, labels = rng.random((150, 2)), rng.random((150, 2)), np.zeros(150)
    for scale in (20.0, 60.0):
        cost = np.minimum(1.0, scale * cdist(points, others))
        assert np.mean(cost < 1) < 0.04
        for capacity in (1.0, 2.0):
            assert transport_cost(
                points, labels, others, labels, scale=scale, capacity=capacity
            ) == pytest.approx(whole_program(cost, capacity), abs=1e-9)


def test_weak_duality_for_lipschitz_functions():
    rng = np.random.default_rng(5)
    x, u = rng.normal(size=(30, 2)), rng.normal(size=(25, 2))
    y, w = rng.integers(0, 2, 30), rng.integers(0, 2, 25)
    anchors, levels = rng.normal(size=(4, 2)), rng.random((2, 4))
    scale = 0.7

    def function(points, classes):
        cones = levels[classes] + scale * cdist(points, anchors)
        return np.clip(cones.min(axis=1), 0.0, 1.0)

    for capacity in (1.0, 2.0, np.inf):
        cost = transport_cost(x, y, u, w, scale=scale, capacity=capacity)
        mean = function(u, w).mean()
        assert function(x, y).mean() <= capacity * mean + cost + 1e-9


def test_cost_is_concave_in_the_scale_and_falls_with_capacity():
    rng = np.random.default_rng(6)
    x, u = rng.normal(size=(40, 2)), rng.normal(size=(40, 2))
    y, w = rng.integers(0, 2, 40), rng.integers(0, 2, 40)
    scales = np.linspace(0.0, 4.0, 21)
    costs = np.array(
        [[transport_cost(x, y, u, w, scale=s, capacity=c) for c in (1, 2, np.inf)] for s in scales]
    )
    assert np.all(np.diff(costs, 2, axis=0) <= 1e-9)
    assert np.all(np.diff(costs, axis=1) <= 1e-9)
    frequencies = abs(np.mean(y == 0) - np.mean(w == 0))
    assert costs[0, 0] == pytest.approx(frequencies)


def test_capacity_below_one_is_refused():
    with pytest.raises(ValueError, match=r"capacity=0\.5"):
        transport_cost(np.zeros((1, 1)), [0], np.zeros((1, 1)), [0], scale=1.0, capacity=0.5)
