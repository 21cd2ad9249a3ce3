"""Pairs of runs that differ in one hyper-parameter only."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_PAIRS_AT_ONCE = 1 << 20


def matched_groups(
    settings: dict[str, NDArray[np.intp]], varied: str
) -> Iterator[NDArray[np.intp]]:
    """Yield the rows of each group of runs that agree in all but one hyper-parameter.

    Parameters
    ----------
    settings : dict of str to ndarray of shape (n_runs,), int
        Numbered settings of the runs.
    varied : str
        The hyper-parameter that may differ within a group.

    Yields
    ------
    ndarray of int
        Row numbers of one group.
    """
    fixed = [column for name, column in settings.items() if name != varied]
    n_runs = len(settings[varied])
    if not fixed:
        yield np.arange(n_runs)
        return
    numbers = np.unique(np.stack(fixed, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    order = np.argsort(numbers, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)


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
