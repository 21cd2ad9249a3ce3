"""Does one measure add anything once another is known? Partial rank correlation."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from sharpfit.comparison.columns import finite_columns
from sharpfit.comparison.rank_correlation import RankCorrelation, bootstrap_interval

Kind = Literal["kendall", "spearman"]


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
        for "spearman" and NaN for "kendall".

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
    value = _partial(columns, kind)
    low, high = bootstrap_interval(
        lambda rows: _partial(columns[:, rows], kind),
        columns.shape[1],
        n_bootstrap,
        confidence,
        random_state,
    )
    p_value = _p_value(value, columns.shape[1]) if kind == "spearman" else float("nan")
    return RankCorrelation(value, low, high, confidence, p_value, columns.shape[1])


def _partial(columns: NDArray[np.float64], kind: Kind) -> float:
    if (np.ptp(columns, axis=1) == 0).any():
        return float("nan")
    measure, gap, given = columns
    correlate = stats.spearmanr if kind == "spearman" else stats.kendalltau
    with_gap, with_given, gap_with_given = (
        float(correlate(a, b).statistic)
        for a, b in ((measure, gap), (measure, given), (gap, given))
    )
    remaining = (1 - with_given**2) * (1 - gap_with_given**2)
    # Nothing is left to explain, up to rounding, when the given measure has the same order.
    if remaining <= 1e-12:
        return 0.0
    return (with_gap - with_given * gap_with_given) / float(np.sqrt(remaining))


def _p_value(value: float, n_runs: int) -> float:
    freedom = n_runs - 3
    if not np.isfinite(value) or freedom < 1:
        return float("nan")
    if abs(value) >= 1:
        return 0.0
    statistic = value * np.sqrt(freedom / (1 - value**2))
    return float(2 * stats.t.sf(abs(statistic), freedom))
