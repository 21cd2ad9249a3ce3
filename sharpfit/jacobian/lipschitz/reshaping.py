"""Layers that only move entries: every one is kept once, so the constant is one."""

import math
from typing import Any

from torch import nn

from sharpfit.jacobian.lipschitz.convolution import padding_multiplicity
from sharpfit.jacobian.lipschitz.errors import CertificateError
from sharpfit.jacobian.lipschitz.registry import LipschitzRule, register_lipschitz
from sharpfit.jacobian.lipschitz.rounding import root_up


def unit_constant(module: nn.Module, input_shape: tuple[int, ...]) -> float:
    """One: no entry is copied or stretched."""
    return 1.0


def dropout_constant(module: nn.Module, input_shape: tuple[int, ...]) -> float:
    """One: the identity in evaluation mode."""
    return 1.0


def flatten_constant(module: nn.Flatten, input_shape: tuple[int, ...]) -> float:
    """One: no entry is copied or stretched."""
    if module.start_dim == 0 or module.start_dim == -len(input_shape) - 1:
        raise CertificateError(f"start_dim={module.start_dim} flattens the batch; use start_dim=1")
    return 1.0


def padding_constant(module: Any, input_shape: tuple[int, ...]) -> float:
    """Root of the number of copies of the entry that padding copies most."""
    padding = module.padding
    mode = next(mode for mode, layers in _PADDINGS.items() if isinstance(module, layers))
    axes = zip(input_shape[::-1], zip(padding[::2], padding[1::2], strict=True), strict=False)
    return root_up(math.prod(padding_multiplicity(length, pair, mode) for length, pair in axes))


_PADDINGS: dict[str, tuple[type[nn.Module], ...]] = {
    "constant": (
        nn.ConstantPad1d,
        nn.ConstantPad2d,
        nn.ConstantPad3d,
        nn.ZeroPad1d,
        nn.ZeroPad2d,
        nn.ZeroPad3d,
    ),
    "reflect": (nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d),
    "replicate": (nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d),
    "circular": (nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d),
}

_LAYERS: list[tuple[tuple[type[nn.Module], ...], LipschitzRule]] = [
    (
        (nn.Identity, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle),
        unit_constant,
    ),
    (
        (
            nn.Dropout,
            nn.Dropout1d,
            nn.Dropout2d,
            nn.Dropout3d,
            nn.AlphaDropout,
            nn.FeatureAlphaDropout,
        ),
        dropout_constant,
    ),
    ((nn.Flatten,), flatten_constant),
    *((types, padding_constant) for types in _PADDINGS.values()),
]
for _types, _rule in _LAYERS:
    for _type in _types:
        register_lipschitz(_type, _rule)
