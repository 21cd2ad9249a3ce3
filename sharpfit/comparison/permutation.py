"""Permutations of the gaps, and p-values that hold for all measures together."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

Tail = Literal["two-sided", "greater", "less"]
Floats = NDArray[np.float64]


def permuted_rows(
    groups: Sequence[NDArray[np.intp]], n_runs: int, n_permutations: int, random_state: int | None
) -> NDArray[np.intp]:
    """Draw permutations of the runs that keep every run in its group.

    Parameters
    ----------
    groups : sequence of ndarray of int
        Row numbers of the groups.
    n_runs : int
        Number of runs.
    n_permutations : int
        Number of permutations.
    random_state : int or None
        Seed.

    Returns
    -------
    ndarray of shape (1 + n_permutations, n_runs), int
        The first row leaves everything where it is.

    Raises
    ------
    ValueError
        If there is no permutation.
    """
    if n_permutations < 1:
        raise ValueError(f"n_permutations must be at least 1, got {n_permutations}")
    generator = check_random_state(random_state)
    permuted = np.tile(np.arange(n_runs), (1 + n_permutations, 1))
    for rows in groups:
        order = generator.random_sample((n_permutations, len(rows))).argsort(axis=1)
        permuted[1:, rows] = rows[order]
    return permuted


def simultaneous_p_values(statistics: Floats, tail: Tail) -> tuple[Floats, Floats]:
    r"""P-values of several statistics by permutation, each alone and all together.

    A statistic is taken in units of its standard deviation over the permutations, and its
    adjusted p-value is the share of the permutations in which the most extreme of all statistics
    is as extreme (Westfall and Young 1993). What was observed counts as a permutation, so that
    both are valid for any number of permutations where these leave the distribution as it is.

    Parameters
    ----------
    statistics : ndarray of shape (1 + n_permutations, m)
        The observed values first.
    tail : {"two-sided", "greater", "less"}
        What is extreme.

    Returns
    -------
    p_values, adjusted : ndarray of shape (m,)
        One for a statistic that no permutation changes.
    """
    spread = statistics.std(axis=0)
    # Sums in another order differ in rounding.
    varies = spread > 1e-12 * np.maximum(1.0, np.abs(statistics).max(axis=0))
    p_values, adjusted = np.ones((2, statistics.shape[1]))
    if varies.any():
        scaled = (statistics - statistics.mean(axis=0))[:, varies] / spread[varies]
        extreme = {"two-sided": np.abs(scaled), "greater": scaled, "less": -scaled}[tail]
        observed = extreme[0] - 1e-9
        p_values[varies] = (extreme >= observed).mean(axis=0)
        adjusted[varies] = (extreme.max(axis=1, keepdims=True) >= observed).mean(axis=0)
    return p_values, adjusted
