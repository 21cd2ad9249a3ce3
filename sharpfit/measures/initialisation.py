"""The module of a network as it was before training."""

import copy
from typing import Any

from sklearn.base import clone
from torch import nn

from sharpfit.bridge import preprocess, unwrap
from sharpfit.networks import NetworkClassifier, NetworkRegressor


def initial_module(estimator: Any, X: Any, y: Any) -> nn.Module | None:
    """Build a network's module again as it was before its training.

    Parameters
    ----------
    estimator : estimator object
        A fitted network, or a pipeline or search around one.
    X : array-like of shape (n, ...)
        Training rows.
    y : array-like of shape (n,) or (n, k)
        Their targets.

    Returns
    -------
    torch.nn.Module or None
        In evaluation mode. None for a network whose first weights cannot be drawn again:
        a plain skorch net, or one without an integer `random_state`.
    """
    parts = unwrap(estimator)
    network = parts.network
    repeatable = isinstance(network, NetworkClassifier | NetworkRegressor)
    if not repeatable or not isinstance(network.random_state, int):
        return None
    if parts.target_transformer is not None:
        return None
    untrained = clone(network).set_params(max_epochs=0, callbacks=None)
    untrained.fit(preprocess(X, parts.preprocessing), y)
    return copy.deepcopy(untrained.module_).eval()
