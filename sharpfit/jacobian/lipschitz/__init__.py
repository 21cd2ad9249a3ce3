"""Rules that bound the Lipschitz constants of layers, and their composition.

Importing this package registers the rules of torch's own layers.
"""

from sharpfit.jacobian.lipschitz import (
    activations,
    convolution,
    dense,
    normalisation,
    pooling,
    reshaping,
)
from sharpfit.jacobian.lipschitz.errors import CertificateError
from sharpfit.jacobian.lipschitz.graph import LayerRule
from sharpfit.jacobian.lipschitz.registry import register_lipschitz

__all__ = [
    "CertificateError",
    "LayerRule",
    "activations",
    "convolution",
    "dense",
    "normalisation",
    "pooling",
    "register_lipschitz",
    "reshaping",
]
