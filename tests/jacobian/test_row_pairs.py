"""Pairs that keep their distances: the slopes of a direct double loop."""

import itertools

import numpy as np
import pytest
import torch

from sharpfit.jacobian import RowPairs, slope_bound
from sharpfit.objective import SquaredError


@pytest.mark.parametrize("count", [40, 530])  # kept, and computed anew
@pytest.mark.parametrize("width", [1, 3])
def test_largest_slope(count, width):
    rng = np.random.default_rng(0)
    inputs, values = rng.normal(size=(count, 4)), rng.normal(size=(count, width))
    inputs[1] = inputs[0]  # equal rows have no slope
    expected = 0.0
    for i, j in itertools.combinations(range(count), 2):
        distance = np.linalg.norm(inputs[i] - inputs[j])
        if distance > 0:
            expected = max(expected, np.linalg.norm(values[i] - values[j]) / distance)
    pairs = RowPairs(inputs)
    assert len(pairs) == count
    for _ in range(2):  # what is kept is not used up
        assert pairs.largest_slope(values) == pytest.approx(expected, rel=1e-6)


def test_equal_rows_have_no_slope():
    assert RowPairs(np.ones((3, 2))).largest_slope([1.0, 2.0, 3.0]) == 0.0


def test_slope_bounds_take_pairs_in_place_of_rows():
    rng = np.random.default_rng(1)
    inputs, targets = rng.normal(size=(50, 3)), torch.as_tensor(rng.normal(size=(50, 2)))
    losses = torch.full((50,), 0.01, dtype=torch.float64)
    pairs = RowPairs(inputs)
    for _ in range(2):
        found = slope_bound(SquaredError(), losses, targets, pairs, n_outputs=2)
        assert found == slope_bound(SquaredError(), losses, targets, inputs, n_outputs=2)
    few = slope_bound(SquaredError(), losses, targets, pairs, n_outputs=2, n_neighbours=2)
    assert few == slope_bound(SquaredError(), losses, targets, inputs, n_outputs=2, n_neighbours=2)
    with pytest.raises(ValueError, match="50"):
        slope_bound(SquaredError(), losses[:9], targets[:9], pairs, n_outputs=2)


def test_rows_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="inputs contains NaN"):
        RowPairs([[0.0], [np.nan]])
    with pytest.raises(ValueError, match="values contains NaN"):
        RowPairs([[0.0], [1.0]]).largest_slope([0.0, np.inf])


def test_values_of_other_rows_are_refused():
    with pytest.raises(ValueError, match="values has 3 rows and the pairs are of 2"):
        RowPairs([[0.0], [1.0]]).largest_slope([0.0, 1.0, 2.0])
