"""The Gauss-Newton matrix seen from the outputs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sharpfit.curvature.chunking import activation_bytes
from sharpfit.curvature.factors import layer_factors
from sharpfit.curvature.linearisation import Linearisation, Parts
from sharpfit.curvature.operator import NetworkOperator
from sharpfit.linalg import Eigenpairs, top_eigenpairs

# The products cost the same on both sides: what is saved is the work on the basis.
_MUCH_SMALLER = 4
_NEGLIGIBLE = 1e-5  # relative eigenvalue below which its vector is lost in rounding


class ConjugateOperator(NetworkOperator):
    r"""Conjugate :math:`K = B B^\top` of the Gauss-Newton matrix :math:`G = B^\top B`.

    The block of rows of :math:`B` that belongs to sample `i` is
    :math:`\sqrt{a_i}\, A_i^{1/2} J_i`, so `K` is the neural tangent kernel weighted by the
    loss curvature. It has the non-zero eigenvalues of `G` and acts on vectors with one
    entry for every row and output: the cheaper side when there are more parameters.

    Parameters
    ----------
    {parameters}

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sharpfit.curvature import ConjugateOperator
    >>> network = nn.Linear(2, 1)
    >>> operator = ConjugateOperator(
    ...     network, nn.MSELoss(), torch.tensor([[1.0, 2.0]]), torch.ones(1, 1)
    ... )
    >>> operator.to_dense()  # 2 (|x|^2 + 1)
    tensor([[12.]])
    """

    def matvec(self, vector: Tensor) -> Tensor:
        """Multiply the matrix by one vector.

        Parameters
        ----------
        vector : Tensor of shape (size,)
            Entry ``i * C + c`` belongs to output `c` of row `i`.

        Returns
        -------
        Tensor of shape (size,)
        """
        self._check(vector)
        return self.to_outputs(self.to_parameters(vector))

    @torch.no_grad()
    def to_parameters(self, vector: Tensor) -> Tensor:
        """Return ``B^T u``, which maps eigenvectors of `K` to those of `G`.

        Parameters
        ----------
        vector : Tensor of shape (size,)

        Returns
        -------
        Tensor of shape (P,), with `P` the number of selected parameters
        """
        rows = vector.view(-1, self._n_outputs)
        pulled = torch.zeros(self.selection.size, dtype=self.dtype, device=self.device)
        total = self.selection.split(pulled)
        for linearisation in self.linearisations():
            part = self._part(rows, linearisation)
            linearisation.add_transposed_product(_root_product(linearisation, part), total)
        return self.unscaled(pulled)

    @torch.no_grad()
    def to_outputs(self, vector: Tensor) -> Tensor:
        """Return ``B v``.

        Parameters
        ----------
        vector : Tensor of shape (P,)

        Returns
        -------
        Tensor of shape (size,)
        """
        direction = self.selection.split(self.unscaled(vector))
        product = torch.empty(self.size, dtype=self.dtype, device=self.device)
        rows = product.view(-1, self._n_outputs)
        for linearisation in self.linearisations():
            tangents = linearisation.jacobian_product(direction)
            self._part(rows, linearisation).copy_(_root_product(linearisation, tangents, True))
        return product

    def to_dense(self) -> Tensor:
        """Return the whole matrix, as a sum of Gram matrices of the layers where it can be.

        Returns
        -------
        Tensor of shape (size, size)
        """
        columns = activation_bytes(self.network, self._rows) * self.size
        if self.preconditioned or columns > self.memory_budget:
            return super().to_dense()
        chunk = next(self.chunks(self.n_rows))
        factors = layer_factors(self.network, self.loss, chunk)
        if factors is None:
            return super().to_dense()
        scale = chunk.weights.sqrt().repeat_interleave(self._n_outputs, 0)
        matrix = torch.zeros(self.size, self.size, dtype=self.dtype, device=self.device)
        for layer in factors:
            matrix += layer.gram()
        return matrix * scale * scale.T

    def _size(self) -> int:
        if self.weight_decay:
            raise ValueError(
                f"weight_decay={self.weight_decay} has no meaning in the space of outputs; add "
                "it to the eigenvalues"
            )
        if self.process_group is not None:
            raise ValueError(
                "the conjugate form needs all rows in one process; pass process_group=None, or "
                "use GaussNewtonOperator on the sharded rows"
            )
        with torch.no_grad():
            self._n_outputs = self.network.module(self._rows.first(1)).shape[1]
        return len(self._rows) * self._n_outputs

    def _part(self, rows: Tensor, linearisation: Linearisation) -> Tensor:
        start = linearisation.chunk.start
        return rows[start : start + linearisation.outputs.shape[0]]

    def _add_product(self, linearisation: Linearisation, direction: Parts, total: Parts) -> None:
        linearisation.add_gauss_newton_product(direction, total)


def _root_product(
    linearisation: Linearisation, vectors: Tensor, transposed: bool = False
) -> Tensor:
    root = linearisation.loss.curvature_root(linearisation.outputs, linearisation.chunk.targets)
    if transposed:
        root = root.transpose(1, 2)
    product = torch.bmm(root, vectors.unsqueeze(2)).squeeze(2)
    return product * linearisation.chunk.weights.sqrt()


def eigenpairs_from_outputs(
    operator: NetworkOperator,
    build: Callable[[], ConjugateOperator],
    n_eigenvalues: int,
    **settings: Any,
) -> Eigenpairs | None:
    """Compute the largest eigenpairs of a Gauss-Newton matrix in the space of outputs.

    Parameters
    ----------
    operator : GaussNewtonOperator
        The matrix.
    build : callable
        Returns its conjugate, without weight decay.
    n_eigenvalues : int
        Number of pairs.
    **settings : dict
        Settings of `top_eigenpairs`.

    Returns
    -------
    Eigenpairs or None
        None where the space of outputs is not much smaller, or has not that many non-zero
        eigenvalues.
    """
    with torch.no_grad():
        width = operator.network.module(next(operator.chunks(1)).inputs).shape[1]
    n_entries = operator.n_rows * width
    shifted = operator.weight_decay > 0 and operator.preconditioned
    if operator.process_group is not None or shifted or n_eigenvalues > n_entries:
        return None
    if _MUCH_SMALLER * n_entries > operator.size:
        return None
    conjugate = build()
    pairs = top_eigenpairs(conjugate, n_eigenvalues, which="largest", **settings)
    if len(pairs.values) == 0 or pairs.values[-1] <= _NEGLIGIBLE * pairs.values[0]:
        return None
    vectors = torch.stack([conjugate.to_parameters(u) for u in pairs.vectors.unbind(1)], dim=1)
    # G v - t v = B^T (K u - t u) / sqrt(t) for v = B^T u / sqrt(t), and |B|^2 is the largest.
    amplification = (pairs.values[0] / pairs.values).sqrt()
    return replace(
        pairs,
        values=pairs.values + operator.weight_decay,
        vectors=vectors / torch.linalg.vector_norm(vectors, dim=0),
        residual_norms=pairs.residual_norms * amplification,
    )
