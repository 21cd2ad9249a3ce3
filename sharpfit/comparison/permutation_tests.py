"""Does any measure say something within the hyper-parameters? Tests that allow for their number."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sharpfit.comparison.columns import encoded_settings, finite_columns
from sharpfit.comparison.pairs import matched_groups, rows_by_setting
from sharpfit.comparison.permutation import Tail, permuted_rows, simultaneous_p_values
from sharpfit.comparison.permuted_statistics import (
    permuted_granulated,
    permuted_information,
    permuted_sign_error,
)

Statistic = Literal["granulated", "conditional_information", "sign_error"]
Floats = NDArray[np.float64]
Settings = dict[str, NDArray[np.intp]]

ALL = "all"

_TAILS: dict[Statistic, Tail] = {
    "granulated": "two-sided",
    "conditional_information": "greater",
    "sign_error": "less",
}


@dataclass(frozen=True)
class PermutationTest:
    """What the permutations say of one measure within one hyper-parameter, or within all.

    Attributes
    ----------
    measure : str
        Name of the measure.
    hyperparameter : str
        What varies or, for the conditional information, the two that are given; "all" for the
        coefficient over all of them.
    value : float
        The statistic; NaN where it does not exist.
    p_value : float
        Of this measure and hyper-parameter alone.
    adjusted_p_value : float
        Family-wise: the chance that any of the measures, in any of the hyper-parameters, looks so
        good where none says anything is at most this.
    """

    measure: str
    hyperparameter: str
    value: float
    p_value: float
    adjusted_p_value: float


def permutation_tests(
    measures: Mapping[str, ArrayLike],
    gap: ArrayLike,
    hyperparameters: Mapping[str, Sequence[Any]],
    *,
    statistic: Statistic = "granulated",
    n_test: int | None = None,
    n_permutations: int = 500,
    random_state: int | None = None,
) -> list[PermutationTest]:
    r"""Test all measures within all hyper-parameters, allowing for the number of tests.

    The gaps are permuted among runs that agree in whatever is held fixed: in all other
    hyper-parameters for the granulated coefficient and the sign error, in a pair of them for the
    conditional information. What the gap owes to these is thereby left as it is, and the null
    hypothesis is that, given these, the measures and the gap have nothing to do with each other.
    The granulated coefficient is tested on both sides; sign errors are tested for being smaller
    and information for being larger than by chance.

    The same permutations serve all measures, so p-values are adjusted over the measures by the
    largest statistic of each permutation (Westfall and Young 1993), which uses how alike the
    measures are, and over the hyper-parameters by their number. For "all" the granulated
    coefficient asks whether a measure says something within any of the hyper-parameters; the sign
    error and the information, whose values are the worst ones, ask whether it does within each.

    Parameters
    ----------
    measures : mapping of str to array-like of shape (n_runs,)
        Columns.
    gap : array-like of shape (n_runs,)
        Generalisation gaps.
    hyperparameters : mapping of str to sequence of length n_runs
        Setting of every run.
    statistic : {"granulated", "conditional_information", "sign_error"}, default="granulated"
        Statistic of `granulated_kendall`, `conditional_mutual_information` or
        `robust_sign_error`.
    n_test : int, optional
        Number of test rows behind each gap, for the sign error.
    n_permutations : int, default=500
        Number of permutations; adjusted p-values are no smaller than the number of
        hyper-parameters, or of their pairs, over one more. The time of the conditional
        information grows with the square of the number of runs.
    random_state : int or None, default=None
        Seed of the permutations.

    Returns
    -------
    list of PermutationTest
        By measure, "all" first.

    Raises
    ------
    ValueError
        If there is no measure, the columns do not fit together, or an argument is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from sharpfit.comparison import permutation_tests
    >>> rng = np.random.default_rng(0)
    >>> settings = {"lr": [1, 2, 3, 4] * 6, "width": np.repeat(range(6), 4).tolist()}
    >>> gap = np.array(settings["lr"]) + 0.1 * rng.normal(size=24)
    >>> measures = {"good": gap + 0.1 * rng.normal(size=24), "noise": rng.normal(size=24)}
    >>> for test in permutation_tests(measures, gap, settings, random_state=0):
    ...     print(test.measure, test.hyperparameter, test.adjusted_p_value < 0.05)
    good all True
    good lr True
    good width False
    noise all False
    noise lr False
    noise width False
    """
    if statistic not in _TAILS:
        raise ValueError(f"statistic must be one of {list(_TAILS)}, got {statistic!r}")
    if not measures:
        raise ValueError("measures is empty; pass at least one column")
    if n_test is not None and n_test < 1:
        raise ValueError(f"n_test must be a positive number of test rows, got {n_test}")
    gap_values, *columns = finite_columns(gap=gap, **measures)
    settings = encoded_settings(hyperparameters, len(gap_values))
    if statistic == "conditional_information" and len(settings) < 2:
        raise ValueError("the information is given pairs of hyper-parameters; pass at least two")
    drawn = dict(
        _drawn(
            statistic, np.stack(columns), gap_values, settings, n_test, n_permutations, random_state
        )
    )
    if not drawn:
        raise ValueError(
            "no two runs differ in a single hyper-parameter, so there is nothing to compare within "
            "any; statistic='conditional_information' needs no such runs"
        )
    tests = [simultaneous_p_values(table, _TAILS[statistic]) for table in drawn.values()]
    values = np.stack([table[0] for table in drawn.values()])
    alone = np.stack([p_values for p_values, _ in tests])
    together = np.minimum(1.0, len(drawn) * np.stack([adjusted for _, adjusted in tests]))
    if statistic == "granulated":
        overall = (
            values.mean(axis=0),
            np.minimum(1.0, len(drawn) * alone.min(axis=0)),
            together.min(axis=0),
        )
    else:
        worst = np.max if statistic == "sign_error" else np.min
        overall = worst(values, axis=0), alone.max(axis=0), together.max(axis=0)
    table = [
        np.vstack([first, rest])
        for first, rest in zip(overall, (values, alone, together), strict=True)
    ]
    return [
        PermutationTest(measure, name, *(float(column[row, i]) for column in table))
        for i, measure in enumerate(measures)
        for row, name in enumerate((ALL, *drawn))
    ]


def _drawn(
    statistic: Statistic,
    measures: Floats,
    gap: Floats,
    settings: Settings,
    n_test: int | None,
    n_permutations: int,
    random_state: int | None,
) -> Iterator[tuple[str, Floats]]:
    """Yield the statistic of the permuted gaps, by what it is taken within."""
    n_runs = len(gap)
    if statistic == "conditional_information":
        for pair in combinations(settings, 2):
            groups = rows_by_setting([settings[name] for name in pair], n_runs)
            permuted = permuted_rows(groups, n_runs, n_permutations, random_state)
            yield ", ".join(pair), permuted_information(measures, gap, groups, permuted)
        return
    for name, values in settings.items():
        groups = matched_groups(settings, name)
        if any(np.ptp(values[rows]) for rows in groups):
            permuted = permuted_rows(groups, n_runs, n_permutations, random_state)
            if statistic == "granulated":
                yield name, permuted_granulated(measures, gap, values, groups, permuted)
            else:
                yield name, permuted_sign_error(measures, gap, values, groups, permuted, n_test)
