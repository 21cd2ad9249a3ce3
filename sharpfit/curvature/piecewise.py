"""Whether the outputs of a module are piecewise affine in every one of its parameter tensors."""

import operator
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from sharpfit.curvature.network import Network

PIECEWISE_LINEAR: tuple[Any, ...] = (
    *(nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.Hardtanh),
    *(F.relu, F.leaky_relu, F.relu6, F.hardtanh, torch.relu, "relu"),
)
_AFFINE_MODULES: tuple[Any, ...] = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.PReLU),
    *(nn.Identity, nn.Flatten, nn.Unflatten, nn.Upsample, nn.PixelShuffle, nn.PixelUnshuffle),
    *(nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ConstantPad1d, nn.ConstantPad2d),
    *(nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad1d, nn.ReplicationPad2d),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
_NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_FUNCTIONS: tuple[Any, ...] = (
    *(operator.add, operator.iadd, operator.sub, operator.neg, torch.add, torch.sub, "add", "sub"),
    *(torch.cat, torch.flatten, torch.mean, torch.sum, "flatten", "mean", "sum"),
    *(torch.stack, torch.unflatten, "unflatten", F.pad),
    *("view", "reshape", "transpose", "permute", "contiguous", "squeeze", "unsqueeze", "size"),
    *(F.max_pool1d, F.max_pool2d, F.avg_pool1d, F.avg_pool2d),
    *(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.dropout, getattr, operator.getitem),
)
_SCALINGS: tuple[Any, ...] = (operator.mul, operator.truediv, torch.mul, torch.div, "mul", "div")


def unstack(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of nested `Sequential` modules, which need no tracing.

    Parameters
    ----------
    module : torch.nn.Module

    Yields
    ------
    torch.nn.Module
    """
    if type(module) is nn.Sequential:
        for layer in module:
            yield from unstack(layer)
    else:
        yield module


def symbolic_trace(module: nn.Module) -> fx.Graph | None:
    """Return the operations of a module, or None where they depend on values.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    torch.fx.Graph or None
    """
    try:
        return fx.Tracer().trace(module)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
            ValueError):  # fmt: skip
        # Control flow that depends on values, or whatever else proxies cannot stand in for.
        return None


def is_piecewise_linear(network: Network) -> bool:
    """Whether outputs are known to be piecewise affine in each parameter tensor alone.

    Then the diagonal of the residual of the Hessian vanishes. It holds if every operation is
    affine or piecewise linear in what enters it and no layer with parameters is used twice:
    branches may be added or concatenated, but not multiplied.

    Parameters
    ----------
    network : Network

    Returns
    -------
    bool
    """
    # Wrapped, because a tracer looks into the outermost module even if it is a known layer.
    module = nn.Sequential(network.module)
    if any(layer._forward_hooks or layer._forward_pre_hooks for layer in module.modules()):
        return False
    layers, others = list(unstack(module)), []
    if not all(map(_is_known_layer, layers)):
        graph = symbolic_trace(module)
        if graph is None:
            return False
        called = [str(node.target) for node in graph.nodes if node.op == "call_module"]
        layers = [module.get_submodule(name) for name in called]
        others = [node for node in graph.nodes if node.op != "call_module"]
    parameters = [id(p) for layer in layers for p in layer.parameters(recurse=False)]
    if len(parameters) != len(set(parameters)) or not all(map(_is_known_layer, layers)):
        return False
    return all(_is_known_operation(node) for node in others)


def _is_known_layer(layer: nn.Module) -> bool:
    # The exact type: a subclass may compute something else.
    if type(layer) in _NORMALISATIONS:
        return getattr(layer, "running_mean", None) is not None
    return type(layer) in _AFFINE_MODULES or type(layer) in PIECEWISE_LINEAR


def _is_known_operation(node: fx.Node) -> bool:
    if node.op in ("placeholder", "output"):
        return True
    if node.op == "get_attr":  # a parameter used outside a layer
        return False
    if node.target in _SCALINGS:
        return isinstance(node.args[0], fx.Node) and not isinstance(node.args[1], fx.Node)
    return node.target in _FUNCTIONS or node.target in PIECEWISE_LINEAR
