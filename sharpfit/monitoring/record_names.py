"""Names of what a measurement records."""

import math
from typing import Any

_ALWAYS = (
    "loss",
    "gradient_norm",
    "sharpness",
    "sharpness_error",
    "gauss_newton_part",
    "residual_part",
    "trained_sharpness",
    "trained_sharpness_error",
    "stability_limit",
)
_AT_ROWS = (
    "sharpness_floor",
    "sharpness_floor_error",
    "loss_sharpness_floor",
    "loss_curvature",
    "jacobian_max",
    "jacobian_mean",
    "jacobian_mean_error",
    "response_jacobian_max",
    "slope_bound",
    "response_slope_bound",
    "loss_slope_bound",
)
_PART = ("sharpness_sampling_error", "held_out_sharpness", "held_out_sharpness_error")
_VARIATION = ("local_variation", "jacobian_rate", "smooth_loss_sharpness_floor")
_ALIGNMENT = ("layer_alignment",)


def measured(
    *,
    part: bool,
    jacobian: bool,
    alignment: bool,
    local_variation: bool,
    n_eigenvalues: int = 1,
) -> tuple[str, ...]:
    """Return the names of what is measured with these settings.

    Parameters
    ----------
    part, jacobian, alignment, local_variation : bool
        Whether only some rows are measured, and what is measured.
    n_eigenvalues : int, default=1
        Eigenvalues of the Hessian.

    Returns
    -------
    tuple of str
    """
    names = _ALWAYS + (_PART if part else ())
    for place in range(2, n_eigenvalues + 1):
        names += (f"eigenvalue_{place}", f"eigenvalue_{place}_error")
    if jacobian:
        names += _AT_ROWS
        names += _ALIGNMENT if alignment else ()
        names += _VARIATION if local_variation else ()
    return names


def unmeasured(names: tuple[str, ...], problem: str) -> dict[str, Any]:
    """Return the record of a measurement that has not been made.

    Parameters
    ----------
    names : tuple of str
        What would have been measured.
    problem : str
        Why it was not.

    Returns
    -------
    dict
    """
    told = {"stability_statement": "", "problem": problem}
    return dict.fromkeys(names, math.nan) | {"n_products": 0, "seconds": 0.0} | told
