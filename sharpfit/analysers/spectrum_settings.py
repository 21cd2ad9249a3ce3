"""The settings of a spectrum, checked before any work."""

import re
from typing import Any

import numpy as np
import torch

from sharpfit.analysers.arguments import as_dtype

_CHOICES = {
    "matrix": ("hessian", "gauss_newton"),
    "which": ("largest", "smallest", "magnitude"),
}
_FLAGS = ("trace", "density")


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
    for name, allowed in _CHOICES.items():
        if settings[name] not in allowed:
            raise ValueError(f"{name}={settings[name]!r} must be one of {allowed}.")
    for name in _FLAGS:
        if not isinstance(settings[name], bool | np.bool_):
            raise ValueError(f"{name}={settings[name]!r} must be True or False.")
    count = settings["n_eigenvalues"]
    if not _is_count(count):
        raise ValueError(f"n_eigenvalues={count!r} must be a positive int.")
    tol = settings["tol"]
    if not isinstance(tol, float | int | np.floating) or not 0 <= tol < 1:
        raise ValueError(f"tol={tol!r} must be a number from 0 to below 1: it is relative.")
    budget = settings["max_products"]
    if budget is not None and (not _is_count(budget) or budget < count):
        raise ValueError(
            f"max_products={budget!r} must be an int of at least n_eigenvalues={count}, as each "
            "eigenvalue takes a product, or None."
        )
    rows = settings["batch_size"]
    if rows != "auto" and not _is_count(rows):
        raise ValueError(f'batch_size={rows!r} must be a positive int or "auto".')
    memory = settings["memory_budget"]
    if not _is_count(memory):
        raise ValueError(
            f"memory_budget={memory!r} must be a positive int, a number of bytes such as 2**31."
        )
    if as_dtype(settings["dtype"]) not in (None, torch.float32, torch.float64):
        raise ValueError(
            f'dtype={settings["dtype"]!r} is too coarse for curvature; use "float32", '
            '"float64" or None.'
        )
    _check_expression(settings["parameters"])


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and value > 0


def _check_expression(parameters: Any) -> None:
    if not isinstance(parameters, str):
        return
    try:
        re.compile(parameters)
    except re.error as error:
        raise ValueError(
            f"parameters={parameters!r} is no regular expression ({error}); give one, a list of "
            "names, or a function of name and parameter."
        ) from error
