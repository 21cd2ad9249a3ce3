"""Stand-ins for fresh rows: their covariance, and errors counted by hand."""

import numpy as np
import pytest

from sharpfit.theory.fresh_rows import error_on_stand_ins, stand_in_rows
from sharpfit.theory.selection import find_neighbourhood


def test_a_row_moves_by_differences_of_its_neighbours():
    rows = np.random.default_rng(0).normal(size=(30, 3))
    near = find_neighbourhood(rows, n_neighbours=10)
    moved = stand_in_rows(rows, near)
    for i, nearest in enumerate(near.indices):
        for m, (first, second) in enumerate([(0, 9), (7, 2), (4, 5)]):
            step = (rows[nearest[first]] - rows[nearest[second]]) / np.sqrt(2)
            assert moved[i, m] == pytest.approx(rows[i] + step)


def test_noise_follows_the_data():
    """On a line in the plane with thin noise, rows move along the line by about the spacing."""
    rng = np.random.default_rng(0)
    along = rng.uniform(size=2000)
    rows = np.stack([along, 2 * along], axis=1) + 1e-5 * rng.normal(size=(2000, 2))
    steps = (stand_in_rows(rows, find_neighbourhood(rows)) - rows[:, None]).reshape(-1, 2)
    lengthwise, across = steps @ np.array([1.0, 2.0]), steps @ np.array([2.0, -1.0])
    assert np.abs(across).mean() < 0.01 * np.abs(lengthwise).mean()
    # Ten neighbours of a row lie within about five spacings on either side of it.
    spacing = np.sqrt(5) / 2000
    assert spacing < np.abs(lengthwise).mean() / np.sqrt(5) < 5 * spacing


@pytest.mark.parametrize(("k", "m"), [(1, 1), (2, 1), (5, 1), (6, 2), (10, 3)])
def test_number_of_stand_ins(k, m):
    rows = np.random.default_rng(0).normal(size=(20, 2))
    moved = stand_in_rows(rows, find_neighbourhood(rows, n_neighbours=k))
    assert moved.shape == (20, m, 2)
    assert np.array_equal(moved[:, 0], rows) == (k == 1)


def test_order_of_the_rows_does_not_matter():
    rows = np.random.default_rng(0).normal(size=(40, 3))
    order = np.random.default_rng(1).permutation(40)
    moved = stand_in_rows(rows, find_neighbourhood(rows))
    assert stand_in_rows(rows[order], find_neighbourhood(rows[order])) == pytest.approx(
        moved[order]
    )


def test_of_very_many_rows_evenly_spaced_ones_are_moved():
    rows = np.random.default_rng(0).normal(size=(101, 2))
    near = find_neighbourhood(rows)
    moved = stand_in_rows(rows, near, largest_number=11)
    assert moved == pytest.approx(stand_in_rows(rows, near)[::10])


def test_errors_by_hand():
    shares = np.array([[0.7, 0.5, -0.2], [0.0, 0.0, 1.0], [0.25, 0.5, 0.25]])
    logits = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 9.0, 0.0]])
    expected = np.mean([1 - 0.7 / 1.2, 1.0, 0.5])
    assert error_on_stand_ins(logits, shares, classification=True) == pytest.approx(expected)
    assert error_on_stand_ins(1e3 * logits + 5, shares, classification=True) == pytest.approx(
        expected
    )
    assert error_on_stand_ins(logits, shares, classification=False) == pytest.approx(
        np.mean([0.09 + 0.25 + 0.04, 2.0, 0.0625 + 8.5**2 + 0.0625])
    )


def test_one_logit_equals_two():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet([1, 1], size=50)
    logits = rng.normal(size=(50, 2))
    one = logits[:, 1:] - logits[:, :1]
    assert error_on_stand_ins(one, shares, classification=True) == pytest.approx(
        error_on_stand_ins(logits, shares, classification=True)
    )
