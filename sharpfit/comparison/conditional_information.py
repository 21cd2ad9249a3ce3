"""Conditional mutual information, the score of a competition on predicting generalisation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sharpfit.comparison.columns import encoded_settings, finite_columns
from sharpfit.comparison.pairs import rows_by_setting

_BLOCK = 2048


@dataclass(frozen=True)
class ConditionalInformation:
    """Normalised conditional mutual information, smallest over pairs of hyper-parameters.

    Attributes
    ----------
    value : float
        Smallest of `by_pair`, in [0, 1]; the competition reports 100 times its mean over
        tasks.
    by_pair : dict of (str, str) to float
        Value given each pair of hyper-parameters.
    n_empty_cells : int
        Cells of the largest conditioning table that hold no pair of runs, which happens in
        designs that are not full grids; they are left out of the means.
    """

    value: float
    by_pair: dict[tuple[str, str], float]
    n_empty_cells: int


def conditional_mutual_information(
    measure: ArrayLike, gap: ArrayLike, hyperparameters: Mapping[str, Sequence[Any]]
) -> ConditionalInformation:
    r"""Information of a measure's order about the gap's order, given hyper-parameters.

    Over ordered pairs of runs `(i, j)`, self pairs included, let ``V_g = [gap_i > gap_j]``
    and ``V_m = [measure_i > measure_j]``; ties count as "not greater". For every two
    hyper-parameters `S`, pairs are split into cells by the values that `S` takes in both
    runs, and

    .. math:: \hat J_S = \frac{\text{mean over cells of } I(V_m; V_g)}
                              {\text{mean over cells of } H(V_g)}.

    The score is the smallest :math:`\hat J_S`: a measure scores only if it tells something
    that no pair of hyper-parameters tells. Cells weigh the same whatever they hold, ties
    and weights following the scoring program of the competition *Predicting generalization
    in deep learning* (Jiang et al. 2020). That program has no value for empty cells; here
    they are left out, and counted in the result.

    Parameters
    ----------
    measure, gap : array-like of shape (n_runs,)
        One value a run.
    hyperparameters : mapping of str to sequence of length n_runs
        Setting of every run; at least two hyper-parameters.

    Returns
    -------
    ConditionalInformation

    Raises
    ------
    ValueError
        If the columns do not fit together, or there is one hyper-parameter only.

    Examples
    --------
    >>> from sharpfit.comparison import conditional_mutual_information
    >>> settings = {"lr": [1, 1, 2, 2] * 2, "width": [8] * 4 + [16] * 4}
    >>> gap = [3, 1, 4, 1.5, 5, 9, 2, 6]
    >>> conditional_mutual_information(gap, gap, settings).value
    1.0
    """
    measure_values, gap_values = finite_columns(measure=measure, gap=gap)
    settings = encoded_settings(hyperparameters, len(gap_values))
    if len(settings) < 2:
        raise ValueError(
            f"hyperparameters has the single column {next(iter(settings))!r}; the score conditions "
            "on pairs of hyper-parameters, pass at least two columns"
        )
    by_pair = {}
    n_empty = 0
    for first, second in combinations(settings, 2):
        possible = (settings[first].max() + 1) * (settings[second].max() + 1)
        groups = rows_by_setting([settings[first], settings[second]], len(gap_values))
        n_empty = max(n_empty, int(possible) ** 2 - len(groups) ** 2)
        by_pair[(first, second)] = _normalised_information(measure_values, gap_values, groups)
    return ConditionalInformation(min(by_pair.values()), by_pair, n_empty)


def _normalised_information(
    measure: NDArray[np.float64], gap: NDArray[np.float64], groups: list[NDArray[np.intp]]
) -> float:
    information = entropy = 0.0
    for rows in groups:
        for columns in groups:
            joint = _joint_frequencies(measure, gap, rows, columns)
            gap_frequencies, measure_frequencies = joint.sum(axis=1), joint.sum(axis=0)
            cell_entropy = _entropy(gap_frequencies)
            entropy += cell_entropy
            information += cell_entropy + _entropy(measure_frequencies) - _entropy(joint.ravel())
    # A gap that is settled by the hyper-parameters leaves nothing to inform about.
    return max(information / entropy, 0.0) if entropy > 0 else 0.0


def _joint_frequencies(
    measure: NDArray[np.float64],
    gap: NDArray[np.float64],
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Frequencies of ([gap_i > gap_j], [measure_i > measure_j]) over the pairs of one cell."""
    both = gap_only = measure_only = 0
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK, None]
        gap_greater = gap[block] > gap[columns]
        measure_greater = measure[block] > measure[columns]
        together = np.count_nonzero(gap_greater & measure_greater)
        both += together
        gap_only += np.count_nonzero(gap_greater) - together
        measure_only += np.count_nonzero(measure_greater) - together
    total = len(rows) * len(columns)
    neither = total - both - gap_only - measure_only
    return np.array([[both, gap_only], [measure_only, neither]]) / total


def _entropy(frequencies: NDArray[np.float64]) -> float:
    positive = frequencies[frequencies > 0]
    return float(-(positive * np.log2(positive)).sum())
