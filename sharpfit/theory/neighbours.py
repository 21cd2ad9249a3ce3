"""Distances to the nearest reference points of the same class, and what they cover."""

import numpy as np
from sklearn.neighbors import NearestNeighbors

__all__ = ["class_distance", "exception_counts", "same_class_neighbours", "typical_spacing"]

_ROWS_PER_BLOCK = 4096
_SPACING_ROWS = 2048
# Sums of shares 1/k are rounded down to whole counts; this much is added first, so that a sum
# that is an integer in exact arithmetic is never rounded to the integer below.
_ROUNDING = 1e-6


def same_class_neighbours(
    features: np.ndarray,
    labels: np.ndarray,
    reference_features: np.ndarray,
    reference_labels: np.ndarray,
    *,
    n_neighbours: int = 1,
    n_jobs: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest reference points of the same class.

    Parameters
    ----------
    features, reference_features : ndarray of shape (n, d) and (m, d)
        Points; distances are Euclidean and recomputed from the differences, so that a fast but
        inexact search can only return a point that is not quite the nearest.
    labels, reference_labels : ndarray of shape (n,) and (m,)
        Classes.
    n_neighbours : int, default=1
        Number of neighbours.
    n_jobs : int or None, default=None
        Threads of the search, as in scikit-learn.

    Returns
    -------
    distances : ndarray of shape (n, n_neighbours)
        In increasing order; infinite where the class has fewer reference points.
    indices : ndarray of int of shape (n, n_neighbours)
        Rows of the reference; -1 where there is none.

    Examples
    --------
    >>> points, references = np.array([[0.0], [1.0]]), np.array([[0.25], [3.0]])
    >>> distances, _ = same_class_neighbours(points, np.array([0, 1]), references, np.array([0, 1]))
    >>> distances.ravel()
    array([0.25, 2.  ])
    """
    distances = np.full((len(features), n_neighbours), np.inf)
    indices = np.full((len(features), n_neighbours), -1, dtype=np.int64)
    for label in np.intersect1d(labels, reference_labels):
        rows = np.flatnonzero(labels == label)
        candidates = np.flatnonzero(reference_labels == label)
        k = min(n_neighbours, len(candidates))
        search = NearestNeighbors(n_neighbors=k, n_jobs=n_jobs).fit(reference_features[candidates])
        for start in range(0, len(rows), _ROWS_PER_BLOCK):
            block = rows[start : start + _ROWS_PER_BLOCK]
            found = candidates[search.kneighbors(features[block], return_distance=False)]
            exact = _pair_distances(features[block], reference_features, found)
            order = np.argsort(exact, axis=1, kind="stable")
            distances[block, :k] = np.take_along_axis(exact, order, axis=1)
            indices[block, :k] = np.take_along_axis(found, order, axis=1)
    return distances, indices


def _pair_distances(points: np.ndarray, references: np.ndarray, found: np.ndarray) -> np.ndarray:
    columns = [np.linalg.norm(points - references[column], axis=1) for column in found.T]
    return np.stack(columns, axis=1)


def typical_spacing(features: np.ndarray, labels: np.ndarray) -> float:
    """Median distance from a point to the nearest other point of its class.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        Points.
    labels : ndarray of shape (n,)
        Classes.

    Returns
    -------
    float
        Median over at most 2048 evenly spaced rows and over positive distances; 1.0 if there is
        none.

    Examples
    --------
    >>> typical_spacing(np.array([[0.0], [1.0], [3.0]]), np.zeros(3))
    1.0
    """
    rows = np.unique(np.linspace(0, len(features) - 1, _SPACING_ROWS).astype(int))
    distances, _ = same_class_neighbours(
        features[rows], labels[rows], features, labels, n_neighbours=2
    )
    positive = distances[:, -1][np.isfinite(distances[:, -1]) & (distances[:, -1] > 0)]
    return float(np.median(positive)) if len(positive) else 1.0


def class_distance(features: np.ndarray, labels: np.ndarray) -> float:
    """Nine-tenths quantile of the distance from a point to the nearest point of another class.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        Points.
    labels : ndarray of shape (n,)
        Classes.

    Returns
    -------
    float
        Over at most 2048 evenly spaced rows; with a single class, 64 times the typical spacing.

    Examples
    --------
    >>> class_distance(np.array([[0.0], [2.0]]), np.array([0, 1]))
    2.0
    """
    rows = np.unique(np.linspace(0, len(features) - 1, _SPACING_ROWS).astype(int))
    nearest = np.full(len(rows), np.inf)
    for label in np.unique(labels[rows]):
        others, inside = features[labels != label], labels[rows] == label
        if len(others):
            search = NearestNeighbors(n_neighbors=1).fit(others)
            nearest[inside] = search.kneighbors(features[rows[inside]])[0][:, 0]
    quantile = float(np.quantile(nearest, 0.9, method="inverted_cdf"))
    usable = np.isfinite(quantile) and quantile > 0
    return quantile if usable else 64.0 * typical_spacing(features, labels)


def exception_counts(distances: np.ndarray, indices: np.ndarray, radius: float) -> np.ndarray:
    """Most test points that ``q`` bad reference points can spoil, for every ``q``.

    A test point is *covered* by the reference points found strictly within ``radius``, and spoilt
    when all of these are bad or there is none. If ``q`` reference points are bad, at most
    ``W(q) = floor(#uncovered + sum of the q largest scores)`` test points are spoilt, where a
    covered point gives each of its ``k`` coverers a score of ``1/k``. (A spoilt point gives the bad
    points its whole unit.) The statement needs of the neighbours only that they are a fixed
    function of the reference set and the point, so the list may be cut at any number of neighbours.

    Parameters
    ----------
    distances, indices : ndarray of shape (n_test, k)
        As returned by :func:`same_class_neighbours`.
    radius : float
        Radius, in units of the distances.

    Returns
    -------
    ndarray of int64
        ``W(0), W(1), ...`` up to the first entry that reaches ``n_test``, where every test point
        may be spoilt.

    Examples
    --------
    >>> distances, indices = np.array([[0.1, 0.2], [0.1, 9.0], [5.0, 9.0]]), np.array([[0, 1]] * 3)
    >>> exception_counts(distances, indices, 1.0)
    array([1, 2, 3])
    """
    inside = distances < radius
    sizes = inside.sum(axis=1)
    uncovered = int(np.count_nonzero(sizes == 0))
    shares = np.repeat(1.0 / np.maximum(sizes, 1), sizes)
    totals = np.bincount(indices[inside], weights=shares, minlength=1)
    scores = np.sort(totals[totals > 0])[::-1]
    spoilt = np.floor(uncovered + np.cumsum(np.concatenate([[0.0], scores])) + _ROUNDING)
    spoilt[-1] = len(distances)  # all coverers are bad, whatever the sum was rounded to
    counts = np.minimum(spoilt, len(distances)).astype(np.int64)
    return counts[: int(np.argmax(counts >= len(distances))) + 1]
