"""What products with the Hessian leave over for the Gauss-Newton part of an eigenvalue."""

import numpy as np
from torch import Tensor

from sharpfit.curvature.hessian import HessianOperator
from sharpfit.linalg import SymmetricOperator

_SHARE = 32  # of the operator's memory budget that their tangents may take: one part of so many


class RecordedTangents(SymmetricOperator):
    """A Hessian that remembers ``J v`` of every product, where that is little.

    Parameters
    ----------
    operator : HessianOperator
    n_expected : int
        Number of products that are expected; beyond it nothing is remembered.
    """

    def __init__(self, operator: HessianOperator, n_expected: int) -> None:
        self.operator = operator
        self._n_expected = n_expected
        self.size, self.dtype, self.device = operator.size, operator.dtype, operator.device
        self._products: list[list[Tensor]] = []
        self._complete = True

    def matvec(self, vector: Tensor) -> Tensor:
        """Multiply the Hessian by one vector; see `SymmetricOperator`."""
        product = self.operator.matvec(vector)
        self._complete &= len(self._products) < self._n_expected
        tangents = self.operator.last_tangents() if self._complete else None
        if tangents is None or not self._fits(tangents):
            self._complete = False
            self._products.clear()
        else:
            self._products.append(tangents)
        return product

    def gauss_newton_form(self, vector: Tensor, coefficients: np.ndarray | None) -> float:
        """Return ``v^T G v`` of the data loss, of a vector in the space of the products.

        Parameters
        ----------
        vector : Tensor of shape (size,)
        coefficients : ndarray of shape (n_products,) or None
            Its coordinates in the vectors multiplied, if they are known.

        Returns
        -------
        float
        """
        if coefficients is None or not self._complete:
            return self.operator.gauss_newton_form(self.operator.unscaled(vector))
        used = self._products[: len(coefficients)]  # but one that was interrupted
        combined = [
            sum(float(weight) * part for weight, part in zip(coefficients, parts, strict=True))
            for parts in zip(*used, strict=True)
        ]
        return self.operator.gauss_newton_form_of(combined)

    def _fits(self, tangents: list[Tensor]) -> bool:
        held = self._n_expected * sum(part.nbytes for part in tangents)
        return _SHARE * held <= self.operator.memory_budget
