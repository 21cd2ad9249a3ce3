"""Looking for eigenvalues that a Krylov subspace overlooked."""

import numpy as np
import torch

from .krylov import KrylovSubspace


class RandomChain:
    r"""Lanczos from a random vector on the part of an operator outside the expanded vectors.

    Let `B` be that part, on a space of dimension `N`, and :math:`w` the random unit vector. After
    `m` steps the orthonormal polynomials :math:`p_0, \dots, p_m` of the recurrence are known, and
    the basis vectors :math:`p_j(B) w` are orthonormal, so any eigenpair :math:`(\mu, u)` of `B`
    has :math:`(w^T u)^2 \sum_j p_j(\mu)^2 \le 1`. A random direction is that nearly orthogonal to
    `u` with probability at most :math:`(2N / \pi \sum_j p_j(\mu)^2)^{1/2}`, which falls as
    :math:`\mu` leaves the Ritz values (van Dorsselaer, Hochstenbach and van der Vorst, 2000).

    Parameters
    ----------
    subspace : KrylovSubspace
        Its expanded vectors are left out, and it receives the chain's. It must have room for a
        vector a step, and one more.
    generator : torch.Generator
        Source of the random vector.
    """

    def __init__(self, subspace: KrylovSubspace, generator: torch.Generator) -> None:
        size = subspace.operator.size
        self._subspace = subspace
        self._dimension = size - len(subspace.expanded)
        self._diagonal: list[float] = []
        self._off_diagonal: list[float] = []
        # Drawn on the whole complement, where waiting frontier vectors lie as well.
        self._direction = subspace.inject(torch.randn(size, generator=generator))

    def __len__(self) -> int:
        return len(self._diagonal)

    def extend(self) -> None:
        """Take one step, at the cost of one product."""
        subspace = self._subspace
        subspace.steer(self._direction)
        newest = subspace.frontier[0]
        component, self._direction = subspace.expand(newest)
        self._diagonal.append(component)
        self._off_diagonal.append(float(np.linalg.norm(self._direction)))

    def ritz_values(self) -> np.ndarray:
        """Return the Ritz values of the chain, ascending."""
        inner = self._off_diagonal[:-1]
        return np.linalg.eigvalsh(np.diag(self._diagonal) + np.diag(inner, 1) + np.diag(inner, -1))

    def miss_probability(self, ends: list[float]) -> float:
        """Bound the probability that the vector would have shown nothing of an eigenvalue.

        Parameters
        ----------
        ends : list of float
            Values beyond all Ritz values, at most one on each side. The bound is for eigenvalues
            as far out as they are, or further; at infinity there are none.

        Returns
        -------
        float
        """
        return min(1.0, sum(self._miss_probability(end) for end in ends))

    def _miss_probability(self, value: float) -> float:
        if np.isinf(value):
            return 0.0
        polynomials, before, link = [1.0], 0.0, 0.0
        for own, following in zip(self._diagonal, self._off_diagonal, strict=True):
            if following == 0.0:  # an invariant subspace: the other eigenvectors are orthogonal
                return 0.0
            newest = ((value - own) * polynomials[-1] - link * before) / following
            before, link = polynomials[-1], following
            polynomials.append(newest)
        return float(np.sqrt(2 * self._dimension / np.pi) / np.linalg.norm(polynomials))
