"""Symmetric linear operators that are known only through their products with vectors."""

from abc import ABC, abstractmethod

import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor


class SymmetricOperator(ABC):
    """A real symmetric matrix given by its products.

    Subclasses set `size`, `dtype` and `device` and implement `matvec`.

    Attributes
    ----------
    size : int
        Number of rows, which is the number of columns.
    dtype : torch.dtype
        Floating dtype of the products.
    device : torch.device
        Device on which products are computed and returned.
    """

    size: int
    dtype: torch.dtype
    device: torch.device

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix, ``(size, size)``."""
        return (self.size, self.size)

    @abstractmethod
    def matvec(self, vector: Tensor) -> Tensor:
        """Multiply the matrix by one vector.

        Parameters
        ----------
        vector : Tensor of shape (size,)
            In the operator's dtype and on its device.

        Returns
        -------
        Tensor of shape (size,)
        """

    def matmat(self, vectors: Tensor) -> Tensor:
        """Multiply the matrix by the columns of `vectors`.

        Parameters
        ----------
        vectors : Tensor of shape (size, k)

        Returns
        -------
        Tensor of shape (size, k)
        """
        if vectors.shape[1] == 0:
            return vectors.clone()
        return torch.stack([self.matvec(column) for column in vectors.unbind(1)], dim=1)

    def to_dense(self) -> Tensor:
        """Return the whole matrix, at the cost of `size` products.

        Returns
        -------
        Tensor of shape (size, size)
        """
        return self.matmat(torch.eye(self.size, dtype=self.dtype, device=self.device))

    def to_scipy(self) -> LinearOperator:
        """Return the operator as a SciPy `LinearOperator` on numpy arrays.

        Returns
        -------
        scipy.sparse.linalg.LinearOperator
        """

        def multiply(array):  # type: ignore[no-untyped-def]
            columns = torch.as_tensor(array, dtype=self.dtype, device=self.device)
            product = self.matmat(columns) if columns.ndim == 2 else self.matvec(columns)
            return product.detach().cpu().to(wide).numpy()

        # numpy has no bfloat16, and SciPy's solvers want at least single precision.
        wide = torch.promote_types(self.dtype, torch.float32)
        numpy_dtype = torch.empty(0, dtype=wide).numpy().dtype
        return LinearOperator(
            shape=self.shape,
            dtype=numpy_dtype,
            matvec=multiply,
            rmatvec=multiply,
            matmat=multiply,
            rmatmat=multiply,
        )

    def __matmul__(self, other: Tensor) -> Tensor:
        return self.matvec(other) if other.ndim == 1 else self.matmat(other)
