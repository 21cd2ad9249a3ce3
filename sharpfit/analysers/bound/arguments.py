"""Rows and targets that a bound refuses, before any training."""

from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, is_classifier, is_regressor

from sharpfit.bridge import unwrap

__all__ = ["check_metrics", "check_rows", "check_threshold"]


def check_rows(
    estimator: BaseEstimator, X: Any, y: Any, fit_params: dict[str, Any], loss_bound: float | None
) -> None:
    """Refuse what has no place in a bound, with the reason and the remedy.

    Parameters
    ----------
    estimator : estimator object
        Around a network.
    X, y : array-like of shape (n, ...)
        Rows and targets.
    fit_params : dict
        Further arguments of ``fit``.
    loss_bound : float or None
        Clipping residual, for a regressor.

    Raises
    ------
    TypeError
        If there are further arguments or the rows are sparse.
    ValueError
        If targets are missing or have several labels a row, or ``loss_bound`` or the network's
        threshold does not fit.
    """
    if "groups" in fit_params:
        raise TypeError(
            "groups is refused: the bound needs independent rows, and rows of one group are not. "
            "Keep one row per group."
        )
    for name in fit_params:
        raise TypeError(
            f"{name} is refused: the bound is on the error of a fresh row drawn like every one of "
            "these rows, which leaves no room for it. Weights belong into the network's fit."
        )
    if y is None:
        raise ValueError(
            "A bound on the error requires y to be passed, but the target y is None; pass y."
        )
    if sparse.issparse(X):
        raise TypeError("X is sparse; networks and distances need X.toarray().")
    network = unwrap(estimator).network
    if not is_classifier(network) and not is_regressor(network):
        raise TypeError(
            f"estimator {type(network).__name__} is neither a classifier nor a regressor, so it is "
            "not known what an error is; use NetworkClassifier, NetworkRegressor or skorch's "
            "NeuralNetClassifier or NeuralNetRegressor."
        )
    check_threshold(network)
    shape = np.asarray(y).shape
    if is_classifier(network) and len(shape) == 2 and shape[1] > 1:
        raise ValueError(
            f"y of shape {shape} has several labels a row; the bound is on the error of one "
            "class a row. Take one column at a time."
        )
    if is_regressor(network) and loss_bound is None:
        raise ValueError(
            "loss_bound=None: the bound of a regressor is on min(1, |f(x) - y| / loss_bound); "
            "choose the residual at which you clip, in units of y, before looking at the rows."
        )
    if is_classifier(network) and loss_bound is not None:
        raise ValueError(
            f"loss_bound={loss_bound!r} is for regressors; the bound of a classifier is on its "
            "frequency of errors. Leave it out."
        )


def check_threshold(network: Any) -> None:
    """Refuse a binary network that does not decide by the sign of its logit.

    Parameters
    ----------
    network : skorch.NeuralNet
        The network.

    Raises
    ------
    ValueError
        If it has another ``threshold`` than 1/2.
    """
    threshold = getattr(network, "threshold", 0.5)
    if threshold != 0.5:
        raise ValueError(
            f"threshold={threshold!r}: margins are taken at 0.5, so the bound would not be on the "
            "errors of `predict`. Set threshold=0.5; what it moves, the bias of the last layer can."
        )


def check_metrics(metrics: Any, n_samples: int) -> None:
    """Refuse what is no table of other spaces of the same rows.

    Parameters
    ----------
    metrics : dict of str to array-like of shape (n_samples, d)
        Rows by name of the space.
    n_samples : int
        Number of rows.

    Raises
    ------
    TypeError
        If it is no dictionary.
    ValueError
        If a name is taken or rows are missing.
    """
    if not isinstance(metrics, dict):
        raise TypeError(
            f"metrics of type {type(metrics).__name__} must be a dict of rows by name of the "
            "metric, for example {'first column': X[:, :1]}."
        )
    if "current" in metrics:
        raise ValueError("metrics names one 'current', which is the metric of the bound itself.")
    for name, rows in metrics.items():
        shape = np.asarray(rows).shape
        if shape[:1] != (n_samples,):
            raise ValueError(
                f"metrics[{name!r}] of shape {shape} must hold the same {n_samples} rows."
            )
