"""Pairs of runs that differ in one hyper-parameter only."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

_PAIRS_AT_ONCE = 1 << 20


def rows_by_setting(columns: Sequence[NDArray[np.intp]], n_runs: int) -> list[NDArray[np.intp]]:
    """Split the runs into groups that agree in some hyper-parameters.

    Parameters
    ----------
    columns : sequence of ndarray of shape (n_runs,), int
        Numbered settings of these hyper-parameters.
    n_runs : int
        Number of runs.

    Returns
    -------
    list of ndarray of int
        Row numbers of each group; all runs together without a column.
    """
    if not columns:
        return [np.arange(n_runs)]
    numbers = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)


def matched_groups(settings: dict[str, NDArray[np.intp]], varied: str) -> list[NDArray[np.intp]]:
    """Split the runs into groups that agree in all but one hyper-parameter.

    Parameters
    ----------
    settings : dict of str to ndarray of shape (n_runs,), int
        Numbered settings of the runs.
    varied : str
        The hyper-parameter that may differ within a group.

    Returns
    -------
    list of ndarray of int
        Row numbers of each group.
    """
    fixed = [column for name, column in settings.items() if name != varied]
    return rows_by_setting(fixed, len(settings[varied]))


def differing_pairs(
    values: NDArray[np.intp], rows: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield the pairs among `rows` whose values differ, the smaller value first.

    Parameters
    ----------
    values : ndarray of shape (n_runs,), int
        Numbered settings of the varied hyper-parameter.
    rows : ndarray of int
        Row numbers of one group.

    Yields
    ------
    first, second : ndarray of int
        Row numbers; at most about a million pairs at a time.
    """
    ordered = rows[np.argsort(values[rows], kind="stable")]
    step = max(1, _PAIRS_AT_ONCE // len(ordered))
    for start in range(0, len(ordered), step):
        block = ordered[start : start + step]
        first, second = np.nonzero(values[block][:, None] < values[ordered])
        if len(first):
            yield block[first], ordered[second]
