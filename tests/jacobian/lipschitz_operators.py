"""Constants of layers by their rules, and the norms of their dense matrices."""

import math

import torch

from sharpfit.jacobian.lipschitz.registry import apply_rule

ROUNDING = 1e-10


def constant_of(layer, shape):
    return apply_rule(layer.eval(), shape, "layer")[0]


def operator_norm(layer, shape):
    """Spectral norm of an affine layer from its values at the unit vectors, in float64."""
    layer = layer.double().eval()
    size = math.prod(shape)
    with torch.no_grad():
        units = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
        rows = layer(units) - layer(torch.zeros(1, *shape, dtype=torch.float64))
    return float(torch.linalg.matrix_norm(rows.reshape(size, -1), 2)) if rows.numel() else 0.0


def randomise(layer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return layer
