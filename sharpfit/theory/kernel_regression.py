"""A kernel regression of the targets whose out-of-sample answers are known in closed form."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.spatial.distance import cdist, pdist, squareform

__all__ = ["KernelRegression", "fit_kernel_regression"]

# In units of the median distance between rows.
_BANDWIDTHS = (0.3, 1.0, 3.0)
# From interpolation to nearly the mean, half a decade apart.
_PENALTIES = 10.0 ** np.arange(-6, 2.5, 0.5)
_POINTS_PER_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class KernelRegression:
    """A kernel ridge regression with a free constant.

    Attributes
    ----------
    indices : ndarray of shape (m,), int64
        Of the rows it is fitted on.
    rows : ndarray of shape (m, d), float64
        These rows, features scaled.
    feature_scales : ndarray of shape (d,), float64
        Factors of the features.
    bandwidth : float
        Of the kernel, in units of the scaled features.
    penalty : float
    weights : ndarray of shape (m, k), float64
        Of the kernel functions at the rows.
    constant : ndarray of shape (k,), float64
    leave_one_out : ndarray of shape (m, k), float64
        What is said at each row by the regression that is fitted without it.
    leave_one_out_error : float
        Mean squared distance of the targets from it.
    """

    indices: np.ndarray
    rows: np.ndarray
    feature_scales: np.ndarray
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
            distances = cdist(points[chunk] * self.feature_scales, self.rows)
            predictions[chunk] = _kernel(distances / self.bandwidth) @ self.weights
        return predictions + self.constant


def fit_kernel_regression(
    rows: np.ndarray, targets: np.ndarray, *, largest_number: int = 2000
) -> KernelRegression:
    """Fit the kernel ridge regression with the smallest leave-one-out error.

    The kernel is ``1 / (1 + |x - x'|^2 / h^2)``, a mixture of Gaussian kernels of all widths around
    ``h``, with ``h`` at 0.3, 1 and 3 times the median distance between rows. With
    ``A = (K + penalty I)^{-1}`` and ``P = A - A 1 1^T A / (1^T A 1)``, the weights are ``P y`` and
    the leave-one-out residuals are ``(P y)_i / P_ii``, exactly. A second regression, on features
    scaled by the root mean square of the first one's derivatives, replaces it if its leave-one-out
    error is smaller: features that do not matter then do not separate rows (one step of
    Radhakrishnan et al. 2024, "Mechanism for feature learning in neural networks and
    backpropagation-free machine learning models", for single features).

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        At least two rows.
    targets : ndarray of shape (n, k)
        Numbers, or ones and zeros for classes.
    largest_number : int, default=2000
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
    first = _best_regression(rows, targets, np.ones(rows.shape[1]), used)
    relevance = _root_mean_square_derivatives(first)
    if not relevance.max() > 0:
        return first
    second = _best_regression(rows, targets, relevance / relevance.max(), used)
    return min(first, second, key=lambda regression: regression.leave_one_out_error)


def _kernel(distances: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.square(distances))


def _best_regression(
    rows: np.ndarray, targets: np.ndarray, feature_scales: np.ndarray, indices: np.ndarray
) -> KernelRegression:
    scaled = rows * feature_scales
    distances = squareform(pdist(scaled))
    # Any width will do where most rows coincide.
    unit = np.median(distances[np.triu_indices(len(rows), 1)]) or 1.0
    # A constant added to the targets only adds to the free constant.
    mean = targets.mean(axis=0)
    columns = np.column_stack([np.ones(len(targets)), targets - mean])
    best: KernelRegression | None = None
    for factor in _BANDWIDTHS:
        bandwidth = factor * unit
        kernel = _kernel(distances / bandwidth)
        eigenvalues, eigenvectors = eigh(kernel)
        eigenvalues = np.maximum(eigenvalues, 0)
        squares, coordinates = np.square(eigenvectors), eigenvectors.T @ columns
        for penalty in _PENALTIES:
            inverse = 1 / (eigenvalues + penalty)
            images = eigenvectors @ (inverse[:, None] * coordinates)
            of_one, of_targets = images[:, :1], images[:, 1:]
            share = of_targets.sum(axis=0) / of_one.sum()
            weights = of_targets - of_one * share
            diagonal = (squares @ inverse)[:, None] - of_one**2 / of_one.sum()
            residuals = weights / diagonal
            error = float(np.square(residuals).sum(axis=1).mean())
            if best is None or error < best.leave_one_out_error:
                best = KernelRegression(
                    indices,
                    scaled,
                    feature_scales,
                    bandwidth,
                    penalty,
                    weights,
                    mean + share,
                    targets - residuals,
                    error,
                )
    assert best is not None  # for the type checker: there are settings
    return best


def _root_mean_square_derivatives(regression: KernelRegression) -> np.ndarray:
    """Of the regression by each feature, over its rows and targets."""
    rows = regression.rows
    slopes = np.square(_kernel(cdist(rows, rows) / regression.bandwidth))
    squares = np.zeros(rows.shape[1])
    for weights in regression.weights.T:
        weighted = slopes * weights
        derivatives = rows * weighted.sum(axis=1, keepdims=True) - weighted @ rows
        squares += np.square(derivatives).sum(axis=0)
    factor = 2 / regression.bandwidth**2 * regression.feature_scales
    return factor * np.sqrt(squares / len(rows))
