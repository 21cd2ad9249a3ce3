"""A faster derivative for convolutions of images with one to three channels."""

from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The transposed convolution kernels of the processor's library are made for many channels: with up
# to this many, a matrix product and a scatter of its columns is up to five times as fast.
_FEW_CHANNELS = 3


class _FoldedConvolution(torch.autograd.Function):
    """A convolution whose derivative in its input is a matrix product and a fold."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, layer: nn.Conv2d) -> Tensor:
        ctx.layer, ctx.size = layer, inputs.shape[2:]
        return F.conv2d(
            inputs, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation
        )

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None]:
        # Of differentiable operations, so that it can be differentiated in the cotangents.
        layer = ctx.layer
        columns = layer.weight.flatten(1).T @ cotangents[0].flatten(2)
        folded = F.fold(
            columns,
            ctx.size,
            layer.kernel_size,
            dilation=layer.dilation,
            padding=layer.padding,
            stride=layer.stride,
        )
        return folded, None


class FoldedConv2d(nn.Module):
    """Stands for a convolution with constant weights; same values, faster derivative.

    Parameters
    ----------
    layer : torch.nn.Conv2d
    """

    def __init__(self, layer: nn.Conv2d):
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        """Convolve images.

        Parameters
        ----------
        inputs : Tensor of shape (n, channels, height, width)

        Returns
        -------
        Tensor of shape (n, out_channels, ...)
        """
        if inputs.ndim != 4 or inputs.device.type != "cpu" or not inputs.requires_grad:
            return self.layer(inputs)
        return _FoldedConvolution.apply(inputs, self.layer)


def fold_input_convolutions(module: nn.Module) -> None:
    """Replace the convolutions of few channels in a module that is not the user's.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place; its parameters must be constants.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if _is_foldable(child):
                setattr(parent, name, FoldedConv2d(child))


def _is_foldable(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    return (
        type(layer) is nn.Conv2d
        and layer.in_channels <= _FEW_CHANNELS
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and not (layer._forward_hooks or layer._forward_pre_hooks)
    )
