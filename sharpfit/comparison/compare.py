"""Compare many trained networks: measures against the generalisation gap."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import joblib
import numpy as np
from joblib.externals.loky.process_executor import TerminatedWorkerError
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _num_samples

from sharpfit.bridge import is_trained, unwrap
from sharpfit.comparison.comparison import Comparison
from sharpfit.comparison.kept_runs import keeping, key_of_run
from sharpfit.comparison.runs import Common, Gap, Run, evaluate_run
from sharpfit.measures import MEASURES, measure_names


def compare_models(
    models: BaseSearchCV | Mapping[str, Any] | Sequence[BaseEstimator],
    X: Any = None,
    y: Any = None,
    X_test: Any = None,
    y_test: Any = None,
    *,
    measures: Iterable[str] | None = None,
    hyperparameters: Mapping[str, Sequence[Any]] | Sequence[str] | None = None,
    equal: str | None = None,
    at: float | None = None,
    gap: Gap = "error",
    memory: str | joblib.Memory | None = None,
    n_jobs: int | None = None,
    random_state: int = 0,
    verbose: int = 0,
) -> Comparison:
    """Measure many networks and set the measures against their generalisation gaps.

    Networks that are trained already are taken as they are; candidates of a search and
    estimators that are not trained are cloned and trained on `X`, in parallel. A table of runs
    that were measured before is compared as it is.

    Parameters
    ----------
    models : fitted search, mapping of str to estimator, sequence of estimators, or table
        Of a search every candidate is a run. A table is a DataFrame or a mapping of str to
        columns, with a column ``gap``; see `Comparison.from_table`.
    X, y : array-like
        Training rows and targets; left out for a table.
    X_test, y_test : array-like
        Rows and targets that no network was trained or selected on; left out for a table.
    measures : iterable of str, optional
        Names from `sharpfit.measures.MEASURES`; all by default. Of a table, names of columns.
    hyperparameters : mapping of str to sequence, optional
        Setting of every run; taken from a search by default. Of a table, names of columns.
    equal : {"updates", "training_loss"}, optional
        What the trained runs have in common: training stops there, and a run that does not
        get there within its ``max_epochs`` is recorded and does not count. By default runs
        are compared as they were trained.
    at : float, optional
        Number of updates or level of the training loss.
    gap : {"error", "loss"}, default="error"
        Test minus training error rate, or test minus training loss; regressors have the
        loss only.
    memory : path, joblib.Memory or None, default=None
        Where finished runs are kept, each by its configuration, seed, data, the source of its
        module's class and the version of this library, so that an interrupted comparison goes
        on where it stopped.
    n_jobs : int or None, default=None
        Number of runs at a time.
    random_state : int, default=0
        Seed of measures that draw.
    verbose : int, default=0
        Verbosity of joblib's progress messages.

    Returns
    -------
    Comparison

    Raises
    ------
    TypeError
        If `models` is of another kind, or has no network in it.
    ValueError
        If an argument is out of range, rows and targets do not fit together, or `equal` is
        asked of networks that are trained.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sharpfit import NetworkClassifier, compare_models
    >>> X, y = load_iris(return_X_y=True)
    >>> widths = [(4,), (16,), (64,)]
    >>> networks = [
    ...     NetworkClassifier(module__hidden=hidden, lr=0.1, max_epochs=100, random_state=0)
    ...     for hidden in widths
    ... ]
    >>> compare_models(
    ...     networks, X[::2], y[::2], X[1::2], y[1::2], measures=["sharpness"],
    ...     hyperparameters={"hidden": widths},
    ... )
    Comparison: 3 runs compared as they were trained, all after ... updates; gap = test minus ...
    """
    common = _common(equal, at)
    if gap not in ("error", "loss"):
        raise ValueError(f"gap must be 'error' or 'loss', got {gap!r}")
    given = {"X": X, "y": y, "X_test": X_test, "y_test": y_test}
    if _is_table(models):
        superfluous = [name for name, value in given.items() if value is not None]
        if superfluous:
            raise ValueError(
                f"models is a table, whose runs are measured already; leave out {superfluous[0]}"
            )
        return _compare_table(models, measures, hyperparameters, gap, common)
    names = measure_names(measures)
    runs, settings = _runs(models, hyperparameters)
    missing = [name for name, value in given.items() if value is None]
    if missing:
        raise ValueError(f"{missing[0]} is needed to measure networks, but is None")
    _check_rows(X, y, X_test, y_test)
    _check_labels(runs, y, y_test)
    trained = {name: is_trained(estimator) for name, estimator in runs.items()}
    if common is not None and any(trained.values()):
        first = next(name for name, is_done in trained.items() if is_done)
        raise ValueError(
            f"equal={equal!r} decides where training stops, but run {first!r} is trained already; "
            "pass unfitted estimators or a search, or equal=None"
        )
    evaluate, keys = evaluate_run, dict.fromkeys(runs, "")
    if memory is not None:
        evaluate = keeping(memory)
        rest = (joblib.hash((X, y, X_test, y_test)), names, common, gap, random_state)
        keys = {name: key_of_run(name, estimator, *rest) for name, estimator in runs.items()}
    calls = [
        delayed(evaluate)(
            estimator,
            (X, y, X_test, y_test),
            names,
            train=not trained[name],
            common=common,
            gap=gap,
            random_state=random_state,
            key=keys[name],
        )
        for name, estimator in runs.items()
    ]
    results = list(_evaluate_all(calls, n_jobs, verbose))
    return Comparison(
        names=tuple(runs),
        runs=tuple(results),
        hyperparameters=settings,
        measures=tuple(names),
        gap_kind=gap,
        common=common,
    )


def _evaluate_all(calls: list[Any], n_jobs: int | None, verbose: int) -> Iterator[Run]:
    try:
        yield from Parallel(n_jobs=n_jobs, verbose=verbose)(calls)
    except TerminatedWorkerError:
        warnings.warn(
            "a worker process died, as happens when memory runs out; the runs are repeated one at "
            "a time, those already kept in `memory` excepted",
            UserWarning,
            stacklevel=3,
        )
        for call in calls:
            yield from _evaluate_alone(call, verbose)


def _evaluate_alone(call: Any, verbose: int) -> list[Run]:
    """Evaluate one run in a process of its own, so that its death is its own."""
    try:
        return Parallel(n_jobs=2, verbose=verbose)([call])
    except TerminatedWorkerError as error:
        return [Run(status=f"worker died: {error}".splitlines()[0])]


def _is_table(models: Any) -> bool:
    """Whether these are columns, and not a mapping of names to estimators."""
    if isinstance(models, Mapping):
        return len(models) > 0 and not any(hasattr(value, "fit") for value in models.values())
    return hasattr(models, "columns")


def _compare_table(
    table: Any,
    measures: Iterable[str] | None,
    hyperparameters: Iterable[str] | None,
    gap: Gap,
    common: Common | None,
) -> Comparison:
    for name, names in {"measures": measures, "hyperparameters": hyperparameters}.items():
        if isinstance(names, str):
            raise TypeError(f"{name} must be a list of columns, got a string; write [{names!r}]")
    taken = [name for name in MEASURES if name in table] if measures is None else list(measures)
    if not taken:
        raise ValueError(
            "the table has no column named as one of sharpfit.measures.MEASURES; "
            f"name some of {list(table)} with measures="
        )
    return Comparison.from_table(
        table, taken, gap_kind=gap, common=common, hyperparameters=list(hyperparameters or ())
    )


def _common(equal: str | None, at: float | None) -> Common | None:
    if equal is None:
        if at is not None:
            raise ValueError(f"at={at!r} needs equal='updates' or equal='training_loss'")
        return None
    if equal not in ("updates", "training_loss"):
        raise ValueError(f"equal must be None, 'updates' or 'training_loss', got {equal!r}")
    if at is None or not at > 0:
        raise ValueError(f"at must be the positive {equal} at which runs are equal, got {at!r}")
    if equal == "updates" and at != int(at):
        raise ValueError(f"at must be a whole number of updates, got {at!r}")
    return Common(equal, at)  # type: ignore[arg-type]


def _check_rows(X: Any, y: Any, X_test: Any, y_test: Any) -> None:
    for rows, targets, names in ((X, y, "X and y"), (X_test, y_test, "X_test and y_test")):
        if _num_samples(rows) != _num_samples(targets):
            raise ValueError(
                f"{names} must have as many rows as each other, got {_num_samples(rows)} and "
                f"{_num_samples(targets)}"
            )
    shapes = [tuple(rows.shape[1:]) for rows in (X, X_test) if hasattr(rows, "shape")]
    if len(set(shapes)) > 1:
        raise ValueError(f"rows of X have shape {shapes[0]}, but rows of X_test {shapes[1]}")
    for name, rows in (("X", X), ("X_test", X_test)):
        if getattr(getattr(rows, "dtype", None), "kind", "") == "f":
            bad = int((~np.isfinite(rows)).sum())
            if bad:
                raise ValueError(f"{name} holds {bad} values that are not finite; impute or drop")


def _check_labels(runs: Mapping[str, BaseEstimator], y: Any, y_test: Any) -> None:
    """Refuse test labels that no training row has, before anything is trained."""
    networks = [unwrap(estimator).network for estimator in runs.values()]
    known_from_rows = [
        n for n in networks if is_classifier(n) and n.get_params().get("classes") is None
    ]
    if known_from_rows and np.ndim(y) == 1:
        unknown = np.setdiff1d(y_test, y)
        if len(unknown):
            raise ValueError(
                f"y_test contains the label(s) {unknown.tolist()}, which no row of y has; name all "
                "labels with classes= of the networks, or leave those rows out"
            )


def _runs(
    models: Any, hyperparameters: Mapping[str, Sequence[Any]] | None
) -> tuple[dict[str, BaseEstimator], dict[str, list[Any]]]:
    if isinstance(models, BaseSearchCV):
        if not hasattr(models, "cv_results_"):
            raise ValueError(
                f"{type(models).__name__} is not fitted, so its candidates are not known; call fit"
            )
        candidates = models.cv_results_["params"]
        runs = {
            str(i): clone(models.estimator).set_params(**clone(parameters, safe=False))
            for i, parameters in enumerate(candidates)
        }
        settings: dict[str, list[Any]] = {
            name: [parameters.get(name) for parameters in candidates]
            for name in sorted({key for parameters in candidates for key in parameters})
        }
    elif isinstance(models, Mapping):
        runs, settings = {str(name): estimator for name, estimator in models.items()}, {}
    elif isinstance(models, Sequence) and not isinstance(models, str):
        runs, settings = {str(i): estimator for i, estimator in enumerate(models)}, {}
    else:
        raise TypeError(
            f"models must be a fitted search, a mapping or a sequence of estimators, or a table, "
            f"got {type(models).__name__}"
        )
    if hyperparameters is not None:
        if not hasattr(hyperparameters, "keys"):
            raise TypeError(
                "hyperparameters must map names to the settings of all runs, got "
                f"{hyperparameters!r}"
            )
        settings = {name: list(hyperparameters[name]) for name in hyperparameters}
    if not runs:
        raise ValueError("models is empty; pass at least one estimator")
    for estimator in runs.values():
        unwrap(estimator)  # refuses what has no network in it, before anything is trained
    for name, values in settings.items():
        if len(values) != len(runs):
            raise ValueError(
                f"hyperparameters[{name!r}] has {len(values)} values for {len(runs)} runs"
            )
    return runs, settings
