"""Largest singular values of many operators at once, from their products."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sharpfit.jacobian.linearisation import check_finite

_CHECK_EVERY = 4


@dataclass(frozen=True)
class LargestSingularValues:
    """Largest singular values of a batch of operators and their error bounds.

    Attributes
    ----------
    values : Tensor of shape (n,), float64
        Square roots of the largest Ritz values of the Gram operators; never above the
        largest singular values, up to rounding.
    errors : Tensor of shape (n,), float64
        Each value has a true singular value within this distance. That it is the largest
        one holds with probability one over the random start, not with certainty.
    n_products : int
        Products with the Gram operators.
    """

    values: Tensor
    errors: Tensor
    n_products: int


def largest_singular_values(
    gram_product: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    tol: float = 1e-3,
    max_products: int = 300,
) -> LargestSingularValues:
    r"""Largest singular values by Lanczos iteration on ``A A^T``, all operators in step.

    Full reorthogonalisation; the iteration ends when every error bound is below `tol`
    times its value. With the Ritz pair :math:`(\theta, y)` and the residual
    :math:`r = |A A^\top y - \theta y|`, :math:`|y| = 1`, some eigenvalue :math:`\sigma^2` of
    the Gram operator lies within :math:`r` of :math:`\theta`, hence
    :math:`|\sigma - \sqrt\theta| \le r / \sqrt\theta`.

    Parameters
    ----------
    gram_product : callable
        Maps vectors of shape (n, m), one for each operator, to their products with the
        symmetric positive semi-definite Gram operators.
    start : Tensor of shape (n, m)
        Start vectors, for example Gaussian.
    tol : float, default=1e-3
        Relative error at which a value counts as found.
    max_products : int, default=300
        Most products before giving up; the errors then say how far the values are.

    Returns
    -------
    LargestSingularValues

    Examples
    --------
    >>> import torch
    >>> matrices = torch.diag_embed(torch.tensor([[3.0, 2.0, 1.0], [5.0, 0.0, 0.0]]))
    >>> product = lambda v: (matrices @ matrices.mT @ v.unsqueeze(2)).squeeze(2)
    >>> largest_singular_values(product, torch.ones(2, 3)).values
    tensor([3.0000, 5.0000], dtype=torch.float64)
    """
    count, size = start.shape
    steps = min(max_products, size)
    basis = start.new_zeros(count, min(steps, 2 * _CHECK_EVERY), size)
    diagonal = torch.zeros(count, steps, dtype=torch.float64, device=start.device)
    below = torch.zeros_like(diagonal)
    vector = _normalised(start)[0]
    for step in range(steps):
        if step == basis.shape[1]:
            basis = torch.cat([basis, torch.zeros_like(basis)], dim=1)
        basis[:, step] = vector
        image = gram_product(vector)
        check_finite(image)
        known = basis[:, : step + 1]
        for sweep in range(2):  # the second pass restores orthogonality lost to rounding
            overlap = torch.bmm(known, image.unsqueeze(2))
            image = image - torch.bmm(overlap.mT, known).squeeze(1)
            if sweep == 0:
                diagonal[:, step] = overlap[:, step, 0].double()
        vector, below[:, step] = _normalised(image)
        last = step + 1 == steps
        if last or (step + 1) % _CHECK_EVERY == 0:
            if step + 1 == size:
                below[:, step] = 0.0  # the Krylov space is the whole space
            values, errors = _ritz_values(diagonal[:, : step + 1], below[:, : step + 1])
            if bool((errors <= tol * values).all()):
                break
    return LargestSingularValues(values, errors, step + 1)


def _normalised(vectors: Tensor) -> tuple[Tensor, Tensor]:
    lengths = torch.linalg.vector_norm(vectors.double(), dim=1)
    # A zero vector stays zero: its operator's Krylov space is exhausted.
    scale = torch.where(lengths > 0, lengths, torch.ones_like(lengths))
    return (vectors / scale.unsqueeze(1)).to(vectors.dtype), lengths


def _ritz_values(diagonal: Tensor, below: Tensor) -> tuple[Tensor, Tensor]:
    tridiagonal = torch.diag_embed(diagonal)
    tridiagonal += torch.diag_embed(below[:, :-1], offset=-1)
    values, vectors = torch.linalg.eigh(tridiagonal)
    top = values[:, -1].clamp_min(0.0).sqrt()
    residuals = below[:, -1] * vectors[:, -1, -1].abs()
    errors = torch.where(residuals > 0, residuals / top, torch.zeros_like(residuals))
    return top, errors
