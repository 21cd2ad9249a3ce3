"""Tables of runs, read and written."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sharpfit.comparison.runs import Run


def runs_of_table(
    table: Mapping[str, Sequence[Any]], measures: Sequence[str], gap: str
) -> tuple[Run, ...]:
    """Read runs from columns.

    Parameters
    ----------
    table : mapping of str to sequence of length n_runs
        Columns. ``status``, ``n_updates``, ``training``, ``test`` and ``gap_error`` may be missing.
    measures : sequence of str
        Columns of measures.
    gap : str
        Column of the generalisation gap.

    Returns
    -------
    tuple of Run
        A run without a gap does not count, whatever its status says.

    Raises
    ------
    ValueError
        If a column has no numbers, or another length than that of the gaps.
    """
    gaps = _numbers(table, gap)
    unknown: dict[str, list[Any]] = {
        "status": ["ok"] * len(gaps),
        "n_updates": [0] * len(gaps),
        "training": [np.nan] * len(gaps),
        "test": [np.nan] * len(gaps),
        "gap_error": [np.nan] * len(gaps),
    }
    known = {
        name: list(table[name]) if name in table else default for name, default in unknown.items()
    }
    columns = {name: _numbers(table, name) for name in measures}
    for name, column in (known | columns).items():
        if len(column) != len(gaps):
            raise ValueError(f"column {name!r} has {len(column)} rows, but {gap!r} {len(gaps)}")
    runs = []
    for i, value in enumerate(gaps):
        status = str(known["status"][i])
        if status == "ok" and not np.isfinite(value):
            status = "no gap in the table"
        runs.append(
            Run(
                status=status,
                gap=value,
                training=float(known["training"][i]),
                test=float(known["test"][i]),
                gap_error=float(known["gap_error"][i]),
                n_updates=int(known["n_updates"][i]),
                measures={name: column[i] for name, column in columns.items()},
            )
        )
    return tuple(runs)


def _numbers(table: Mapping[str, Sequence[Any]], name: str) -> list[float]:
    try:
        return [float(value) for value in table[name]]
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {name!r} must hold numbers: {error}") from error


def as_frame(columns: dict[str, list[Any]]) -> Any:
    """Make a DataFrame where pandas is installed.

    Parameters
    ----------
    columns : dict of str to list

    Returns
    -------
    pandas.DataFrame or dict of str to list
    """
    try:
        pandas = importlib.import_module("pandas")
    except ImportError:
        return columns
    return pandas.DataFrame(columns)
