"""Settings of curvature matrices, checked."""

import math
import sys
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from sharpfit.curvature.network import Network


def checked_weight_decay(weight_decay: Any) -> float:
    """Return a coefficient of weight decay.

    Parameters
    ----------
    weight_decay : float

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If it is no non-negative, finite number.
    """
    try:
        value = math.nan if isinstance(weight_decay, str) else float(weight_decay)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"weight_decay must be non-negative and finite, got {weight_decay!r}")
    return value


def checked_budget(memory_budget: Any) -> int:
    """Return a number of bytes.

    Parameters
    ----------
    memory_budget : int
        Or a float such as ``1e9``; infinity is no limit.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If it is no number of at least one.
    """
    if not isinstance(memory_budget, Real) or not float(memory_budget) >= 1:
        raise ValueError(f"memory_budget must be a positive number of bytes, got {memory_budget!r}")
    return int(min(float(memory_budget), sys.maxsize))


def inverse_root(preconditioner: Any, network: Network) -> Tensor | None:
    """Return ``p^(-1/2)`` of a preconditioner `p`, in the network's dtype; None stays None.

    Parameters
    ----------
    preconditioner : Tensor of shape (size,) or None
    network : Network

    Returns
    -------
    Tensor of shape (size,) or None

    Raises
    ------
    TypeError
        If it is no tensor.
    ValueError
        If its shape does not fit, or an entry is not positive and finite.
    """
    if preconditioner is None:
        return None
    expected = (network.selection.size,)
    if not isinstance(preconditioner, Tensor):
        raise TypeError(f"preconditioner must be a Tensor, got {type(preconditioner).__name__}")
    if preconditioner.shape != expected:
        raise ValueError(
            f"preconditioner has shape {tuple(preconditioner.shape)}, expected {expected}"
        )
    if not bool((preconditioner > 0).all() and preconditioner.isfinite().all()):
        raise ValueError("preconditioner must be positive and finite in every entry")
    return preconditioner.to(network.device, torch.float64).rsqrt().to(network.dtype)
