"""An orthonormal basis with its products, grown one vector at a time."""

import numpy as np
import torch
from torch import Tensor

from sharpfit.linalg import SymmetricOperator

_EXPECTED = 16  # vectors
# Basis, products, and what is combined of them.
_COPIES = 3
_BLOCK = 12  # vectors by which the space grows: copying it for each would double what is held


class RitzBasis:
    """Rayleigh-Ritz on a growing space, with residuals of the products as computed.

    Products are kept beside the vectors, so that residuals, restarts and a step of power
    iteration cost none.

    Parameters
    ----------
    operator : SymmetricOperator
        The matrix.
    memory_budget : int, default=2**28
        Bytes for basis and products: they are kept in float64 if a basis of the usual size fits.

    Attributes
    ----------
    capacity : int
        Vectors that fit.
    n_products : int
        Products spent.
    scale : float
        Largest norm of a product.
    """

    def __init__(self, operator: SymmetricOperator, memory_budget: int = 2**28) -> None:
        self.operator = operator
        self.n_products = 0
        self.scale = 0.0
        vectors = memory_budget // (_COPIES * operator.size)  # of one byte a number
        self._dtype = torch.promote_types(operator.dtype, torch.float32)
        if vectors >= torch.float64.itemsize * _EXPECTED:
            self._dtype = torch.float64
        self.capacity = vectors // self._dtype.itemsize
        empty = torch.empty((0, operator.size), dtype=self._dtype, device=operator.device)
        # Rows of both tensors beyond the vectors there are have not been written to yet.
        self._space: tuple[Tensor, ...] = (empty, empty)
        self._projection = np.zeros((0, 0))  # as large as the space
        self._count = 0
        self._compressed = False
        self._forget_pairs()

    def _forget_pairs(self) -> None:
        self._pairs: tuple[np.ndarray, Tensor] | None = None
        self._residuals: Tensor | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def _basis(self) -> Tensor:
        return self._space[0][: len(self)]

    @property
    def _products(self) -> Tensor:
        return self._space[1][: len(self)]

    @property
    def complete(self) -> bool:
        """Whether the basis spans the whole space."""
        return len(self) == self.operator.size

    def expand(self, direction: Tensor) -> bool:
        """Add the part of a direction that is orthogonal to the basis, and its product.

        Parameters
        ----------
        direction : Tensor of shape (size,)

        Returns
        -------
        bool
            False if the direction lies in the basis to rounding, and nothing was added.
        """
        basis = self._basis
        vector = direction.to(basis)
        whole = before = norm = float(vector.norm())
        for _ in range(3):
            vector = vector - basis.T @ (basis @ vector)
            before, norm = norm, float(vector.norm())
            if norm > 0.5 * before:
                break
        if self.complete or norm <= 1e-10 * whole:
            return False
        vector = vector / norm
        product = self.operator.matvec(vector.to(self.operator.dtype)).detach().to(self._dtype)
        length = float(product.norm())
        if not np.isfinite(length):
            raise ValueError("a product of the operator is not finite")
        self.n_products += 1
        self.scale = max(self.scale, length)
        count = self._count
        if count == len(self._space[0]):
            self._space = tuple(_with_room(kept) for kept in self._space)
            self._projection = np.pad(self._projection, (0, _BLOCK))
        self._space[0][count], self._space[1][count] = vector, product
        column = (self._space[0][: count + 1] @ product).double().cpu().numpy()
        self._projection[: count + 1, count] = self._projection[count, : count + 1] = column
        self._count += 1
        self._forget_pairs()
        return True

    @property
    def values(self) -> np.ndarray:
        """Ritz values, the largest first."""
        return self._decomposition[0]

    @property
    def _coefficients(self) -> Tensor:
        return self._decomposition[1]

    @property
    def _decomposition(self) -> tuple[np.ndarray, Tensor]:
        if self._pairs is None:
            values, coefficients = np.linalg.eigh(self._projection[: self._count, : self._count])
            turn = torch.as_tensor(coefficients[:, ::-1].copy()).to(self._basis)
            self._pairs = values[::-1].copy(), turn
        return self._pairs

    def vectors(self, count: int) -> Tensor:
        """Return the first Ritz vectors, of shape (count, size)."""
        return self._coefficients[:, :count].T @ self._basis

    def coefficients(self) -> np.ndarray | None:
        """Return the first Ritz vector in the vectors multiplied so far, if all are there yet."""
        return None if self._compressed else self._coefficients[:, 0].cpu().numpy()

    def images(self, count: int) -> Tensor:
        """Return the products of the first Ritz vectors, of shape (count, size)."""
        return self._coefficients[:, :count].T @ self._products

    def residuals(self, count: int) -> Tensor:
        """Return ``A y - t y`` of the first Ritz pairs, of shape (count, size)."""
        if self._residuals is None or len(self._residuals) < count:
            coefficients = self._coefficients[:, :count].T
            values = torch.as_tensor(self.values[:count]).to(self._basis)
            shifts = values.unsqueeze(1) * coefficients
            images = coefficients @ self._products
            self._residuals = torch.addmm(images, shifts, self._basis, alpha=-1)
        return self._residuals[:count]

    def newest_product(self) -> Tensor:
        """Return the product of the vector added last, of shape (size,)."""
        return self._products[-1]

    def compress(self, count: int) -> None:
        """Keep the first Ritz vectors alone."""
        values = self.values[:count]
        self._space = (self.vectors(count), self.images(count))
        self._projection, self._count = np.diag(values), count
        self._forget_pairs()
        self._compressed = True


def _with_room(kept: Tensor) -> Tensor:
    """Return rows with others after them that take no memory until they are written to."""
    grown = kept.new_empty(len(kept) + _BLOCK, kept.shape[1])
    grown[: len(kept)] = kept
    return grown
