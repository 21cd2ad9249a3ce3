"""Crossing probability: against plain loops, invariances, and what it is for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import norm

from sharpfit.theory.selection import (
    crossing_probability,
    find_neighbourhood,
    margins_of_classes,
)


def sample(seed, n=30, d=3, n_classes=4):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(n, d)),
        rng.normal(size=(n, n_classes)),
        rng.integers(n_classes, size=n),
    )


def by_loops(rows, logits, labels, k):
    """The definition, one row and one neighbour at a time."""
    distances = cdist(rows, rows)
    np.fill_diagonal(distances, np.inf)
    spacing = np.median(distances.min(axis=1))

    def margin(i, label):
        return logits[i, label] - max(z for c, z in enumerate(logits[i]) if c != label)

    probabilities = []
    for i, label in enumerate(labels):
        near = np.argsort(distances[i])[:k]
        here = margin(i, label)
        own = [margin(j, label) for j in near if labels[j] == label] or [here]
        between = np.mean([(here + each) / 2 for each in own])
        steepest = max(max(here - margin(j, label), 0) / distances[i, j] for j in near)
        if steepest == 0:
            probabilities.append(0.0 if between > 0 else 1.0)
        else:
            probabilities.append(norm.cdf(-between / (spacing * steepest)))
    return np.mean(probabilities)


@pytest.mark.parametrize(("seed", "k"), [(0, 1), (1, 5), (2, 10), (3, 29)])
def test_equals_the_definition_in_loops(seed, k):
    rows, logits, labels = sample(seed)
    near = find_neighbourhood(rows, n_neighbours=k)
    assert crossing_probability(logits, labels, near) == pytest.approx(
        by_loops(rows, logits, labels, k), rel=1e-12
    )


def test_neighbours_are_the_nearest_other_rows():
    rows = np.random.default_rng(0).normal(size=(40, 5))
    distances = cdist(rows, rows)
    np.fill_diagonal(distances, np.inf)
    near = find_neighbourhood(rows, n_neighbours=4)
    assert np.array_equal(near.indices, np.argsort(distances, axis=1)[:, :4])
    assert near.distances == pytest.approx(np.sort(distances, axis=1)[:, :4])
    assert near.spacing == pytest.approx(np.median(distances.min(axis=1)))


def test_margin_of_any_class():
    logits = np.tile([3.0, 1.0, -2.0], (3, 1))
    assert margins_of_classes(logits, np.arange(3)).tolist() == [2.0, -2.0, -5.0]
    assert margins_of_classes(np.array([[3.0], [3.0]]), np.array([0, 1])).tolist() == [-3.0, 3.0]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    logit_scale=st.floats(1e-6, 1e6),
    input_scale=st.floats(1e-6, 1e6),
    shift=st.floats(-10, 10),
)
def test_invariances(seed, logit_scale, input_scale, shift):
    rows, logits, labels = sample(seed)
    value = crossing_probability(logits, labels, find_neighbourhood(rows))
    rng = np.random.default_rng(seed)
    order, classes = rng.permutation(len(rows)), rng.permutation(logits.shape[1])
    changed = crossing_probability(
        logit_scale * (logits + shift)[order][:, np.argsort(classes)],
        classes[labels[order]],
        find_neighbourhood(input_scale * rows[order]),
    )
    assert changed == pytest.approx(value, rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_one_logit_equals_two(seed):
    rows, logits, labels = sample(seed, n_classes=2)
    near = find_neighbourhood(rows)
    one = logits[:, 1:] - logits[:, :1]
    assert crossing_probability(one, labels, near) == pytest.approx(
        crossing_probability(logits, labels, near), rel=1e-9
    )


def test_a_memorised_label_costs_more_than_an_honest_error():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 2))
    truth = (rows[:, 0] > 0).astype(int)
    labels = np.where(rng.random(200) < 0.1, 1 - truth, truth)
    honest = 2 * rows[:, :1]
    memorising = np.where(labels == truth, 1.0, -1.0)[:, None] * honest
    near = find_neighbourhood(rows)
    assert ((memorising[:, 0] > 0) == labels).all()
    assert crossing_probability(honest, labels, near) < crossing_probability(
        memorising, labels, near
    )


def test_a_constant_network_scores_its_error():
    rows, _, labels = sample(0)
    logits = np.tile([1.0, 0.0, 0.0, 0.0], (len(rows), 1))
    assert crossing_probability(logits, labels, find_neighbourhood(rows)) == np.mean(labels != 0)
    assert crossing_probability(0 * logits, labels, find_neighbourhood(rows)) == 0.5


def test_duplicates_have_no_slope():
    rows = np.array([[0.0], [0.0], [1.0], [1.0]])
    logits = np.array([[2.0], [2.0], [3.0], [3.0]])
    near = find_neighbourhood(rows, n_neighbours=1)
    assert near.spacing == 1.0
    assert crossing_probability(logits, np.ones(4, dtype=int), near) == 0.0


def test_one_row_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        find_neighbourhood(np.zeros((1, 3)))
