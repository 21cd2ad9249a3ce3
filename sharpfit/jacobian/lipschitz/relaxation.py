"""Straight lines below and above an activation on an interval."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sharpfit.jacobian.lipschitz.chain import Stage

# Relative widening of derivatives computed in float64.
_WIDENING = 1e-12


@dataclass(frozen=True)
class Lines:
    """Lines ``slope * z + offset`` for every neuron, below and above its activation.

    Attributes
    ----------
    lower_slopes, lower_offsets, upper_slopes, upper_offsets : Tensor
        All of the shape of the intervals they were built for.
    """

    lower_slopes: Tensor
    lower_offsets: Tensor
    upper_slopes: Tensor
    upper_offsets: Tensor


def _leaky_lines(slope: float, low: Tensor, high: Tensor) -> Lines:
    """Lines around ``max(z, slope z)`` for a slope in [0, 1]: the chord and the larger side."""
    width = (high - low).clamp_min(torch.finfo(low.dtype).tiny)
    crosses = (low < 0) & (high > 0)
    # Not two Python numbers, which torch.where would round to float32.
    one_side = torch.where(high > 0, torch.ones_like(low), slope)
    chord = torch.where(crosses, (high - slope * low) / width, one_side)
    offset = torch.where(crosses, high * (1.0 - chord), 0.0)
    below = torch.where(crosses & (high <= -low), slope, one_side)
    return Lines(below, torch.zeros_like(low), chord, offset)


def _parallel_lines(stage: Stage, low: Tensor, high: Tensor) -> Lines:
    """Parallel lines at the mean slope through the middle, as far apart as the slopes allow.

    With slopes in ``[c - r, c + r]`` on the interval, ``f(z) - c z`` moves by at most ``r`` times
    half the width away from its value in the middle.
    """
    least, greatest = _slopes_between(stage, low, high)
    centre, radius = (least + greatest) / 2, (greatest - least) / 2
    middle, half = (low + high) / 2, (high - low) / 2
    with torch.no_grad():
        value = stage.activation(middle)
    offset = value - centre * middle
    return Lines(centre, offset - radius * half, centre, offset + radius * half)


def _sigmoid_slopes(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    def derivative(points: Tensor) -> Tensor:
        values = torch.sigmoid(points)
        return values * (1 - values)

    return _slopes_peaked_at_zero(derivative, low, high)


def _tanh_slopes(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    return _slopes_peaked_at_zero(lambda points: 1 / torch.cosh(points).square(), low, high)


def _slopes_peaked_at_zero(
    derivative: Callable[[Tensor], Tensor], low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    nearest = torch.maximum(low, torch.zeros_like(low)) + torch.minimum(high, torch.zeros_like(low))
    farthest = torch.maximum(low.abs(), high.abs())
    return derivative(farthest), derivative(nearest)


def _slopes_between(stage: Stage, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest slope on intervals, by the derivative where its shape is known."""
    if type(stage.activation) is nn.Tanh:
        least, greatest = _tanh_slopes(low, high)
    elif type(stage.activation) is nn.Sigmoid:
        least, greatest = _sigmoid_slopes(low, high)
    elif type(stage.activation) is nn.Softplus:
        beta = float(stage.activation.beta)
        least, greatest = torch.sigmoid(beta * low), torch.sigmoid(beta * high)
    else:
        return torch.full_like(low, stage.low), torch.full_like(low, stage.high)
    least = (least * (1 - _WIDENING)).clamp_min(stage.low)
    return least, (greatest * (1 + _WIDENING)).clamp_max(stage.high)


def lines_around(stage: Stage, low: Tensor, high: Tensor) -> Lines:
    """Lines below and above the activation of a stage on intervals, up to rounding.

    Parameters
    ----------
    stage : Stage
    low, high : Tensor of shape (n_samples, n_neurons), float64
        Bounds on the values the activation is applied to.

    Returns
    -------
    Lines
    """
    if type(stage.activation) is nn.ReLU:
        return _leaky_lines(0.0, low, high)
    if type(stage.activation) is nn.LeakyReLU and 0.0 <= stage.low < 1.0 == stage.high:
        return _leaky_lines(stage.low, low, high)
    return _parallel_lines(stage, low, high)
