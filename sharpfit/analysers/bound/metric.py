"""The space in which a bound takes distances, and what lies between it and the network."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.compose import TransformedTargetRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline

from sharpfit.analysers.bound.assumptions import Assumption
from sharpfit.analysers.half_features import HalfFeatures
from sharpfit.bridge import AffineMap, Problem, affine_map

__all__ = ["MetricSpace", "metric_space", "numeric_rows"]

_TRAINED_ON_ROWS = Assumption(
    "violated",
    "distances are taken in a space that was fitted on the same rows",
    "take them before the fitted steps (metric='euclidean'), or fit those steps on one half of "
    "the rows with HalfFeatures",
)


@dataclass(frozen=True, eq=False)
class MetricSpace:
    """Rows of the space in which distances are taken.

    Attributes
    ----------
    features : ndarray of float64 of shape (n, d)
        The rows; distances are Euclidean.
    affine : AffineMap or None
        The map from these rows to the network's input; None where it is the identity.
    reference : ndarray of bool of shape (n,) or None
        The rows on which the space was fitted, if that was one half of them.
    n_metrics : int
        Number of metrics among which this one was chosen.
    assumption : Assumption
        Whether the space was fixed before the rows it is used on.
    """

    features: np.ndarray
    affine: AffineMap | None
    reference: np.ndarray | None
    n_metrics: int
    assumption: Assumption


def metric_space(problem: Problem, metric: Any) -> MetricSpace:
    """Find the space in which distances are taken.

    Parameters
    ----------
    problem : Problem
        The network, its preprocessing and the raw rows.
    metric : None, "euclidean", "preprocessed" or FrozenEstimator
        None takes the output of a ``HalfFeatures`` step or of a leading ``FrozenEstimator`` step
        where there is one, else the raw rows.

    Returns
    -------
    MetricSpace

    Raises
    ------
    ValueError
        If a step behind the space is not known to be affine, or the metric is no step of the
        pipeline.
    """
    steps = problem.preprocessing
    if metric == "preprocessed":
        status = _TRAINED_ON_ROWS if steps else Assumption("holds", "the raw rows are used")
        return _space(problem, len(steps), status)
    halves = [index for index, step in enumerate(steps) if isinstance(step, HalfFeatures)]
    if isinstance(metric, FrozenEstimator):
        return _space(problem, _position(metric, steps) + 1, _frozen_status(steps, metric))
    if halves and metric is None:
        return _half_space(problem, halves[-1])
    leading = 0
    while metric is None and leading < len(steps) and isinstance(steps[leading], FrozenEstimator):
        leading += 1
    if leading:
        return _space(problem, leading, _frozen_status(steps, steps[leading - 1]))
    reason = "distances are Euclidean between the raw rows; affine preprocessing counts as network"
    return _space(problem, 0, Assumption("holds", reason))


def _half_space(problem: Problem, index: int) -> MetricSpace:
    step = problem.preprocessing[index]
    before = _transform(problem.raw_inputs, problem.preprocessing[:index])
    mask = step.reference_mask(before)
    fitted_before = [s for s in problem.preprocessing[:index] if not isinstance(s, FrozenEstimator)]
    n_tried = _metrics_tried(problem.estimator)
    if n_tried > step.n_metrics:
        status = Assumption(
            "violated",
            f"the search tried {n_tried} settings of HalfFeatures, which declares "
            f"n_metrics={step.n_metrics}",
            f"declare HalfFeatures(..., n_metrics={n_tried}), and the bound pays for the choice",
        )
    elif fitted_before:
        status = Assumption(
            "violated",
            f"{type(fitted_before[0]).__name__} in front of HalfFeatures was fitted on all rows",
            "put it inside: HalfFeatures(make_pipeline(scaler, network))",
        )
    else:
        status = Assumption(
            "holds",
            f"the features were fitted on {np.count_nonzero(mask)} rows drawn by an integer seed; "
            f"the statement is conditional on these rows and counts {step.n_metrics} metric(s)",
            "declare with n_metrics= among how many features you chose",
        )
    return _space(problem, index + 1, status, reference=mask, n_metrics=step.n_metrics)


def _metrics_tried(estimator: Any) -> int:
    """Count the different settings of a HalfFeatures step among the candidates of a search."""
    if not isinstance(estimator, BaseSearchCV):
        return 1
    inner = estimator.estimator
    while isinstance(inner, TransformedTargetRegressor):
        inner = inner.regressor
    steps = inner.steps if isinstance(inner, Pipeline) else []
    names = {name for name, step in steps if isinstance(step, HalfFeatures)}
    settings = {
        repr(
            sorted((key, value) for key, value in candidate.items() if names & set(key.split("__")))
        )
        for candidate in estimator.cv_results_["params"]
    }
    return len(settings)


def _space(
    problem: Problem,
    n_steps: int,
    status: Assumption,
    reference: np.ndarray | None = None,
    n_metrics: int = 1,
) -> MetricSpace:
    features = numeric_rows(_transform(problem.raw_inputs, problem.preprocessing[:n_steps]))
    rest = tuple(
        step.estimator if isinstance(step, FrozenEstimator) else step
        for step in problem.preprocessing[n_steps:]
    )
    affine = affine_map(rest, features.shape[1]) if rest else None
    return MetricSpace(features, affine, reference, n_metrics, status)


def _position(metric: FrozenEstimator, steps: tuple[Any, ...]) -> int:
    for index, step in enumerate(steps):
        frozen = isinstance(step, FrozenEstimator)
        if step is metric or (frozen and step.estimator is metric.estimator):
            return index
    raise ValueError(
        f"metric={metric!r} is no step of the pipeline, so the network is not known to be a "
        "function of its features; make it the first step, in front of the network."
    )


def _frozen_status(steps: tuple[Any, ...], metric: FrozenEstimator) -> Assumption:
    fitted_before = [
        step for step in steps[: _position(metric, steps)] if not isinstance(step, FrozenEstimator)
    ]
    if fitted_before:
        return _TRAINED_ON_ROWS
    return Assumption(
        "assumed",
        "the frozen features were fitted on data independent of these rows",
        "features fitted on a part of these rows belong into HalfFeatures",
    )


def _transform(X: Any, steps: tuple[Any, ...]) -> Any:
    for step in steps:
        X = step.transform(X)
    return X


def numeric_rows(X: Any) -> np.ndarray:
    """Return rows as a float64 matrix, one flattened row per sample, or say why not."""
    if sparse.issparse(X):
        raise TypeError("X is sparse; distances need dense rows, pass X.toarray().")
    if hasattr(X, "detach"):
        X = X.detach().cpu().numpy()
    array = X.to_numpy() if hasattr(X, "to_numpy") else np.asarray(X)
    if array.dtype == object or array.dtype.kind not in "biuf":
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"X of dtype {array.dtype} has no Euclidean distances; encode its columns as "
                "numbers before the pipeline."
            ) from error
    return np.ascontiguousarray(array.reshape(len(array), -1), dtype=np.float64)
