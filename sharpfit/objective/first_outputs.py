"""The first call of a copied module, which shows whether it can be analysed."""

from typing import Any

import torch
from torch import Tensor, nn

# By how much outputs of the same rows may differ, next to the largest of them.
_ROUNDING = 1e-3


def first_outputs(copied: nn.Module, inputs: Tensor) -> Any:
    """Run a copied module on a few rows, and see to it that it is a function that changes none.

    A first layer that works in place would change the user's rows, and what it overwrites cannot be
    differentiated in. Its switch stays on: a network may use what was overwritten.

    Parameters
    ----------
    copied : torch.nn.Module
        In evaluation mode; made to copy its inputs if it changes them.
    inputs : Tensor of shape (m, ...)
        A few rows; not changed.

    Returns
    -------
    Any
        What the module returns, without gradients.

    Raises
    ------
    ValueError
        If the module does not run on the rows, or another call returns something else. The random
        state is as before then.
    """
    probe = inputs.detach().clone()
    version = probe._version
    generators = _states(inputs.device)
    outputs = _call(copied, probe)
    if probe._version != version:
        _copy_first(copied)
    again = _call(copied, inputs.detach().clone())
    drew = not all(map(torch.equal, generators, _states(inputs.device)))
    if isinstance(outputs, Tensor) and not _agree(outputs, again, exactly=drew):
        _restore(generators, inputs.device)
        raise ValueError(
            f"module {type(copied).__name__} returns other outputs for the same rows when called "
            "again in evaluation mode, so it is no function that has derivatives; switch its "
            "randomness off there, as by torch.nn.Dropout or F.dropout(x, training=self.training)"
        )
    return outputs


def require_rows_apart(copied: nn.Module, inputs: Tensor, outputs: Tensor) -> None:
    """Refuse a module whose outputs at a row depend on the other rows.

    Parameters
    ----------
    copied : torch.nn.Module
        As `first_outputs` left it.
    inputs : Tensor of shape (m, ...)
        A few rows.
    outputs : Tensor of shape (m, ...)
        What the module returns for them.

    Raises
    ------
    ValueError
        If the first row alone gives other outputs.
    """
    if len(inputs) < 2:
        return
    try:
        with torch.no_grad():
            alone = copied(inputs[:1].detach().clone())
    except (RuntimeError, ValueError, IndexError) as error:
        reason = f"does not run on a row alone ({error})"
    else:
        scale = float(outputs.nan_to_num(posinf=0.0, neginf=0.0).abs().max())
        if _agree(outputs[:1], alone, scale=scale):
            return
        reason = f"returns other outputs for a row alone than among {len(inputs)} rows"
    raise ValueError(
        f"module {type(copied).__name__} {reason}: its rows depend on each other, and there are no "
        "losses and Jacobians of single rows. Batch normalisation needs track_running_stats=True, "
        "and attention batch_first=True; a loss that is meant to couple its rows has a Hessian, "
        "see sharpfit.curvature.BatchObjective"
    )


def _call(module: nn.Module, inputs: Tensor) -> Any:
    try:
        with torch.no_grad():
            return module(inputs)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"module {type(module).__name__} does not run on rows of shape "
            f"{tuple(inputs.shape[1:])} and dtype {inputs.dtype} ({error}); give rows as the "
            "network takes them, in one tensor"
        ) from error


def _agree(one: Tensor, other: Any, *, exactly: bool = False, scale: float | None = None) -> bool:
    if not isinstance(other, Tensor) or one.shape != other.shape:
        return False
    if exactly:
        return torch.allclose(one, other, rtol=0.0, atol=0.0, equal_nan=True)
    if scale is None:
        scale = float(one.nan_to_num(posinf=0.0, neginf=0.0).abs().max()) if one.numel() else 0.0
    return torch.allclose(one, other, rtol=_ROUNDING, atol=_ROUNDING * scale, equal_nan=True)


def _states(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def _restore(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def _copy_first(module: nn.Module) -> None:
    kind = type(module)

    def forward(self: nn.Module, inputs: Tensor, *args: Any, **kwargs: Any) -> Any:
        return kind.forward(self, inputs.clone(), *args, **kwargs)

    # A subclass, unlike a wrapper, keeps the names of the parameters.
    module.__class__ = type(kind.__name__, (kind,), {"forward": forward})
