"""Rows and targets that a bound refuses, before any training."""

from typing import Any

from scipy import sparse
from sklearn.base import BaseEstimator, is_classifier, is_regressor

from sharpfit.bridge import unwrap

__all__ = ["check_rows"]


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
        If targets are missing or ``loss_bound`` does not fit the estimator.
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
