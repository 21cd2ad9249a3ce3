"""The space in which a bound takes distances, and what lies between it and the network."""

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.frozen import FrozenEstimator
from sklearn.utils import _safe_indexing

from sharpfit.analysers.bound.assumptions import Assumption
from sharpfit.analysers.bound.choices import (
    brings_fitted_parts,
    contains,
    frozen_networks,
    metrics_tried,
    uses_targets,
)
from sharpfit.analysers.half_features import HalfFeatures
from sharpfit.bridge import AffineMap, Problem, affine_map, preprocess
from sharpfit.networks import rows_hash

__all__ = ["MetricSpace", "metric_space", "numeric_rows", "untrained_rows"]

_ROUNDING = 1e-3  # of the largest feature; networks compute a row a little differently in a batch
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
    n_steps = _n_steps(steps, metric)
    if n_steps == 0:
        return _space(problem, 0, _raw_status(problem))
    half = _half_features(steps[n_steps - 1])
    if half is not None and metric != "preprocessed":
        return _half_space(problem, n_steps, half)
    return _space(problem, n_steps, _frozen_status(problem, n_steps))


def untrained_rows(steps: tuple[Any, ...], X: Any, metric: Any) -> np.ndarray:
    """Rows of the space in which distances will be taken, where no step has to be fitted for it.

    Parameters
    ----------
    steps : tuple of transformers
        Preprocessing in front of the network.
    X : array-like of shape (n, ...)
        Raw rows.
    metric : None, "euclidean", "preprocessed" or FrozenEstimator
        As in :func:`metric_space`.

    Returns
    -------
    ndarray of float64 of shape (n, d)

    Raises
    ------
    ValueError
        If a step in front of the space has to be fitted first.
    """
    steps = steps[: _n_steps(steps, metric)]
    for step in steps:
        if not isinstance(step, FrozenEstimator):
            raise ValueError(
                f"the distances of this bound are taken behind {type(step).__name__}, which has to "
                "be fitted first: fit the bound and call floor() without X. For distances between "
                "the rows of X set metric='euclidean'."
            )
    return numeric_rows(_transform(X, steps))


def _n_steps(steps: tuple[Any, ...], metric: Any) -> int:
    """Count the steps in front of the space in which distances are taken."""
    if isinstance(metric, FrozenEstimator):
        return _position(metric, steps) + 1
    if metric == "preprocessed":
        return len(steps)
    if metric == "euclidean":
        return 0
    halves = [i for i, step in enumerate(steps) if _half_features(step) is not None]
    if halves:
        return halves[-1] + 1
    leading = 0
    while leading < len(steps) and isinstance(steps[leading], FrozenEstimator):
        leading += 1
    return leading


def _half_features(step: Any) -> HalfFeatures | None:
    """Return the ``HalfFeatures`` that a step is, be it frozen or not."""
    inner = step.estimator if isinstance(step, FrozenEstimator) else step
    return inner if isinstance(inner, HalfFeatures) else None


def _half_space(problem: Problem, n_steps: int, half: HalfFeatures) -> MetricSpace:
    steps = problem.preprocessing[:n_steps]
    mask = half.reference_mask(_transform(problem.raw_inputs, steps[:-1]))
    elsewhere = [step for step in steps[:-1] if not _fixed_given(step, mask)]
    n_metrics = math.prod(step.n_metrics for step in map(_half_features, steps) if step)
    n_tried = metrics_tried(problem.estimator, steps)
    if n_tried > n_metrics:
        status = Assumption(
            "violated",
            f"the search tried {n_tried} settings of HalfFeatures, which declares "
            f"n_metrics={n_metrics}",
            f"declare HalfFeatures(..., n_metrics={n_tried}), and the bound pays for the choice",
        )
    elif elsewhere:
        status = Assumption(
            "violated",
            f"{type(elsewhere[0]).__name__} in front of HalfFeatures was fitted on rows outside "
            "its half",
            "put it inside: HalfFeatures(make_pipeline(scaler, network))",
        )
    elif _depend_on_other_rows(problem.raw_inputs, steps, mask):
        status = Assumption(
            "violated",
            "the features of a row depend on the rows that are transformed with it",
            "give HalfFeatures an estimator that treats every row alone",
        )
    elif _knows_all_targets(problem, half):
        status = Assumption(
            "violated",
            "the targets were transformed, before HalfFeatures was fitted to them, by what all of "
            "them say",
            "scale the targets by numbers chosen beforehand, and inside the half by "
            "HalfFeatures(TransformedTargetRegressor(...))",
        )
    elif _frozen_after_these_rows(steps, problem):
        status = Assumption(
            "violated",
            "a frozen network in the metric was trained on these rows",
            "give HalfFeatures the network itself, which it trains on one half of them",
        )
    elif brings_fitted_parts(half.estimator) or any(
        isinstance(step, FrozenEstimator) and _half_features(step) is None for step in steps
    ):
        status = Assumption(
            "assumed",
            "what came frozen, or as a module with weights, was fitted on data independent of "
            "these rows",
            "give HalfFeatures estimators that it fits itself, and modules by their class",
        )
    else:
        status = Assumption(
            "holds",
            f"the features were fitted on {np.count_nonzero(mask)} rows drawn by an integer seed; "
            f"the statement is conditional on these rows and counts {n_metrics} metric(s)",
            "declare with n_metrics= among how many features you chose",
        )
    return _space(problem, n_steps, status, reference=mask, n_metrics=n_metrics)


def _raw_status(problem: Problem) -> Assumption:
    n_tried = metrics_tried(problem.estimator, ())
    if n_tried > 1:
        return Assumption(
            "violated",
            f"the search chose raw rows among {n_tried} metrics by looking at the rows",
            f"take the bound of its best_estimator_ with 1 - confidence divided by {n_tried}",
        )
    return Assumption(
        "holds",
        "distances are Euclidean between raw rows; affine preprocessing counts as network",
    )


def _depend_on_other_rows(X: Any, steps: tuple[Any, ...], mask: np.ndarray) -> bool:
    together = numeric_rows(_transform(X, steps))[mask]
    alone = numeric_rows(_transform(_safe_indexing(X, np.flatnonzero(mask)), steps))
    return float(np.abs(together - alone).max()) > _ROUNDING * float(np.abs(together).max())


def _frozen_after_these_rows(steps: tuple[Any, ...], problem: Problem) -> bool:
    """Whether a frozen network inside the steps has recorded that it was trained on these rows."""
    labels = problem.labels
    targets = problem.targets if labels is None else np.asarray(problem.classes)[labels]
    for position, step in enumerate(steps):
        for part in frozen_networks(step):
            # What stands further inside may expect other columns.
            with suppress(ValueError, TypeError, LookupError):
                rows = preprocess(problem.raw_inputs, (*steps[:position], *part.preprocessing))
                if getattr(part.network, "training_rows_hash_", None) == rows_hash(rows, targets):
                    return True
    return False


def _knows_all_targets(problem: Problem, half: HalfFeatures) -> bool:
    """Whether targets reach the features through a transformer that was fitted on all of them."""
    return problem.target_transformer is not None and uses_targets(half.estimator)


def _fixed_given(step: Any, mask: np.ndarray) -> bool:
    """Whether a step depends on no other rows of the sample than those of the mask."""
    half = _half_features(step)
    if half is None:
        return isinstance(step, FrozenEstimator)
    return np.array_equal(half.mask_, mask)


def _space(
    problem: Problem,
    n_steps: int,
    status: Assumption,
    reference: np.ndarray | None = None,
    n_metrics: int = 1,
) -> MetricSpace:
    features = numeric_rows(_transform(problem.raw_inputs, problem.preprocessing[:n_steps]))
    rest = problem.preprocessing[n_steps:]
    try:
        affine = affine_map(rest, features.shape[1]) if rest else None
    except ValueError as error:
        raise ValueError(
            f"{error}. A step fitted on these rows belongs into HalfFeatures, which fits it on one "
            "half of them"
        ) from error
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


def _frozen_status(problem: Problem, n_steps: int) -> Assumption:
    steps = problem.preprocessing[:n_steps]
    if any(not isinstance(step, FrozenEstimator) or contains(step, HalfFeatures) for step in steps):
        return _TRAINED_ON_ROWS
    if _frozen_after_these_rows(steps, problem):
        return _TRAINED_ON_ROWS
    n_tried = metrics_tried(problem.estimator, steps)
    if n_tried > 1:
        return Assumption(
            "violated",
            f"the search chose among {n_tried} frozen features by looking at the rows",
            f"take the bound of its best_estimator_ with 1 - confidence divided by {n_tried}",
        )
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
                f"X of dtype {array.dtype} has no Euclidean distances; put what encodes it as "
                "numbers into HalfFeatures, and distances are taken behind that."
            ) from error
    return np.ascontiguousarray(array.reshape(len(array), -1), dtype=np.float64)
