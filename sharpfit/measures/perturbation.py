"""Outputs, loss and gradient of a network at other weights than its own."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sharpfit.bridge import Problem

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


def gradient_at_rows(problem: Problem, rows: Tensor | slice) -> Tensor:
    """Gradient of the loss of some rows in the trainable parameters.

    Parameters
    ----------
    problem : Problem
    rows : Tensor of int or slice
        The rows; their loss is weighted as if they were the whole data set.

    Returns
    -------
    Tensor of shape (n_parameters,)
    """
    vector = parameter_vector(problem.module).requires_grad_()
    outputs = functional_call(
        problem.module, _named(problem.module, vector), (problem.inputs[rows],)
    )
    return torch.autograd.grad(_loss(problem, rows, outputs), vector)[0]


def loss_at(problem: Problem, rows: Tensor | slice, vector: Tensor) -> float:
    """Loss of some rows at other parameters than the module's own.

    Parameters
    ----------
    problem : Problem
    rows : Tensor of int or slice
        The rows; their loss is weighted as if they were the whole data set.
    vector : Tensor of shape (n_parameters,)
        As laid out by `parameter_vector`.

    Returns
    -------
    float
    """
    return float(_loss(problem, rows, outputs_at(problem.module, problem.inputs[rows], vector)))


def _loss(problem: Problem, rows: Tensor | slice, outputs: Tensor) -> Tensor:
    loss, targets = problem.sample_loss(), problem.targets[rows]
    sample_weight = None if problem.sample_weight is None else problem.sample_weight[rows]
    weights = loss.row_weights(targets, sample_weight)
    return (weights * loss.values(outputs, targets).double()).sum()


def _named(module: nn.Module, vector: Tensor) -> dict[str, Tensor]:
    named, start = {}, 0
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            stop = start + parameter.numel()
            named[name] = vector[start:stop].view_as(parameter)
            start = stop
    return named
