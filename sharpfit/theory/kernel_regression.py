"""A kernel regression of the targets whose out-of-sample answers are known in closed form."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh, svd
from scipy.spatial.distance import cdist

from sharpfit.theory.patch_features import PatchFeatures, fit_patch_features
from sharpfit.theory.ridge_path import RidgePath, rational_kernel

__all__ = ["KernelRegression", "LinearFeatures", "fit_kernel_regression"]

# In units of the median distance between rows.
_BANDWIDTHS = (0.3, 1.0, 3.0)
_N_ROUNDS = 2
# Patterns are counted in the whole of an image, and in its quarters.
_NUMBERS_OF_PARTS = (1, 2)
_POINTS_PER_CHUNK = 1024

_Metric = Callable[[Iterator[np.ndarray], np.ndarray], np.ndarray | None]


@dataclass(frozen=True, eq=False)
class LinearFeatures:
    """Inputs times a matrix, so that distances are taken in another metric.

    Attributes
    ----------
    matrix : ndarray of shape (d, r), float64
        One of shape (d,) is the diagonal of a matrix.
    """

    matrix: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Compute the features.

        Parameters
        ----------
        points : ndarray of shape (p, d)

        Returns
        -------
        ndarray of shape (p, r), float64
        """
        return points * self.matrix if self.matrix.ndim == 1 else points @ self.matrix

    def pull_back(self, gradients: np.ndarray) -> np.ndarray:
        """Turn gradients by the features, (p, r), into those by the inputs, (p, d)."""
        return gradients * self.matrix if self.matrix.ndim == 1 else gradients @ self.matrix.T


@dataclass(frozen=True, eq=False)
class KernelRegression:
    """A kernel ridge regression with a free constant.

    Attributes
    ----------
    indices : ndarray of shape (m,), int64
        Of the rows it is fitted on.
    features : LinearFeatures or PatchFeatures
        Functions of the inputs; the kernel sees distances between their values.
    rows : ndarray of shape (m, r), float64
        Features of the rows.
    bandwidth : float
        Of the kernel, in units of the features.
    penalty : float
    weights : ndarray of shape (m, k), float64
        Of the kernel functions at the rows.
    constant : ndarray of shape (k,), float64
    leave_one_out : ndarray of shape (m, k), float64
        What is said at each row by a regression that is fitted without it.
    leave_one_out_error : float
        Mean squared distance of the targets from it.
    """

    indices: np.ndarray
    features: LinearFeatures | PatchFeatures
    rows: np.ndarray
    bandwidth: float
    penalty: float
    weights: np.ndarray
    constant: np.ndarray
    leave_one_out: np.ndarray
    leave_one_out_error: float

    def predict(self, points: np.ndarray) -> np.ndarray:
        """Evaluate the regression.

        Parameters
        ----------
        points : ndarray of shape (p, d)

        Returns
        -------
        ndarray of shape (p, k), float64
        """
        predictions = np.empty((len(points), self.weights.shape[1]))
        for start in range(0, len(points), _POINTS_PER_CHUNK):
            chunk = slice(start, start + _POINTS_PER_CHUNK)
            distances = cdist(self.features(points[chunk]), self.rows)
            predictions[chunk] = rational_kernel(distances / self.bandwidth) @ self.weights
        return predictions + self.constant


def fit_kernel_regression(
    rows: np.ndarray,
    targets: np.ndarray,
    *,
    shape: tuple[int, ...] | None = None,
    largest_number: int = 1000,
) -> KernelRegression:
    """Fit the kernel ridge regression with the smallest leave-one-out error.

    The kernel is ``1 / (1 + |x - x'|^2 / h^2)``, a mixture of Gaussian kernels of all widths around
    ``h``, with ``h`` at 0.3, 1 and 3 times the median distance between rows; the leave-one-out
    errors are exact (`sharpfit.theory.ridge_path`).

    Distances are those of the inputs, or those in one of two metrics that are learned: features are
    scaled by the root mean square of the regression's derivatives, or inputs are multiplied by the
    square root of the mean outer product of its gradients, and the regression is fitted anew,
    twice. What does not matter then does not separate rows (Radhakrishnan et al. 2024, "Mechanism
    for feature learning in neural networks and backpropagation-free machine learning models"). A
    metric knows the targets it was learned from, so at each half of the rows the leave-one-out
    answers are those in the metric that the other half has learned. In signals and images,
    distances between counts of patterns (`sharpfit.theory.patch_features`) are tried as well.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        At least two rows.
    targets : ndarray of shape (n, k)
        Numbers, or ones and zeros for classes.
    shape : tuple of int, optional
        Of an input that is a signal or an image: channels, then the lengths of the spatial axes; d
        is their product.
    largest_number : int, default=1000
        Of rows that are used, at least 2; where there are more, a sample, always the same. The cost
        grows with its cube.

    Returns
    -------
    KernelRegression
        Its leave-one-out error is that of the best of many settings, so it is slightly optimistic.

    Raises
    ------
    ValueError
        If there are fewer than two rows, or `largest_number` is less than 2.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.linspace(-1, 1, 50)[:, None]
    >>> noise = 0.1 * np.random.default_rng(0).normal(size=rows.shape)
    >>> regression = fit_kernel_regression(rows, np.sin(3 * rows) + noise)
    >>> regression.leave_one_out_error < 0.02
    True
    >>> regression.predict(np.array([[0.5]])).round(1)
    array([[1.]])
    """
    n = len(rows)
    if n < 2:
        raise ValueError(f"rows has {n} row(s), but a regression needs at least 2; pass more rows")
    if largest_number < 2:
        raise ValueError(f"largest_number={largest_number!r} must be at least 2")
    # At random, since rows may come in an order that repeats, such as class by class in turn.
    used = np.sort(np.random.default_rng(0).permutation(n)[:largest_number])
    rows, targets = np.asarray(rows[used], float), np.asarray(targets[used], float)
    # Nothing but this sample depends on the order of the rows: they are shuffled once sorted.
    shuffled = np.lexsort(np.column_stack([rows, targets]).T[::-1])
    shuffled = np.random.default_rng(0).permutation(shuffled)
    candidates = _linear_candidates(rows, targets, shuffled)
    if shape is not None:
        for n_parts in _NUMBERS_OF_PARTS:
            counted = fit_patch_features(rows[shuffled], shape, n_parts=n_parts)
            path = RidgePath(counted(rows), targets, bandwidths=_BANDWIDTHS)
            candidates.append(_Candidate(counted, path, [(path, shuffled)]))
    best = min(candidates, key=lambda candidate: candidate.errors().min())
    errors = best.errors()
    setting = int(errors.argmin())
    solution = best.path.solve(setting)
    left_out = np.empty_like(targets)
    for judge, part in best.judges:
        left_out[part] = (targets - judge.solve(setting).residuals)[part]
    return KernelRegression(
        used,
        best.features,
        best.path.rows,
        solution.bandwidth,
        solution.penalty,
        solution.weights,
        solution.constant,
        left_out,
        float(errors[setting]),
    )


class _Candidate(NamedTuple):
    """Regressions on some features, and those that tell its errors, each at a part of the rows."""

    features: LinearFeatures | PatchFeatures
    path: RidgePath
    judges: list[tuple[RidgePath, np.ndarray]]

    def errors(self) -> np.ndarray:
        """Return the leave-one-out errors of all settings."""
        sums = [judge.squared_residuals[:, part].sum(axis=1) for judge, part in self.judges]
        return np.sum(sums, axis=0) / len(self.path.rows)


def _linear_candidates(
    rows: np.ndarray, targets: np.ndarray, shuffled: np.ndarray
) -> list[_Candidate]:
    """Take inputs as they are, with features scaled and with directions scaled."""
    path = RidgePath(rows, targets, bandwidths=_BANDWIDTHS)
    candidates = [_Candidate(LinearFeatures(np.ones(rows.shape[1])), path, [(path, shuffled)])]
    if len(rows) < 4:  # a half would have a single row
        return candidates
    halves = [shuffled[::2], shuffled[1::2]]
    paths = [RidgePath(rows[half], targets[half], bandwidths=_BANDWIDTHS) for half in halves]
    for metric in (_feature_scales, _directions):
        judges = []
        for half, other, first in zip(halves, halves[::-1], paths, strict=True):
            learned = _learn(metric, rows[half], targets[half], first)
            judges.append((_in_metric(learned, rows, targets), other))
        learned = _learn(metric, rows, targets, path)
        candidates.append(_Candidate(learned, _in_metric(learned, rows, targets), judges))
    return candidates


def _in_metric(learned: LinearFeatures, rows: np.ndarray, targets: np.ndarray) -> RidgePath:
    return RidgePath(learned(rows), targets, bandwidths=_BANDWIDTHS)


def _learn(
    metric: _Metric, rows: np.ndarray, targets: np.ndarray, path: RidgePath
) -> LinearFeatures:
    """Learn a metric from rows, starting with the regressions on them as they are."""
    learned = LinearFeatures(np.ones(rows.shape[1]))
    for _ in range(_N_ROUNDS):
        matrix = metric((learned.pull_back(each) for each in path.gradients()), rows)
        if matrix is None:
            break
        learned = LinearFeatures(matrix)
        path = _in_metric(learned, rows, targets)
    return learned


def _feature_scales(gradients: Iterator[np.ndarray], rows: np.ndarray) -> np.ndarray | None:
    """Root mean square of the derivatives by each feature; nothing where all are zero."""
    scales = np.sqrt(np.sum([np.square(each).sum(axis=0) for each in gradients], axis=0))
    return scales / scales.max() if scales.max() > 0 else None


def _directions(gradients: Iterator[np.ndarray], rows: np.ndarray) -> np.ndarray | None:
    """Square root of the mean outer product of the gradients; nothing where all are zero."""
    n, d = rows.shape
    # Gradients are combinations of differences of the rows.
    basis = svd(rows - rows.mean(axis=0), full_matrices=False)[2].T if d > n else np.eye(d)
    outer = np.zeros((basis.shape[1], basis.shape[1]))
    for gradient in gradients:
        along = gradient @ basis
        outer += along.T @ along
    eigenvalues, eigenvectors = eigh(outer)
    if not eigenvalues[-1] > 0:
        return None
    return basis @ (eigenvectors * np.sqrt(np.maximum(eigenvalues, 0) / eigenvalues[-1]))
