"""Checks of arguments, before any work."""

from numbers import Integral, Real
from typing import Any

from torch import Tensor

from sharpfit.objective import CrossEntropy, SampleLoss, as_sample_loss

_ROWS_PER_CHECK = 2**12


def check_count(name: str, value: Any, *, smallest: int = 1) -> None:
    """Refuse what is no integer, or too small a one.

    Parameters
    ----------
    name : str
        Of the argument.
    value : object
    smallest : int, default=1
        Smallest value that is allowed.

    Raises
    ------
    ValueError
    """
    if not isinstance(value, Integral) or value < smallest:
        raise ValueError(f"{name} must be an int of at least {smallest}, got {value!r}")


def check_positive(name: str, value: Any, meaning: str) -> None:
    """Refuse what is no positive number.

    Parameters
    ----------
    name : str
        Of the argument.
    value : object
    meaning : str
        What the number is, for the message.

    Raises
    ------
    ValueError
    """
    if not isinstance(value, Real) or not float(value) > 0:
        raise ValueError(f"{name} must be a positive number, {meaning}, got {value!r}")


def check_tensor(name: str, value: Any) -> None:
    """Refuse what is no tensor.

    Parameters
    ----------
    name : str
        Of the argument.
    value : object

    Raises
    ------
    TypeError
    """
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} must be a tensor, got {type(value).__name__}; use torch.as_tensor({name})"
        )


def checked_loss(loss: Any, targets: Tensor, n_outputs: int, like: Tensor) -> SampleLoss:
    """Return a criterion as a loss of samples that has been tried on all targets.

    Parameters
    ----------
    loss : SampleLoss or torch.nn.Module
    targets : Tensor of shape (n, ...)
    n_outputs : int
        Number of the network's outputs.
    like : Tensor
        In the dtype of these outputs and on their device, where the targets are, too.

    Returns
    -------
    SampleLoss

    Raises
    ------
    TypeError, ValueError
        If the loss is none, or does not take the targets.
    """
    loss = as_sample_loss(loss)
    refusal = (
        f"targets of dtype {targets.dtype} and shape {tuple(targets.shape)} do not fit {loss} of "
        f"{n_outputs} outputs"
    )
    if isinstance(loss, CrossEntropy) and not targets.is_floating_point():
        # Looked at by itself: on a GPU, the loss of a class out of range stops the device.
        known = (targets >= 0) & (targets < n_outputs) | (targets == loss.ignore_index)
        if not bool(known.all()):
            raise ValueError(f"{refusal}: class {int(targets[~known][0])} is out of range")
    for part in targets.split(_ROWS_PER_CHECK):
        try:
            values = loss.values(like.new_zeros(len(part), n_outputs), part)
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"{refusal}: {error}") from error
        if values.shape != (len(part),):
            raise ValueError(f"{refusal}: there must be one loss a row")
    return loss
