"""The training loss at moved weights."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sharpfit.objective import SampleLoss

_ROWS_PER_BATCH = 4096


def parameter_vector(module: nn.Module) -> Tensor:
    """Trainable parameters of a module as one vector.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    Tensor of shape (n_parameters,)
    """
    trainable = [p.detach().flatten() for p in module.parameters() if p.requires_grad]
    return torch.cat(trainable)


@torch.no_grad()
def outputs_at(module: nn.Module, inputs: Tensor, vector: Tensor) -> Tensor:
    """Evaluate a module at other parameters than its own.

    Parameters
    ----------
    module : torch.nn.Module
        Not modified.
    inputs : Tensor of shape (n, ...)
        Rows.
    vector : Tensor of shape (n_parameters,)
        As laid out by `parameter_vector`.

    Returns
    -------
    Tensor of shape (n, C), float64
    """
    moved = _named(module, vector)
    batches = inputs.split(_ROWS_PER_BATCH)
    return torch.cat([functional_call(module, moved, (batch,)).double() for batch in batches])


def gradient_of(module: nn.Module, loss: SampleLoss, inputs: Tensor, targets: Tensor) -> Tensor:
    """Gradient of the loss of rows in the trainable parameters.

    Parameters
    ----------
    module : torch.nn.Module
        Not modified.
    loss : SampleLoss
        Loss of the outputs.
    inputs : Tensor of shape (n, ...)
        Rows.
    targets : Tensor of shape (n, ...)
        Their targets.

    Returns
    -------
    Tensor of shape (n_parameters,)
    """
    vector = parameter_vector(module).requires_grad_()
    outputs = functional_call(module, _named(module, vector), (inputs,))
    value = (loss.row_weights(targets) * loss.values(outputs, targets).double()).sum()
    return torch.autograd.grad(value, vector)[0]


def _named(module: nn.Module, vector: Tensor) -> dict[str, Tensor]:
    named, start = {}, 0
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            stop = start + parameter.numel()
            named[name] = vector[start:stop].view_as(parameter)
            start = stop
    return named


def loss_at(
    module: nn.Module, loss: SampleLoss, inputs: Tensor, targets: Tensor, vector: Tensor
) -> float:
    """Loss of rows at other parameters than the module's own.

    Parameters
    ----------
    module : torch.nn.Module
        Not modified.
    loss : SampleLoss
        Loss of the outputs.
    inputs : Tensor of shape (n, ...)
        Rows.
    targets : Tensor of shape (n, ...)
        Their targets.
    vector : Tensor of shape (n_parameters,)
        As laid out by `parameter_vector`.

    Returns
    -------
    float
    """
    values = loss.values(outputs_at(module, inputs, vector), targets).double()
    return float((loss.row_weights(targets) * values).sum())
