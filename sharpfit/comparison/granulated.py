"""Kendall's tau within each hyper-parameter, the others held fixed (Jiang et al. 2020)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from sharpfit.comparison.columns import encoded_settings, finite_columns
from sharpfit.comparison.pairs import differing_pairs, matched_groups
from sharpfit.comparison.resampling import percentile_interval


@dataclass(frozen=True)
class GranulatedKendall:
    """Kendall's tau by hyper-parameter and its mean.

    Attributes
    ----------
    value : float
        Mean of `by_hyperparameter` over the hyper-parameters that vary in some group.
    by_hyperparameter : dict of str to float
        Mean tau over the groups of runs that differ in this hyper-parameter alone; NaN
        where there is no such group.
    n_groups : dict of str to int
        Number of groups behind each mean.
    intervals : dict of str to (float, float)
        Percentile bootstrap interval of each mean over its groups; NaN with fewer than two
        groups. Estimates: they say how stable the mean is over groups like these.
    interval : (float, float)
        The same for `value`, with the groups of each hyper-parameter resampled by themselves.
    confidence : float
        Nominal level of the intervals, each on its own.
    """

    value: float
    by_hyperparameter: dict[str, float]
    n_groups: dict[str, int]
    intervals: dict[str, tuple[float, float]]
    interval: tuple[float, float]
    confidence: float


def granulated_kendall(
    measure: ArrayLike,
    gap: ArrayLike,
    hyperparameters: Mapping[str, Sequence[Any]],
    *,
    n_bootstrap: int = 500,
    confidence: float = 0.95,
    random_state: int | None = None,
) -> GranulatedKendall:
    r"""Granulated Kendall coefficient of a measure with the gap.

    For hyper-parameter `i`, tau is computed within each group of runs that agree in all
    other hyper-parameters and is averaged over groups, :math:`\psi_i`; the coefficient is
    the mean of :math:`\psi_i` over `i`. A measure that only tracks one hyper-parameter
    scores high there and near zero elsewhere.

    Within a group tau is the mean of ``sign(difference of measure) * sign(difference of
    gap)`` over pairs of runs with different settings; ties count as zero.

    Source: Jiang, Neyshabur, Mobahi, Krishnan, Bengio, *Fantastic generalization measures
    and where to find them*, ICLR 2020.

    Parameters
    ----------
    measure, gap : array-like of shape (n_runs,)
        One value a run.
    hyperparameters : mapping of str to sequence of length n_runs
        Setting of every run.
    n_bootstrap : int, default=500
        Number of resamples of the groups.
    confidence : float, default=0.95
        Level of the intervals.
    random_state : int or None, default=None
        Seed of the resamples.

    Returns
    -------
    GranulatedKendall

    Raises
    ------
    ValueError
        If the columns do not fit together.

    Examples
    --------
    >>> from sharpfit.comparison import granulated_kendall
    >>> result = granulated_kendall(
    ...     [1, 2, 3, 4], [1, 2, 1, 2], {"lr": [1, 2, 1, 2], "width": [8, 8, 16, 16]}
    ... )
    >>> result.by_hyperparameter
    {'lr': 1.0, 'width': 0.0}
    """
    measure_values, gap_values = finite_columns(measure=measure, gap=gap)
    settings = encoded_settings(hyperparameters, len(gap_values))
    generator = check_random_state(random_state)
    by_hyperparameter: dict[str, float] = {}
    n_groups: dict[str, int] = {}
    resampled: dict[str, NDArray[np.float64]] = {}
    for name, values in settings.items():
        found = [
            _tau(measure_values, gap_values, values, rows)
            for rows in matched_groups(settings, name)
        ]
        taus = np.array([tau for tau in found if tau is not None])
        n_groups[name] = len(taus)
        by_hyperparameter[name] = float(taus.mean()) if len(taus) else float("nan")
        resampled[name] = _resampled_means(taus, n_bootstrap, generator)
    defined = [name for name, count in n_groups.items() if count]
    value = float(np.mean([by_hyperparameter[name] for name in defined])) if defined else np.nan
    together = np.mean([resampled[name] for name in defined], axis=0) if defined else np.empty(0)
    return GranulatedKendall(
        value=value,
        by_hyperparameter=by_hyperparameter,
        n_groups=n_groups,
        intervals={name: percentile_interval(resampled[name], confidence) for name in settings},
        interval=percentile_interval(together, confidence),
        confidence=confidence,
    )


def _resampled_means(
    taus: NDArray[np.float64], n_bootstrap: int, generator: np.random.RandomState
) -> NDArray[np.float64]:
    """Mean over resampled groups; a single group does not say how much groups differ."""
    if len(taus) < 2:
        return np.full(n_bootstrap, np.nan)
    counts = generator.multinomial(len(taus), np.full(len(taus), 1 / len(taus)), size=n_bootstrap)
    return counts @ taus / len(taus)


def _tau(
    measure: NDArray[np.float64],
    gap: NDArray[np.float64],
    values: NDArray[np.intp],
    rows: NDArray[np.intp],
) -> float | None:
    total, n_pairs = 0.0, 0
    for first, second in differing_pairs(values, rows):
        agreement = np.sign(measure[first] - measure[second]) * np.sign(gap[first] - gap[second])
        total += agreement.sum()
        n_pairs += len(first)
    return total / n_pairs if n_pairs else None
