"""Which measure ranks best? All measures on the same resamples, with simultaneous statements."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sharpfit.comparison.columns import finite_columns
from sharpfit.comparison.resampling import (
    Kind,
    percentile_interval,
    resample_counts,
    resampled_correlations,
)

_LISTED = 5


@dataclass(frozen=True, eq=False)
class Ranking:
    """Measures in the order of their rank correlation with the gap.

    Attributes
    ----------
    names : tuple of str
        Measures, the best first.
    values : ndarray of shape (n_measures,)
        Their correlations; NaN, at the end, for columns that are constant.
    low, high : ndarray of shape (n_measures,)
        Ends of the percentile bootstrap interval of each on its own; estimates.
    behind : ndarray of shape (n_measures,)
        How far each is behind another one at least: lower ends of intervals that hold for all
        pairs together. Zero is not told apart from the best.
    share_best : ndarray of shape (n_measures,)
        Share of the resamples in which the measure is the best.
    confidence : float
        Nominal level of the intervals.
    n_runs : int
        Number of runs.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    behind: NDArray[np.float64]
    share_best: NDArray[np.float64]
    confidence: float
    n_runs: int

    @property
    def not_told_apart(self) -> tuple[str, ...]:
        """Measures that may be the best, the one that is in front among them."""
        return tuple(
            name for name, behind in zip(self.names, self.behind, strict=True) if behind <= 0
        )

    @property
    def statement(self) -> str:
        """Which measure is in front, and which others may as well be."""
        defined = int(np.isfinite(self.values).sum())
        if not defined:
            return f"no measure has a rank correlation over these {self.n_runs} runs"
        first = (
            f"{self.names[0]} ranks best of {defined} measures over {self.n_runs} runs, "
            f"{self.values[0]:.2f} [{self.low[0]:.2f}, {self.high[0]:.2f}]"
        )
        others = self.not_told_apart[1:]
        level = f"simultaneous confidence {self.confidence:g}"
        if not others:
            return f"{first}; all others are behind it at {level}"
        listed = ", ".join(others[:_LISTED])
        if len(others) > _LISTED:
            listed += f" and {len(others) - _LISTED} others"
        return f"{first}; not told apart from it at {level}: {listed}"


def rank_measures(
    measures: Mapping[str, ArrayLike],
    gap: ArrayLike,
    *,
    kind: Kind = "kendall",
    n_bootstrap: int = 500,
    confidence: float = 0.95,
    random_state: int | None = None,
) -> Ranking:
    r"""Rank measures by their correlation with the gap.

    All measures are resampled together, so differences between them have intervals that are
    narrower than those of the correlations. With :math:`d_{jk}` how far measure `j` is ahead
    of `k` and :math:`s_{jk}` its standard deviation over resamples, `behind` is
    :math:`\max_j d_{jk} - c\,s_{jk}`, :math:`c` the quantile of the largest
    :math:`(d_{jk}^* - d_{jk}) / s_{jk}` over all pairs. The statement that none of the measures
    with ``behind > 0`` is the best then holds for all of them together, although it is the
    runs that say which is in front (after Hsu 1981); as far as resampling runs goes, that is:
    runs that share a hyper-parameter are not independent.

    Parameters
    ----------
    measures : mapping of str to array-like of shape (n_runs,)
        Columns.
    gap : array-like of shape (n_runs,)
        Generalisation gaps.
    kind : {"kendall", "spearman"}, default="kendall"
        The correlation.
    n_bootstrap : int, default=500
        Number of resamples.
    confidence : float, default=0.95
        Level of the intervals.
    random_state : int or None, default=None
        Seed of the resamples.

    Returns
    -------
    Ranking

    Raises
    ------
    ValueError
        If there is no measure, a column is not finite, or an argument is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from sharpfit.comparison import rank_measures
    >>> gap, noise, other = np.random.default_rng(0).normal(size=(3, 60))
    >>> rank_measures({"near": gap + 0.1 * noise, "far": other}, gap, random_state=0).statement
    'near ranks best of 2 measures over 60 runs, ...; all others are behind it at ...'
    """
    if kind not in ("kendall", "spearman"):
        raise ValueError(f"kind must be 'kendall' or 'spearman', got {kind!r}")
    if not measures:
        raise ValueError("measures is empty; pass at least one column")
    gap_values, *columns = finite_columns(gap=gap, **measures)
    counts = resample_counts(len(gap_values), n_bootstrap, random_state)
    once = np.ones((1, len(gap_values)), dtype=np.int64)
    values = np.array([resampled_correlations(x, gap_values, once, kind)[0] for x in columns])
    order = np.argsort(-values, kind="stable")  # NaN last
    resampled = np.stack(
        [resampled_correlations(columns[i], gap_values, counts, kind) for i in order]
    )
    intervals = np.array([percentile_interval(row, confidence) for row in resampled])
    behind, share_best = compare_with_best(values[order], resampled, confidence)
    names = list(measures)
    return Ranking(
        names=tuple(names[i] for i in order),
        values=values[order],
        low=intervals[:, 0],
        high=intervals[:, 1],
        behind=behind,
        share_best=share_best,
        confidence=confidence,
        n_runs=len(gap_values),
    )


def compare_with_best(
    values: NDArray[np.float64], resampled: NDArray[np.float64], confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Say of each of several statistics how far it is behind another at least.

    Parameters
    ----------
    values : ndarray of shape (m,)
        The statistics; NaN where one does not exist.
    resampled : ndarray of shape (m, b)
        All of them in the same resamples.
    confidence : float
        Level at which the statements hold together.

    Returns
    -------
    behind : ndarray of shape (m,)
        As in `Ranking`.
    share_best : ndarray of shape (m,)
        Share of the resamples in which each is the largest.
    """
    behind = np.full(len(values), np.nan)
    share_best = np.full(len(values), np.nan)
    defined = np.isfinite(values)
    draws = resampled[defined]
    draws = draws[:, np.isfinite(draws).all(axis=0)]
    if not draws.size:
        return behind, share_best
    ahead = values[defined][:, None] - values[defined]
    deviations = draws[:, None] - draws - ahead[:, :, None]
    spread = deviations.std(axis=2)
    scaled = np.divide(
        deviations, spread[:, :, None], out=np.zeros_like(deviations), where=spread[:, :, None] > 0
    )
    critical = float(np.quantile(scaled.max(axis=(0, 1)), confidence))
    behind[defined] = (ahead - critical * spread).max(axis=0)
    share_best[defined] = np.bincount(draws.argmax(axis=0), minlength=len(draws)) / draws.shape[1]
    return behind, share_best
