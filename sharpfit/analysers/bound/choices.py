"""How many metrics a search compared, and what a metric has inside that was fitted elsewhere."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pickle import PicklingError
from typing import Any

import joblib
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.compose import TransformedTargetRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from torch import nn

from sharpfit.analysers.half_features import HalfFeatures
from sharpfit.bridge import Parts, unwrap

__all__ = [
    "brings_fitted_parts",
    "contains",
    "frozen_networks",
    "metrics_tried",
    "uses_targets",
]

_AROUND = (FrozenEstimator, BaseSearchCV, Pipeline, TransformedTargetRegressor)


def metrics_tried(estimator: Any, steps: tuple[Any, ...]) -> int:
    """Count the metrics among the candidates of all searches around a network.

    Parameters
    ----------
    estimator : estimator object
        Fitted, as for `sharpfit.bridge.unwrap`.
    steps : tuple of transformers
        The steps that make the metric of the winner: none for raw rows.

    Returns
    -------
    int
        An upper bound: what is not known to leave the metric alone counts.
    """
    tried, current = 1, estimator
    while isinstance(current, _AROUND):
        if isinstance(current, BaseSearchCV):
            tried *= _different_metrics(current, steps)
        current = _next(current)[1]
    return tried


def contains(value: Any, kinds: type | tuple[type, ...]) -> bool:
    """Tell whether an estimator or collection has an object of some kinds anywhere inside."""
    return any(isinstance(part, kinds) for part in _nested(value))


def brings_fitted_parts(estimator: Any) -> bool:
    """Tell whether fitting a clone leaves parts as they were fitted or trained before."""
    return any(
        isinstance(part, FrozenEstimator)
        or (isinstance(part, nn.Module) and any(True for _ in part.parameters()))
        for part in _nested(estimator)
    )


def frozen_networks(estimator: Any) -> Iterator[Parts]:
    """Yield the networks that an estimator holds frozen, with what is in front of them."""
    for part in _nested(estimator):
        if isinstance(part, FrozenEstimator):
            with suppress(TypeError, ValueError):  # of those around something else
                yield unwrap(part)


def uses_targets(estimator: Any) -> bool:
    """Tell whether an estimator, or one inside it, is fitted to targets."""
    return any(
        is_classifier(part) or is_regressor(part) or get_tags(part).target_tags.required
        for part in _nested(estimator)
        if isinstance(part, BaseEstimator)
    )


def _different_metrics(search: BaseSearchCV, steps: tuple[Any, ...]) -> int:
    candidates = search.cv_results_["params"]
    varied = {
        key
        for key in set().union(*candidates)
        if _may_change_metric(
            key, [found[key] for found in candidates if key in found], search, steps
        )
    }
    unlike = count()
    return len(
        {
            tuple((key, _identity(found[key], unlike)) for key in sorted(varied & found.keys()))
            for found in candidates
        }
    )


def _may_change_metric(
    key: str, values: list[Any], search: BaseSearchCV, steps: tuple[Any, ...]
) -> bool:
    if contains(values, (HalfFeatures, FrozenEstimator)):
        return True
    if not steps:  # the others are affine, and count as network
        return False
    for path, part in _parts(search.best_estimator_, ""):
        if (key == path or key.startswith(f"{path}__")) and not any(part is one for one in steps):
            return False
    return True


def _parts(estimator: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the names of parameters that hold the parts of a winner, and the parts."""
    while isinstance(estimator, _AROUND):
        if isinstance(estimator, Pipeline):
            yield from ((f"{prefix}{name}", step) for name, step in estimator.steps[:-1])
        if isinstance(estimator, TransformedTargetRegressor):
            yield f"{prefix}transformer", estimator.transformer
        name, estimator = _next(estimator)
        prefix = f"{prefix}{name}__"
    yield prefix.removesuffix("__"), estimator


def _next(estimator: Any) -> tuple[str, Any]:
    """Return the parameter that leads on to the network, and what was fitted for it."""
    if isinstance(estimator, Pipeline):
        return estimator.steps[-1]
    if isinstance(estimator, TransformedTargetRegressor):
        return "regressor", estimator.regressor_
    if isinstance(estimator, BaseSearchCV):
        return "estimator", estimator.best_estimator_
    return "estimator", estimator.estimator


def _identity(value: Any, unlike: Iterator[int]) -> Any:
    """Return what tells settings apart; those that cannot be compared are all different."""
    if contains(value, FrozenEstimator):
        # Those that are alike may have been fitted on different rows.
        return id(value)
    try:
        return joblib.hash(value)
    except (AttributeError, TypeError, PicklingError):
        return next(unlike)


def _nested(value: Any) -> Iterator[Any]:
    yield value
    inner: Any = ()
    if isinstance(value, BaseEstimator) and not isinstance(value, type):
        inner = value.get_params(deep=False).values()
    elif isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list | tuple):
        inner = value
    for part in inner:
        yield from _nested(part)
