"""Symmetric operators made from others."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .operator import SymmetricOperator


class LinearCombination(SymmetricOperator):
    """A weighted sum of operators, plus a multiple of the identity.

    Parameters
    ----------
    operators : sequence of SymmetricOperator
        At least one; all of one size, dtype and device.
    coefficients : sequence of float, optional
        One factor per operator, default all ones.
    shift : float, default=0.0
        Multiple of the identity to add.

    Raises
    ------
    ValueError
        If the operators do not match, or the numbers of operators and coefficients differ.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.linalg import DenseOperator, LinearCombination
    >>> ones = DenseOperator(torch.ones(2, 2))
    >>> LinearCombination([ones], [2.0], shift=1.0).to_dense()
    tensor([[3., 2.],
            [2., 3.]])
    """

    def __init__(
        self,
        operators: Sequence[SymmetricOperator],
        coefficients: Sequence[float] | None = None,
        *,
        shift: float = 0.0,
    ) -> None:
        if not operators:
            raise ValueError("operators is empty; give at least one.")
        self.operators = tuple(operators)
        self.coefficients = (
            (1.0,) * len(self.operators) if coefficients is None else tuple(coefficients)
        )
        self.shift = float(shift)
        if len(self.coefficients) != len(self.operators):
            raise ValueError(
                f"{len(self.coefficients)} coefficients for {len(self.operators)} operators."
            )
        first = self.operators[0]
        self.size, self.dtype, self.device = first.size, first.dtype, first.device
        for other in self.operators[1:]:
            if (other.size, other.dtype, other.device) != (self.size, self.dtype, self.device):
                raise ValueError(
                    "operators must agree in size, dtype and device: got "
                    f"({other.size}, {other.dtype}, {other.device}) after "
                    f"({self.size}, {self.dtype}, {self.device})."
                )

    def matvec(self, vector: Tensor) -> Tensor:
        """Multiply by one vector of shape (size,)."""
        total = self.shift * vector
        for coefficient, operator in zip(self.coefficients, self.operators, strict=True):
            total = total + coefficient * operator.matvec(vector)
        return total


class CongruentOperator(SymmetricOperator):
    """A symmetric operator scaled from both sides, ``diag(s) A diag(s)``.

    With ``s = p ** -0.5`` its eigenvalues are those of ``diag(p)^-1 A``, the matrix of an
    optimiser with diagonal preconditioner `p`.

    Parameters
    ----------
    operator : SymmetricOperator
        The matrix `A`.
    scaling : Tensor of shape (size,)
        The diagonal `s`, finite.

    Raises
    ------
    ValueError
        If `scaling` has another shape or is not finite.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.linalg import CongruentOperator, DenseOperator
    >>> CongruentOperator(DenseOperator(torch.ones(2, 2)), torch.tensor([1.0, 2.0])).to_dense()
    tensor([[1., 2.],
            [2., 4.]])
    """

    def __init__(self, operator: SymmetricOperator, scaling: Tensor) -> None:
        if scaling.shape != (operator.size,):
            raise ValueError(
                f"scaling has shape {tuple(scaling.shape)}, expected ({operator.size},)."
            )
        if not bool(torch.isfinite(scaling).all()):
            raise ValueError("scaling has entries that are not finite.")
        self.operator = operator
        self.scaling = scaling.to(dtype=operator.dtype, device=operator.device)
        self.size, self.dtype, self.device = operator.size, operator.dtype, operator.device

    def matvec(self, vector: Tensor) -> Tensor:
        """Multiply by one vector of shape (size,)."""
        return self.scaling * self.operator.matvec(self.scaling * vector)

    def matmat(self, vectors: Tensor) -> Tensor:
        """Multiply by the columns of `vectors`, shape (size, k)."""
        scaling = self.scaling[:, None]
        return scaling * self.operator.matmat(scaling * vectors)


class RestrictedOperator(SymmetricOperator):
    """The principal submatrix of some rows and columns.

    Parameters
    ----------
    operator : SymmetricOperator
        The whole matrix.
    indices : Tensor of shape (k,), int64
        Rows and columns to keep, each at most once.

    Raises
    ------
    ValueError
        If an index is out of range or repeated.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.linalg import DenseOperator, RestrictedOperator
    >>> whole = DenseOperator(torch.diag(torch.tensor([1.0, 2.0, 3.0])))
    >>> RestrictedOperator(whole, torch.tensor([2, 0])).to_dense()
    tensor([[3., 0.],
            [0., 1.]])
    """

    def __init__(self, operator: SymmetricOperator, indices: Tensor) -> None:
        if indices.ndim != 1 or indices.is_floating_point() or indices.dtype == torch.bool:
            raise ValueError("indices must be a one-dimensional tensor of integers.")
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < operator.size:
            raise ValueError(f"indices must lie between 0 and {operator.size - 1}.")
        if len(torch.unique(indices)) != len(indices):
            raise ValueError("indices must not repeat.")
        self.operator = operator
        self.indices = indices.to(operator.device)
        self.size, self.dtype, self.device = len(indices), operator.dtype, operator.device

    def matvec(self, vector: Tensor) -> Tensor:
        """Multiply by one vector of shape (size,)."""
        whole = vector.new_zeros(self.operator.size)
        whole[self.indices] = vector
        return self.operator.matvec(whole)[self.indices]

    def matmat(self, vectors: Tensor) -> Tensor:
        """Multiply by the columns of `vectors`, shape (size, k)."""
        whole = vectors.new_zeros((self.operator.size, vectors.shape[1]))
        whole[self.indices] = vectors
        return self.operator.matmat(whole)[self.indices]


class DiagonalOperator(SymmetricOperator):
    """A diagonal matrix.

    Parameters
    ----------
    diagonal : Tensor of shape (size,), floating
        The diagonal, finite.

    Raises
    ------
    ValueError
        If `diagonal` is not a finite vector.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.linalg import DiagonalOperator
    >>> DiagonalOperator(torch.tensor([1.0, 2.0])) @ torch.tensor([3.0, 4.0])
    tensor([3., 8.])
    """

    def __init__(self, diagonal: Tensor) -> None:
        if diagonal.ndim != 1 or not bool(torch.isfinite(diagonal).all()):
            raise ValueError("diagonal must be a finite vector.")
        self.diagonal = diagonal
        self.size, self.dtype, self.device = len(diagonal), diagonal.dtype, diagonal.device

    def matvec(self, vector: Tensor) -> Tensor:
        """Multiply by one vector of shape (size,)."""
        return self.diagonal * vector

    def matmat(self, vectors: Tensor) -> Tensor:
        """Multiply by the columns of `vectors`, shape (size, k)."""
        return self.diagonal[:, None] * vectors
