"""Stand-ins for fresh rows: their covariance, and errors counted by hand."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from sharpfit.theory.fresh_rows import error_against_reference, shifted_rows, stand_in_rows


def test_a_row_moves_by_differences_of_its_neighbours():
    rows = np.random.default_rng(0).normal(size=(30, 3))
    moved = stand_in_rows(rows)
    distances = cdist(rows, rows)
    np.fill_diagonal(distances, np.inf)
    for i, nearest in enumerate(np.argsort(distances, axis=1)):
        for m, (first, second) in enumerate([(8, 1), (2, 7), (6, 3), (4, 5)]):
            step = (rows[nearest[first]] - rows[nearest[second]]) / np.sqrt(2)
            assert moved[i, m] == pytest.approx(rows[i] + step)


def test_noise_follows_the_data():
    """On a line in the plane with thin noise, rows move along the line by about the spacing."""
    rng = np.random.default_rng(0)
    along = rng.uniform(size=2000)
    rows = np.stack([along, 2 * along], axis=1) + 1e-5 * rng.normal(size=(2000, 2))
    steps = (stand_in_rows(rows) - rows[:, None]).reshape(-1, 2)
    lengthwise, across = steps @ np.array([1.0, 2.0]), steps @ np.array([2.0, -1.0])
    assert np.abs(across).mean() < 0.01 * np.abs(lengthwise).mean()
    # Ten neighbours of a row lie within about five spacings on either side of it.
    spacing = np.sqrt(5) / 2000
    assert spacing < np.abs(lengthwise).mean() / np.sqrt(5) < 5 * spacing


@pytest.mark.parametrize(("k", "m"), [(1, 1), (2, 1), (3, 1), (5, 1), (6, 2), (10, 4)])
def test_number_of_stand_ins(k, m):
    rows = np.random.default_rng(0).normal(size=(20, 2))
    moved = stand_in_rows(rows, n_neighbours=k)
    assert moved.shape == (20, m, 2)
    assert np.array_equal(moved[:, 0], rows) == (k == 1)


def test_order_of_the_rows_does_not_matter():
    rows = np.random.default_rng(0).normal(size=(40, 3))
    order = np.random.default_rng(1).permutation(40)
    assert stand_in_rows(rows[order]) == pytest.approx(stand_in_rows(rows)[order])


def test_some_rows_are_moved_by_neighbours_among_all():
    rows = np.random.default_rng(0).normal(size=(101, 2))
    indices = np.arange(0, 101, 10)
    assert stand_in_rows(rows, indices) == pytest.approx(stand_in_rows(rows)[indices])


def test_duplicates_are_neighbours_and_a_row_is_not_its_own():
    """Fifteen copies of two points: no copy sees the other point, and nothing moves."""
    rows = np.repeat([[0.0, 1.0], [5.0, 5.0]], 15, axis=0)
    assert np.array_equal(stand_in_rows(rows), np.repeat(rows[:, None], 4, axis=1))
    three = np.array([[0.0], [0.0], [4.0]])
    assert stand_in_rows(three)[0, 0] == pytest.approx(-4 / np.sqrt(2))


def test_one_row_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        stand_in_rows(np.zeros((1, 3)))


def test_images_move_by_one_place_along_each_axis():
    images = np.arange(24.0).reshape(2, 2, 2, 3)
    left, right = images[..., [1, 2, 2]], images[..., [0, 0, 1]]
    up, down = images[:, :, [1, 1]], images[:, :, [0, 0]]
    moved = shifted_rows(images.reshape(2, -1), (2, 2, 3))
    assert np.array_equal(moved.reshape(2, 4, 2, 2, 3), np.stack([up, down, left, right], axis=1))
    assert shifted_rows(images.reshape(2, -1), (4, 1, 3)).shape == (2, 2, 12)


def test_errors_by_hand():
    shares = np.array([[0.7, 0.5, -0.2], [0.0, 0.0, 1.0], [0.25, 0.5, 0.25]])
    logits = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 9.0, 0.0]])
    expected = np.mean([1 - 0.7 / 1.2, 1.0, 0.5])
    assert error_against_reference(logits, shares, classification=True) == pytest.approx(expected)
    assert error_against_reference(1e3 * logits + 5, shares, classification=True) == pytest.approx(
        expected
    )
    assert error_against_reference(logits, shares, classification=False) == pytest.approx(
        np.mean([0.09 + 0.25 + 0.04, 2.0, 0.0625 + 8.5**2 + 0.0625])
    )


def test_one_logit_equals_two():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet([1, 1], size=50)
    logits = rng.normal(size=(50, 2))
    one = logits[:, 1:] - logits[:, :1]
    assert error_against_reference(one, shares, classification=True) == pytest.approx(
        error_against_reference(logits, shares, classification=True)
    )
