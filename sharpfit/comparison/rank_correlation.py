"""Rank correlation of a measure with the generalisation gap, with a bootstrap interval."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from sharpfit.comparison.columns import finite_columns
from sharpfit.comparison.resampling import (
    Kind,
    percentile_interval,
    resample_counts,
    resampled_correlations,
)


@dataclass(frozen=True)
class RankCorrelation:
    """A rank correlation with its interval.

    Attributes
    ----------
    value : float
        Correlation over the runs; NaN when a column is constant.
    low, high : float
        Ends of the percentile bootstrap interval over runs; an estimate.
    confidence : float
        Nominal level of the interval.
    p_value : float
        Two-sided p-value of no association; NaN where none is defined.
    n_runs : int
        Number of runs.
    """

    value: float
    low: float
    high: float
    confidence: float
    p_value: float
    n_runs: int


def rank_correlation(
    measure: ArrayLike,
    gap: ArrayLike,
    *,
    kind: Kind = "kendall",
    n_bootstrap: int = 500,
    confidence: float = 0.95,
    random_state: int | None = None,
) -> RankCorrelation:
    """Rank correlation of a measure with the gap over runs.

    The interval resamples runs and is an estimate: runs that share a hyper-parameter are
    not independent, so it says how stable the number is over these runs, not over all
    designs one could have tried.

    Parameters
    ----------
    measure, gap : array-like of shape (n_runs,)
        One value a run.
    kind : {"kendall", "spearman"}, default="kendall"
        Kendall's tau-b or Spearman's rho.
    n_bootstrap : int, default=500
        Number of resamples.
    confidence : float, default=0.95
        Level of the interval.
    random_state : int or None, default=None
        Seed of the resamples.

    Returns
    -------
    RankCorrelation

    Raises
    ------
    ValueError
        If a column is not finite, or an argument is out of range.

    Examples
    --------
    >>> from sharpfit.comparison import rank_correlation
    >>> rank_correlation([1, 2, 3, 4], [10, 20, 40, 30], random_state=0).value
    0.666...
    """
    if kind not in ("kendall", "spearman"):
        raise ValueError(f"kind must be 'kendall' or 'spearman', got {kind!r}")
    measure_values, gap_values = finite_columns(measure=measure, gap=gap)
    value, p_value = _correlate(measure_values, gap_values, kind)
    counts = resample_counts(len(gap_values), n_bootstrap, random_state)
    resampled = resampled_correlations(measure_values, gap_values, counts, kind)
    low, high = percentile_interval(resampled, confidence)
    return RankCorrelation(value, low, high, confidence, p_value, len(gap_values))


def _correlate(x: NDArray[np.float64], y: NDArray[np.float64], kind: Kind) -> tuple[float, float]:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan"), float("nan")
    result = (stats.kendalltau if kind == "kendall" else stats.spearmanr)(x, y)
    return float(result.statistic), float(result.pvalue)


def undefined_correlation(confidence: float, n_runs: int) -> RankCorrelation:
    """Return what stands for a correlation of too few runs.

    Parameters
    ----------
    confidence : float
    n_runs : int

    Returns
    -------
    RankCorrelation
    """
    nan = float("nan")
    return RankCorrelation(nan, nan, nan, confidence, nan, n_runs)


def adjusted_p_values(p_values: list[float]) -> list[float]:
    """Adjust p-values to control the false discovery rate, whatever their dependence.

    Parameters
    ----------
    p_values : list of float
        Those that are NaN are no tests.

    Returns
    -------
    list of float
        After Benjamini and Yekutieli 2001.
    """
    array = np.array(p_values, dtype=float)
    adjusted = np.full(len(array), np.nan)
    defined = np.isfinite(array)
    if defined.any():
        adjusted[defined] = stats.false_discovery_control(array[defined], method="by")
    return adjusted.tolist()
