"""Ellipsoids that hold the differences of two activations of a dense chain.

Let ``z^T Q^-1 z <= |x - x'|^2`` hold for the differences ``z`` of the values before an affine map
``W``; the differences behind it lie in the ellipsoid of ``S = W Q W^T`` in the same sense. An
activation with slopes in ``[c - r, c + r]`` turns a difference ``v`` into ``z = c v + r u`` with
``|u_i| <= |v_i|``. Then for every diagonal ``G`` with ``G - S`` positive definite the differences
``z`` lie in the ellipsoid of

    ``Q = c^2 (S + S (G - S)^-1 S) + r^2 G``.

Proof: with ``L = G^-1``, ``v^T L v >= u^T L u``, hence
``v^T S^-1 v >= v^T (S^-1 - L) v + u^T L u``, whose least value over ``c v + r u = z`` is
``z^T (c^2 (S^-1 - L)^-1 + r^2 L^-1)^-1 z``, and ``(S^-1 - L)^-1 = S + S (G - S)^-1 S``. (Where S
is singular, by continuity.) The Lipschitz constant of ``f = W_last . ...`` is at most the root of
the largest eigenvalue of ``W_last Q W_last^T``, and of the margin between two outputs the root of
``d^T Q d`` with ``d`` the difference of their rows. The best choice of all ``G`` is the optimum of
the semidefinite programme of Fazlyab et al. (LipSDP-Neuron, 2019); ``G = 2 |S| I`` gives at most
the product of spectral norms. Every choice is valid, so it is searched by a quasi-Newton method
without constraints, and proved afterwards (`linear_matrix_inequality`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from sharpfit.jacobian.lipschitz.chain import Stage

# Exponent of the norm that smooths the maximum over eigenvalues or pairs of outputs.
_SMOOTHING = 16.0
# Keeps trial steps of the line search from overflowing.
_LARGEST_EXPONENT = 20.0
_MAX_ITERATIONS = 60
_MAX_CORRECTIONS = 20


@dataclass(frozen=True)
class Ellipsoids:
    """Diagonals ``G`` of all stages, and what follows from them before it is proved.

    Attributes
    ----------
    diagonals : tuple of Tensor of shape (n_neurons,)
    squared_constant : float
        The squared Lipschitz constant from the start of the chain, up to rounding.
    """

    diagonals: tuple[Tensor, ...]
    squared_constant: float


def _next_ellipsoid(shape: Tensor, parameters: Tensor, stage: Stage) -> tuple[Tensor, Tensor]:
    """Ellipsoid behind a stage, and the diagonal ``G`` that unconstrained parameters stand for.

    The last parameter says how far ``G`` is above the least multiple of its profile.
    """
    matrix = stage.affine.matrix
    before = matrix @ shape @ matrix.T
    parameters = parameters.clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    profile = torch.exp(parameters[:-1] - parameters[:-1].mean())
    relative = before / torch.sqrt(profile[:, None] * profile)
    least = torch.linalg.eigvalsh(relative)[-1].clamp_min(1e-300)
    diagonal = profile * least * (1.0 + torch.exp(parameters[-1]))
    centre, radius = (stage.low + stage.high) / 2, (stage.high - stage.low) / 2
    response = torch.linalg.solve(torch.diag(diagonal) - before, before)
    behind = centre**2 * (before + before @ response) + torch.diag(radius**2 * diagonal)
    return (behind + behind.T) / 2, diagonal


def _quadratic_values(shape: Tensor, heads: Tensor, each_row: bool) -> Tensor:
    """Squared constants of every row, or the eigenvalues that bound them all together."""
    if each_row:
        return ((heads @ shape) * heads).sum(1)
    return torch.linalg.eigvalsh(heads @ shape @ heads.T)


def best_ellipsoids(
    stages: Sequence[Stage],
    head: Tensor,
    *,
    each_row: bool = False,
) -> Ellipsoids:
    """Search the diagonals with the least Lipschitz constant of a dense chain.

    Parameters
    ----------
    stages : sequence of Stage
    head : Tensor of shape (n_outputs, n_neurons)
        The map behind the last stage.
    each_row : bool, default=False
        Bound the largest Lipschitz constant of a single output instead of that of all outputs.

    Returns
    -------
    Ellipsoids
    """
    sizes = [len(stage.affine.matrix) + 1 for stage in stages]
    if len(head) > head.shape[1] and not each_row:
        # The same norm with no more rows than columns.
        head = torch.linalg.qr(head).R
    best: list[Ellipsoids] = []

    def evaluate(values: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        shape = torch.eye(stages[0].affine.matrix.shape[1], dtype=torch.float64)
        diagonals = []
        for stage, part in zip(stages, parameters.split(sizes), strict=True):
            shape, diagonal = _next_ellipsoid(shape, part, stage)
            diagonals.append(diagonal.detach())
        squares = _quadratic_values(shape, head, each_row).clamp_min(0.0)
        largest = squares.detach().max()
        if not best or float(largest) < best[0].squared_constant:
            best[:] = [Ellipsoids(tuple(diagonals), float(largest))]
        powers = (squares / largest.clamp_min(1e-300)) ** _SMOOTHING
        objective = largest.clamp_min(1e-300).log() + powers.sum().log() / _SMOOTHING
        (gradient,) = torch.autograd.grad(objective, parameters)
        return float(objective.detach()), gradient.numpy()

    minimize(
        evaluate,
        np.zeros(sum(sizes)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _MAX_ITERATIONS, "maxcor": _MAX_CORRECTIONS},
    )
    return best[0]
