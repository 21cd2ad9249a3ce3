"""Losses between 0 and 1 that are Lipschitz in the network's outputs."""

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["clipped_residuals", "logit_margins", "ramp_loss"]


def logit_margins(logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Margin of the true class over the best other class.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_classes) or (n_samples, 1)
        Outputs of a classifier before softmax; a single column is the logit of class 1.
    labels : array-like of int of shape (n_samples,)
        Columns of the true classes (0 or 1 for a single logit).

    Returns
    -------
    ndarray of float64 of shape (n_samples,)
        ``f_y - max_{k != y} f_k``; positive where the prediction is right. With a single logit
        ``z`` the margin is ``z`` for class 1 and ``-z`` for class 0.

    Examples
    --------
    >>> logit_margins([[2.0, 0.5, -1.0], [0.0, 1.0, 3.0]], [0, 1])
    array([ 1.5, -2. ])
    """
    outputs = np.asarray(logits, dtype=np.float64)
    labels = np.asarray(labels, dtype=np.intp)
    if outputs.shape[1] == 1:
        return np.where(labels == 1, outputs[:, 0], -outputs[:, 0])
    rows = np.arange(len(outputs))
    others = outputs.copy()
    others[rows, labels] = -np.inf
    return outputs[rows, labels] - others.max(axis=1)


def ramp_loss(margins: np.ndarray, width: float) -> np.ndarray:
    """Ramp ``clip(1 - m / width, 0, 1)``: 1 for errors, 0 from margin ``width`` on.

    Parameters
    ----------
    margins : ndarray
        Margins ``m``.
    width : float
        Width of the ramp, not negative; width 0 gives the error itself, ties counted as errors.

    Returns
    -------
    ndarray of float64
        At least the zero-one loss, and ``1/width``-Lipschitz in the margin.

    Examples
    --------
    >>> ramp_loss(np.array([-1.0, 0.5, 3.0]), 2.0)
    array([1.  , 0.75, 0.  ])
    """
    if width == 0:
        return (margins <= 0).astype(np.float64)
    with np.errstate(over="ignore"):
        return np.clip(1.0 - margins / width, 0.0, 1.0)


def clipped_residuals(predictions: ArrayLike, targets: ArrayLike, loss_bound: float) -> np.ndarray:
    """Loss of a regression, ``min(1, |f(x) - y| / loss_bound)`` with the Euclidean norm.

    Parameters
    ----------
    predictions, targets : array-like of shape (n_samples,) or (n_samples, k)
        Predictions and targets, in the same units.
    loss_bound : float
        Residual at which the loss is clipped, positive.

    Returns
    -------
    ndarray of float64 of shape (n_samples,)
        Values in [0, 1].

    Examples
    --------
    >>> clipped_residuals([1.0, 5.0], [0.5, 0.0], 2.0)
    array([0.25, 1.  ])
    """
    difference = np.asarray(predictions, dtype=np.float64) - np.asarray(targets, dtype=np.float64)
    difference = difference.reshape(len(difference), -1)
    return np.minimum(np.linalg.norm(difference, axis=1) / loss_bound, 1.0)
