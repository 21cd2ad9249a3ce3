"""Eigenvalues of a matrix that changes a little between measurements."""

import torch

from sharpfit.linalg import Eigenpairs, SymmetricOperator, as_generator, top_eigenpairs

_DECAY = 0.7
_NOISE = 0.2


class EigenvalueTracker:
    """Follow the largest eigenvalues of a slowly changing symmetric operator.

    Every measurement starts Lanczos from a mixture of the previous eigenvectors, one more than
    asked for, and a little noise: the additional vector and the noise let it notice when another
    eigenvalue overtakes. The first measurement, and the first after `reset`, is cold and checked
    for missed copies of repeated eigenvalues; later ones are not.

    Parameters
    ----------
    n_eigenvalues : int, default=1
        Number of eigenvalues to follow.
    tol : float, default=1e-2
        Relative accuracy.
    max_products : int, default=100
        Budget of products of one measurement.
    random_state : int, default=0
        Seed of the noise.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.linalg import DenseOperator
    >>> from sharpfit.monitoring import EigenvalueTracker
    >>> matrix = torch.diag(torch.linspace(0, 3, 200, dtype=torch.float64) ** 4)
    >>> tracker = EigenvalueTracker()
    >>> cold = tracker.measure(DenseOperator(matrix))
    >>> warm = tracker.measure(DenseOperator(1.01 * matrix))
    >>> warm.n_products < cold.n_products
    True
    """

    def __init__(
        self,
        n_eigenvalues: int = 1,
        *,
        tol: float = 1e-2,
        max_products: int = 100,
        random_state: int = 0,
    ) -> None:
        self.n_eigenvalues = n_eigenvalues
        self.tol = tol
        self.max_products = max_products
        self._generator = as_generator(random_state)
        self._vectors: torch.Tensor | None = None

    def reset(self) -> None:
        """Forget the previous eigenvectors."""
        self._vectors = None

    def measure(self, operator: SymmetricOperator) -> Eigenpairs:
        """Return the largest eigenpairs of the operator as it is now.

        Parameters
        ----------
        operator : SymmetricOperator

        Returns
        -------
        Eigenpairs
            The `n_eigenvalues` followed and, where the size allows, one more.
        """
        cold = self._vectors is None or len(self._vectors) != operator.size
        pairs = top_eigenpairs(
            operator,
            min(self.n_eigenvalues + 1, operator.size),
            tol=self.tol,
            max_products=max(self.max_products, self.n_eigenvalues + 1),
            start=None if cold else self._start(operator),
            check_multiplicity=cold,
            random_state=self._generator,
        )
        self._vectors = None if pairs.interrupted else pairs.vectors
        return pairs

    def _start(self, operator: SymmetricOperator) -> torch.Tensor:
        assert self._vectors is not None
        previous = self._vectors.to(operator.device, torch.float64)
        powers = torch.arange(previous.shape[1], dtype=torch.float64, device=operator.device)
        noise = torch.randn(operator.size, generator=self._generator, dtype=torch.float64)
        noise = noise.to(operator.device) / torch.linalg.vector_norm(noise)
        return previous @ _DECAY**powers + _NOISE * noise
