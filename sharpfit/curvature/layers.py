"""Layers with hand-written first and second derivatives, and those without parameters."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp

from sharpfit.curvature.linearisation import Parts

Kept = tuple[Any, ...]


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
    def pull(
        self, kept: Kept, cotangent: Tensor, total: Parts | None, onwards: bool
    ) -> Tensor | None:
        """Add ``J^T u``; return the cotangent of ``x`` if `onwards`.

        A piecewise linear layer may overwrite `cotangent`, that of ``y``, which it needs no more.
        """

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

    def pull(
        self, kept: Kept, cotangent: Tensor, total: Parts | None, onwards: bool
    ) -> Tensor | None:
        """Return the cotangent of ``x``; see `Layer`."""
        if not onwards:
            return None
        return cotangent.mul_(kept[0]) if self.piecewise_linear else cotangent * kept[0]

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


class Rectifier(Elementwise):
    """The rectifier, in fewer passes over its entries than activations in general."""

    def __init__(self) -> None:
        super().__init__(torch.relu, piecewise_linear=True, increasing=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Kept]:
        """Return ``y``; see `Layer`."""
        y = x.relu()
        return y, (y.sign(),)


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
        # Any point will do to differentiate a linear function at: this one takes no memory.
        return self.function(x), (x.new_zeros(()).expand(x.shape),)

    def tangent(self, kept: Kept, x_dot: Tensor | None, direction: Parts) -> Tensor | None:
        """Return the tangent; see `Layer`."""
        return None if x_dot is None else self.function(x_dot)

    def pull(
        self, kept: Kept, cotangent: Tensor, total: Parts | None, onwards: bool
    ) -> Tensor | None:
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

    def pull(
        self, kept: Kept, cotangent: Tensor, total: Parts | None, onwards: bool
    ) -> Tensor | None:
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
        channels_last = x.ndim == 4 and x.stride(1) == 1
        count, channels, plane = *x.shape[:2], x[0, 0].numel()
        rows = torch.arange(count, device=x.device).view(-1, *(1,) * (y.ndim - 1))
        columns = over_channels(torch.arange(channels, device=x.device), x)
        if channels_last:
            places = (rows * plane + positions) * channels + columns
        else:
            places = (rows * channels + columns) * plane + positions
        return y, (_unrolled(places, channels_last), channels_last, y.shape, x.shape)

    def tangent(self, kept: Kept, x_dot: Tensor | None, direction: Parts) -> Tensor | None:
        """Return the tangent; see `Layer`."""
        if x_dot is None:
            return None
        places, channels_last, shape, _ = kept
        y_dot = _unrolled(x_dot, channels_last).index_select(0, places)
        return _rolled(y_dot, channels_last, shape)

    def pull(
        self, kept: Kept, cotangent: Tensor, total: Parts | None, onwards: bool
    ) -> Tensor | None:
        """Return the cotangent of ``x``; see `Layer`."""
        if not onwards:
            return None
        places, channels_last, _, shape = kept
        spread = cotangent.new_zeros(shape.numel())
        spread.scatter_add_(0, places, _unrolled(cotangent, channels_last))
        return _rolled(spread, channels_last, shape)

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


def _unrolled(images: Tensor, channels_last: bool) -> Tensor:
    """Return all entries in the order of memory."""
    return (images.permute(0, 2, 3, 1) if channels_last else images).reshape(-1)


def _rolled(entries: Tensor, channels_last: bool, shape: torch.Size) -> Tensor:
    """Undo `_unrolled`."""
    if not channels_last:
        return entries.view(shape)
    count, channels, height, width = shape
    return entries.view(count, height, width, channels).permute(0, 3, 1, 2)


def over_channels(values: Tensor, like: Tensor) -> Tensor:
    """Shape one number a channel to be broadcast over images or rows."""
    return values.view(-1, *(1,) * (like.ndim - 2))
