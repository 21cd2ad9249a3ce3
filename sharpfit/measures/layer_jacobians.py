"""Jacobians of the outputs in what enters each layer with weights."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sharpfit.jacobian.gram import matrix_norms

_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_ENTRIES_PER_CHUNK = 1 << 24


@dataclass(frozen=True)
class LayerJacobians:
    """Norms of the Jacobians in the inputs of the layers with weights.

    Attributes
    ----------
    spectral : ndarray of shape (n_calls, n)
        Spectral norms, by layer in the order of their calls and by row.
    hidden : ndarray of shape (n, d)
        What enters the second layer with weights: the features of the first. Without a second
        layer, the inputs.
    margin_gradient : ndarray of shape (n,) or None
        Norms of the gradients of the margins in these features; None without labels.
    """

    spectral: NDArray[np.float64]
    hidden: NDArray[np.float64]
    margin_gradient: NDArray[np.float64] | None


def weighted_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Linear and convolutional layers of a module, by name.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    dict of str to torch.nn.Module

    Raises
    ------
    ValueError
        If there is none.
    """
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, _WEIGHTED)}
    if not layers:
        raise ValueError(
            f"{type(module).__name__} has no linear or convolutional layer, so there are no weight "
            "matrices"
        )
    return layers


def layer_jacobians(module: nn.Module, inputs: Tensor, labels: Tensor | None) -> LayerJacobians:
    """Compute the Jacobians of the outputs in what enters each layer with weights.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode, returning logits or predictions of shape (n, C).
    inputs : Tensor of shape (n, ...)
        Rows.
    labels : Tensor of shape (n,) or None
        Class numbers of the rows, to take margins.

    Returns
    -------
    LayerJacobians
    """
    entering, outputs = _forward(module, inputs[:1])
    entries = outputs.shape[1] * sum(tensor.numel() for tensor in entering)
    size = max(1, _ENTRIES_PER_CHUNK // entries)
    chunks = [slice(start, start + size) for start in range(0, len(inputs), size)]
    parts = [
        _chunk(module, inputs[rows], None if labels is None else labels[rows]) for rows in chunks
    ]
    spectral, hidden, gradients = zip(*parts, strict=True)
    return LayerJacobians(
        spectral=torch.cat(spectral, dim=1).cpu().numpy(),
        hidden=torch.cat(hidden).cpu().numpy(),
        margin_gradient=None if labels is None else torch.cat(gradients).cpu().numpy(),
    )


def _chunk(
    module: nn.Module, inputs: Tensor, labels: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    entering, outputs = _forward(module, inputs)
    columns = []
    for output in range(outputs.shape[1]):
        cotangent = torch.zeros_like(outputs)
        cotangent[:, output] = 1.0
        columns.append(torch.autograd.grad(outputs, entering, cotangent, retain_graph=True))
    jacobians = [
        torch.stack([g.flatten(1) for g in layer], dim=1) for layer in zip(*columns, strict=True)
    ]
    second = min(1, len(entering) - 1)
    gradients = None
    if labels is not None:
        gradients = _margin_gradients(jacobians[second], outputs.detach(), labels).norm(dim=1)
    spectral = torch.stack([matrix_norms(jacobian)[0] for jacobian in jacobians])
    return spectral, entering[second].detach().flatten(1).double(), gradients


def _forward(module: nn.Module, inputs: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return what enters the layers, in the order of their calls, and the outputs."""
    entering: list[Tensor] = []
    handles = [
        layer.register_forward_pre_hook(lambda _, args: entering.append(args[0]))
        for layer in weighted_layers(module).values()
    ]
    try:
        with torch.enable_grad():
            outputs = module(inputs.detach().requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    return entering, outputs


def _margin_gradients(jacobian: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
    rows = torch.arange(len(labels), device=labels.device)
    if outputs.shape[1] == 1:
        return jacobian[:, 0].double()
    rivals = outputs.scatter(1, labels[:, None], -torch.inf).argmax(dim=1)
    return (jacobian[rows, labels] - jacobian[rows, rivals]).double()
