"""How far Ritz values may be from the eigenvalues they stand for."""

import numpy as np

_LEAST_UNWANTED = 4  # Ritz values beyond the wanted ones before a gap to them is believed


def truncation_bounds(keys: np.ndarray, couplings: np.ndarray, wanted: int) -> np.ndarray:
    """Bound the errors of the first Ritz values, were the products exact.

    Li and Li (2005): with the `j` most wanted Ritz vectors on one side and everything else on the
    other, coupled by a block of norm `b`, eigenvalue `i` of the first block is off by at most
    ``2 b^2 / (g + sqrt(g^2 + 4 b^2))``, `g` its gap to the spectrum of the second block. That
    spectrum is taken to end at the largest remaining Ritz value plus its residual, once a few
    remain.

    Parameters
    ----------
    keys : ndarray of shape (m,)
        How much each Ritz value is wanted, descending.
    couplings : ndarray of shape (m,)
        Residual norms of the Ritz pairs.
    wanted : int
        Number of values to bound.

    Returns
    -------
    ndarray of shape (wanted,)
    """
    unseen = -np.inf if len(keys) >= wanted + _LEAST_UNWANTED else np.inf
    rest = np.append(keys + couplings, unseen)
    end = np.maximum.accumulate(rest[::-1])[::-1][1 : wanted + 1]
    joint = np.cumsum(couplings[:wanted] ** 2)
    gap = np.triu(keys[:wanted, None] - end)
    with np.errstate(invalid="ignore", divide="ignore"):
        quadratic = 2 * joint / (gap + np.sqrt(gap**2 + 4 * joint))
    quadratic = np.where(gap > 0, quadratic, np.inf).min(axis=1)
    return np.minimum(couplings[:wanted], quadratic)
