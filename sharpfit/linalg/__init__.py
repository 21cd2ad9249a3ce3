"""Linear algebra of symmetric operators: eigenpairs, traces, densities. Knows no network."""

from .dense import DenseOperator
from .eigenpairs import Eigenpairs, top_eigenpairs
from .operator import SymmetricOperator
from .randomness import as_generator

__all__ = ["DenseOperator", "Eigenpairs", "SymmetricOperator", "as_generator", "top_eigenpairs"]
