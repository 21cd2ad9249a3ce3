"""Statistics within hyper-parameters, of many measures and of permuted gaps at once."""

import numpy as np
from numpy.typing import NDArray

from sharpfit.comparison.pairs import differing_pairs
from sharpfit.comparison.sign_error import weights_of_pairs

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]


def permuted_granulated(
    measures: Floats, gap: Floats, values: Rows, groups: list[Rows], permuted: Rows
) -> Floats:
    """Mean tau over groups of runs that differ in one hyper-parameter only.

    Parameters
    ----------
    measures : ndarray of shape (m, n_runs)
    gap : ndarray of shape (n_runs,)
    values : ndarray of shape (n_runs,), int
        Numbered settings of the hyper-parameter.
    groups : list of ndarray of int
        Runs that agree in all others.
    permuted : ndarray of shape (b, n_runs), int
        Runs whose gap each run is given.

    Returns
    -------
    ndarray of shape (b, m)
    """
    total, n_groups = np.zeros((len(permuted), len(measures))), 0
    for rows in groups:
        agreement, n_pairs = np.zeros_like(total), 0
        for first, second in differing_pairs(values, rows):
            gap_signs = np.sign(gap[permuted[:, first]] - gap[permuted[:, second]])
            agreement += gap_signs @ np.sign(measures[:, first] - measures[:, second]).T
            n_pairs += len(first)
        if n_pairs:
            total += agreement / n_pairs
            n_groups += 1
    return total / max(n_groups, 1)


def permuted_sign_error(
    measures: Floats,
    gap: Floats,
    values: Rows,
    groups: list[Rows],
    permuted: Rows,
    n_test: int | None = None,
    minimum_weight: float = 1.0,
) -> Floats:
    """Largest sign error over the environments of one hyper-parameter.

    Parameters
    ----------
    measures, gap, values, groups, permuted : ndarray
        As for `permuted_granulated`.
    n_test, minimum_weight : int or None, float
        As for `robust_sign_error`.

    Returns
    -------
    ndarray of shape (b, m)
        A half, which is chance, where no environment counts.
    """
    n_values = int(values.max()) + 1
    shape = (len(permuted), len(measures))
    agreement = np.zeros((n_values**2, *shape))
    weight = np.zeros((n_values**2, len(permuted)))
    for rows in groups:
        for first, second in differing_pairs(values, rows):
            differences = gap[permuted[:, first]] - gap[permuted[:, second]]
            weights = weights_of_pairs(differences, n_test)
            measure_signs = np.sign(measures[:, first] - measures[:, second])
            signs = weights * np.sign(differences)
            cells = values[first] * n_values + values[second]
            for cell in np.unique(cells):
                of_cell = cells == cell
                agreement[cell] += signs[:, of_cell] @ measure_signs[:, of_cell].T
                weight[cell] += weights[:, of_cell].sum(axis=1)
    counted = weight >= minimum_weight
    share = agreement / np.where(counted, weight, 1.0)[:, :, None]
    errors = np.where(counted[:, :, None], (1 - share) / 2, -np.inf).max(axis=0)
    return np.where(np.isfinite(errors), errors, 0.5)


def permuted_information(
    measures: Floats, gap: Floats, groups: list[Rows], permuted: Rows
) -> Floats:
    """Information of the measures' order about the gap's order, given some hyper-parameters.

    Parameters
    ----------
    measures, gap, permuted : ndarray
        As for `permuted_granulated`; the permutations keep runs in their group.
    groups : list of ndarray of int
        Runs that agree in these hyper-parameters.

    Returns
    -------
    ndarray of shape (b, m)
        Normalised as by `conditional_mutual_information`.
    """
    member = np.zeros((len(gap), len(groups)), dtype=np.float32)
    for number, rows in enumerate(groups):
        member[rows, number] = 1.0
    sizes = member.sum(axis=0, dtype=np.float64)
    information, entropy = np.zeros((len(permuted), len(measures))), 0.0
    for rows, size in zip(groups, sizes, strict=True):
        n_pairs = size * sizes
        greater = (measures[:, rows, None] > measures[:, None, :]).astype(np.float32)
        of_measures = greater.sum(axis=1) @ member / n_pairs
        # No permutation within the groups changes how often the gap is greater.
        of_gap = (gap[rows, None] > gap).sum(axis=0) @ member / n_pairs
        entropy += float(_entropy(of_gap, 1 - of_gap).sum())
        marginals = _entropy(of_gap, 1 - of_gap) + _entropy(of_measures, 1 - of_measures)
        for number, order in enumerate(permuted):
            gap_greater = (gap[order[rows], None] > gap[order]).astype(np.float32)
            both = np.einsum("mrn,rn->mn", greater, gap_greater) @ member / n_pairs
            joint = _entropy(
                both, of_gap - both, of_measures - both, 1 - of_gap - of_measures + both
            )
            information[number] += (marginals - joint).sum(axis=1)
    return np.maximum(information / entropy, 0.0) if entropy > 0 else information


def _entropy(*shares: Floats) -> Floats:
    """Entropy of distributions, in bits; rounding may leave a share below zero."""
    return -sum(share * np.log2(np.maximum(share, 1e-30)) for share in shares)
