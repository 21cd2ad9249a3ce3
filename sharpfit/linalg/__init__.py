"""Linear algebra of symmetric operators: eigenpairs, traces, densities. Knows no network."""

from .combinators import (
    CongruentOperator,
    DiagonalOperator,
    LinearCombination,
    RestrictedOperator,
)
from .dense import DenseOperator
from .density import SpectralDensity, spectral_density
from .eigenpairs import Eigenpairs, top_eigenpairs
from .operator import SymmetricOperator
from .randomness import as_generator
from .trace import TraceEstimate, frobenius_norm_estimate, trace_estimate

__all__ = [
    "CongruentOperator",
    "DenseOperator",
    "DiagonalOperator",
    "Eigenpairs",
    "LinearCombination",
    "RestrictedOperator",
    "SpectralDensity",
    "SymmetricOperator",
    "TraceEstimate",
    "as_generator",
    "frobenius_norm_estimate",
    "spectral_density",
    "top_eigenpairs",
    "trace_estimate",
]
