"""Rank correlations within seeds, with intervals over seeds and the settings of each."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_BOOTSTRAP = 500


@dataclass(frozen=True)
class Association:
    """A mean over seeds of a rank correlation over settings.

    Attributes
    ----------
    value : float
        NaN where a column is constant.
    low, high : float
        95 % percentile interval, by resampling seeds and, within them, settings; an estimate.
    n_runs, n_groups : int
        Number of runs, and of groups of them that share a seed and a network.
    """

    value: float
    low: float
    high: float
    n_runs: int
    n_groups: int


def within_seeds(
    table: Any, x: str, y: str, *, minus: str | None = None, fixed_levels: bool = False
) -> Association:
    """Return Kendall's tau-b of two columns over the settings of a seed, averaged over seeds.

    A seed draws the training rows, so that networks are compared on the same rows only, and only
    with networks of their architecture.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a run, with the columns ``network`` and ``seed``.
    x, y : str
        Columns.
    minus : str, optional
        A column whose correlation with `y` is subtracted, on the same resamples.
    fixed_levels : bool, default=False
        Resample seeds only, as for a few levels of one hyper-parameter.

    Returns
    -------
    Association
    """
    value, draws = resampled_within_seeds(table, x, y, minus=minus, fixed_levels=fixed_levels)
    return summary_of(table, value, draws)


def summary_of(table: Any, value: float, draws: NDArray[np.float64]) -> Association:
    """Return a value with its percentile interval.

    Parameters
    ----------
    table : pandas.DataFrame
        The runs behind it.
    value : float
    draws : ndarray of shape (N_BOOTSTRAP,)
        Its values in resamples.

    Returns
    -------
    Association
    """
    low, high = np.nanquantile(draws, [0.025, 0.975]) if np.isfinite(draws).any() else (np.nan,) * 2
    n_groups = table.groupby(["network", "seed"]).ngroups
    return Association(value, low, high, len(table), n_groups)


def resampled_within_seeds(
    table: Any, x: str, y: str, *, minus: str | None = None, fixed_levels: bool = False
) -> tuple[float, NDArray[np.float64]]:
    """Return what `within_seeds` does, with its values in the resamples behind the interval.

    The resamples are the same for all columns of a table.

    Parameters
    ----------
    table, x, y, minus, fixed_levels : object
        As for `within_seeds`.

    Returns
    -------
    value : float
    draws : ndarray of shape (N_BOOTSTRAP,)
    """
    columns = [x, y] if minus is None else [x, y, minus]
    groups = [
        np.stack([_signs(rows[column].to_numpy(dtype=float)) for column in columns])
        for _, rows in table.groupby(["network", "seed"])
    ]
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(N_BOOTSTRAP):
        values = []
        for group in generator.integers(len(groups), size=len(groups)):
            signs = groups[group]
            n = signs.shape[1]
            picked = np.arange(n) if fixed_levels else generator.integers(n, size=n)
            values.append(_difference(signs[:, picked][:, :, picked]))
        draws.append(_mean(values))
    return _mean([_difference(signs) for signs in groups]), np.array(draws)


def _signs(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sign(values[:, None] - values[None, :])


def _difference(signs: NDArray[np.float64]) -> float:
    x, y, *minus = signs
    return _tau(x, y) - (_tau(minus[0], y) if minus else 0.0)


def _tau(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    scale = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / scale) if scale > 0 else float("nan")


def _mean(values: list[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
