"""Kendall's tau within each hyper-parameter, the others held fixed (Jiang et al. 2020)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sharpfit.comparison.columns import encoded_settings, finite_columns
from sharpfit.comparison.pairs import differing_pairs, matched_groups


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
    """

    value: float
    by_hyperparameter: dict[str, float]
    n_groups: dict[str, int]


def granulated_kendall(
    measure: ArrayLike, gap: ArrayLike, hyperparameters: Mapping[str, Sequence[Any]]
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
    by_hyperparameter: dict[str, float] = {}
    n_groups: dict[str, int] = {}
    for name, values in settings.items():
        taus = [
            _tau(measure_values, gap_values, values, rows)
            for rows in matched_groups(settings, name)
        ]
        defined = [tau for tau in taus if tau is not None]
        by_hyperparameter[name] = float(np.mean(defined)) if defined else float("nan")
        n_groups[name] = len(defined)
    means = [value for value in by_hyperparameter.values() if not np.isnan(value)]
    return GranulatedKendall(
        value=float(np.mean(means)) if means else float("nan"),
        by_hyperparameter=by_hyperparameter,
        n_groups=n_groups,
    )


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
