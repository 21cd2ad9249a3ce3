"""Layers with hand-written first and second derivatives."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import vjp

from sharpfit.curvature.linearisation import Parts

Kept = tuple[Tensor, ...]


class Layer(ABC):
    """One step ``x -> y`` of a chain, at fixed parameters.

    ``forward`` returns what the derivatives need. Tangents are derivatives along a direction
    of the parameters; None stands for zero. Cotangents are derivatives of the loss. Parts of
    parameter space are added to `total` in place.

    Attributes
    ----------
    selected : bool
        Whether the layer has parameters among the selected ones.
    """

    selected = False

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Kept]:
        """Return ``y`` and what is kept."""

    @abstractmethod
    def tangent(self, kept: Kept, x_dot: Tensor | None, direction: Parts) -> Tensor | None:
        """Return the tangent of ``y``; a piecewise linear layer may overwrite `x_dot`."""

    @abstractmethod
    def pull(self, kept: Kept, cotangent: Tensor, total: Parts, onwards: bool) -> Tensor | None:
        """Add ``J^T u`` for the cotangent of ``y``; return that of ``x`` if `onwards`."""

    @abstractmethod
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
        """Do the same for the tangent of ``pull``; may overwrite `cotangent_dot`."""


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
    def apply_transposed(self, cotangent: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Return the cotangent of the input."""

    @abstractmethod
    def add_weight_cotangent(self, cotangent: Tensor, x: Tensor, total: Tensor) -> None:
        """Add the cotangent of the weight."""

    def forward(self, x: Tensor) -> tuple[Tensor, Kept]:
        """Return ``y``; see `Layer`."""
        return self.apply(x, self.weight, self.bias), (x,)

    def tangent(self, kept: Kept, x_dot: Tensor | None, direction: Parts) -> Tensor | None:
        """Return the tangent; see `Layer`."""
        bias_dot = None if self.bias_index is None else direction[self.bias_index]
        if self.weight_index is not None:
            y_dot = self.apply(kept[0], direction[self.weight_index], bias_dot)
            return y_dot if x_dot is None else y_dot.add_(self.apply(x_dot, self.weight, None))
        x_dot = torch.zeros_like(kept[0]) if x_dot is None else x_dot
        return self.apply(x_dot, self.weight, bias_dot)

    def pull(self, kept: Kept, cotangent: Tensor, total: Parts, onwards: bool) -> Tensor | None:
        """Add the transposed product; see `Layer`."""
        if self.weight_index is not None:
            self.add_weight_cotangent(cotangent, kept[0], total[self.weight_index])
        if self.bias_index is not None:
            total[self.bias_index].add_(_sum_but_channels(cotangent))
        return self.apply_transposed(cotangent, kept[0], self.weight) if onwards else None

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
            self.add_weight_cotangent(cotangent, x_dot, total[self.weight_index])
        if found is None:
            return None
        weight_dot = direction[self.weight_index]
        return found.add_(self.apply_transposed(cotangent, kept[0], weight_dot))


class Dense(Affine):
    """A linear layer on rows."""

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``x W^T + b``; see `Affine`."""
        return x @ weight.T if bias is None else torch.addmm(bias, x, weight.T)

    def apply_transposed(self, cotangent: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Return ``u W``; see `Affine`."""
        return cotangent @ weight

    def add_weight_cotangent(self, cotangent: Tensor, x: Tensor, total: Tensor) -> None:
        """Add ``u^T x``; see `Affine`."""
        total.addmm_(cotangent.T, x)


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
        bias = None if layer.bias is None else layer.bias.detach()
        super().__init__(layer.weight.detach(), bias, weight_index, bias_index)
        self._geometry = (layer.stride, layer.padding, layer.dilation)
        self._groups = layer.groups

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the convolution; see `Affine`."""
        stride, padding, dilation = self._geometry
        return torch.ops.aten.convolution(
            x, weight, bias, stride, padding, dilation, False, [0], self._groups
        )

    def apply_transposed(self, cotangent: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Return the transposed convolution; see `Affine`."""
        return self._backward(cotangent, x, weight, [True, False, False])[0]

    def add_weight_cotangent(self, cotangent: Tensor, x: Tensor, total: Tensor) -> None:
        """Add the correlation of input and cotangent; see `Affine`."""
        total.add_(self._backward(cotangent, x, self.weight, [False, True, False])[1])

    def _backward(
        self, cotangent: Tensor, x: Tensor, weight: Tensor, mask: list[bool]
    ) -> tuple[Tensor, Tensor, Tensor]:
        stride, padding, dilation = self._geometry
        return torch.ops.aten.convolution_backward(
            cotangent, x, weight, None, stride, padding, dilation, False, [0], self._groups, mask
        )


class Elementwise(Layer):
    """An activation function.

    Parameters
    ----------
    function : callable
        Acts on every entry alone.
    piecewise_linear : bool
        Whether its second derivative vanishes.
    increasing : bool
        Whether it commutes with taking maxima.
    """

    def __init__(
        self, function: Callable[[Tensor], Tensor], piecewise_linear: bool, increasing: bool
    ) -> None:
        self.function = function
        self.piecewise_linear = piecewise_linear
        self.increasing = increasing

    def forward(self, x: Tensor) -> tuple[Tensor, Kept]:
        """Return ``y``; see `Layer`."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            # Cloned for activations that work in place.
            y = self.function(x.clone())
            slope = torch.autograd.grad(y.sum(), x, create_graph=not self.piecewise_linear)[0]
            if self.piecewise_linear:
                return y.detach(), (slope,)
            bend = torch.autograd.grad(slope.sum(), x)[0]
        return y.detach(), (slope.detach(), bend)

    def tangent(self, kept: Kept, x_dot: Tensor | None, direction: Parts) -> Tensor | None:
        """Return the tangent; see `Layer`."""
        if x_dot is None:
            return None
        return x_dot.mul_(kept[0]) if self.piecewise_linear else x_dot * kept[0]

    def pull(self, kept: Kept, cotangent: Tensor, total: Parts, onwards: bool) -> Tensor | None:
        """Return the cotangent of ``x``; see `Layer`."""
        return cotangent * kept[0] if onwards else None

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
        """Return its tangent; see `Layer`."""
        if not onwards:
            return None
        found = cotangent_dot.mul_(kept[0])
        if self.piecewise_linear or x_dot is None:
            return found
        return found.addcmul_(cotangent * kept[1], x_dot)


class FixedLinear(Layer):
    """A linear map without parameters, such as flattening or average pooling.

    Parameters
    ----------
    function : callable
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function

    def forward(self, x: Tensor) -> tuple[Tensor, Kept]:
        """Return ``y``; see `Layer`."""
        return self.function(x), (_shape_of(x),)

    def tangent(self, kept: Kept, x_dot: Tensor | None, direction: Parts) -> Tensor | None:
        """Return the tangent; see `Layer`."""
        return None if x_dot is None else self.function(x_dot)

    def pull(self, kept: Kept, cotangent: Tensor, total: Parts, onwards: bool) -> Tensor | None:
        """Return the cotangent of ``x``; see `Layer`."""
        return vjp(self.function, kept[0])[1](cotangent)[0] if onwards else None

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
        """Return its tangent; see `Layer`."""
        return self.pull(kept, cotangent_dot, total, onwards)


class Flatten(FixedLinear):
    """Flattening of all axes but the first."""

    def __init__(self) -> None:
        super().__init__(lambda x: x.flatten(1))

    def pull(self, kept: Kept, cotangent: Tensor, total: Parts, onwards: bool) -> Tensor | None:
        """Return the cotangent of ``x``; see `Layer`."""
        return cotangent.reshape(kept[0].shape) if onwards else None


class MaxPooling(Layer):
    """Max pooling, linear in its input once it is known which entries are largest.

    Parameters
    ----------
    function : callable
        Returns pooled values and the positions of the maxima within each plane.
    """

    def __init__(self, function: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        self.function = function

    def forward(self, x: Tensor) -> tuple[Tensor, Kept]:
        """Return ``y``; see `Layer`."""
        y, positions = self.function(x)
        return y, (positions.flatten(2), _shape_of(y), _shape_of(x))

    def tangent(self, kept: Kept, x_dot: Tensor | None, direction: Parts) -> Tensor | None:
        """Return the tangent; see `Layer`."""
        if x_dot is None:
            return None
        return x_dot.flatten(2).gather(2, kept[0]).view(kept[1].shape)

    def pull(self, kept: Kept, cotangent: Tensor, total: Parts, onwards: bool) -> Tensor | None:
        """Return the cotangent of ``x``; see `Layer`."""
        if not onwards:
            return None
        spread = cotangent.new_zeros((*kept[2].shape[:2], kept[2][0, 0].numel()))
        return spread.scatter_add_(2, kept[0], cotangent.flatten(2)).view(kept[2].shape)

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
        """Return its tangent; see `Layer`."""
        return self.pull(kept, cotangent_dot, total, onwards)


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
        self._scale = (layer.running_var + layer.eps).rsqrt()
        self._mean = layer.running_mean
        ones = torch.ones_like(self._scale)
        self._weight = ones if layer.weight is None else layer.weight.detach()
        self._bias = 0 * ones if layer.bias is None else layer.bias.detach()
        self.weight_index = weight_index
        self.bias_index = bias_index
        self.selected = weight_index is not None or bias_index is not None

    def forward(self, x: Tensor) -> tuple[Tensor, Kept]:
        """Return ``y``; see `Layer`."""
        centred = (x - _over_channels(self._mean, x)) * _over_channels(self._scale, x)
        y = centred * _over_channels(self._weight, x) + _over_channels(self._bias, x)
        return y, (centred,)

    def tangent(self, kept: Kept, x_dot: Tensor | None, direction: Parts) -> Tensor | None:
        """Return the tangent; see `Layer`."""
        y_dot = torch.zeros_like(kept[0])
        if x_dot is not None:
            y_dot.addcmul_(x_dot, _over_channels(self._weight * self._scale, x_dot))
        if self.weight_index is not None:
            y_dot.addcmul_(kept[0], _over_channels(direction[self.weight_index], kept[0]))
        if self.bias_index is not None:
            y_dot = y_dot.add_(_over_channels(direction[self.bias_index], y_dot))
        return y_dot

    def pull(self, kept: Kept, cotangent: Tensor, total: Parts, onwards: bool) -> Tensor | None:
        """Add the transposed product; see `Layer`."""
        if self.weight_index is not None:
            total[self.weight_index].add_(_sum_but_channels(cotangent * kept[0]))
        if self.bias_index is not None:
            total[self.bias_index].add_(_sum_but_channels(cotangent))
        if not onwards:
            return None
        return cotangent * _over_channels(self._weight * self._scale, cotangent)

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
        return found.add_(cotangent * _over_channels(weight_dot, cotangent))


def _shape_of(tensor: Tensor) -> Tensor:
    """Return a tensor of the same shape that holds one number."""
    return tensor.new_zeros(()).expand(tensor.shape)


def _sum_but_channels(tensor: Tensor) -> Tensor:
    return tensor.sum(dim=[axis for axis in range(tensor.ndim) if axis != 1])


def _over_channels(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *(1,) * (like.ndim - 2))
