"""The selection criterion beside the other measures, taken anew whenever its code changes.

Most measures are what the literature says they are. The criterion is this library's and still being
chosen, so its runs are kept apart, by its code, and a change of it repeats nothing else.
"""

from collections.abc import Sequence
from typing import Any

from code_version import package_digest
from runs import Row, RunFunction, completed

from sharpfit.measures import MEASURES

CRITERION = "selection_criterion"
OTHER_MEASURES = tuple(name for name in MEASURES if name != CRITERION)


def completed_with_criterion(
    function: RunFunction,
    criterion: RunFunction,
    configurations: Sequence[Row],
    *,
    name: str,
    same_rows: Sequence[str] = (),
    **settings: Any,
) -> list[Row]:
    """Return the rows of all runs with the criterion, doing those that are not kept yet.

    Parameters
    ----------
    function : callable
        Takes a configuration and returns the values of `OTHER_MEASURES`, among others.
    criterion : callable
        Takes the same configuration and returns the value of `CRITERION`.
    configurations : sequence of dict
        See `runs.completed`.
    name : str
        Name of the experiment; the criterion's runs have ``_criterion`` behind it.
    same_rows : sequence of str
        What networks on the same training rows agree in. These are judged one after the other:
        what the criterion knows of the rows is then found once.
    **settings : dict
        Of `runs.completed`.

    Returns
    -------
    list of dict
        Status and seconds are those of `function`.
    """
    rows = completed(function, configurations, name=name, **settings)
    order = sorted(
        range(len(rows)), key=lambda i: [str(configurations[i][name]) for name in same_rows]
    )
    code = "-".join(package_digest(part) for part in ("model_selection", "theory"))
    keyed = [{**configurations[i], "criterion_code": code} for i in order]
    taken = completed(criterion, keyed, name=f"{name}_criterion", **settings)
    for i, found in zip(order, taken, strict=True):
        if CRITERION in found:
            rows[i] = rows[i] | {CRITERION: found[CRITERION]}
    return rows
