"""Features and backward factors of the layers, from which per-sample gradients are made."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpfit.curvature.linearisation import Chunk, finite_losses
from sharpfit.curvature.network import Network, differentiable_kernels
from sharpfit.curvature.scale_factors import (
    NORMALISATIONS,
    ScaleFactors,
    normalised,
    scaled_entries,
)
from sharpfit.objective import SampleLoss


@dataclass(frozen=True)
class LayerFactors:
    """What makes the gradients of one layer used once per sample.

    For sample `i` and column `c` of the root ``A_i = B_i B_i^T``, the derivative of
    ``B_i[:, c]^T f(x_i)`` in the weight is ``sum_t q[c, i, :, t] h[i, :, t]^T``.

    Attributes
    ----------
    features : Tensor of shape (n, d, T)
        Inputs `h` at the positions where the weight is used; one for a dense layer on rows.
    cotangents : list of C Tensor of shape (n, m, T)
        Backward factors `q`, row weights not included.
    weight_index, bias_index : int or None
        Places of its parameters in the selection.
    """

    features: Tensor
    cotangents: list[Tensor]
    weight_index: int | None
    bias_index: int | None

    def squared_norms(self) -> Iterator[tuple[int, Tensor]]:
        """Yield a parameter's index and the squared gradient norms, of shape (C, n)."""
        if self.features.shape[2] == 1:
            energy = self.features.square().sum(dim=(1, 2))
            norms = torch.stack([_squared_norms(column) for column in self.cotangents])
            if self.weight_index is not None:
                yield self.weight_index, energy * norms
            if self.bias_index is not None:
                yield self.bias_index, norms
            return
        if self.weight_index is not None:
            gradients = self._weight_gradients()
            yield self.weight_index, torch.stack([_squared_norms(part) for part in gradients])
        if self.bias_index is not None:
            sums = (column.sum(dim=2) for column in self.cotangents)
            yield self.bias_index, torch.stack([_squared_norms(part) for part in sums])

    def gram(self) -> Tensor:
        """Return the products of the gradients of all (sample, column) pairs.

        Returns
        -------
        Tensor of shape (n * C, n * C)
        """
        columns = len(self.cotangents)
        rows = torch.stack(self.cotangents, dim=1).flatten(0, 1)
        gram = torch.zeros(len(rows), len(rows), dtype=rows.dtype, device=rows.device)
        if self.bias_index is not None:
            summed = rows.sum(dim=2)
            gram.addmm_(summed, summed.T)
        if self.weight_index is None:
            return gram
        if self.features.shape[2] == 1:
            features = self.features.squeeze(2)
            kernel = (features @ features.T).repeat_interleave(columns, 0)
            kernel = kernel.repeat_interleave(columns, 1)
            backward = rows.squeeze(2)
            return gram.addcmul_(kernel, backward @ backward.T)
        gradients = torch.stack(list(self._weight_gradients()), dim=1).flatten(0, 1).flatten(1)
        return gram.addmm_(gradients, gradients.T)

    def _weight_gradients(self) -> Iterator[Tensor]:
        features = self.features.transpose(1, 2)
        yield from (torch.bmm(column, features) for column in self.cotangents)


def _squared_norms(tensor: Tensor) -> Tensor:
    """Return the squared norm of every row without forming the squares."""
    rows = tensor.flatten(1)
    return torch.linalg.vector_norm(rows, dim=1).square()


def layer_factors(
    network: Network, loss: SampleLoss, chunk: Chunk
) -> list[LayerFactors | ScaleFactors] | None:
    """Compute the factors of all layers with selected parameters.

    Parameters
    ----------
    network : Network
    loss : SampleLoss
    chunk : Chunk

    Returns
    -------
    list of LayerFactors and ScaleFactors, or None
        None if some selected parameter lies outside dense, ungrouped convolutional and
        normalising layers, in a layer used more than once, or in several layers.

    Raises
    ------
    ValueError
        For rows whose outputs or losses are not finite.
    """
    places = {id(parameter): index for index, parameter in enumerate(network.parameters)}
    owners = [
        layer
        for layer in network.module.modules()
        if any(id(parameter) in places for parameter in layer.parameters(recurse=False))
    ]
    found = [id(p) for layer in owners for p in layer.parameters(recurse=False)]
    if any(found.count(place) != 1 for place in places):
        return None
    known = (nn.Linear, nn.Conv1d, nn.Conv2d, *NORMALISATIONS)
    if any(type(layer) not in known for layer in owners):
        return None
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def record(layer: nn.Module, entering: tuple[Tensor, ...], leaving: Tensor) -> Tensor:
        calls.append((layer, entering[0], leaving))
        return leaving.clone()  # what an activation may overwrite

    hooks = [layer.register_forward_hook(record) for layer in owners]
    try:
        with torch.enable_grad(), differentiable_kernels():
            outputs = network.module(chunk.inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if len(calls) != len({id(layer) for layer, _, _ in calls}):
        return None
    finite_losses(loss, outputs.detach(), chunk)
    root = loss.curvature_root(outputs.detach(), chunk.targets)
    results = [result for _, _, result in calls]
    # One pass per column: batching them by vmap copies and pads more than it saves.
    columns = [
        torch.autograd.grad(
            outputs, results, column, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        for column in root.unbind(2)
    ]
    factors: list[LayerFactors | ScaleFactors] = []
    for (layer, entering, _), *gradients in zip(calls, *columns, strict=True):
        indices = places.get(id(layer.weight)), places.get(id(layer.bias))
        if type(layer) in NORMALISATIONS:
            features = normalised(layer, entering.detach())
            if features is None:
                return None
            cotangents = [scaled_entries(layer, gradient) for gradient in gradients]
            factors.append(ScaleFactors(scaled_entries(layer, features), cotangents, *indices))
            continue
        arranged = _arrange(layer, entering.detach(), gradients)
        if arranged is None:
            return None
        factors.append(LayerFactors(*arranged, *indices))
    return factors


def _arrange(
    layer: Any, inputs: Tensor, gradients: list[Tensor]
) -> tuple[Tensor, list[Tensor]] | None:
    """Return features (n, d, T) and cotangents, each (n, m, T)."""
    if isinstance(layer, nn.Linear):
        columns = [
            gradient.reshape(len(gradient), -1, gradient.shape[-1]) for gradient in gradients
        ]
        features = inputs.reshape(len(inputs), -1, inputs.shape[-1])
        return features.transpose(1, 2), [column.transpose(1, 2) for column in columns]
    if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return None
    if isinstance(layer, nn.Conv1d):
        patches = F.unfold(
            inputs.unsqueeze(2),
            (1, *layer.kernel_size),
            (1, *layer.dilation),
            (0, *layer.padding),
            (1, *layer.stride),
        )
    else:
        patches = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return patches, [gradient.flatten(2) for gradient in gradients]
