"""Robust sign error: how often a measure orders two runs wrongly (Dziugaite et al. 2020)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sharpfit.comparison.columns import encoded_settings, finite_columns
from sharpfit.comparison.pairs import differing_pairs, matched_groups


@dataclass(frozen=True)
class SignError:
    """Sign errors of a measure over environments.

    Attributes
    ----------
    value : float
        Largest sign error over environments, in [0, 1]; NaN when no environment counts.
    mean : float
        Mean sign error over environments.
    by_environment : dict of (str, str, str) to float
        Sign error by hyper-parameter and the two values compared.
    n_excluded : int
        Environments left out because their summed weight is below the minimum.
    """

    value: float
    mean: float
    by_environment: dict[tuple[str, str, str], float]
    n_excluded: int


def robust_sign_error(
    measure: ArrayLike,
    gap: ArrayLike,
    hyperparameters: Mapping[str, Sequence[Any]],
    *,
    n_test: int | None = None,
    minimum_weight: float = 1.0,
) -> SignError:
    r"""Largest sign error of a measure over environments.

    An environment holds the pairs of runs that differ in one hyper-parameter only, from
    one given value to another. Its sign error is the weighted share of pairs in which
    measure and gap do not change in the same direction; a tie in either counts one half.
    The robust error is the largest over environments: a measure is only as good as in the
    intervention where it does worst.

    The gaps are themselves estimates from test rows. With `n_test` a pair weighs
    :math:`\max(0, 1 - 2 e^{-2 n (\Delta/2)^2})^2`, where :math:`\Delta` is the difference
    of the gaps, so that pairs whose order is noise do not count.

    Source: Dziugaite et al., *In search of robust measures of generalization*, NeurIPS
    2020.

    Parameters
    ----------
    measure, gap : array-like of shape (n_runs,)
        One value a run.
    hyperparameters : mapping of str to sequence of length n_runs
        Setting of every run.
    n_test : int, optional
        Number of test rows behind each gap; all pairs weigh the same without it.
    minimum_weight : float, default=1.0
        Environments with a smaller summed weight are left out, and counted.

    Returns
    -------
    SignError

    Raises
    ------
    ValueError
        If the columns do not fit together or `n_test` is not positive.

    Examples
    --------
    >>> from sharpfit.comparison import robust_sign_error
    >>> settings = {"lr": [1, 2, 1, 2], "width": [8, 8, 16, 16]}
    >>> robust_sign_error([1, 2, 3, 4], [1, 2, 0, 1], settings).by_environment
    {('lr', '1', '2'): 0.0, ('width', '16', '8'): 1.0}
    """
    measure_values, gap_values = finite_columns(measure=measure, gap=gap)
    if n_test is not None and n_test < 1:
        raise ValueError(f"n_test must be a positive number of test rows, got {n_test}")
    settings = encoded_settings(hyperparameters, len(gap_values))
    weight_sums: dict[tuple[str, str, str], float] = {}
    error_sums: dict[tuple[str, str, str], float] = {}
    for name, values in settings.items():
        n_values = int(values.max()) + 1
        weight_table = np.zeros(n_values**2)
        error_table = np.zeros(n_values**2)
        for rows in matched_groups(settings, name):
            for first, second in differing_pairs(values, rows):
                gap_differences = gap_values[first] - gap_values[second]
                weights = weights_of_pairs(gap_differences, n_test)
                errors = _errors(measure_values[first] - measure_values[second], gap_differences)
                cells = values[first] * n_values + values[second]
                weight_table += np.bincount(cells, weights, n_values**2)
                error_table += np.bincount(cells, weights * errors, n_values**2)
        texts = dict(zip(values.tolist(), map(repr, hyperparameters[name]), strict=True))
        for cell in np.flatnonzero(weight_table):
            environment = (name, texts[cell // n_values], texts[cell % n_values])
            weight_sums[environment] = float(weight_table[cell])
            error_sums[environment] = float(error_table[cell])
    counted = {key: total for key, total in weight_sums.items() if total >= minimum_weight}
    by_environment = {key: error_sums[key] / total for key, total in counted.items()}
    errors_found = list(by_environment.values())
    return SignError(
        value=max(errors_found, default=float("nan")),
        mean=float(np.mean(errors_found)) if errors_found else float("nan"),
        by_environment=by_environment,
        n_excluded=len(weight_sums) - len(counted),
    )


def weights_of_pairs(differences: NDArray[np.float64], n_test: int | None) -> NDArray[np.float64]:
    """Weigh pairs of runs by what the test rows settle of their order.

    Parameters
    ----------
    differences : ndarray
        Differences of the gaps.
    n_test : int or None
        Number of test rows; None for equal weights.

    Returns
    -------
    ndarray of the same shape
    """
    if n_test is None:
        return np.ones_like(differences)
    chance = 2 * np.exp(-2 * n_test * (np.abs(differences) / 2) ** 2)
    return np.maximum(0.0, 1.0 - chance) ** 2


def _errors(
    measure_differences: NDArray[np.float64], gap_differences: NDArray[np.float64]
) -> NDArray[np.float64]:
    return (1 - np.sign(measure_differences) * np.sign(gap_differences)) / 2
