"""Pairs of rows and their distances, in blocks of bounded memory."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.neighbors import NearestNeighbors

from sharpfit.jacobian.progress import followed

Floats = NDArray[np.float64]

# Blocks of this side stay in cache; a block's few matrices take about 3 MB.
_SIDE = 256
# Below this share of the squared lengths, |x|^2 + |y|^2 - 2<x, y> has lost digits that count.
_CANCELLATION = 1e-6


@dataclass(frozen=True)
class PairBlock:
    """A block of pairs of rows.

    Attributes
    ----------
    rows : ndarray of shape (r, 1), int
    columns : ndarray of shape (1, c) or (r, c), int
        Pair ``(i, j)`` joins ``rows[i, 0]`` with ``columns[0, j]`` or ``columns[i, j]``.
    squared_distances : ndarray of shape (r, c)
        Infinite where a pair does not count: a row with itself, a pair seen before, or two
        equal rows.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    squared_distances: Floats

    def squared_differences(self, values: Floats) -> Floats:
        """Return squared Euclidean distances between rows of other values.

        Parameters
        ----------
        values : ndarray of shape (n, k)

        Returns
        -------
        ndarray of shape (r, c)
        """
        if len(self.columns) == 1 and values.shape[1] > 1:
            return _squared_distances(values[self.rows[:, 0]], values[self.columns[0]])
        if values.shape[1] == 1:
            return np.square(values[self.rows, 0] - values[self.columns, 0])
        return np.square(values[self.rows] - values[self.columns]).sum(axis=2)


def pair_blocks(
    points: Floats, n_neighbours: int | None = None, *, name: str, verbose: int = 0
) -> Iterator[PairBlock]:
    """All pairs of rows, or those of each row with its nearest neighbours.

    Parameters
    ----------
    points : ndarray of shape (n, d)
    n_neighbours : int, optional
        Neighbours of each row; all pairs by default.
    name : str
        Of what is done with them.
    verbose : int, default=0
        Print one line per this many blocks of rows.

    Yields
    ------
    PairBlock
    """
    n_rows = len(points)
    side = _SIDE
    if n_neighbours is not None:
        side = max(1, _SIDE**2 // (n_neighbours * points.shape[1]))
    strips = [slice(start, min(start + side, n_rows)) for start in range(0, n_rows, side)]
    walk = followed(strips, n_rows, name=name, verbose=verbose)
    if n_neighbours is None:
        yield from _all_pairs(points, walk)
    else:
        yield from _neighbour_pairs(points, n_neighbours, walk)


def _all_pairs(points: Floats, strips: Iterator[slice]) -> Iterator[PairBlock]:
    centred = points - points.mean(axis=0)
    numbers = np.arange(len(points))
    for strip in strips:
        rows = numbers[strip]
        for other in range(strip.start, len(points), _SIDE):
            columns = numbers[other : other + _SIDE]
            squares = _squared_distances(centred[rows], centred[columns])
            if other == strip.start:
                squares[np.tril_indices(len(rows))] = np.inf
            squares[squares == 0] = np.inf
            yield PairBlock(rows[:, None], columns[None, :], squares)


def _neighbour_pairs(
    points: Floats, n_neighbours: int, strips: Iterator[slice]
) -> Iterator[PairBlock]:
    search = NearestNeighbors(n_neighbors=n_neighbours).fit(points)
    neighbours = search.kneighbors(return_distance=False)
    for strip in strips:
        rows = np.arange(strip.start, strip.stop)[:, None]
        columns = neighbours[rows[:, 0]]
        # Recomputed from differences: a fast search returns distances with cancelled digits.
        squares = np.square(points[rows] - points[columns]).sum(axis=2)
        squares[squares == 0] = np.inf
        yield PairBlock(rows, columns, squares)


def _squared_distances(first: Floats, second: Floats) -> Floats:
    lengths = np.einsum("ij,ij->i", first, first)[:, None]
    others = np.einsum("ij,ij->i", second, second)
    squares = first @ second.T
    squares *= -2
    squares += lengths
    squares += others
    close = np.nonzero(squares < _CANCELLATION * (lengths + others))
    squares[close] = np.square(first[close[0]] - second[close[1]]).sum(axis=1)
    return squares


def count_duplicates(points: Floats, targets: ArrayLike | None) -> tuple[int, int]:
    """Count pairs of equal rows, and those among them with different targets.

    Parameters
    ----------
    points : ndarray of shape (n, d)
    targets : array-like of shape (n, ...) or None

    Returns
    -------
    duplicates : int
    conflicting : int
        0 without targets.
    """
    groups = _groups(points)
    duplicates = _pairs_within(groups)
    if targets is None or duplicates == 0:
        return duplicates, 0
    labels = np.asarray(targets).reshape(len(points), -1)
    _, codes = np.unique(labels, axis=0, return_inverse=True)
    both = np.stack([groups, codes.reshape(-1)], axis=1).astype(np.float64)
    return duplicates, duplicates - _pairs_within(_groups(both))


def _groups(points: Floats) -> NDArray[np.int64]:
    rows = np.ascontiguousarray(points + 0.0)  # makes -0.0 and 0.0 the same bytes
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))[:, 0]
    return np.unique(keys, return_inverse=True)[1].reshape(-1)


def _pairs_within(groups: NDArray[np.int64]) -> int:
    sizes = np.bincount(groups)
    return int((sizes * (sizes - 1) // 2).sum())
