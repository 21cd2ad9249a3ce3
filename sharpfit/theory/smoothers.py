"""An estimate that ranks regressors by their training rows: the error of the smoother they mimic.

It is an *estimate* made for ranking; no statement about fresh rows is proved.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.spatial.distance import pdist, squareform

__all__ = ["KernelSmoothers", "fit_smoothers", "mimicked_error"]

# From interpolation to nearly the mean, half a decade apart.
_PENALTIES = 10.0 ** np.arange(-7, 2.5, 0.5)
# The decomposition below takes the cube of this number of operations.
_LARGEST_NUMBER_OF_ROWS = 2000


@dataclass(frozen=True, eq=False)
class KernelSmoothers:
    """Kernel ridge regressions of the targets, from very stiff to very supple.

    Attributes
    ----------
    rows : ndarray of shape (m,), int64
        The rows they are fitted on: all, or evenly spaced ones where there are very many.
    fits : ndarray of shape (g, m, k), float64
        What each smoother says at these rows.
    leave_one_out_errors : ndarray of shape (g,), float64
        Mean squared distance of each target from what a smoother says that is fitted without it.
    """

    rows: np.ndarray
    fits: np.ndarray
    leave_one_out_errors: np.ndarray


def fit_smoothers(rows: np.ndarray, targets: np.ndarray) -> KernelSmoothers:
    """Fit kernel ridge regressions with a free constant for a range of penalties.

    The kernel is ``1 / (1 + |x - x'|^2 / h^2)`` with the median distance between rows as ``h``: a
    mixture of Gaussian kernels of all widths around it. With ``A = (K + penalty I)^{-1}`` and
    ``P = A - A 1 1^T A / (1^T A 1)``, the residuals are ``penalty P y`` and the leave-one-out
    residuals are ``(P y)_i / P_ii``, exactly.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        At least two rows. Beyond 2000, evenly spaced ones are used.
    targets : ndarray of shape (n, k)

    Returns
    -------
    KernelSmoothers

    Raises
    ------
    ValueError
        If there are fewer than two rows.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.linspace(-1, 1, 50)[:, None]
    >>> noise = np.random.default_rng(0).normal(size=rows.shape)
    >>> errors = fit_smoothers(rows, 3 * rows + noise).leave_one_out_errors
    >>> bool(errors[0] > errors.min() < errors[-1])
    True
    """
    n = len(rows)
    if n < 2:
        raise ValueError(f"rows has {n} row(s), but smoothers need at least 2; pass more rows")
    used = np.unique(np.linspace(0, n - 1, min(n, _LARGEST_NUMBER_OF_ROWS)).astype(np.int64))
    distances = pdist(rows[used])
    bandwidth = np.median(distances) or 1.0  # any width will do where most rows coincide
    kernel = squareform(1 / (1 + np.square(distances / bandwidth)))
    np.fill_diagonal(kernel, 1.0)
    eigenvalues, eigenvectors = eigh(kernel, overwrite_a=True)
    eigenvalues = np.maximum(eigenvalues, 0)
    squares = np.square(eigenvectors)
    y = targets[used]
    # A constant added to the targets only adds to the free constant.
    coordinates = eigenvectors.T @ np.column_stack([np.ones(len(y)), y - y.mean(axis=0)])
    fits, errors = [], []
    for penalty in _PENALTIES:
        inverse = 1 / (eigenvalues + penalty)
        images = eigenvectors @ (inverse[:, None] * coordinates)
        of_one, of_targets = images[:, :1], images[:, 1:]
        weights = of_targets - of_one * (of_targets.sum(axis=0) / of_one.sum())
        diagonal = (squares @ inverse)[:, None] - of_one**2 / of_one.sum()
        fits.append(y - penalty * weights)
        errors.append(np.square(weights / diagonal).sum(axis=1).mean())
    return KernelSmoothers(used, np.stack(fits), np.array(errors))


def mimicked_error(predictions: np.ndarray, smoothers: KernelSmoothers) -> float:
    """Estimate the mean squared error on fresh rows through the smoother a network resembles most.

    A network that memorises its targets and one that fits them well have the same small training
    error; what differs is how much a prediction owes to its own target. For a kernel smoother that
    is known, and so is its leave-one-out error. Of a range of smoothers of the same targets, from
    stiff to supple, the one whose fit is closest to the network's predictions stands in for it; the
    part of the predictions that it does not reproduce is counted as noise. The value is the
    smoother's leave-one-out error plus the mean squared distance of the network from its fit.

    Parameters
    ----------
    predictions : ndarray of shape (n, k)
        Of the rows the smoothers were fitted on; finite.
    smoothers : KernelSmoothers

    Returns
    -------
    float
        In squared units of the targets; smaller is better. An estimate for ranking: structure that
        no smoother of the family sees, such as a jump, is counted as noise.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.linspace(-1, 1, 50)[:, None]
    >>> targets = 3 * rows + np.random.default_rng(0).normal(size=rows.shape)
    >>> smoothers = fit_smoothers(rows, targets)
    >>> mimicked_error(3 * rows, smoothers) < mimicked_error(targets, smoothers)
    True
    """
    distances = np.square(predictions[smoothers.rows] - smoothers.fits).sum(axis=2).mean(axis=1)
    closest = int(np.argmin(distances))
    return float(smoothers.leave_one_out_errors[closest] + distances[closest])
