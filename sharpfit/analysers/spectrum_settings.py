"""The settings of a spectrum, checked before any work."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sharpfit.analysers.arguments import as_dtype

_MATRICES = ("hessian", "gauss_newton")
_ENDS = ("largest", "smallest", "magnitude")


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_whole(value) and value > 0


_REQUIREMENTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "matrix": (_MATRICES.__contains__, f"one of {_MATRICES}"),
    "which": (_ENDS.__contains__, f"one of {_ENDS}"),
    "trace": (_is_flag, "True or False"),
    "density": (_is_flag, "True or False"),
    "n_eigenvalues": (_is_count, "a positive int"),
    "tol": (
        lambda value: isinstance(value, float | int | np.floating) and 0 <= value < 1,
        "a number from 0 to below 1: it is relative",
    ),
    "batch_size": (
        lambda value: (isinstance(value, str) and value == "auto") or _is_count(value),
        'a positive int or "auto"',
    ),
    "memory_budget": (_is_count, "a positive int, a number of bytes such as 2**31"),
    "n_jobs": (
        lambda value: value is None or (_is_whole(value) and value != 0),
        "an int other than 0, -1 for all cores, or None",
    ),
    "verbose": (
        lambda value: _is_flag(value) or (_is_whole(value) and value >= 0),
        "an int of at least 0",
    ),
}


def check_spectrum_settings(settings: dict[str, Any]) -> None:
    """Refuse settings that no spectrum can be computed with.

    Parameters
    ----------
    settings : dict
        Parameters of `HessianSpectrum` by name.

    Raises
    ------
    ValueError
        Naming the parameter, its value and what would do.
    """
    for name, (holds, requirement) in _REQUIREMENTS.items():
        if not holds(settings[name]):
            raise ValueError(f"{name}={settings[name]!r} must be {requirement}.")
    budget, count = settings["max_products"], settings["n_eigenvalues"]
    if budget is not None and (not _is_count(budget) or budget < count):
        raise ValueError(
            f"max_products={budget!r} must be an int of at least n_eigenvalues={count}, as each "
            "eigenvalue takes a product, or None."
        )
    if as_dtype(settings["dtype"]) not in (None, torch.float32, torch.float64):
        raise ValueError(
            f'dtype={settings["dtype"]!r} is too coarse for curvature; use "float32", '
            '"float64" or None.'
        )
    if isinstance(settings["parameters"], str):
        _check_expression(settings["parameters"])


def _check_expression(parameters: str) -> None:
    try:
        re.compile(parameters)
    except re.error as error:
        raise ValueError(
            f"parameters={parameters!r} is no regular expression ({error}); give one, a list of "
            "names, or a function of name and parameter."
        ) from error
