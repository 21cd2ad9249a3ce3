"""What a monitor is given, checked before long work."""

import re
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from sharpfit.objective import SampleLoss

_LEAST = {"n_eigenvalues": 1, "n_jacobian_rows": 0, "memory_budget": 2**10, "random_state": 0}


def epochs_between(every: int | str) -> int:
    """Return the number of epochs between measurements, 0 where they are not meant.

    Parameters
    ----------
    every : int, "auto", "epoch" or "5 epochs"

    Returns
    -------
    int
    """
    found = re.fullmatch(r"(?:([1-9]\d*) )?epochs?", every) if isinstance(every, str) else None
    return int(found[1] or 1) if found else 0


def check_settings(settings: dict[str, Any], measured: Callable[[], Sequence[str]]) -> None:
    """Refuse settings out of range, by name.

    Parameters
    ----------
    settings : dict
        Parameters of a `SharpnessMonitor`.
    measured : callable
        Returns the names of what is measured with these settings.

    Raises
    ------
    ValueError
        For the first one out of range.
    """
    every = settings["every"]
    if every != "auto" and not (epochs_between(every) or _is_count(every, 1)):
        raise ValueError(
            f'every={every!r} must be a positive int, "auto", "epoch" or as "5 epochs".'
        )
    for name in ("max_overhead", "tol"):
        value = settings[name]
        if not (isinstance(value, Real) and value > 0):
            raise ValueError(f"{name}={value!r} must be positive, a number such as 0.1.")
    for name, least in _LEAST.items():
        if not _is_count(settings[name], least):
            raise ValueError(f"{name}={settings[name]!r} must be an int of at least {least}.")
    if settings["n_rows"] is not None and not _is_count(settings["n_rows"], 1):
        raise ValueError(f"n_rows={settings['n_rows']!r} must be a positive int or None.")
    listed = settings["history"]
    if isinstance(listed, str) or not isinstance(listed, Sequence):
        raise ValueError(
            f"history={settings['history']!r} must be a sequence of names, such as ('sharpness',)."
        )
    known = measured()
    unknown = [name for name in settings["history"] if name not in known]
    if unknown:
        remedy = ""
        if settings["n_jacobian_rows"] == 0:
            remedy = " Jacobians are not, for n_jacobian_rows=0: leave their names out of history."
        raise ValueError(f"history names {unknown}; what is measured is {known}.{remedy}")


def check_given(module: Any, loss: Any, data: Any, optimizer: Any, n_updates: Any) -> None:
    """Refuse arguments of an update that are not what they should be.

    Parameters
    ----------
    module, loss, data, optimizer, n_updates : object
        As for `SharpnessMonitor.update`.

    Raises
    ------
    TypeError
        For one of another kind.
    ValueError
        For inputs and targets of different length, an optimiser of other parameters, and a
        negative number of updates.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be an nn.Module, got {type(module).__name__}.")
    if not isinstance(loss, nn.Module | SampleLoss):
        raise TypeError(
            f"loss must be a criterion such as nn.CrossEntropyLoss(), got {type(loss).__name__}; "
            "of a function, give the criterion that computes it."
        )
    pair = isinstance(data, tuple | list) and len(data) == 2
    if not pair or not all(isinstance(part, Tensor) for part in data):
        listed = isinstance(data, tuple | list)
        kinds = [type(part).__name__ for part in data] if listed else type(data).__name__
        raise TypeError(
            f"data must be a pair of tensors, inputs and targets, got {kinds}; use "
            "torch.as_tensor for arrays."
        )
    if torch.is_inference_mode_enabled() or any(part.is_inference() for part in data):
        raise ValueError(
            "data was made, or update is called, in torch.inference_mode(), where no derivatives "
            "exist; call it outside, with data.clone() of tensors made inside."
        )
    counts = [len(part) if part.ndim else 0 for part in data]
    if counts[0] != counts[1] or counts[0] == 0:
        raise ValueError(f"data has {counts[0]} inputs but {counts[1]} targets.")
    if optimizer is not None:
        _check_optimizer(optimizer, module)
    if not _is_count(n_updates, 0):
        raise ValueError(f"n_updates={n_updates!r} must be an int of at least 0.")


def _check_optimizer(optimizer: Any, module: nn.Module) -> None:
    groups = getattr(optimizer, "param_groups", None)
    if groups is None:
        held = getattr(optimizer, "optimizer", None)  # of a schedule of learning rates
        remedy = f"; give its optimizer, a {type(held).__name__}" if held is not None else ""
        raise TypeError(
            f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}{remedy}."
        )
    moved = {id(parameter) for group in groups for parameter in group["params"]}
    if not any(id(p) in moved for p in module.parameters() if p.requires_grad):
        raise ValueError(
            f"optimizer {type(optimizer).__name__} holds none of the trainable parameters of "
            f"module {type(module).__name__}; give the one that trains it, made after any copy or "
            "move to another device."
        )


def check_same_data(before: Sequence[Tensor], data: Sequence[Tensor]) -> None:
    """Refuse other rows than those of earlier measurements.

    Parameters
    ----------
    before, data : sequence of Tensor
        Inputs and targets.

    Raises
    ------
    ValueError
        If they differ.
    """
    for name, one, other in zip(("inputs", "targets"), before, data, strict=True):
        if one is not other and not (one.shape == other.shape and torch.equal(one, other)):
            raise ValueError(
                f"data has other {name} than at the first call, and measurements start from "
                "earlier ones: give the same rows every time, not batches, or watch others with "
                "a SharpnessMonitor of their own."
            )


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= least
