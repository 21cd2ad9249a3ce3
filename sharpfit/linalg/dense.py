"""A symmetric operator that holds its matrix."""

import torch
from torch import Tensor

from .operator import SymmetricOperator


class DenseOperator(SymmetricOperator):
    """A symmetric matrix in memory.

    Parameters
    ----------
    matrix : Tensor of shape (size, size), floating
        The matrix; it must be symmetric up to rounding.

    Raises
    ------
    TypeError
        If `matrix` is not a floating tensor.
    ValueError
        If `matrix` is not square, not finite or not symmetric.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.linalg import DenseOperator
    >>> DenseOperator(torch.eye(2)) @ torch.tensor([1.0, 2.0])
    tensor([1., 2.])
    """

    def __init__(self, matrix: Tensor) -> None:
        if not isinstance(matrix, Tensor) or not matrix.is_floating_point():
            raise TypeError("matrix must be a floating-point tensor.")
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"matrix must be square, got shape {tuple(matrix.shape)}.")
        if not bool(torch.isfinite(matrix).all()):
            raise ValueError("matrix has entries that are not finite.")
        scale = float(matrix.abs().max()) if matrix.numel() else 0.0
        asymmetry = float((matrix - matrix.T).abs().max()) if matrix.numel() else 0.0
        if asymmetry > 100 * torch.finfo(matrix.dtype).eps * scale:
            raise ValueError(
                f"matrix is not symmetric: entries differ from their transpose by {asymmetry:.3g}; "
                "symmetrise it first, for example as (matrix + matrix.T) / 2."
            )
        self.matrix = matrix
        self.size = matrix.shape[0]
        self.dtype = matrix.dtype
        self.device = matrix.device

    def matvec(self, vector: Tensor) -> Tensor:
        """Multiply the matrix by one vector of shape (size,)."""
        return self.matrix @ vector

    def matmat(self, vectors: Tensor) -> Tensor:
        """Multiply the matrix by the columns of `vectors`, shape (size, k)."""
        return self.matrix @ vectors

    def to_dense(self) -> Tensor:
        """Return a copy of the matrix."""
        return self.matrix.clone()
