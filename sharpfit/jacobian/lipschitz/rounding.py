"""Arithmetic whose results are upper bounds in spite of floating-point rounding."""

import math
from collections.abc import Iterable
from fractions import Fraction

import torch
from torch import Tensor

from sharpfit.jacobian.lipschitz.errors import CertificateError

UNIT_ROUNDOFF = 2.0**-53


def round_up(value: float) -> float:
    """Return the next larger double: an upper bound on what rounded to `value`."""
    return math.nextafter(value, math.inf)


def product_up(*factors: float) -> float:
    """Multiply non-negative numbers, rounding upwards."""
    product = 1.0
    for factor in factors:
        exact = Fraction(product) * Fraction(factor)
        product = product * factor
        product = product if Fraction(product) >= exact else round_up(product)
    return product


def quotient_up(numerator: float, denominator: float) -> float:
    """Divide a non-negative number by a positive one, rounding upwards."""
    quotient = numerator / denominator
    exact = Fraction(quotient) * Fraction(denominator)
    return quotient if exact >= Fraction(numerator) else round_up(quotient)


def sum_up(terms: Iterable[float]) -> float:
    """Add non-negative numbers, rounding upwards."""
    exact = sum(map(Fraction, terms), Fraction(0))
    total = float(exact)
    return total if Fraction(total) >= exact else round_up(total)


def root_up(value: float) -> float:
    """Square root of a non-negative number, rounded upwards."""
    root = math.sqrt(value)
    return root if Fraction(root) ** 2 >= Fraction(value) else round_up(root)


def root_sum_of_squares_up(terms: Iterable[float]) -> float:
    """Root of the sum of squares, rounded upwards."""
    return root_up(sum_up(product_up(term, term) for term in terms))


def accumulated_error(n_operations: int, *, is_complex: bool = False) -> float:
    """Relative error of a sum of products: ``n u / (1 - n u)``, whatever the order of summation.

    Complex products cost at most a factor four in the unit roundoff ``u``.
    """
    relative = n_operations * UNIT_ROUNDOFF * (4.0 if is_complex else 1.0)
    return round_up(relative / (1.0 - relative))


def _rayleigh_quotients(matrices: Tensor, n_steps: int = 8) -> Tensor:
    """Lower estimates of the largest eigenvalues, by power iteration from the largest column."""
    columns = matrices.diagonal(dim1=-2, dim2=-1).real.argmax(-1)
    vectors = matrices[torch.arange(len(matrices)), :, columns][..., None]
    for _ in range(n_steps):
        vectors = vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-300)
        products = matrices @ vectors
        quotients = (vectors.mH @ products).real.flatten()
        vectors = products
    return quotients


def largest_eigenvalue_up(matrices: Tensor, *, entry_error: float = 0.0) -> float:
    """Upper bound, proved in spite of rounding, on the largest eigenvalue of positive matrices.

    A candidate ``t`` just above the computed eigenvalues is proved by a Cholesky factorisation
    of ``t I - A``: where it runs to completion, the matrix is positive definite up to
    ``c = gamma / (1 - gamma) trace(t I - A)`` with ``gamma`` the error of sums of ``m + 1``
    products (Rump, "Verification of positive definiteness", 2006), so that no eigenvalue of ``A``
    exceeds ``t + c``. The factorisation is the proof; the eigenvalue solver only suggests ``t``.

    Parameters
    ----------
    matrices : Tensor of shape (n_matrices, m, m)
        Symmetric or Hermitian, float64 or complex128, positive semi-definite but for rounding.
    entry_error : float
        Bound on the spectral norm of the difference between `matrices` and the matrices meant.

    Returns
    -------
    float
    """
    size = matrices.shape[-1]
    trace = float(matrices.diagonal(dim1=-2, dim2=-1).real.sum(-1).max())
    if trace <= 0.0:
        return entry_error
    identity = torch.eye(size, dtype=matrices.dtype, device=matrices.device)
    # Eigenvalues of the likely largest matrix only: the factorisation is far cheaper, and where
    # it fails it tells which matrices have larger ones.
    open_matrices, estimates = matrices, _rayleigh_quotients(matrices)
    largest, slack, shift = 0.0, 4.0 * UNIT_ROUNDOFF * trace, 0.0
    while len(open_matrices):
        likely = float(torch.linalg.eigvalsh(open_matrices[int(estimates.argmax())])[-1])
        if likely <= shift:
            # A factorisation failed by its own rounding.
            slack *= 4.0
        largest = max(largest, likely)
        shift = largest + slack
        fails = torch.linalg.cholesky_ex(shift * identity - open_matrices).info != 0
        open_matrices, estimates = open_matrices[fails], estimates[fails]
    gamma = accumulated_error(size + 1, is_complex=matrices.is_complex())
    # The factor two covers the rounding of this expression, of the diagonal and underflow.
    cholesky_error = 2.0 * (gamma / (1.0 - gamma) + UNIT_ROUNDOFF) * size * shift
    return sum_up((shift, cholesky_error, entry_error))


def spectral_norm_up(matrices: Tensor, *, entry_error: float = 0.0) -> float:
    """Upper bound, proved in spite of rounding, on the largest spectral norm of some matrices.

    Parameters
    ----------
    matrices : Tensor of shape (..., n_rows, n_columns)
        Real or complex; converted to double precision, which is exact.
    entry_error : float
        Bound on the Frobenius norm of the error with which each matrix was computed.

    Returns
    -------
    float
        At least the spectral norm of every one of the matrices.

    Raises
    ------
    CertificateError
        Where an entry is not finite.

    Examples
    --------
    >>> import torch
    >>> bound = spectral_norm_up(torch.tensor([[3.0, 0.0], [0.0, -4.0]]))
    >>> 4.0 <= bound < 4.0 + 1e-12
    True
    """
    dtype = torch.complex128 if matrices.is_complex() else torch.float64
    matrices = matrices.detach().to(device="cpu", dtype=dtype)
    if matrices.numel() == 0:
        return entry_error
    # Real and imaginary parts: the largest of them is as good a scale as the largest modulus.
    parts = torch.view_as_real(matrices) if matrices.is_complex() else matrices
    largest_part = float(parts.abs().max())
    if not math.isfinite(largest_part):
        raise CertificateError("the weights hold values that are not finite")
    if largest_part == 0.0:
        return entry_error
    matrices = matrices.flatten(end_dim=-3) if matrices.ndim > 2 else matrices[None]
    # A power of two scales without rounding and keeps the squares away from underflow.
    scale = 2.0 ** math.ceil(math.log2(largest_part))
    matrices = matrices / scale
    if matrices.shape[-2] > matrices.shape[-1]:
        matrices = matrices.mH
    gram = matrices @ matrices.mH
    squares = float(gram.diagonal(dim1=-2, dim2=-1).real.sum(-1).max())
    gamma = accumulated_error(matrices.shape[-1] + 2, is_complex=matrices.is_complex())
    largest = largest_eigenvalue_up(gram, entry_error=2.0 * gamma * squares)
    return sum_up((product_up(scale, root_up(largest)), entry_error))


def is_positive_semidefinite(matrix: Tensor, *, entry_error: float = 0.0) -> bool:
    """Prove, in spite of rounding, that a matrix is positive semi-definite.

    By a Cholesky factorisation of the matrix less a multiple of the identity that covers the
    error of the entries and of the factorisation (see `largest_eigenvalue_up`).

    Parameters
    ----------
    matrix : Tensor of shape (m, m), float64
        Symmetric.
    entry_error : float
        Bound on the spectral norm of the difference between `matrix` and the matrix meant.

    Returns
    -------
    bool
        False where it is not, or not by enough to be proved.
    """
    size = len(matrix)
    gamma = accumulated_error(size + 1)
    trace = float(matrix.diagonal().abs().sum())
    largest = float(matrix.diagonal().abs().max())
    margin = 2.0 * (gamma / (1.0 - gamma) * trace + UNIT_ROUNDOFF * largest + entry_error)
    shifted = matrix - margin * torch.eye(size, dtype=matrix.dtype)
    return not bool(torch.linalg.cholesky_ex(shifted).info)
