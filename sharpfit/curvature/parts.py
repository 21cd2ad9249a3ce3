"""Independent parts of an analysis: one after another on one operator, or in processes."""

from collections.abc import Callable
from functools import partial
from numbers import Integral
from typing import Any, TypeVar

from joblib import Parallel, delayed, effective_n_jobs

from sharpfit.curvature.progress import Progress, WatchedOperator
from sharpfit.linalg import SymmetricOperator

Operator = TypeVar("Operator", bound=SymmetricOperator)
Watch = Callable[[SymmetricOperator], SymmetricOperator]
Part = Callable[[Operator, Watch], Any]


def compute_parts(
    build: Callable[[], Operator],
    parts: dict[str, Part[Operator]],
    *,
    n_jobs: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compute the parts of an analysis of one operator.

    Parameters
    ----------
    build : callable
        Returns the operator. Every process builds its own.
    parts : dict of str to callable
        ``part(operator, watch)`` returns a result with an attribute ``interrupted``. It
        multiplies by ``watch(operator)``, so that products are reported.
    n_jobs : int, optional
        Processes, as joblib takes them; None is one unless a joblib context says otherwise.
    progress : Progress, optional
        Told of the parts, and of the products of this process.

    Returns
    -------
    dict of str to object
        Results in the order of `parts`. After a KeyboardInterrupt those that were not begun
        are missing.

    Raises
    ------
    ValueError
        If `n_jobs` is no number of processes.
    KeyboardInterrupt
        If nothing was known when the work was interrupted.
    """
    if n_jobs is not None and (not isinstance(n_jobs, Integral) or n_jobs == 0):
        raise ValueError(f"n_jobs must be None or an int other than 0, got {n_jobs!r}")
    progress = Progress() if progress is None else progress
    run: Callable[[Part[Operator]], Any]
    if len(parts) == 1 or effective_n_jobs(n_jobs) == 1:
        run = partial(_run, build(), partial(WatchedOperator, progress=progress))
        results = map(run, parts.values())
    else:
        run_apart = delayed(_build_and_run)
        results = Parallel(n_jobs=n_jobs, return_as="generator")(
            run_apart(build, part) for part in parts.values()
        )
    found: dict[str, Any] = {}
    for name in parts:
        try:
            with progress.part(name):
                found[name] = next(results)
        except KeyboardInterrupt:
            if not found:
                raise
            break
        if found[name].interrupted:
            break
    return found


def _run(operator: Operator, watch: Watch, part: Part[Operator]) -> Any:
    return part(operator, watch)


def _build_and_run(build: Callable[[], Operator], part: Part[Operator]) -> Any:
    return part(build(), _unwatched)


def _unwatched(operator: SymmetricOperator) -> SymmetricOperator:
    return operator
