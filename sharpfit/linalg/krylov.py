"""An orthonormal basis grown by products, with the operator's projection on it."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .operator import SymmetricOperator

_BLOCK = 1 << 18  # entries of the basis copied or converted to float64 at a time
_DEFAULT_BUDGET = 1 << 30  # bytes of the basis


@dataclass(frozen=True)
class RitzPairs:
    """Eigenpairs of the operator's projection, ascending.

    Attributes
    ----------
    values : ndarray of shape (m,)
        Ritz values.
    coefficients : ndarray of shape (m, m)
        Column `i` holds the coordinates of Ritz vector `i` in the expanded basis vectors.
    couplings : ndarray of shape (m,)
        Norm of the residual's part outside the expanded space, which further products reduce.
    rounding : ndarray of shape (m,)
        Norm of the residual's part that comes from asymmetry of the products, which only more
        precise products reduce.
    directions : ndarray of shape (n_frontier, m)
        Coordinates of the residual's outside part in the frontier vectors.
    """

    values: np.ndarray
    coefficients: np.ndarray
    couplings: np.ndarray
    rounding: np.ndarray
    directions: np.ndarray

    @property
    def residual_norms(self) -> np.ndarray:
        """Norms ``|A y - t y|`` of the Ritz pairs, shape (m,)."""
        return np.hypot(self.couplings, self.rounding)


class InterruptedProduct(Exception):
    """A KeyboardInterrupt inside a product, where the subspace is in a consistent state."""


class KrylovSubspace:
    """Orthonormal vectors, some multiplied by the operator ("expanded") and some not yet.

    Every product is orthogonalised against the whole basis in float64 and its coefficients are
    kept, so residual norms are those of the products as computed: nothing is inferred from
    symmetry. With one start vector and no injections this is Lanczos with full
    reorthogonalisation.

    Parameters
    ----------
    operator : SymmetricOperator
        The matrix.
    capacity : int
        Number of vectors the basis can hold.
    dtype : torch.dtype
        Storage dtype of the basis; arithmetic on it is always float64.

    Attributes
    ----------
    expanded, frontier : list of int
        Positions in the basis of the vectors multiplied, in their order, and of the others.
    compressed : bool
        Whether `compress` has replaced vectors multiplied by others.
    """

    def __init__(self, operator: SymmetricOperator, capacity: int, dtype: torch.dtype) -> None:
        self.operator = operator
        self.capacity = capacity
        self.n_vectors = 0
        self.n_products = 0
        self.expanded: list[int] = []
        self.frontier: list[int] = []
        self.scale = 0.0
        self.compressed = False
        self._basis = torch.empty((capacity, operator.size), dtype=dtype, device=operator.device)
        self._projection = np.zeros((capacity, capacity))
        self._defects = np.zeros(capacity)

    @property
    def complete(self) -> bool:
        """Whether the basis spans the whole space."""
        return self.n_vectors == self.operator.size

    def inject(self, vector: Tensor) -> np.ndarray:
        """Add the part of `vector` orthogonal to the basis as a frontier vector, if any.

        Parameters
        ----------
        vector : Tensor of shape (size,)

        Returns
        -------
        ndarray of shape (n_frontier,)
            Coordinates in the frontier vectors, the new one among them.
        """
        remainder = vector.to(device=self.operator.device, dtype=torch.float64, copy=True)
        before = float(torch.linalg.vector_norm(remainder))
        coefficients, norm = self._orthogonalise(remainder)
        coordinates = coefficients[self.frontier]
        if self.complete or norm <= 1e-10 * before:
            return coordinates
        self._append(remainder, norm)
        return np.append(coordinates, norm)

    def expand(self, index: int) -> tuple[float, np.ndarray]:
        """Multiply a frontier vector by the operator and add the new direction, if any.

        Parameters
        ----------
        index : int
            Position of a frontier vector in the basis.

        Returns
        -------
        float
            Component of the product along the vector.
        ndarray of shape (n_frontier,)
            Coordinates of the product in the frontier vectors that there are now.

        Raises
        ------
        InterruptedProduct
            On a KeyboardInterrupt inside the product: the subspace is as before.
        ValueError
            If the product has another shape or is not finite.
        """
        vector = self._basis[index]
        try:
            product = self.operator.matvec(vector.to(self.operator.dtype))
        except KeyboardInterrupt as interrupt:
            raise InterruptedProduct from interrupt
        self.n_products += 1
        if product.shape != vector.shape:
            raise ValueError(
                f"the operator's product has shape {tuple(product.shape)}, "
                f"expected {tuple(vector.shape)}."
            )
        remainder = product.detach().to(torch.float64, copy=True)
        del product  # as large as a basis vector, which may be a large part of the memory
        length = float(torch.linalg.vector_norm(remainder))
        if not np.isfinite(length):
            raise ValueError(
                f"product number {self.n_products} of the operator is not finite: look for NaN or "
                "infinite entries in its data, or use a wider dtype."
            )
        self.scale = max(self.scale, length)
        coefficients, norm = self._orthogonalise(remainder, expected=index)
        self._projection[: self.n_vectors, index] = coefficients
        negligible = 8 * torch.finfo(self.operator.dtype).eps * self.scale
        if norm > negligible and not self.complete:
            self._append(remainder, norm)
            self._projection[self.n_vectors - 1, index] = norm
        else:
            self._defects[index] = norm
        self.frontier.remove(index)
        self.expanded.append(index)
        return float(self._projection[index, index]), self._projection[self.frontier, index]

    def ritz_pairs(self, among: list[int] | None = None) -> RitzPairs:
        """Diagonalise the projection on the expanded vectors, or on those in `among`.

        Parameters
        ----------
        among : list of int, optional
            Positions of expanded vectors.

        Returns
        -------
        RitzPairs
        """
        chosen = np.array(self.expanded if among is None else among)
        block = self._projection[chosen[:, None], chosen]
        values, coefficients = np.linalg.eigh((block + block.T) / 2)
        directions = self._projection[self.frontier][:, chosen] @ coefficients
        asymmetry = np.linalg.norm((block - block.T) / 2 @ coefficients, axis=0)
        return RitzPairs(
            values=values,
            coefficients=coefficients,
            couplings=np.linalg.norm(directions, axis=0),
            rounding=asymmetry + self._defects[chosen] @ np.abs(coefficients),
            directions=directions,
        )

    def steer(self, direction: np.ndarray) -> None:
        """Rotate the frontier so that its first vector points along `direction`.

        Parameters
        ----------
        direction : ndarray of shape (n_frontier,)
            Coordinates in the frontier vectors; zero changes nothing.
        """
        if len(self.frontier) < 2 or not np.any(direction):
            return
        reflector = direction / np.linalg.norm(direction)
        reflector[0] += 1.0 if reflector[0] >= 0 else -1.0
        rotation = np.eye(len(direction)) - 2 * np.outer(reflector, reflector) / (
            reflector @ reflector
        )
        self._projection[self.frontier] = rotation @ self._projection[self.frontier]
        turn = torch.as_tensor(rotation, device=self.operator.device)
        for part in self._blocks(len(self.frontier), copied=True):
            block = self._basis[self.frontier, part].to(torch.float64)
            self._basis[self.frontier, part] = (turn @ block).to(self._basis.dtype)

    def compress(self, pairs: RitzPairs, keep: np.ndarray) -> None:
        """Replace the expanded vectors by the Ritz vectors in `keep` (a thick restart).

        Parameters
        ----------
        pairs : RitzPairs
            The Ritz pairs of all expanded vectors.
        keep : ndarray of int
            Columns of `pairs` to keep.
        """
        self.compressed = True
        coefficients = pairs.coefficients[:, keep]
        old, frontier, kept = self.expanded, self.frontier, len(keep)
        inside = self._projection[np.ix_(old, old)] @ coefficients
        projection = np.zeros_like(self._projection)
        projected = coefficients.T @ inside
        projection[:kept, :kept] = projected
        projection[kept : kept + len(frontier), :kept] = (
            self._projection[np.ix_(frontier, old)] @ coefficients
        )
        defects = np.zeros_like(self._defects)
        defects[:kept] = self._defects[old] @ np.abs(coefficients) + np.linalg.norm(
            inside - coefficients @ projected, axis=0
        )
        turn = torch.as_tensor(coefficients.T.copy(), device=self.operator.device)
        for part in self._blocks(len(old) + len(frontier), copied=True):
            carried = self._basis[frontier, part].clone()
            rotated = turn @ self._basis[old, part].to(torch.float64)
            self._basis[:kept, part] = rotated.to(self._basis.dtype)
            self._basis[kept : kept + len(frontier), part] = carried
        self._projection, self._defects = projection, defects
        self.expanded = list(range(kept))
        self.frontier = list(range(kept, kept + len(frontier)))
        self.n_vectors = kept + len(frontier)

    def vectors(self, coefficients: np.ndarray) -> Tensor:
        """Combine the expanded vectors.

        Parameters
        ----------
        coefficients : ndarray of shape (m, k)

        Returns
        -------
        Tensor of shape (size, k), in the operator's dtype
        """
        turn = torch.as_tensor(coefficients.T.copy(), device=self.operator.device)
        combined = torch.empty(
            (coefficients.shape[1], self.operator.size),
            dtype=self.operator.dtype,
            device=self.operator.device,
        )
        count = len(self.expanded)
        leading = self.expanded == list(range(count))  # which need no copy
        rows = slice(count) if leading else self.expanded
        for part in self._blocks(count, copied=not leading):
            block = self._basis[rows, part].to(torch.float64)
            combined[:, part] = (turn @ block).to(combined.dtype)
        return combined.T

    def _append(self, vector: Tensor, norm: float) -> None:
        torch.div(vector, norm, out=self._basis[self.n_vectors])
        self._projection[self.n_vectors] = 0.0
        self.frontier.append(self.n_vectors)
        self.n_vectors += 1

    def _orthogonalise(
        self, vector: Tensor, expected: int | None = None
    ) -> tuple[np.ndarray, float]:
        """Remove the basis from `vector` in place; return the coefficients and what is left.

        For the product of basis vector `expected`, its own component and those foreseen by
        symmetry go first; the full pass is then repeated until it no longer shortens the vector.
        """
        count = self.n_vectors
        coefficients = np.zeros(count)
        if expected is not None:
            known = np.flatnonzero(self._projection[expected, :count])
            foreseen = self._projection[expected, known]
            coefficients[known] = foreseen
            if len(known) == 1:  # the recurrence of three terms
                self._subtract(vector, slice(known[0], known[0] + 1), foreseen)
            elif len(known):
                self._subtract(vector, known.tolist(), foreseen)
            own = slice(expected, expected + 1)
            component = self._components(vector, own)
            self._subtract(vector, own, component)
            coefficients[own] += component
        norm = float(torch.linalg.vector_norm(vector))
        for _ in range(4):
            found = self._components(vector, slice(count))
            self._subtract(vector, slice(count), found)
            coefficients += found
            before, norm = norm, float(torch.linalg.vector_norm(vector))
            if norm > 0.5 * before:
                break
        return coefficients, norm

    def _components(self, vector: Tensor, rows: slice) -> np.ndarray:
        count = rows.stop - (rows.start or 0)
        total = np.zeros(count)
        for part in self._blocks(count):
            total += (self._basis[rows, part].to(torch.float64) @ vector[part]).cpu().numpy()
        return total

    def _subtract(self, vector: Tensor, rows: slice | list[int], weights: np.ndarray) -> None:
        amounts = torch.as_tensor(weights, device=vector.device)
        for part in self._blocks(len(weights)):
            block = self._basis[rows, part].to(torch.float64)
            torch.addmv(vector[part], block.T, amounts, alpha=-1.0, out=vector[part])

    def _blocks(self, rows: int, copied: bool = False) -> list[slice]:
        """Split the entries into ranges; one range when the basis needs no copy."""
        size = self.operator.size
        copied = copied or self._basis.dtype != torch.float64
        step = max(_BLOCK // max(rows, 1), 1) if copied else size
        return [slice(start, start + step) for start in range(0, size, max(step, 1))]


def storage_dtype(
    operator: SymmetricOperator, n_vectors: int, memory_budget: int | None
) -> torch.dtype:
    """Choose float64 for a basis that fits the budget, else the operator's dtype or float32.

    Parameters
    ----------
    operator : SymmetricOperator
        The matrix.
    n_vectors : int
        Vectors of a full basis.
    memory_budget : int or None
        Bytes; None is 1 GiB.

    Returns
    -------
    torch.dtype
    """
    budget = _DEFAULT_BUDGET if memory_budget is None else memory_budget
    if 8 * n_vectors * operator.size <= budget:
        return torch.float64
    return torch.promote_types(operator.dtype, torch.float32)
