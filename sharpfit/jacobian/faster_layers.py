"""Layers with the same values as PyTorch's and faster derivatives in their inputs."""

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


class FrozenBatchNorm2d(nn.Module):
    """Stands for a batch norm in evaluation mode, which is an affine map of each channel.

    Parameters
    ----------
    layer : torch.nn.BatchNorm2d
        With running statistics.
    """

    def __init__(self, layer: nn.BatchNorm2d):
        super().__init__()
        assert layer.running_mean is not None
        assert layer.running_var is not None
        scale = (layer.running_var + layer.eps).rsqrt()
        shift = -layer.running_mean * scale
        if layer.affine:
            scale, shift = scale * layer.weight, shift * layer.weight + layer.bias
        self.scale = nn.Buffer(scale[:, None, None].detach())
        self.shift = nn.Buffer(shift[:, None, None].detach())

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise images.

        Parameters
        ----------
        inputs : Tensor of shape (n, channels, height, width)

        Returns
        -------
        Tensor of the same shape
        """
        return torch.addcmul(self.shift, inputs, self.scale)


def replace_slow_layers(module: nn.Module) -> None:
    """Replace convolutions of few channels and batch norms of images.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode and not the user's: changed in place; its parameters must be constants.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if child._forward_hooks or child._forward_pre_hooks or "forward" in vars(child):
                continue
            if _is_foldable(child):
                setattr(parent, name, FoldedConv2d(child))
            elif type(child) is nn.BatchNorm2d and child.running_var is not None:
                setattr(parent, name, FrozenBatchNorm2d(child))


def _is_foldable(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    return (
        type(layer) is nn.Conv2d
        and layer.in_channels <= _FEW_CHANNELS
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )
