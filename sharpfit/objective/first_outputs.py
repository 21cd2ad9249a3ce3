"""The first call of a copied module, which shows whether it can be analysed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# By how much outputs of the same rows may differ, next to the largest of them.
_ROUNDING = 1e-3
# Calls of a module that draws random numbers: one in twenty that changes something is seen.
_REPEATED = 64


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
        If the module does not run on the rows, or another call returns something else.
    """
    name = f"module {type(copied).__name__}"
    return first_results(copied, lambda rows: _call(copied, rows), inputs, name)


def first_results(
    copied: nn.Module, function: Callable[[Tensor], Any], inputs: Tensor, name: str
) -> Any:
    """Evaluate a function of a copied module and rows, as `first_outputs` does the module.

    Parameters
    ----------
    copied : torch.nn.Module
        Made to copy its inputs if it changes them.
    function : callable
        Of the rows, through the module.
    inputs : Tensor of shape (m, ...)
        Not changed.
    name : str
        Of the function, for the message.

    Returns
    -------
    Any
        What the function returns.

    Raises
    ------
    ValueError
        If another call returns something else.
    """
    probe = inputs.detach().clone()
    version = probe._version
    generators = _states(inputs.device)
    with torch.no_grad():
        results = function(probe)
        if probe._version != version:
            _copy_first(copied)
        drew = not all(map(torch.equal, generators, _states(inputs.device)))
        agrees = True
        for _ in range(_REPEATED if drew else 1):
            again = function(inputs.detach().clone())
            agrees = agrees and (
                not isinstance(results, Tensor) or _agree(results, again, exactly=drew)
            )
    if drew:
        _restore(generators, inputs.device)
    if not agrees:
        raise ValueError(
            f"{name} returns something else for the same rows when called again in evaluation "
            "mode, so it is no function that has derivatives; switch its randomness off there, as "
            "by torch.nn.Dropout or F.dropout(x, training=self.training)"
        )
    return results


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
        If the first or the last row gives other outputs once all others are copies of it.
    """
    for place in (0, len(inputs) - 1) if len(inputs) > 1 else ():
        # As many rows as before, so that rounding is the same.
        copies = inputs[place].detach().expand_as(inputs).clone()
        try:
            with torch.no_grad():
                found = copied(copies)[place]
        except (RuntimeError, ValueError, IndexError) as error:
            reason = f"does not run on equal rows ({error})"
        else:
            if _agree(outputs[place], found, like=outputs):
                continue
            reason = "returns other outputs for a row when other rows change"
        raise ValueError(
            f"module {type(copied).__name__} {reason}, so its rows depend on each other, and there "
            "are no losses and Jacobians of single rows. Batch normalisation needs "
            "track_running_stats=True, attention and recurrent layers batch_first=True; a loss "
            "that is meant to couple its rows has a Hessian, see "
            "sharpfit.curvature.BatchObjective"
        )


def are_equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same, NaN in the same places.

    Parameters
    ----------
    one, other : Tensor

    Returns
    -------
    bool
    """
    missing = (one != one) & (other != other) if one.shape == other.shape else None
    return missing is not None and bool(((one == other) | missing).all())


def _call(module: nn.Module, inputs: Tensor) -> Any:
    try:
        return module(inputs)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"module {type(module).__name__} does not run on rows of shape "
            f"{tuple(inputs.shape[1:])} and dtype {inputs.dtype} ({error}); give rows as the "
            "network takes them, in one tensor"
        ) from error


def _agree(one: Tensor, other: Any, *, exactly: bool = False, like: Tensor | None = None) -> bool:
    """Whether two tensors are the same up to rounding, of the size of those in `like`."""
    if not isinstance(other, Tensor) or one.shape != other.shape:
        return False
    if exactly or not one.is_floating_point():
        return are_equal(one, other)
    like = (one if like is None else like).detach()
    scale = float(like.nan_to_num(posinf=0.0, neginf=0.0).abs().max()) if like.numel() else 0.0
    rounding = max(_ROUNDING, 16 * torch.finfo(one.dtype).eps)
    return torch.allclose(one, other, rtol=rounding, atol=rounding * scale, equal_nan=True)


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
