"""Slopes between samples against plain distances and constructed duplicates."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist

from sharpfit.jacobian import empirical_margin_constant, slopes


def _data(n=700, d=5, k=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, k)), rng.normal(size=(n, d))


@pytest.mark.parametrize("k", [1, 3])
def test_all_pairs_match_scipy(k):
    values, inputs = _data(k=k)  # more rows than one block
    found = slopes(values, inputs)
    truth = pdist(values) / pdist(inputs)
    assert found.largest == pytest.approx(truth.max(), rel=1e-12)
    i, j = found.pair
    ratio = np.linalg.norm(values[i] - values[j]) / np.linalg.norm(inputs[i] - inputs[j])
    assert ratio == pytest.approx(truth.max(), rel=1e-12)
    square = cdist(values, values) / (cdist(inputs, inputs) + np.diag(np.full(700, np.inf)))
    np.testing.assert_allclose(found.per_sample, square.max(axis=1), rtol=1e-9)
    assert found.n_pairs == len(truth)
    levels = np.array([0.0, 0.1, 0.5, 0.9, 0.999, 1.0])
    exact = np.quantile(truth, levels, method="inverted_cdf")
    np.testing.assert_allclose(found.quantile(levels), exact, rtol=2e-3)
    assert np.all(found.quantile(levels) >= exact * (1 - 1e-6))


def test_neighbours_match_sorted_distances():
    values, inputs = _data(n=300)
    distances = cdist(inputs, inputs) + np.diag(np.full(300, np.inf))
    differences = cdist(values, values)
    nearest = np.argsort(distances, axis=1)[:, :4]
    truth = np.take_along_axis(differences / distances, nearest, axis=1)
    found = slopes(values, inputs, n_neighbours=4)
    assert found.n_pairs == 1200
    np.testing.assert_allclose(found.per_sample, truth.max(axis=1))
    assert found.largest == pytest.approx(truth.max())
    np.testing.assert_allclose(
        found.quantile(0.5), np.quantile(truth, 0.5, method="inverted_cdf"), rtol=2e-3
    )


def test_linear_map_reaches_its_spectral_norm_and_never_exceeds_it():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(4, 3))
    inputs = rng.normal(size=(2000, 3))
    found = slopes(inputs @ matrix.T, inputs)
    norm = np.linalg.norm(matrix, 2)
    assert 0.999 * norm < found.largest <= norm * (1 + 1e-12)


def test_close_rows_far_from_the_origin_keep_their_digits():
    inputs = np.array([[1e3, 0.0], [1e3, 1e-7], [-1e3, 0.0]])
    found = slopes(np.array([0.0, 1.0, 0.0]), inputs)
    assert found.pair == (0, 1)
    assert found.largest == pytest.approx(1e7, rel=1e-9)


@pytest.mark.parametrize("n_neighbours", [None, 2])
def test_duplicates_are_left_out_and_conflicts_counted(n_neighbours):
    inputs = np.array([[0.0], [0.0], [-0.0], [1.0], [1.0]])
    targets = np.array(["a", "b", "a", "a", "a"])
    found = slopes(inputs, inputs, targets=targets, n_neighbours=n_neighbours)
    assert found.n_duplicate_pairs == 4
    assert found.n_conflicting_pairs == 2
    assert np.isfinite(found.largest)
    assert found.n_pairs == (6 if n_neighbours is None else 2)
    assert slopes(inputs, inputs).n_conflicting_pairs == 0


def test_equal_rows_only():
    found = slopes(np.zeros(3), np.ones((3, 2)))
    assert found.largest == 0.0
    assert found.pair is None
    assert found.n_pairs == 0
    with pytest.raises(ValueError, match="no two rows differ"):
        found.quantile(0.5)


def test_margin_constant_matches_its_definition():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(600, 3))
    margins, labels = rng.normal(size=600), rng.integers(3, size=600)
    gradients = np.abs(rng.normal(size=600))
    distances = cdist(inputs, inputs) + np.diag(np.full(600, np.inf))
    same = labels[:, None] == labels
    slope = np.abs(margins[:, None] - margins) / distances
    sums = np.maximum(margins[:, None] + margins, 0) / distances
    found = empirical_margin_constant(margins, labels, inputs, gradients)
    assert found.same_class_slope == pytest.approx(slope[same].max(), rel=1e-9)
    assert found.cross_class_slope == pytest.approx(sums[~same].max(), rel=1e-9)
    assert found.gradient == gradients.max()
    assert float(found) == max(found.same_class_slope, found.cross_class_slope, found.gradient)
    few = empirical_margin_constant(margins, labels, inputs, gradients, n_neighbours=5)
    assert float(few) <= float(found)
    nearest = np.argsort(distances, axis=1)[:, :5]
    cross = np.where(same, 0.0, sums)
    assert few.cross_class_slope == pytest.approx(
        np.take_along_axis(cross, nearest, axis=1).max(), rel=1e-9
    )


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_classes=st.integers(2, 4))
def test_margin_constant_never_exceeds_the_true_constant(seed, n_classes):
    """Linear logits: the true constant is the largest distance between two weight rows."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(n_classes, 3))
    inputs = rng.normal(size=(40, 3))
    labels = rng.integers(n_classes, size=40)
    logits = inputs @ weight.T
    own = logits[np.arange(40), labels]
    others = np.where(np.arange(n_classes) == labels[:, None], -np.inf, logits).max(axis=1)
    found = empirical_margin_constant(own - others, labels, inputs)
    assert float(found) <= pdist(weight).max() * (1 + 1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": np.zeros(4)}, "values has 4 rows"),
        ({"targets": np.zeros(2)}, "targets has 2 rows"),
        ({"n_neighbours": 3}, "between 1 and n - 1 = 2"),
        ({"n_neighbours": 0}, "got 0"),
        ({"inputs": np.full((3, 2), np.nan)}, "inputs contains NaN"),
        ({"inputs": np.zeros((0, 2))}, "at least one row"),
    ],
)
def test_bad_arguments_are_named_by_slopes(arguments, message):
    with pytest.raises(ValueError, match=message):
        slopes(**{"values": np.zeros(3), "inputs": np.eye(3)[:, :2], **arguments})


@pytest.mark.parametrize("argument", ["margins", "labels", "margin_gradients"])
def test_lengths_are_checked_by_the_margin_constant(argument):
    arguments = {"margins": np.zeros(3), "labels": np.zeros(3), "inputs": np.eye(3)}
    arguments[argument] = np.zeros(2)
    with pytest.raises(ValueError, match=f"{argument} has 2 entries"):
        empirical_margin_constant(**arguments)


def test_quantile_levels_are_checked():
    values, inputs = _data(n=10)
    with pytest.raises(ValueError, match="levels must lie"):
        slopes(values, inputs).quantile(1.5)


def test_tensors_of_any_kind_are_rows():
    X = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.bfloat16)
    outputs = torch.tensor([[0.0], [2.0], [3.0]], requires_grad=True)
    assert slopes(outputs, X).largest == pytest.approx(2.0)
    assert outputs.requires_grad
