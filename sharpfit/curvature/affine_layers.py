"""Layers with parameters and hand-written first and second derivatives."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from sharpfit.curvature.layers import Kept, Layer, over_channels
from sharpfit.curvature.linearisation import Parts
from sharpfit.linalg.matrix_products import add_times_transposed, times_transposed


class Affine(Layer):
    """A map linear in its input and affine in its weight and bias, such as a convolution.

    Parameters
    ----------
    weight, bias : Tensor or None
        Current values.
    weight_index, bias_index : int or None
        Their places among the selected parameters, None for those held fixed.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        weight_index: int | None,
        bias_index: int | None,
    ) -> None:
        self.weight = weight
        self.bias = bias
        self.weight_index = weight_index
        self.bias_index = bias_index
        self.selected = weight_index is not None or bias_index is not None

    @abstractmethod
    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the map of `x` with given weight and bias."""

    @abstractmethod
    def add(self, y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Add the map of `x` without bias to `y`, and return it."""

    @abstractmethod
    def pull_back(
        self,
        cotangent: Tensor,
        x: Tensor,
        weight: Tensor,
        total: Tensor | None,
        onwards: bool,
        onto: Tensor | None = None,
    ) -> Tensor | None:
        """Add the weight's cotangent to `total`; return the input's, added to `onto`."""

    def forward(self, x: Tensor) -> tuple[Tensor, Kept]:
        """Return ``y``; see `Layer`."""
        return self.apply(x, self.weight, self.bias), (x,)

    def tangent(self, kept: Kept, x_dot: Tensor | None, direction: Parts) -> Tensor | None:
        """Return the tangent; see `Layer`."""
        bias_dot = None if self.bias_index is None else direction[self.bias_index]
        if self.weight_index is not None:
            y_dot = self.apply(kept[0], direction[self.weight_index], bias_dot)
            return y_dot if x_dot is None else self.add(y_dot, x_dot, self.weight)
        x_dot = torch.zeros_like(kept[0]) if x_dot is None else x_dot
        return self.apply(x_dot, self.weight, bias_dot)

    def pull(
        self, kept: Kept, cotangent: Tensor, total: Parts | None, onwards: bool
    ) -> Tensor | None:
        """Add the transposed product; see `Layer`."""
        weight_total = None
        if total is not None:
            if self.bias_index is not None:
                total[self.bias_index].add_(_sum_but_channels(cotangent))
            weight_total = None if self.weight_index is None else total[self.weight_index]
        return self.pull_back(cotangent, kept[0], self.weight, weight_total, onwards)

    def pull_tangent(
        self,
        kept: Kept,
        x_dot: Tensor | None,
        cotangent: Tensor,
        cotangent_dot: Tensor,
        direction: Parts,
        total: Parts,
        onwards: bool,
    ) -> Tensor | None:
        """Add the tangent of the transposed product; see `Layer`."""
        found = self.pull(kept, cotangent_dot, total, onwards)
        if self.weight_index is None:
            return found
        weight_dot, weight_total = direction[self.weight_index], total[self.weight_index]
        if x_dot is None:
            return self.pull_back(cotangent, kept[0], weight_dot, None, onwards, found)
        return self.pull_back(cotangent, x_dot, weight_dot, weight_total, onwards, found)


class Dense(Affine):
    """A linear layer on rows."""

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``x W^T + b``; see `Affine`."""
        return times_transposed(x, weight, bias, any_layout=True)

    def add(self, y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Return ``y + x W^T``; see `Affine`."""
        return add_times_transposed(y, x, weight)

    def pull_back(
        self,
        cotangent: Tensor,
        x: Tensor,
        weight: Tensor,
        total: Tensor | None,
        onwards: bool,
        onto: Tensor | None = None,
    ) -> Tensor | None:
        """Add ``u^T x`` and return ``u W``; see `Affine`."""
        if total is not None:
            add_times_transposed(total, cotangent.T, x.T)
        if not onwards:
            return None
        if onto is None:
            return times_transposed(cotangent, weight.T, any_layout=True)
        return add_times_transposed(onto, cotangent, weight.T)


class Convolution(Affine):
    """A convolution with zero padding.

    Parameters
    ----------
    layer : torch.nn.Conv1d or torch.nn.Conv2d
    weight_index, bias_index : int or None
    """

    def __init__(
        self,
        layer: nn.Conv1d | nn.Conv2d,
        weight_index: int | None,
        bias_index: int | None,
    ) -> None:
        # Views: `NetworkOperator.reload` changes their values.
        bias = None if layer.bias is None else layer.bias.detach()
        super().__init__(layer.weight.detach(), bias, weight_index, bias_index)
        self._geometry = (layer.stride, layer.padding, layer.dilation)
        self._groups = layer.groups

    def forward(self, x: Tensor) -> tuple[Tensor, Kept]:
        """Return ``y``; see `Layer`."""
        x = _laid_out(x)
        return self.apply(x, self.weight, self.bias), (x,)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the convolution; see `Affine`."""
        stride, padding, dilation = self._geometry
        return torch.ops.aten.convolution(
            *(_laid_out(x), _laid_out(weight), bias),
            *(stride, padding, dilation, False, [0], self._groups),
        )

    def add(self, y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Return the sum; see `Affine`."""
        return y.add_(self.apply(x, weight, None))

    def pull_back(
        self,
        cotangent: Tensor,
        x: Tensor,
        weight: Tensor,
        total: Tensor | None,
        onwards: bool,
        onto: Tensor | None = None,
    ) -> Tensor | None:
        """Correlate input and cotangent, and convolve transposed; see `Affine`."""
        stride, padding, dilation = self._geometry
        if total is None and not onwards:
            return None
        x_cotangent, weight_cotangent, _ = torch.ops.aten.convolution_backward(
            *(_laid_out(cotangent), _laid_out(x), _laid_out(weight), None),
            *(stride, padding, dilation, False, [0], self._groups),
            [onwards, total is not None, False],
        )
        if total is not None:
            total.add_(weight_cotangent)
        return x_cotangent if onto is None else onto.add_(x_cotangent)


class Normalisation(Layer):
    """Batch normalisation with fixed statistics.

    Parameters
    ----------
    layer : torch.nn.BatchNorm1d or torch.nn.BatchNorm2d
    weight_index, bias_index : int or None
    """

    def __init__(
        self,
        layer: nn.BatchNorm1d | nn.BatchNorm2d,
        weight_index: int | None,
        bias_index: int | None,
    ) -> None:
        assert layer.running_mean is not None
        assert layer.running_var is not None
        self._mean, self._variance, self._eps = layer.running_mean, layer.running_var, layer.eps
        ones = torch.ones_like(self._variance)
        self._weight = ones if layer.weight is None else layer.weight.detach()
        self._bias = 0 * ones if layer.bias is None else layer.bias.detach()
        self.weight_index = weight_index
        self.bias_index = bias_index
        self.selected = weight_index is not None or bias_index is not None

    @property
    def _scale(self) -> Tensor:
        return (self._variance + self._eps).rsqrt()

    def forward(self, x: Tensor) -> tuple[Tensor, Kept]:
        """Return ``y``; see `Layer`."""
        centred = (x - over_channels(self._mean, x)) * over_channels(self._scale, x)
        y = centred * over_channels(self._weight, x) + over_channels(self._bias, x)
        return y, (centred,)

    def tangent(self, kept: Kept, x_dot: Tensor | None, direction: Parts) -> Tensor | None:
        """Return the tangent; see `Layer`."""
        y_dot = torch.zeros_like(kept[0])
        if x_dot is not None:
            y_dot.addcmul_(x_dot, over_channels(self._weight * self._scale, x_dot))
        if self.weight_index is not None:
            y_dot.addcmul_(kept[0], over_channels(direction[self.weight_index], kept[0]))
        if self.bias_index is not None:
            y_dot = y_dot.add_(over_channels(direction[self.bias_index], y_dot))
        return y_dot

    def pull(
        self, kept: Kept, cotangent: Tensor, total: Parts | None, onwards: bool
    ) -> Tensor | None:
        """Add the transposed product; see `Layer`."""
        if total is not None and self.weight_index is not None:
            total[self.weight_index].add_(_sum_but_channels(cotangent * kept[0]))
        if total is not None and self.bias_index is not None:
            total[self.bias_index].add_(_sum_but_channels(cotangent))
        if not onwards:
            return None
        return cotangent * over_channels(self._weight * self._scale, cotangent)

    def pull_tangent(
        self,
        kept: Kept,
        x_dot: Tensor | None,
        cotangent: Tensor,
        cotangent_dot: Tensor,
        direction: Parts,
        total: Parts,
        onwards: bool,
    ) -> Tensor | None:
        """Add the tangent of the transposed product; see `Layer`."""
        found = self.pull(kept, cotangent_dot, total, onwards)
        if self.weight_index is None:
            return found
        if x_dot is not None:
            scaled = _sum_but_channels(cotangent * x_dot) * self._scale
            total[self.weight_index].add_(scaled)
        if found is None:
            return None
        weight_dot = direction[self.weight_index] * self._scale
        return found.add_(cotangent * over_channels(weight_dot, cotangent))


def _laid_out(images: Tensor) -> Tensor:
    """Return images channels last on the CPU, where its convolutions are faster."""
    if images.ndim != 4 or images.device.type != "cpu" or images.stride(1) == 1:
        return images
    # Copied by hand: `contiguous` takes images of one channel for laid out either way.
    return torch.empty_like(images, memory_format=torch.channels_last).copy_(images)


def _sum_but_channels(tensor: Tensor) -> Tensor:
    return tensor.sum(dim=[axis for axis in range(tensor.ndim) if axis != 1])
