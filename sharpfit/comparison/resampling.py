"""Rank correlations of many resamples of the runs at once."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.utils import check_random_state

Kind = Literal["kendall", "spearman"]
Floats = NDArray[np.float64]

# Beyond this a matrix of all pairs of runs costs more than sorting each resample.
_LARGEST_PAIR_TABLE = 1000
_ENTRIES_AT_ONCE = 1 << 22


def resample_counts(n_runs: int, n_bootstrap: int, random_state: int | None) -> NDArray[np.int64]:
    """Draw resamples of the runs with replacement.

    Parameters
    ----------
    n_runs : int
        Number of runs.
    n_bootstrap : int
        Number of resamples.
    random_state : int or None
        Seed.

    Returns
    -------
    ndarray of shape (n_bootstrap, n_runs), int64
        How often each run is in each resample.
    """
    if n_bootstrap < 1:
        raise ValueError(f"n_bootstrap must be at least 1, got {n_bootstrap}")
    generator = check_random_state(random_state)
    return np.stack(
        [
            np.bincount(generator.randint(n_runs, size=n_runs), minlength=n_runs)
            for _ in range(n_bootstrap)
        ]
    )


def resampled_correlations(x: Floats, y: Floats, counts: NDArray[np.int64], kind: Kind) -> Floats:
    """Rank correlation of two columns in every resample.

    Parameters
    ----------
    x, y : ndarray of shape (n,)
        Columns.
    counts : ndarray of shape (b, n)
        How often each run is in each resample.
    kind : {"kendall", "spearman"}
        Kendall's tau-b or Spearman's rho, both with ties.

    Returns
    -------
    ndarray of shape (b,)
        NaN where a column is constant in the resample.
    """
    if kind == "spearman":
        step = max(1, _ENTRIES_AT_ONCE // len(x))
        parts = [counts[start : start + step] for start in range(0, len(counts), step)]
        return np.concatenate([_spearman(x, y, part) for part in parts])
    if len(x) <= _LARGEST_PAIR_TABLE:
        return _kendall_of_pairs(x, y, counts)
    return np.array([_kendall_of_rows(x, y, np.repeat(np.arange(len(x)), c)) for c in counts])


def percentile_interval(values: Floats, confidence: float) -> tuple[float, float]:
    """Percentile interval of a statistic over resamples.

    Parameters
    ----------
    values : ndarray of shape (b,)
        Its values; those that are NaN do not count.
    confidence : float
        Level of the interval.

    Returns
    -------
    low, high : float
        NaN when no resample has a value.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence}")
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)


def _kendall_of_pairs(x: Floats, y: Floats, counts: NDArray[np.int64]) -> Floats:
    signs_x, signs_y = (np.sign(column[:, None] - column) for column in (x, y))
    weights = counts.astype(np.float64)

    def total(table: Floats) -> Floats:
        return np.einsum("bn,bn->b", weights @ table, weights)

    scale = np.sqrt(total(np.abs(signs_x)) * total(np.abs(signs_y)))
    return _ratio(total(signs_x * signs_y), scale)


def _kendall_of_rows(x: Floats, y: Floats, rows: NDArray[np.int64]) -> float:
    if np.ptp(x[rows]) == 0 or np.ptp(y[rows]) == 0:
        return float("nan")
    return float(stats.kendalltau(x[rows], y[rows]).statistic)


def _spearman(x: Floats, y: Floats, counts: NDArray[np.int64]) -> Floats:
    weights = counts.astype(np.float64)
    n_runs = weights.sum(axis=1, keepdims=True)
    a, b = (_midranks(column, weights) - (n_runs + 1) / 2 for column in (x, y))
    covariance, variance_a, variance_b = (
        np.einsum("bn,bn,bn->b", weights, u, v) for u, v in ((a, b), (a, a), (b, b))
    )
    return _ratio(covariance, np.sqrt(variance_a * variance_b))


def _midranks(column: Floats, weights: Floats) -> Floats:
    """Mean rank of every run among all copies in a resample."""
    order = np.argsort(column, kind="stable")
    starts = np.flatnonzero(np.diff(column[order], prepend=-np.inf))
    group_sizes = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks = np.cumsum(group_sizes, axis=1) - (group_sizes - 1) / 2
    groups = np.empty(len(column), dtype=np.intp)
    groups[order] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(column)))
    return ranks[:, groups]


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    undefined = np.full(len(numerator), np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)
