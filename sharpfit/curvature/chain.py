"""Reading a module as a chain of layers with hand-written derivatives."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from sharpfit.curvature.affine_layers import Convolution, Dense, Normalisation
from sharpfit.curvature.layers import (
    Elementwise,
    FixedLinear,
    Flatten,
    Layer,
    MaxPooling,
    Rectifier,
)
from sharpfit.curvature.network import Network
from sharpfit.curvature.piecewise import PIECEWISE_LINEAR, symbolic_trace, unstack

_SMOOTH: tuple[Any, ...] = (
    *(nn.CELU, nn.ELU, nn.GELU, nn.LogSigmoid, nn.Mish, nn.SELU, nn.SiLU, nn.Sigmoid),
    *(nn.Softplus, nn.Softsign, nn.Tanh),
    *(F.celu, F.elu, F.gelu, F.logsigmoid, F.mish, F.selu, F.silu, F.sigmoid, F.softplus),
    *(F.softsign, F.tanh, torch.sigmoid, torch.tanh, "sigmoid", "tanh"),
)
_INCREASING: tuple[Any, ...] = (nn.ReLU6, nn.Tanh, F.tanh)
_RECTIFIERS: tuple[Any, ...] = (nn.ReLU, F.relu, torch.relu, "relu")
_IDENTITY = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)
_AVERAGE_POOLING = (nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
_MAX_POOLING = {nn.MaxPool1d: F.max_pool1d, nn.MaxPool2d: F.max_pool2d}
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
_NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d)


def read_chain(network: Network) -> list[Layer] | None:
    """Return the layers of a module that applies known layers one after the other.

    Parameters
    ----------
    network : Network

    Returns
    -------
    list of Layer or None
        None for any other module.
    """
    # Wrapped, because a tracer looks into the outermost module even if it is a known layer.
    module = nn.Sequential(network.module)
    if any(layer._forward_hooks or layer._forward_pre_hooks for layer in module.modules()):
        return None
    places = {id(parameter): index for index, parameter in enumerate(network.parameters)}
    stack = [_read_module(layer, places) for layer in unstack(module)]
    if None not in stack:
        return _pool_first([layer for layers in stack for layer in layers or ()])
    graph = symbolic_trace(module)
    if graph is None:
        return None
    chain: list[Layer] = []
    node = next(node for node in graph.nodes if node.op == "output").args[0]
    while isinstance(node, fx.Node) and node.op != "placeholder":
        layers = _read(node, module, places)
        if layers is None:
            return None
        chain[:0] = layers
        node = node.args[0]
    return _pool_first(chain) if isinstance(node, fx.Node) else None


def _read(node: fx.Node, module: nn.Module, places: dict[int, int]) -> list[Layer] | None:
    """Return the layers of one operation: none for the identity, None for an unknown one."""
    if node.op == "call_module":
        return _read_module(module.get_submodule(str(node.target)), places)
    target: Any = node.target
    arguments, keywords = node.args[1:], dict(node.kwargs)
    if not node.args or any(isinstance(value, fx.Node) for value in keywords.values()):
        return None
    if target in ("view", "reshape"):
        # The chain's outputs are compared with the module's, so this need not be proved.
        return [Flatten()] if len(arguments) == 2 and -1 in arguments else None
    if any(isinstance(value, fx.Node) for value in arguments):
        return None
    if target in (torch.flatten, "flatten"):
        return [Flatten()] if (*arguments, *keywords.values()) == (1,) else None
    if target in (F.dropout, F.dropout1d, F.dropout2d, F.alpha_dropout):
        return [] if keywords.get("training", True) is False else None
    if target in (F.max_pool1d, F.max_pool2d) and not keywords.get("return_indices"):
        keywords.pop("return_indices", None)
        return [MaxPooling(lambda x: target(x, *arguments, **keywords, return_indices=True))]
    if target in (F.avg_pool1d, F.avg_pool2d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d):
        return [FixedLinear(lambda x: target(x, *arguments, **keywords))]
    if target in _RECTIFIERS:
        return [Rectifier()]
    if target in PIECEWISE_LINEAR or target in _SMOOTH:
        function = getattr(torch.Tensor, target) if isinstance(target, str) else target
        return [
            Elementwise(
                lambda x: function(x, *arguments, **keywords),
                piecewise_linear=target in PIECEWISE_LINEAR,
                increasing=target in _INCREASING,
            )
        ]
    return None


def _read_module(layer: Any, places: dict[int, int]) -> list[Layer] | None:
    # The exact type: a subclass may compute something else.
    kind: Any = type(layer)
    if kind in _IDENTITY:
        return []
    if kind is nn.Flatten:
        return [Flatten()] if (layer.start_dim, layer.end_dim) == (1, -1) else None
    if kind in _RECTIFIERS:
        return [Rectifier()]
    if kind in PIECEWISE_LINEAR or kind in _SMOOTH:
        return [Elementwise(layer, kind in PIECEWISE_LINEAR, kind in _INCREASING)]
    if kind in _AVERAGE_POOLING:
        return [FixedLinear(layer)]
    if kind in _MAX_POOLING:
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        settings = {name: getattr(layer, name) for name in names}
        function: Any = partial(_MAX_POOLING[kind], **settings, return_indices=True)
        return None if layer.return_indices else [MaxPooling(function)]
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    indices = places.get(id(weight)), places.get(id(bias))
    if kind is nn.Linear:
        return [Dense(layer.weight, layer.bias, *indices)]
    if kind in _CONVOLUTIONS and layer.padding_mode == "zeros":
        return [Convolution(layer, *indices)] if not isinstance(layer.padding, str) else None
    if kind in _NORMALISATIONS and layer.running_mean is not None:
        return [Normalisation(layer, *indices)]
    return None


def _pool_first(chain: list[Layer]) -> list[Layer]:
    """Move max pooling before increasing activations: the same function, on fewer entries."""
    chain = list(chain)
    for index in range(1, len(chain)):
        before = chain[index - 1]
        if not (isinstance(before, Elementwise) and before.increasing):
            continue
        if isinstance(chain[index], MaxPooling):
            chain[index - 1 : index + 1] = [chain[index], before]
    return chain
