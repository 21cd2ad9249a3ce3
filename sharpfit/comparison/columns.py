"""Columns of a table of runs, checked."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def finite_columns(**columns: ArrayLike) -> tuple[NDArray[np.float64], ...]:
    """Convert columns of numbers, one value a run, and check them together.

    Parameters
    ----------
    **columns : array-like of shape (n_runs,)
        Columns by the name under which an error mentions them.

    Returns
    -------
    tuple of ndarray of shape (n_runs,), float64

    Raises
    ------
    ValueError
        If a column is not one-dimensional, has another length than the first, holds fewer
        than three runs, or holds NaN or infinity.
    """
    arrays = {name: np.asarray(column, dtype=np.float64) for name, column in columns.items()}
    first = next(iter(arrays))
    for name, array in arrays.items():
        if array.ndim != 1:
            raise ValueError(f"{name} must have one value a run, got shape {array.shape}")
        if len(array) != len(arrays[first]):
            raise ValueError(
                f"{name} has {len(array)} runs but {first} has {len(arrays[first])}; "
                "pass columns of one table"
            )
        bad = int((~np.isfinite(array)).sum())
        if bad:
            raise ValueError(
                f"{name} is not finite in {bad} of {len(array)} runs; a rank statistic of diverged "
                "runs means nothing, so exclude those rows from every column and report how many"
            )
    if len(arrays[first]) < 3:
        raise ValueError(
            f"a correlation needs at least three runs, and {first} has {len(arrays[first])}"
        )
    return tuple(arrays.values())


def encoded_settings(
    hyperparameters: Mapping[str, Sequence[Any]], n_runs: int
) -> dict[str, NDArray[np.intp]]:
    """Replace the values of every hyper-parameter by numbers.

    Parameters
    ----------
    hyperparameters : mapping of str to sequence of length n_runs
        Setting of every run, by hyper-parameter; a DataFrame serves.
    n_runs : int
        Number of runs.

    Returns
    -------
    dict of str to ndarray of shape (n_runs,), int

    Raises
    ------
    ValueError
        If a column has another length, or there is no hyper-parameter.
    """
    encoded = {}
    for name in hyperparameters:
        column = list(hyperparameters[name])
        if len(column) != n_runs:
            raise ValueError(
                f"hyperparameters[{name!r}] has {len(column)} values for {n_runs} runs; "
                "pass columns of one table"
            )
        # Values such as (64, 64) or None have no order, so they are told apart by their text.
        encoded[name] = np.unique([repr(value) for value in column], return_inverse=True)[1]
    if not encoded:
        raise ValueError("hyperparameters is empty; pass at least one column of settings")
    return encoded
