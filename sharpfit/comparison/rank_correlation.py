"""Rank correlation of a measure with the generalisation gap, with a bootstrap interval."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.utils import check_random_state

from sharpfit.comparison.columns import finite_columns

Kind = Literal["kendall", "spearman"]


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
    measure_values, gap_values = finite_columns(measure=measure, gap=gap)
    statistic = _statistic(kind)
    value, p_value = statistic(measure_values, gap_values)
    low, high = bootstrap_interval(
        lambda rows: statistic(measure_values[rows], gap_values[rows])[0],
        len(gap_values),
        n_bootstrap,
        confidence,
        random_state,
    )
    return RankCorrelation(value, low, high, confidence, p_value, len(gap_values))


def bootstrap_interval(
    statistic: Callable[[NDArray[np.intp]], float],
    n_runs: int,
    n_bootstrap: int,
    confidence: float,
    random_state: int | None,
) -> tuple[float, float]:
    """Percentile interval of a statistic under resampling of runs.

    Parameters
    ----------
    statistic : callable
        Takes row numbers and returns a float; resamples where it is NaN do not count.
    n_runs : int
        Number of runs.
    n_bootstrap : int
        Number of resamples.
    confidence : float
        Level of the interval.
    random_state : int or None
        Seed.

    Returns
    -------
    low, high : float
        NaN when no resample has a value.
    """
    if n_bootstrap < 1:
        raise ValueError(f"n_bootstrap must be at least 1, got {n_bootstrap}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence}")
    generator = check_random_state(random_state)
    values = np.array(
        [statistic(generator.randint(n_runs, size=n_runs)) for _ in range(n_bootstrap)]
    )
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _statistic(
    kind: Kind,
) -> Callable[[NDArray[np.float64], NDArray[np.float64]], tuple[float, float]]:
    if kind not in ("kendall", "spearman"):
        raise ValueError(f"kind must be 'kendall' or 'spearman', got {kind!r}")
    function = stats.kendalltau if kind == "kendall" else stats.spearmanr

    def statistic(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            return float("nan"), float("nan")
        result = function(x, y)
        return float(result.statistic), float(result.pvalue)

    return statistic
