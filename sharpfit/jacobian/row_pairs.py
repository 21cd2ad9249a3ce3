"""The pairs of rows at which functions are measured again and again."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from sharpfit.jacobian.pairs import PairBlock, pair_blocks
from sharpfit.jacobian.sample_slopes import as_points

_KEPT_ROWS = 512  # at most, for which the distances, 1.5 megabytes then, are kept


class RowPairs:
    """All pairs of some rows.

    Parameters
    ----------
    inputs : array-like of shape (n, ...)
        The rows; distances are Euclidean.

    Attributes
    ----------
    points : ndarray of shape (n, d), float64
        The rows.
    """

    def __init__(self, inputs: ArrayLike) -> None:
        self.points = as_points(inputs, "inputs")
        self._kept = list(self._computed()) if len(self.points) <= _KEPT_ROWS else None

    def __len__(self) -> int:
        return len(self.points)

    def blocks(self) -> Iterator[PairBlock]:
        """Return the pairs in blocks, with their distances; these are not to be changed."""
        return self._computed() if self._kept is None else iter(self._kept)

    def largest_slope(self, values: ArrayLike) -> float:
        """Return the largest slope of a function between rows, as `slopes` does.

        Parameters
        ----------
        values : array-like of shape (n,) or (n, k)
            The function at the rows.

        Returns
        -------
        float
            0 if no two rows differ.

        Raises
        ------
        ValueError
            If lengths differ or a value is not finite.
        """
        function = as_points(values, "values")
        if len(function) != len(self):
            raise ValueError(f"values has {len(function)} rows and the pairs are of {len(self)}")
        function = function - function.mean(axis=0)
        largest = 0.0
        for block in self.blocks():
            squares = block.squared_differences(function)
            squares /= block.squared_distances
            largest = max(largest, float(squares.max()))
        return float(np.sqrt(largest))

    def _computed(self) -> Iterator[PairBlock]:
        return pair_blocks(self.points, name="pairs of rows")
