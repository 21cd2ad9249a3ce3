"""Which functions and tensor methods have a rule."""

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sharpfit.jacobian.lipschitz.functional import (
    FunctionRule,
    add_rule,
    as_layer,
    concatenate_rule,
    convolution_rule,
    divide_rule,
    dropout_rule,
    elementwise,
    expand_rule,
    extremum_rule,
    getitem_rule,
    keeps_entries,
    linear_rule,
    matmul_rule,
    mean_rule,
    moves_dimensions,
    multiply_rule,
    pairwise_extremum_rule,
    permute_rule,
    sum_rule,
)

_SLOPE = "largest absolute slope of the function"
_ROOT_4_OVER_PI = 1.1283791670955128

_POOL = ("kernel_size", "stride", "padding")
_MAX_POOL = (*_POOL, "dilation", "ceil_mode", "return_indices")
_AVERAGE_POOL = (*_POOL, "ceil_mode", "count_include_pad")
_SOFTMAX = ("dim", "_stacklevel", "dtype")

# Every name is looked up as a tensor method, in torch and in torch.nn.functional.
_NAMED: list[tuple[tuple[str, ...], FunctionRule]] = [
    (("relu", "relu_"), as_layer(nn.ReLU, "inplace")),
    (("relu6",), as_layer(nn.ReLU6, "inplace")),
    (("leaky_relu", "leaky_relu_"), as_layer(nn.LeakyReLU, "negative_slope", "inplace")),
    (("elu", "elu_"), as_layer(nn.ELU, "alpha", "inplace")),
    (("celu", "celu_"), as_layer(nn.CELU, "alpha", "inplace")),
    (("selu", "selu_"), as_layer(nn.SELU, "inplace")),
    (("gelu",), as_layer(nn.GELU, "approximate")),
    (("silu",), as_layer(nn.SiLU, "inplace")),
    (("mish",), as_layer(nn.Mish, "inplace")),
    (("tanh", "tanh_"), as_layer(nn.Tanh)),
    (("sigmoid", "sigmoid_"), as_layer(nn.Sigmoid)),
    (("hardtanh", "hardtanh_"), as_layer(nn.Hardtanh, "min_val", "max_val", "inplace")),
    (("hardsigmoid",), as_layer(nn.Hardsigmoid, "inplace")),
    (("hardswish",), as_layer(nn.Hardswish, "inplace")),
    (("softplus",), as_layer(nn.Softplus, "beta", "threshold")),
    (("softsign",), as_layer(nn.Softsign)),
    (("logsigmoid",), as_layer(nn.LogSigmoid)),
    (("tanhshrink",), as_layer(nn.Tanhshrink)),
    (("softshrink",), as_layer(nn.Softshrink, "lambd")),
    (("softmax",), as_layer(nn.Softmax, *_SOFTMAX, dim=None)),
    (("softmin",), as_layer(nn.Softmin, *_SOFTMAX, dim=None)),
    (("log_softmax",), as_layer(nn.LogSoftmax, *_SOFTMAX, dim=None)),
    (("max_pool1d",), as_layer(nn.MaxPool1d, *_MAX_POOL)),
    (("max_pool2d",), as_layer(nn.MaxPool2d, *_MAX_POOL)),
    (("max_pool3d",), as_layer(nn.MaxPool3d, *_MAX_POOL)),
    (("avg_pool1d",), as_layer(nn.AvgPool1d, *_AVERAGE_POOL)),
    (("avg_pool2d",), as_layer(nn.AvgPool2d, *_AVERAGE_POOL, "divisor_override")),
    (("avg_pool3d",), as_layer(nn.AvgPool3d, *_AVERAGE_POOL, "divisor_override")),
    (("adaptive_avg_pool1d",), as_layer(nn.AdaptiveAvgPool1d, "output_size")),
    (("adaptive_avg_pool2d",), as_layer(nn.AdaptiveAvgPool2d, "output_size")),
    (("adaptive_avg_pool3d",), as_layer(nn.AdaptiveAvgPool3d, "output_size")),
    (("adaptive_max_pool1d",), as_layer(nn.AdaptiveMaxPool1d, "output_size", "return_indices")),
    (("adaptive_max_pool2d",), as_layer(nn.AdaptiveMaxPool2d, "output_size", "return_indices")),
    (("adaptive_max_pool3d",), as_layer(nn.AdaptiveMaxPool3d, "output_size", "return_indices")),
    (("flatten",), as_layer(nn.Flatten, "start_dim", "end_dim", start_dim=0)),
    (("pixel_shuffle",), as_layer(nn.PixelShuffle, "upscale_factor")),
    (("pixel_unshuffle",), as_layer(nn.PixelUnshuffle, "downscale_factor")),
    (("linear",), linear_rule),
    (("conv1d", "conv2d", "conv3d"), convolution_rule),
    (("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout"), dropout_rule),
    (("matmul", "mm"), matmul_rule),
    (("add", "add_", "sub", "sub_", "subtract"), add_rule),
    (("mul", "mul_", "multiply"), multiply_rule),
    (("div", "div_", "divide", "true_divide"), divide_rule),
    (("cat", "concat", "concatenate", "stack"), concatenate_rule),
    (("expand", "expand_as", "repeat", "tile", "broadcast_to"), expand_rule),
    (("mean",), mean_rule),
    (("sum",), sum_rule),
    (("max", "min", "amax", "amin"), extremum_rule),
    (("maximum", "minimum", "fmax", "fmin"), pairwise_extremum_rule),
    (("permute",), permute_rule),
    (("transpose", "swapaxes"), moves_dimensions((1, "dim0"), (2, "dim1"))),
    (("movedim",), moves_dimensions((1, "source"), (2, "destination"))),
    (("unflatten", "unbind", "narrow", "select"), moves_dimensions((1, "dim"))),
    (("chunk", "split", "tensor_split"), moves_dimensions((2, "dim"))),
    (("flip",), moves_dimensions((1, "dims"))),
    (("roll",), moves_dimensions((2, "dims"))),
    (("view", "reshape", "squeeze", "unsqueeze", "contiguous", "clone", "detach"), keeps_entries),
    (("to", "type_as", "float", "double", "half", "bfloat16", "positive"), keeps_entries),
    (("abs", "abs_", "absolute", "neg", "neg_", "negative"), elementwise(1.0, _SLOPE)),
    (("sin", "cos", "atan", "arctan", "asinh"), elementwise(1.0, _SLOPE)),
    (("clamp", "clamp_", "clip", "clamp_min", "clamp_max"), elementwise(1.0, _SLOPE)),
    (("erf",), elementwise(_ROOT_4_OVER_PI, _SLOPE)),
]

_FUNCTIONS: dict[Callable[..., Any], FunctionRule] = {
    operator.add: add_rule,
    operator.iadd: add_rule,
    operator.sub: add_rule,
    operator.isub: add_rule,
    operator.mul: multiply_rule,
    operator.imul: multiply_rule,
    operator.truediv: divide_rule,
    operator.itruediv: divide_rule,
    operator.matmul: matmul_rule,
    operator.neg: elementwise(1.0, _SLOPE),
    operator.getitem: getitem_rule,
}
_METHODS: dict[str, FunctionRule] = {}
for _names, _rule in _NAMED:
    for _name in _names:
        _METHODS[_name] = _rule
        for _namespace in (torch, F):
            if hasattr(_namespace, _name):
                _FUNCTIONS[getattr(_namespace, _name)] = _rule


def find_function_rule(target: Callable[..., Any] | str) -> FunctionRule | None:
    """Return the rule of a function, or of the tensor method of that name, or None."""
    return _METHODS.get(target) if isinstance(target, str) else _FUNCTIONS.get(target)


def modifies_in_place(target: Callable[..., Any] | str, inplace: bool) -> bool:
    """Whether a call writes its result over its first argument."""
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    in_place_operators = (operator.iadd, operator.isub, operator.imul, operator.itruediv)
    return inplace or target in in_place_operators or name.rstrip("_") != name
