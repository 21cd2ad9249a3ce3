"""Lipschitz constants of the functions a network calls beside its layers.

A function that has a layer of the same meaning is bounded by the rule of that layer.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sharpfit.jacobian.lipschitz.activations import sample_axis
from sharpfit.jacobian.lipschitz.convolution import convolution_constant
from sharpfit.jacobian.lipschitz.errors import CertificateError
from sharpfit.jacobian.lipschitz.registry import apply_rule
from sharpfit.jacobian.lipschitz.rounding import (
    product_up,
    quotient_up,
    root_sum_of_squares_up,
    root_up,
    spectral_norm_up,
    sum_up,
)


@dataclass(frozen=True)
class Operand:
    """A value that depends on the input of the network.

    Attributes
    ----------
    value : Tensor or tuple of Tensor
        The value for a batch of samples.
    constant : float
        Lipschitz constant of its dependence on the input.
    """

    value: Any
    constant: float

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.value.shape[1:])


@dataclass(frozen=True)
class FunctionBound:
    """What a function does to the Lipschitz constant.

    Attributes
    ----------
    constant : float
        Constant of the result as a function of the network's input.
    factor : float or None
        Constant of the function itself; None where several branches meet.
    rule : str
        Why.
    layer : torch.nn.Module or None
        Layer that computes the same.
    """

    constant: float
    factor: float | None
    rule: str
    layer: nn.Module | None = None


@dataclass(frozen=True)
class FunctionCall:
    """A call, with an `Operand` in the place of every argument that depends on the input."""

    name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    result: Any

    def argument(self, position: int, keyword: str, default: Any = None) -> Any:
        """Value of an argument given by position or by keyword."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(keyword, default)

    @property
    def operand(self) -> Operand:
        """The first argument, which must be the only one that depends on the input."""
        first = self.argument(0, "input")
        others = [*self.args[1:], *(v for k, v in self.kwargs.items() if k != "input")]
        if not isinstance(first, Operand) or any(isinstance(v, Operand) for v in others):
            raise CertificateError(
                f"{self.name} takes an argument that depends on the input where a constant one "
                "is expected; products of two activations have no Lipschitz constant"
            )
        return first

    def scaled(self, factor: float, rule: str, layer: nn.Module | None = None) -> FunctionBound:
        """Bound of a function with one operand."""
        return FunctionBound(product_up(self.operand.constant, factor), factor, rule, layer)


FunctionRule = Callable[[FunctionCall], FunctionBound]

_ONE = "one: no entry is copied or stretched"


def keeps_entries(call: FunctionCall) -> FunctionBound:
    """Bound a function that only moves entries."""
    return call.scaled(1.0, _ONE)


def moves_dimensions(*arguments: tuple[int, str]) -> FunctionRule:
    """Rule of a function some of whose arguments name dimensions, none of them the batch.

    `arguments` lists position and keyword of these arguments; the default is the batch.
    """

    def rule(call: FunctionCall) -> FunctionBound:
        for position, keyword in arguments:
            dims = call.argument(position, keyword, 0)
            for dim in dims if isinstance(dims, tuple | list) else (dims,):
                sample_axis(dim, call.operand.sample_shape)
        return call.scaled(1.0, _ONE)

    return rule


def permute_rule(call: FunctionCall) -> FunctionBound:
    """Bound a permutation of dimensions that keeps the batch first."""
    dims = call.argument(1, "dims")
    first = dims[0] if isinstance(dims, tuple | list) else dims
    if first % call.operand.value.ndim != 0:
        raise CertificateError("permute moves the batch dimension; keep it first")
    return call.scaled(1.0, _ONE)


def getitem_rule(call: FunctionCall) -> FunctionBound:
    """Bound a part of a tensor or of a tuple."""
    index = call.args[1]
    if isinstance(call.operand.value, tuple | list):
        return call.scaled(1.0, "one: a part of the values")
    parts = index if isinstance(index, tuple) else (index,)
    if parts[0] is not Ellipsis and parts[0] != slice(None):
        raise CertificateError("indexing picks among the samples of a batch; index with [:, ...]")
    if not all(part is None or part is Ellipsis or isinstance(part, int | slice) for part in parts):
        raise CertificateError("indexing with lists or tensors may copy entries; use slices")
    return call.scaled(1.0, "one: a part of the entries")


def elementwise(slope: float, rule: str) -> FunctionRule:
    """Return the rule of an elementwise function with the given largest absolute slope."""
    return lambda call: call.scaled(slope, rule)


def _reduced_count(call: FunctionCall) -> int:
    """Count the entries reduced to one, after checking that the batch is not among them."""
    shape = call.operand.sample_shape
    dims = call.argument(1, "dim")
    if dims is None:
        raise CertificateError(f"{call.name} without dim reduces over the batch; name the dim")
    dims = dims if isinstance(dims, tuple | list) else (dims,)
    return math.prod(shape[sample_axis(dim, shape)] for dim in dims)


def mean_rule(call: FunctionCall) -> FunctionBound:
    """Bound the mean over dimensions of a sample."""
    factor = quotient_up(1.0, math.nextafter(math.sqrt(_reduced_count(call)), 0.0))
    return call.scaled(factor, "one over the root of the number of entries averaged")


def sum_rule(call: FunctionCall) -> FunctionBound:
    """Bound the sum over dimensions of a sample."""
    return call.scaled(root_up(_reduced_count(call)), "root of the number of entries added")


def extremum_rule(call: FunctionCall) -> FunctionBound:
    """Bound a maximum or minimum, over dimensions of a sample or of two tensors."""
    if isinstance(call.argument(1, "other"), Operand | Tensor):
        return pairwise_extremum_rule(call)
    _reduced_count(call)
    return call.scaled(1.0, "one: the extreme entry")


def pairwise_extremum_rule(call: FunctionCall) -> FunctionBound:
    """Bound the elementwise maximum or minimum of two tensors."""
    terms = _branches(call, [call.argument(0, "input"), call.argument(1, "other")])
    return FunctionBound(
        root_sum_of_squares_up(terms), None, "root of the sum of squares over the branches"
    )


def _copies(operand: Operand, result: Tensor) -> float:
    """Return the root of the number of times broadcasting copies every entry."""
    if operand.value.ndim != result.ndim:
        raise CertificateError(
            f"broadcasting aligns samples of shape {operand.sample_shape} with "
            f"{tuple(result.shape[1:])} across the batch; give both the same number of dimensions"
        )
    return root_up(math.prod(result.shape[1:]) / max(1, math.prod(operand.sample_shape)))


def _branches(call: FunctionCall, arguments: Sequence[Any]) -> list[float]:
    return [
        product_up(argument.constant, _copies(argument, call.result))
        for argument in arguments
        if isinstance(argument, Operand)
    ]


def add_rule(call: FunctionCall) -> FunctionBound:
    """Bound a sum or difference."""
    arguments = [call.argument(0, "input"), call.argument(1, "other")]
    terms = _branches(call, arguments)
    scale = call.argument(2, "alpha", 1)
    terms[-1] = product_up(terms[-1], max(1.0, abs(float(scale))))
    if len(terms) == 1:
        return FunctionBound(terms[0], 1.0, "one: a constant is added")
    return FunctionBound(sum_up(terms), None, "sum over the branches")


def _largest_entry(value: Any) -> float:
    return float(torch.as_tensor(value).detach().double().abs().max())


def multiply_rule(call: FunctionCall) -> FunctionBound:
    """Bound the product with a constant."""
    first, second = call.argument(0, "input"), call.argument(1, "other")
    if isinstance(first, Operand) and isinstance(second, Operand):
        raise CertificateError(f"{call.name} multiplies two activations: no Lipschitz constant")
    operand, scale = (first, second) if isinstance(first, Operand) else (second, first)
    factor = product_up(_largest_entry(scale), _copies(operand, call.result))
    rule = "largest entry of the constant factor"
    return FunctionBound(product_up(operand.constant, factor), factor, rule)


def divide_rule(call: FunctionCall) -> FunctionBound:
    """Bound the division by a constant."""
    divisor = call.argument(1, "other")
    if isinstance(divisor, Operand) or call.kwargs.get("rounding_mode"):
        raise CertificateError(f"{call.name} divides by an activation or rounds: no constant")
    smallest = float(torch.as_tensor(divisor).detach().double().abs().min())
    if smallest == 0.0:
        raise CertificateError(f"{call.name} divides by a constant with a zero entry")
    factor = product_up(quotient_up(1.0, smallest), _copies(call.operand, call.result))
    return call.scaled(factor, "one over the smallest entry of the constant divisor")


def concatenate_rule(call: FunctionCall) -> FunctionBound:
    """Bound the concatenation or stacking of branches."""
    tensors = call.argument(0, "tensors")
    sample_axis(call.argument(1, "dim", 0), tuple(call.result.shape[1:]))
    constants = [part.constant for part in tensors if isinstance(part, Operand)]
    factor = 1.0 if len(constants) == 1 else None
    rule = "root of the sum of squares over the branches"
    return FunctionBound(root_sum_of_squares_up(constants), factor, rule)


def expand_rule(call: FunctionCall) -> FunctionBound:
    """Bound the repetition of entries."""
    return call.scaled(_copies(call.operand, call.result), "root of the number of copies")


def linear_rule(call: FunctionCall) -> FunctionBound:
    """Bound a dense map."""
    weight, bias = call.argument(1, "weight"), call.argument(2, "bias")
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return call.scaled(spectral_norm_up(weight), "spectral norm of the weight", layer)


def matmul_rule(call: FunctionCall) -> FunctionBound:
    """Bound the matrix product with a constant."""
    first, second = call.argument(0, "input"), call.argument(1, "other")
    if isinstance(first, Operand) and isinstance(second, Operand):
        raise CertificateError(f"{call.name} multiplies two activations: no Lipschitz constant")
    operand, matrix = (first, second) if isinstance(first, Operand) else (second, first)
    if matrix.ndim > 2 or (matrix.ndim == 1 and operand is second):
        raise CertificateError(f"{call.name} with a constant of shape {tuple(matrix.shape)}")
    if operand is second and operand.value.ndim < 3:
        raise CertificateError(f"{call.name} multiplies along the batch dimension")
    factor = spectral_norm_up(matrix if matrix.ndim == 2 else matrix[None])
    return FunctionBound(
        product_up(operand.constant, factor), factor, "spectral norm of the constant matrix"
    )


def convolution_rule(call: FunctionCall) -> FunctionBound:
    """Bound a convolution."""
    weight = call.argument(1, "weight")
    n_axes = weight.ndim - 2

    def axes(position: int, keyword: str, default: int) -> tuple[Any, ...]:
        value = call.argument(position, keyword, default)
        return tuple(value) if isinstance(value, tuple | list) else (value,) * n_axes

    padding = call.argument(4, "padding", 0)
    dilation = axes(5, "dilation", 1)
    if padding == "same":
        reaches = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        pads = [(reach // 2, reach - reach // 2) for reach in reaches]
    else:
        pads = [(p, p) for p in (axes(4, "padding", 0) if padding != "valid" else (0,) * n_axes)]
    factor = convolution_constant(
        weight,
        call.operand.sample_shape[-n_axes:],
        stride=axes(3, "stride", 1),
        padding=pads,
        dilation=dilation,
        groups=call.argument(6, "groups", 1),
    )
    return call.scaled(factor, "largest spectral norm of the kernel over a grid of frequencies")


def dropout_rule(call: FunctionCall) -> FunctionBound:
    """Bound dropout, the identity in evaluation mode."""
    if call.argument(2, "training", True):
        raise CertificateError(f"{call.name} is called with training=True; pass self.training")
    return call.scaled(1.0, "one: the identity in evaluation mode")


def as_layer(layer: type[nn.Module], *keywords: str, **defaults: Any) -> FunctionRule:
    """Rule of a function that equals a layer; `keywords` are its arguments after the first."""

    def rule(call: FunctionCall) -> FunctionBound:
        operand = call.operand
        given = dict(zip(keywords, call.args[1:], strict=False)) | dict(call.kwargs)
        parameters = {
            key: value
            for key, value in (defaults | given).items()
            if key in keywords and not key.startswith("_") and key != "dtype"
        }
        equal = layer(**parameters)
        factor, description = apply_rule(equal, operand.sample_shape, call.name)
        return call.scaled(factor, description, equal)

    return rule
