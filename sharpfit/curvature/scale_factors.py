"""Features and backward factors of layers that scale and shift their inputs entry by entry."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm)


@dataclass(frozen=True)
class ScaleFactors:
    """What makes the gradients of the scale and shift of a normalising layer.

    For sample `i` and column `c` of the root ``A_i = B_i B_i^T``, the derivative of
    ``B_i[:, c]^T f(x_i)`` in the scale is ``sum_t q[c, i, :, t] * h[i, :, t]`` and that in the
    shift ``sum_t q[c, i, :, t]``.

    Attributes
    ----------
    features : Tensor of shape (n, m, T)
        Normalised inputs `h`.
    cotangents : list of C Tensor of shape (n, m, T)
        Backward factors `q`, row weights not included.
    weight_index, bias_index : int or None
        Places of scale and shift in the selection.
    """

    features: Tensor
    cotangents: list[Tensor]
    weight_index: int | None
    bias_index: int | None

    def squared_norms(self) -> Iterator[tuple[int, Tensor]]:
        """Yield a parameter's index and the squared gradient norms, of shape (C, n)."""
        for index, gradients in self._gradients():
            yield index, gradients.square().sum(dim=2)

    def gram(self) -> Tensor:
        """Return the products of the gradients of all (sample, column) pairs.

        Returns
        -------
        Tensor of shape (n * C, n * C)
        """
        pairs = [gradients.transpose(0, 1).flatten(0, 1) for _, gradients in self._gradients()]
        joined = torch.cat(pairs, dim=1)
        return joined @ joined.T

    def _gradients(self) -> Iterator[tuple[int, Tensor]]:
        """Yield a parameter's index and its gradients, of shape (C, n, m)."""
        if self.weight_index is not None:
            scaled = [(column * self.features).sum(dim=2) for column in self.cotangents]
            yield self.weight_index, torch.stack(scaled)
        if self.bias_index is not None:
            yield self.bias_index, torch.stack([column.sum(dim=2) for column in self.cotangents])


def normalised(layer: nn.Module, inputs: Tensor) -> Tensor | None:
    """Return what a normalising layer scales, or None if its statistics are the batch's.

    Parameters
    ----------
    layer : one of `NORMALISATIONS`
    inputs : Tensor of shape (n, ...)

    Returns
    -------
    Tensor of the shape of `inputs`, or None
    """
    if isinstance(layer, nn.LayerNorm):
        return F.layer_norm(inputs, layer.normalized_shape, eps=layer.eps)
    assert isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
    if layer.running_mean is None or layer.running_var is None:
        return None
    return F.batch_norm(inputs, layer.running_mean, layer.running_var, eps=layer.eps)


def scaled_entries(layer: nn.Module, tensor: Tensor) -> Tensor:
    """Arrange what enters or leaves a normalising layer by the entries of its scale.

    Parameters
    ----------
    layer : one of `NORMALISATIONS`
    tensor : Tensor of shape (n, ...)

    Returns
    -------
    Tensor of shape (n, m, T)
        With `m` entries of the scale, each used at `T` positions.
    """
    if isinstance(layer, nn.LayerNorm):
        size = math.prod(layer.normalized_shape)
        return tensor.reshape(len(tensor), -1, size).transpose(1, 2)
    return tensor.reshape(len(tensor), tensor.shape[1], -1)
