"""Does one measure add anything once another is known? Partial rank correlation."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from sharpfit.comparison.columns import finite_columns
from sharpfit.comparison.rank_correlation import RankCorrelation
from sharpfit.comparison.resampling import (
    Kind,
    percentile_interval,
    resample_counts,
    resampled_correlations,
)


def partial_rank_correlation(
    measure: ArrayLike,
    gap: ArrayLike,
    given: ArrayLike,
    *,
    kind: Kind = "spearman",
    n_bootstrap: int = 500,
    confidence: float = 0.95,
    random_state: int | None = None,
) -> RankCorrelation:
    r"""Rank correlation of a measure with the gap, given another measure.

    .. math:: \frac{\rho_{mg} - \rho_{mc}\,\rho_{gc}}
                   {\sqrt{(1 - \rho_{mc}^2)(1 - \rho_{gc}^2)}}

    of the measure `m`, the gap `g` and the given measure `c`. For jointly normal ranks zero
    means that `m` tells nothing about `g` that `c` does not tell; otherwise it is a summary
    of monotone association, not a test of independence.

    Parameters
    ----------
    measure, gap, given : array-like of shape (n_runs,)
        One value a run.
    kind : {"kendall", "spearman"}, default="spearman"
        Rank correlation in the formula.
    n_bootstrap : int, default=500
        Number of resamples of runs.
    confidence : float, default=0.95
        Level of the percentile interval.
    random_state : int or None, default=None
        Seed of the resamples.

    Returns
    -------
    RankCorrelation
        Its p-value is that of Student's statistic with ``n_runs - 3`` degrees of freedom
        for "spearman", and for "kendall" that of a normal with the standard deviation over the
        resamples; NaN where these are fewer than two.

    Raises
    ------
    ValueError
        If the columns do not fit together or `kind` is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from sharpfit.comparison import partial_rank_correlation
    >>> common, noise = np.random.default_rng(0).normal(size=(2, 300))
    >>> gap, measure = common + 0.1 * noise, common
    >>> bool(abs(partial_rank_correlation(measure, gap, gap**3).value) > 0)
    False
    """
    if kind not in ("kendall", "spearman"):
        raise ValueError(f"kind must be 'kendall' or 'spearman', got {kind!r}")
    columns = np.stack(finite_columns(measure=measure, gap=gap, given=given))
    n_runs = columns.shape[1]
    once = np.ones((1, n_runs), dtype=np.int64)
    value = float(_partial(columns, once, kind)[0])
    resampled = _partial(columns, resample_counts(n_runs, n_bootstrap, random_state), kind)
    low, high = percentile_interval(resampled, confidence)
    p_value = _student(value, n_runs) if kind == "spearman" else _normal(value, resampled)
    return RankCorrelation(value, low, high, confidence, p_value, n_runs)


def _partial(
    columns: NDArray[np.float64], counts: NDArray[np.int64], kind: Kind
) -> NDArray[np.float64]:
    measure, gap, given = columns
    with_gap, with_given, gap_with_given = (
        resampled_correlations(a, b, counts, kind)
        for a, b in ((measure, gap), (measure, given), (gap, given))
    )
    remaining = (1 - with_given**2) * (1 - gap_with_given**2)
    # Nothing is left to explain, up to rounding, when the given measure has the same order.
    nothing_left = np.where(np.isnan(remaining), np.nan, 0.0)
    return np.divide(
        with_gap - with_given * gap_with_given,
        np.sqrt(np.maximum(remaining, 0.0)),
        out=nothing_left,
        where=remaining > 1e-12,
    )


def _student(value: float, n_runs: int) -> float:
    freedom = n_runs - 3
    if not np.isfinite(value) or freedom < 1:
        return float("nan")
    if abs(value) >= 1:
        return 0.0
    statistic = value * np.sqrt(freedom / (1 - value**2))
    return float(2 * stats.t.sf(abs(statistic), freedom))


def _normal(value: float, resampled: NDArray[np.float64]) -> float:
    finite = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or len(finite) < 2:
        return float("nan")
    spread = float(finite.std(ddof=1))
    return float(2 * stats.norm.sf(abs(value) / spread)) if spread > 0 else float(value == 0)
