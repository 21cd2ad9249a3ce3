"""Norms of many small matrices from their Gram matrices."""

import torch
from torch import Tensor

from sharpfit.jacobian.linearisation import check_finite

# Sizes at which squaring a few times is faster than a decomposition, on a processor.
_SQUARED_SIZES = range(8, 21)
# Entries from which on the decompositions' own costs hardly count.
_ENTRIES = 2**17
# Squarings before each look at the spectrum; few matrices need more than the first ones.
_SQUARINGS = (5, 3)


class GramNorms:
    """Spectral and Frobenius norms of matrices that come in chunks.

    Only the Gram matrix of the smaller side is kept of each. They are decomposed many at a time,
    since every decomposition has a cost of its own. The norms are exact up to rounding in the
    dtype of the matrices.
    """

    def __init__(self) -> None:
        self._waiting: list[Tensor] = []
        self._found: list[tuple[Tensor, Tensor]] = []

    def add(self, matrices: Tensor) -> None:
        """Take in a chunk; its memory may be reused afterwards.

        Parameters
        ----------
        matrices : Tensor of shape (n, C, d)
            `C` and `d` are the same for all chunks.

        Raises
        ------
        ValueError
            If an entry is not finite.
        """
        self._waiting.append(_gram_matrices(matrices))
        if sum(gram.numel() for gram in self._waiting) >= _ENTRIES:
            self._decompose()

    def norms(self) -> tuple[Tensor, Tensor]:
        """Return the norms of all matrices.

        Returns
        -------
        spectral, frobenius : Tensor of shape (n,), float64
        """
        if self._waiting:
            self._decompose()
        spectral, frobenius = zip(*self._found, strict=True)
        return torch.cat(spectral), torch.cat(frobenius)

    def _decompose(self) -> None:
        gram, self._waiting = torch.cat(self._waiting), []
        frobenius = _traces(gram).sqrt()
        size = gram.shape[1]
        if size == 1:
            spectral = frobenius
        elif size in _SQUARED_SIZES:
            spectral = largest_eigenvalues(gram, tol=torch.finfo(gram.dtype).eps).sqrt()
        else:
            spectral = torch.linalg.eigvalsh(gram.double())[:, -1].clamp_min(0.0).sqrt()
        self._found.append((spectral, frobenius))


def matrix_norms(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Spectral and Frobenius norms of matrices.

    Parameters
    ----------
    matrices : Tensor of shape (n, C, d)

    Returns
    -------
    spectral, frobenius : Tensor of shape (n,), float64
    """
    collected = GramNorms()
    collected.add(matrices)
    return collected.norms()


def largest_eigenvalues(
    gram: Tensor, *, tol: float = 1e-15, squarings: tuple[int, ...] = _SQUARINGS
) -> Tensor:
    r"""Largest eigenvalues of positive semi-definite matrices, by repeated squaring.

    Let :math:`w_1 \ge w_2 \ge \dots \ge 0` be the eigenvalues of :math:`G^p` divided by their sum.
    Their squares sum to :math:`s = |G^p|_F^2 / (\operatorname{tr} G^p)^2`, which encloses the
    largest of them:

    .. math:: \tfrac12 \bigl(1 + \sqrt{2 s - 1}\bigr) \le w_1 \le \sqrt s
              \quad \text{if } s > \tfrac12, \qquad s \le w_1 \le \sqrt s \quad \text{else.}

    The width falls fast with :math:`p`, and the root that leads from :math:`G^p` to :math:`G`
    divides it, as well as the rounding errors of the power, by :math:`p` once more. Where the
    largest eigenvalues are too close together for that, a power is decomposed.

    Parameters
    ----------
    gram : Tensor of shape (n, m, m), float32 or float64
        Symmetric and positive semi-definite.
    tol : float, default=1e-15
        Relative error up to which an enclosure counts as its centre.
    squarings : tuple of int
        How often matrices are squared before each look at the enclosure.

    Returns
    -------
    Tensor of shape (n,), float64

    Examples
    --------
    >>> import torch
    >>> from sharpfit.jacobian.gram import largest_eigenvalues
    >>> matrices = torch.diag_embed(torch.tensor([[1.0, 4.0], [3.0, 3.0]], dtype=torch.float64))
    >>> largest_eigenvalues(matrices)
    tensor([4., 3.], dtype=torch.float64)
    """
    if not squarings:
        return torch.linalg.eigvalsh(gram.double())[:, -1].clamp_min(0.0)
    # Eigenvalues between the roots of 1/m and m, whose powers stay in the range of the dtype.
    scales = _nonzero(_traces(gram) / gram.shape[1] ** 0.5)
    power = gram / scales.to(gram.dtype)[:, None, None]
    spare = torch.empty_like(power)
    for _ in range(squarings[0]):
        torch.bmm(power, power, out=spare)
        power, spare = spare, power
    root = 2 ** squarings[0]
    traces = _nonzero(_traces(power))
    upper = torch.linalg.vector_norm(power, dim=(1, 2)) / traces
    squares = upper.square()
    lower = torch.where(
        squares > 0.5, ((2.0 * squares - 1.0).clamp_min(0.0).sqrt() + 1.0) / 2.0, squares
    )
    largest = (lower + upper) / 2.0 * traces
    (open_,) = (upper - lower > root * tol * lower).nonzero(as_tuple=True)
    if len(open_) > 0:
        largest[open_] = largest_eigenvalues(power[open_], tol=root * tol, squarings=squarings[1:])
    return scales * largest.pow(1.0 / root)


def _gram_matrices(matrices: Tensor) -> Tensor:
    """Multiply by the transposes; in float64 where squares overflow or underflow otherwise."""
    if torch.finfo(matrices.dtype).bits < 32:
        matrices = matrices.float()
    if matrices.shape[1] > matrices.shape[2]:
        matrices = matrices.mT
    gram = matrices @ matrices.mT
    limits = torch.finfo(matrices.dtype)
    smallest, largest = _traces(gram).aminmax()
    if smallest > limits.tiny / limits.eps and largest < limits.max:
        return gram
    matrices = matrices.double()
    gram = matrices @ matrices.mT
    check_finite(gram)
    return gram


def _traces(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(dim=1, dtype=torch.float64)


def _nonzero(values: Tensor) -> Tensor:
    return torch.where(values > 0, values, 1.0)
