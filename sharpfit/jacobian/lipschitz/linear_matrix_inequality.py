"""Proof of a Lipschitz constant of a dense chain by one linear matrix inequality.

For differences ``z_0`` at the start and ``z_l`` behind stage ``l`` of two inputs, with
``v_l = A_l z_{l-1}`` and slopes in ``[a, b]``, every neuron has ``(z - a v)(b v - z) >= 0``. If
for some non-negative multipliers

    ``z_0^T z_0 - |A z_m|^2 / rho - sum_l sum_i lambda_{l,i} (z - a v)_i (b v - z)_i >= 0``

holds for **all** vectors ``z_0 .. z_m``, then ``|A z_m|^2 <= rho |z_0|^2``. The left side is a
quadratic form in all of them; that its matrix is positive semi-definite is proved by a Cholesky
factorisation in spite of rounding, so that the search for multipliers need not be trusted.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sharpfit.jacobian.lipschitz.chain import AffineMap, Stage
from sharpfit.jacobian.lipschitz.rounding import (
    UNIT_ROUNDOFF,
    accumulated_error,
    is_positive_semidefinite,
    root_up,
)

# Relative increases of the squared constant tried one after the other.
_INCREASES = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)


class ChainInequality:
    """The quadratic form of a chain without its last term.

    Parameters
    ----------
    stages : sequence of Stage
    diagonals : sequence of Tensor of shape (n_neurons,)
        Diagonals ``G`` of `ellipsoids`; the multipliers are ``1 / (r^2 G)``, with ``r`` half the
        width of the slopes.
    """

    def __init__(self, stages: Sequence[Stage], diagonals: Sequence[Tensor]):
        sizes = [stages[0].affine.matrix.shape[1], *(len(d) for d in diagonals)]
        ends = torch.tensor(sizes).cumsum(0).tolist()
        blocks = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        form = torch.zeros(ends[-1], ends[-1], dtype=torch.float64)
        # Entrywise bound on the terms added up in every entry, which bounds their rounding.
        envelope = torch.zeros_like(form)
        form[blocks[0], blocks[0]] = torch.eye(sizes[0], dtype=torch.float64)
        for index, (stage, diagonal) in enumerate(zip(stages, diagonals, strict=True)):
            before, behind = blocks[index], blocks[index + 1]
            low, high = stage.low, stage.high
            multipliers = 4.0 / ((high - low) ** 2 * diagonal)
            affine = stage.affine
            weighted = multipliers[:, None] * affine.matrix
            envelope_weighted = multipliers[:, None] * affine.envelope
            form[behind, behind] += torch.diag(multipliers)
            form[before, before] += low * high * (affine.matrix.T @ weighted)
            envelope[before, before] += abs(low * high) * (affine.envelope.T @ envelope_weighted)
            form[behind, before] -= (low + high) / 2 * weighted
            envelope[behind, before] += (abs(low) + abs(high)) / 2 * envelope_weighted
        self._form = torch.tril(form) + torch.tril(form, -1).T
        envelope = torch.maximum(torch.tril(envelope), torch.triu(envelope).T)
        self._envelope = envelope + torch.tril(envelope, -1).T + self._form.abs()
        self._last = blocks[-1]
        self._relative_error = accumulated_error(max(sizes) + 16) + 4 * max(
            stage.affine.relative_error for stage in stages
        )

    def prove(self, head: AffineMap, squared_constant: float) -> float:
        """Prove a Lipschitz constant of the chain, a little above a given one.

        Parameters
        ----------
        head : AffineMap
            The map behind the last stage.
        squared_constant : float
            The square of the constant, up to rounding.

        Returns
        -------
        float
            Infinity if the inequality could not be proved.
        """
        gram = head.matrix.T @ head.matrix
        absolute = head.envelope.T @ head.envelope
        error = self._relative_error + 4 * head.relative_error
        error += accumulated_error(len(head.matrix) + 4)
        for increase in _INCREASES:
            target = squared_constant * (1.0 + increase)
            form, envelope = self._form.clone(), self._envelope.clone()
            form[self._last, self._last] -= gram / target
            envelope[self._last, self._last] += absolute / target
            diagonal = form.diagonal()
            if bool((diagonal <= 0).any()):
                continue
            # Powers of two scale without rounding.
            scale = torch.exp2(torch.round(-0.5 * torch.log2(diagonal)))
            form = scale[:, None] * form * scale
            envelope = scale[:, None] * envelope * scale
            entry_error = (error + 8 * UNIT_ROUNDOFF) * float(torch.linalg.matrix_norm(envelope))
            if is_positive_semidefinite(form, entry_error=entry_error):
                return root_up(target)
        return float("inf")
