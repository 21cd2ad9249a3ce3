"""The dense end of a network: affine maps of vectors with activations between them."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from sharpfit.jacobian.lipschitz.activations import activation_constant, slope_interval
from sharpfit.jacobian.lipschitz.dense import linear_constant
from sharpfit.jacobian.lipschitz.graph import LipschitzInterpreter
from sharpfit.jacobian.lipschitz.normalisation import batch_norm_constant, batch_norm_scales
from sharpfit.jacobian.lipschitz.registry import find_rule
from sharpfit.jacobian.lipschitz.reshaping import (
    dropout_constant,
    flatten_constant,
    unit_constant,
)
from sharpfit.jacobian.lipschitz.rounding import UNIT_ROUNDOFF, accumulated_error

# Relative error of the scales of batch norm: a root, a reciprocal and a product.
_SCALE_ERROR = 2.0**-50


@dataclass(frozen=True)
class AffineMap:
    """An affine map of vectors, with the error its matrix was computed with.

    Attributes
    ----------
    matrix : Tensor of shape (n_outputs, n_inputs), float64
    offset : Tensor of shape (n_outputs,), float64
    envelope : Tensor of shape (n_outputs, n_inputs), float64
        Bounds the absolute values of the entries; the entries are off by at most
        `relative_error` times this.
    relative_error : float
        0 for the weight of a single layer.
    """

    matrix: Tensor
    offset: Tensor
    envelope: Tensor
    relative_error: float = 0.0

    @classmethod
    def identity(cls, size: int) -> "AffineMap":
        """Return the map that changes nothing."""
        identity = torch.eye(size, dtype=torch.float64)
        return cls(identity, torch.zeros(size, dtype=torch.float64), identity)

    def followed_by(self, matrix: Tensor, offset: Tensor, error: float = 0.0) -> "AffineMap":
        """Compose with another map, whose matrix has the given relative error."""
        if error == 0.0 and self.matrix.shape[0] == self.matrix.shape[1]:
            size = len(self.matrix)
            if torch.equal(self.matrix, torch.eye(size, dtype=torch.float64)):
                return AffineMap(matrix, matrix @ self.offset + offset, matrix.abs(), 0.0)
        rounding = accumulated_error(self.matrix.shape[0] + 2)
        return AffineMap(
            matrix @ self.matrix,
            matrix @ self.offset + offset,
            matrix.abs() @ self.envelope,
            # First-order terms and, by the factor, their products.
            (self.relative_error + error + rounding) * (1.0 + 2.0**-20),
        )

    def row_differences(self) -> "AffineMap":
        """Return the differences of all pairs of outputs."""
        n_rows = len(self.matrix)
        first, second = torch.triu_indices(n_rows, n_rows, offset=1).unbind()
        return AffineMap(
            self.matrix[first] - self.matrix[second],
            self.offset[first] - self.offset[second],
            self.envelope[first] + self.envelope[second],
            self.relative_error + UNIT_ROUNDOFF,
        )

    def row(self, index: int) -> "AffineMap":
        """Return one output alone."""
        rows = slice(index, index + 1)
        return AffineMap(
            self.matrix[rows], self.offset[rows], self.envelope[rows], self.relative_error
        )


@dataclass(frozen=True)
class Stage:
    """An affine map followed by an elementwise activation.

    Attributes
    ----------
    affine : AffineMap
    low, high : float
        Smallest and largest slope of the activation.
    activation : torch.nn.Module
        Of vectors, in float64 on the CPU.
    """

    affine: AffineMap
    low: float
    high: float
    activation: nn.Module


@dataclass(frozen=True)
class DenseChain:
    """The longest dense chain that ends a network.

    Attributes
    ----------
    start : torch.fx.Node
        The value the chain starts from; its samples are vectors.
    stages : tuple of Stage
    head : AffineMap
        The map behind the last activation.
    """

    start: fx.Node
    stages: tuple[Stage, ...]
    head: AffineMap

    @property
    def n_hidden(self) -> int:
        """Number of activations in all stages together."""
        return sum(len(stage.affine.matrix) for stage in self.stages)


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().to(device="cpu", dtype=torch.float64)


_RULES_OF_CHAINS = (linear_constant, batch_norm_constant, activation_constant)


def _affine_step(layer: Any, size: int) -> tuple[Tensor, Tensor, float]:
    """Matrix, offset and relative error of an affine layer of vectors of the given size."""
    rule = find_rule(layer)
    zeros = torch.zeros(size, dtype=torch.float64)
    if rule is linear_constant:
        offset = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias
        return _double(layer.weight), _double(offset), 0.0
    if rule is batch_norm_constant:
        scales = batch_norm_scales(layer)
        shift = -scales * _double(layer.running_mean)
        return (
            torch.diag(scales),
            shift + _double(zeros if layer.bias is None else layer.bias),
            _SCALE_ERROR,
        )
    slope, _ = slope_interval(layer) or (1.0, 1.0)
    return slope * torch.eye(size, dtype=torch.float64), zeros, UNIT_ROUNDOFF


def dense_chain(interpreter: LipschitzInterpreter) -> DenseChain:
    """Return the longest dense chain that ends a network.

    Parameters
    ----------
    interpreter : LipschitzInterpreter
        After its run.

    Returns
    -------
    DenseChain
        Without stages, if the network does not end with one.
    """
    path: list[nn.Module] = []
    node = interpreter.output_node
    while node in interpreter.layers:
        layer = interpreter.layers[node]
        (source,) = interpreter.varying_inputs(node)
        moves = find_rule(layer) in (unit_constant, dropout_constant, flatten_constant)
        known = moves or find_rule(layer) in _RULES_OF_CHAINS
        if not known or len(interpreter.shapes[source]) != 1 or len(interpreter.shapes[node]) != 1:
            break
        if not moves:
            path.append(layer)
        node = source
    shape = interpreter.shapes[node]
    affine = AffineMap.identity(shape[0] if len(shape) == 1 else 0)
    stages: list[Stage] = []
    for layer in reversed(path):
        slopes = slope_interval(layer)
        if slopes is not None and slopes[0] < slopes[1]:
            activation = copy.deepcopy(layer).to(device="cpu", dtype=torch.float64)
            stages.append(Stage(affine, *slopes, activation))
            affine = AffineMap.identity(len(affine.matrix))
            continue
        affine = affine.followed_by(*_affine_step(layer, len(affine.matrix)))
    return DenseChain(node, tuple(stages), affine)
