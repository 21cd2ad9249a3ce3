"""Slopes between samples: lower bounds on Lipschitz constants."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sharpfit.jacobian.arguments import check_count
from sharpfit.jacobian.pairs import Floats, count_duplicates, pair_blocks

# Slopes are counted by the leading bits of their float32 form: positive floats are ordered
# like their bits, and ten bits of the mantissa tell values apart to one part in a thousand.
_DROPPED_BITS = 13
_N_BINS = 2**18


@dataclass(frozen=True)
class Slopes:
    """Slopes ``|g(x_i) - g(x_j)| / |x_i - x_j|`` of a function between samples.

    Every slope is a lower bound on the Lipschitz constant of `g` on the segment between the
    two samples.

    Attributes
    ----------
    largest : float
        The largest slope; 0 if no two samples differ.
    pair : tuple of int or None
        Rows between which it was found.
    per_sample : ndarray of shape (n,)
        Largest slope at each row over the pairs looked at; 0 if there was none.
    n_pairs : int
        Pairs looked at.
    n_duplicate_pairs : int
        Pairs of equal rows, over all pairs; they have no slope and are left out.
    n_conflicting_pairs : int
        Duplicate pairs with different targets, which bound the loss from below; 0 without
        targets.
    """

    largest: float
    pair: tuple[int, int] | None
    per_sample: Floats
    n_pairs: int
    n_duplicate_pairs: int
    n_conflicting_pairs: int
    _counts: NDArray[np.int64]

    def quantile(self, levels: ArrayLike) -> Floats:
        """Quantiles of the slopes over the pairs looked at, to one part in a thousand.

        Parameters
        ----------
        levels : array-like of float in [0, 1]

        Returns
        -------
        ndarray of the levels' shape
            Never below the inverted empirical distribution function at these levels.

        Raises
        ------
        ValueError
            If there are no pairs or a level lies outside [0, 1].
        """
        levels = np.asarray(levels, dtype=np.float64)
        if np.any((levels < 0) | (levels > 1)):
            raise ValueError(f"levels must lie in [0, 1], got {levels}")
        if self.n_pairs == 0:
            raise ValueError("no two rows differ, so there are no slopes to take quantiles of")
        cumulative = np.cumsum(self._counts)
        ranks = np.maximum(1, np.ceil(levels * self.n_pairs))
        bins = np.searchsorted(cumulative, ranks)
        upper = ((bins + 1) << _DROPPED_BITS).astype(np.int32).view(np.float32)
        upper = np.where(bins == 0, 0.0, upper)
        return np.minimum(upper.astype(np.float64), self.largest)


def slopes(
    values: ArrayLike,
    inputs: ArrayLike,
    *,
    targets: ArrayLike | None = None,
    n_neighbours: int | None = None,
    verbose: int = 0,
) -> Slopes:
    """Slopes of a function between samples, over all pairs or nearest neighbours.

    All pairs are worked through in blocks: memory stays at a few megabytes beside the data.

    Parameters
    ----------
    values : array-like of shape (n,) or (n, k)
        The function at the samples: logits, probabilities, margins or predictions.
    inputs : array-like of shape (n, ...)
        The samples; distances are Euclidean.
    targets : array-like of shape (n, ...), optional
        Only to count equal rows with different targets.
    n_neighbours : int, optional
        Look at each row's nearest neighbours only (scikit-learn's search). Equal rows take
        places among the neighbours; they have no slope.
    verbose : int, default=0
        Print one line per this many blocks of rows.

    Returns
    -------
    Slopes

    Raises
    ------
    ValueError
        If lengths differ, a value is not finite, or `n_neighbours` is not below n.

    Examples
    --------
    >>> from sharpfit.jacobian import slopes
    >>> found = slopes([0.0, 1.0, 9.0], [[0.0], [2.0], [4.0]])
    >>> found.largest, found.pair
    (4.0, (1, 2))
    """
    function, points = as_points(values, "values"), as_points(inputs, "inputs")
    if len(function) != len(points):
        raise ValueError(f"values has {len(function)} rows and inputs has {len(points)}")
    labels = None if targets is None else as_labels(targets)
    if labels is not None and len(labels) != len(points):
        raise ValueError(f"targets has {len(labels)} rows, inputs has {len(points)}")
    check_neighbours(n_neighbours, len(points))
    function = function - function.mean(axis=0)
    per_sample = np.zeros(len(points))
    counts = np.zeros(_N_BINS, dtype=np.int64)
    largest, pair = 0.0, None
    for block in pair_blocks(points, n_neighbours, name="slopes", verbose=verbose):
        squares = block.squared_differences(function)
        squares /= block.squared_distances
        counted = np.isfinite(block.squared_distances)
        found = np.sqrt(squares, dtype=np.float32, casting="same_kind")
        counts += np.bincount((found.view(np.int32) >> _DROPPED_BITS)[counted], minlength=_N_BINS)
        rows, columns = block.rows[:, 0], block.columns
        per_sample[rows] = np.maximum(per_sample[rows], squares.max(axis=1))
        if len(columns) == 1:
            per_sample[columns[0]] = np.maximum(per_sample[columns[0]], squares.max(axis=0))
        place = np.unravel_index(squares.argmax(), squares.shape)
        if squares[place] > largest:
            largest = float(squares[place])
            column = columns[0 if len(columns) == 1 else place[0], place[1]]
            pair = (int(rows[place[0]]), int(column))
    duplicates, conflicting = count_duplicates(points, labels)
    return Slopes(
        largest=float(np.sqrt(largest)),
        pair=pair,
        per_sample=np.sqrt(per_sample),
        n_pairs=int(counts.sum()),
        n_duplicate_pairs=duplicates,
        n_conflicting_pairs=conflicting,
        _counts=counts,
    )


def as_points(array: ArrayLike, name: str) -> Floats:
    """Return a float64 matrix with one row a sample, checked to be finite.

    Parameters
    ----------
    array : array-like of shape (n, ...)
    name : str
        Of the argument, for the message.

    Returns
    -------
    ndarray of shape (n, d)
    """
    if isinstance(array, Tensor):
        array = array.detach().to("cpu", torch.float64)
    try:
        points = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of numbers, a row a sample: {error}") from None
    if points.ndim == 0 or len(points) == 0:
        raise ValueError(f"{name} must hold at least one row, got shape {points.shape}")
    points = points.reshape(len(points), -1)
    if not np.isfinite(points).all():
        raise ValueError(f"{name} contains NaN or infinity; remove these rows first")
    return points


def as_labels(labels: ArrayLike) -> NDArray[Any]:
    """Return targets as an array, also tensors of another device."""
    return np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)


def check_neighbours(n_neighbours: int | None, n_rows: int) -> None:
    """Refuse a number of neighbours that the rows cannot give."""
    if n_neighbours is None:
        return
    check_count("n_neighbours", n_neighbours)
    if n_neighbours >= n_rows:
        raise ValueError(
            f"n_neighbours must be between 1 and n - 1 = {n_rows - 1}, got {n_neighbours!r}"
        )
