"""An estimate that ranks regressors by their training rows: squared error plus its optimism.

It is an *estimate* made for ranking; no statement about fresh rows is proved.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.spatial.distance import pdist, squareform

__all__ = ["Kriging", "fit_kriging", "penalised_squared_error"]

# Share of the values' variance that no other row tells; the best of these is used.
_NUGGETS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
# The kernel is to see the trend over the whole sample, not the surroundings of a row.
_BANDWIDTH_IN_MEDIAN_DISTANCES = 2.0
# The decomposition below needs the cube of this number of operations.
_LARGEST_NUMBER_OF_ROWS = 2000


@dataclass(frozen=True, eq=False)
class Kriging:
    """Prediction of the value at each row from the values at the other rows.

    Attributes
    ----------
    rows : ndarray of shape (m,), int64
        The rows it works on: all, or evenly spaced ones where there are very many.
    eigenvalues : ndarray of shape (m,), float64
        Of the Gaussian kernel matrix of these rows, not negative.
    eigenvectors : ndarray of shape (m, m), float64
        In columns.
    """

    rows: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray

    def leave_one_out(self, values: np.ndarray) -> np.ndarray:
        """Predict the values at each row from those at all others.

        Kriging around the mean; among a few nuggets, the one whose predictions come closest to the
        values.

        Parameters
        ----------
        values : ndarray of shape (m, k)
            At the rows `rows`.

        Returns
        -------
        ndarray of shape (m, k)
        """
        coordinates = self.eigenvectors.T @ (values - values.mean(axis=0))
        squares = np.square(self.eigenvectors)
        candidates = []
        for nugget in _NUGGETS:
            inverse = 1 / (self.eigenvalues + nugget)
            weights = self.eigenvectors @ (inverse[:, None] * coordinates)
            # Without row i its prediction is off by weight_i / (K + nugget)^{-1}_ii.
            candidates.append(weights / (squares @ inverse)[:, None])
        return values - min(candidates, key=lambda surprises: np.square(surprises).mean())


def fit_kriging(rows: np.ndarray) -> Kriging:
    """Prepare kriging with a Gaussian kernel as wide as the sample.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        At least two rows. Beyond 2000, evenly spaced ones are used.

    Returns
    -------
    Kriging

    Raises
    ------
    ValueError
        If there are fewer than two rows.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.linspace(0, 1, 9)[:, None]
    >>> spike = np.zeros((9, 1))
    >>> spike[4] = 1
    >>> float(abs(fit_kriging(rows).leave_one_out(spike)[4, 0])) < 0.2
    True
    """
    n = len(rows)
    if n < 2:
        raise ValueError(f"rows has {n} row(s), but kriging needs at least 2; pass more rows")
    used = np.unique(np.linspace(0, n - 1, min(n, _LARGEST_NUMBER_OF_ROWS)).astype(np.int64))
    distances = pdist(rows[used])
    bandwidth = _BANDWIDTH_IN_MEDIAN_DISTANCES * (np.median(distances) or 1.0)
    kernel = squareform(np.exp(-0.5 * np.square(distances / bandwidth)))
    np.fill_diagonal(kernel, 1.0)
    eigenvalues, eigenvectors = eigh(kernel, overwrite_a=True)
    return Kriging(used, np.maximum(eigenvalues, 0), eigenvectors)


def penalised_squared_error(
    predictions: np.ndarray, targets: np.ndarray, kriging: Kriging
) -> float:
    """Estimate the mean squared error on fresh targets: training error plus a covariance penalty.

    For any fit, the squared error on fresh targets at the same rows exceeds the training error on
    average by ``(2/n) sum_i cov(f(x_i), y_i)`` (Efron, The Estimation of Prediction Error, 2004),
    the covariance over redrawn targets given the other rows. It is estimated here from one fit.
    What the other rows tell about ``f(x_i)`` does not depend on ``y_i``; the rest of ``f(x_i)`` is
    taken to come from ``y_i``: ``f(x_i) - L_i``, with ``L_i`` the prediction of the network's
    output at ``x_i`` from its outputs at all *other* rows, by kriging. The value is
    ``mean |f(x_i) - y_i|^2 + 2 mean <f(x_i) - L_i, y_i - mean y>``.

    A network that memorises noise has no training error and pays twice the share of the targets
    that the other rows do not tell; a smooth one pays in training error.

    Parameters
    ----------
    predictions, targets : ndarray of shape (n, k)
        Finite.
    kriging : Kriging
        Of the rows.

    Returns
    -------
    float
        In squared units of the targets; smaller is better. An estimate for ranking: structure that
        kriging cannot see, such as a jump, is charged as memorisation.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.uniform(-1, 1, (100, 1))
    >>> targets = rows + rng.normal(size=rows.shape)
    >>> kriging = fit_kriging(rows)
    >>> smooth = penalised_squared_error(rows, targets, kriging)
    >>> memorised = penalised_squared_error(targets, targets, kriging)
    >>> smooth < memorised
    True
    """
    predictions, targets = predictions[kriging.rows], targets[kriging.rows]
    residuals = predictions - targets
    own = predictions - kriging.leave_one_out(predictions)
    penalty = own * (targets - targets.mean(axis=0))
    return float((np.square(residuals) + 2 * penalty).sum(axis=1).mean())
