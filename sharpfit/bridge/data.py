"""Rows and targets as the tensors that a network and its loss see."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from skorch import NeuralNet
from torch import Tensor


def preprocess(X: Any, preprocessing: tuple[Any, ...]) -> Any:
    """Pass rows through fitted preprocessing steps.

    Parameters
    ----------
    X : array-like of shape (n, ...)
        Raw rows.
    preprocessing : tuple of fitted transformers
        Applied in order.

    Returns
    -------
    array-like of shape (n, ...)
    """
    for step in preprocessing:
        X = step.transform(X)
    return X


def input_tensor(network: NeuralNet, X: Any) -> Tensor:
    """Convert preprocessed rows to the tensor that the network's module receives.

    Parameters
    ----------
    network : skorch.NeuralNet
        An initialised network.
    X : array-like of shape (n, ...)
        Rows in the network's input space.

    Returns
    -------
    Tensor of shape (n, ...)

    Raises
    ------
    TypeError
        If the rows are not one dense array.
    """
    if hasattr(network, "input_tensor"):
        return network.input_tensor(X)
    if sparse.issparse(X):
        raise TypeError("X is sparse, but skorch nets need dense rows; pass X.toarray()")
    if isinstance(X, Tensor):
        return X.detach().to(network.device)
    if hasattr(X, "to_numpy"):
        X = X.to_numpy()
    if not isinstance(X, np.ndarray) or X.dtype == object:
        raise TypeError(
            f"X is a {type(X).__name__}, but an analysis needs one numeric array of rows; networks "
            "with several inputs are not covered, wrap the module so that it takes one"
        )
    tensor = torch.as_tensor(np.ascontiguousarray(X), device=network.device)
    expected = next((p.dtype for p in network.module_.parameters()), tensor.dtype)
    if tensor.is_floating_point() and tensor.dtype != expected:
        raise TypeError(
            f"X has dtype {X.dtype}, but the module of {type(network).__name__} computes in "
            f"{expected}; pass X.astype({str(expected).removeprefix('torch.')!r}), or use "
            "NetworkClassifier / NetworkRegressor, which convert"
        )
    # as_tensor shares memory with the user's array; an analysis must not be able to write to it.
    return tensor.clone()


def target_tensor(network: NeuralNet, y: Any, target_transformer: Any | None) -> Tensor:
    """Convert targets to the tensor that the network's loss receives.

    Parameters
    ----------
    network : skorch.NeuralNet
        An initialised network.
    y : array-like of shape (n,) or (n, k)
        Class labels or real targets.
    target_transformer : transformer or None
        Fitted transformer of regression targets.

    Returns
    -------
    Tensor of shape (n,) or (n, k)
    """
    if target_transformer is not None:
        y = np.asarray(y)
        y = target_transformer.transform(y.reshape(-1, 1) if y.ndim == 1 else y)
        if y.shape[1] == 1 and not _keeps_target_column(network):
            y = y[:, 0]
    if hasattr(network, "target_tensor"):
        return network.target_tensor(y)
    if isinstance(y, Tensor):
        return y.detach().to(network.device)
    array = y.to_numpy() if hasattr(y, "to_numpy") else np.asarray(y)
    if array.dtype.kind not in "iufb":
        raise TypeError(
            f"y has dtype {array.dtype}, but {type(network).__name__} takes numbers; encode the "
            "labels as 0..C-1, or use NetworkClassifier, which does it"
        )
    tensor = torch.as_tensor(np.ascontiguousarray(array), device=network.device).clone()
    if tensor.is_floating_point():
        tensor = tensor.to(next((p.dtype for p in network.module_.parameters()), tensor.dtype))
    return tensor


def encode_labels(y: Any, classes: NDArray[Any]) -> NDArray[np.int64]:
    """Positions of class labels in the classifier's `classes_`.

    Parameters
    ----------
    y : array-like of shape (n,)
        Labels.
    classes : ndarray of shape (n_classes,)
        Sorted labels known to the classifier.

    Returns
    -------
    ndarray of shape (n,), int64

    Raises
    ------
    ValueError
        If a label is unknown to the classifier.
    """
    y = y.to_numpy() if hasattr(y, "to_numpy") else np.asarray(y)
    y = y.reshape(y.shape[0]) if y.ndim == 2 and y.shape[1] == 1 else y
    known = np.isin(y, classes)
    if not known.all():
        raise ValueError(
            f"y contains the label {y[~known].tolist()[0]!r}, which is not among the classes the "
            f"network was trained on, {classes.tolist()}; pass rows of these classes only"
        )
    return np.searchsorted(classes, y).astype(np.int64)


def _keeps_target_column(network: NeuralNet) -> bool:
    # Plain skorch regressors are trained on (n, 1) targets, since they compare shapes.
    return not hasattr(network, "target_tensor")
