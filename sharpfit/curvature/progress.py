"""Following long work product by product, and ending it early."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from sharpfit.linalg import SymmetricOperator


class Progress:
    """Is told which part is computed and of every product with the matrix; does nothing with it.

    A subclass ends the work early by raising KeyboardInterrupt when a product ends: what is
    known by then is returned, as after Ctrl-C.

    Examples
    --------
    >>> from contextlib import contextmanager
    >>> import torch
    >>> from torch import nn
    >>> from sharpfit.curvature import Progress, hessian_spectrum
    >>> class Names(Progress):
    ...     @contextmanager
    ...     def part(self, name):
    ...         print(name)
    ...         yield
    >>> network, inputs = nn.Linear(2, 1), torch.eye(2)
    >>> _ = hessian_spectrum(network, nn.MSELoss(), inputs, torch.ones(2, 1), trace=True,
    ...                      progress=Names())
    eigenvalues
    trace
    """

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Surround one part of the work.

        Parameters
        ----------
        name : str
            Such as ``"eigenvalues"``.

        Yields
        ------
        None
        """
        yield

    @contextmanager
    def product(self) -> Iterator[None]:
        """Surround one product with the matrix.

        Yields
        ------
        None
        """
        yield


class WatchedOperator(SymmetricOperator):
    """An operator whose products are reported.

    Parameters
    ----------
    operator : SymmetricOperator
        The matrix.
    progress : Progress
        Told of every product.
    """

    def __init__(self, operator: SymmetricOperator, progress: Progress) -> None:
        self.size = operator.size
        self.dtype = operator.dtype
        self.device = operator.device
        self._operator = operator
        self._progress = progress

    def matvec(self, vector: Tensor) -> Tensor:
        """Multiply by one vector of shape (size,)."""
        with self._progress.product():
            return self._operator.matvec(vector)
