"""What is known of the spectrum of a curvature matrix."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from sharpfit.curvature.frame import as_frame
from sharpfit.linalg import SpectralDensity, TraceEstimate


@dataclass(frozen=True)
class HessianSpectrumResult:
    """Extreme eigenvalues of a curvature matrix.

    Attributes
    ----------
    matrix : {"hessian", "gauss_newton"}
        The matrix.
    which : {"largest", "smallest", "magnitude"}
        End of its spectrum.
    eigenvalues : ndarray of shape (k,), float64
        Eigenvalues in the order of `which`, weight decay included.
    residual_norms : ndarray of shape (k,), float64
        ``|A v - t v|``: some eigenvalue lies within it of each value.
    error_bounds : ndarray of shape (k,), float64
        Bounds on the errors of the values, from residuals and gaps.
    converged : ndarray of shape (k,), bool
        Whether the error bounds meet the tolerance.
    miss_probability : float
        Upper bound on the probability with which an eigenvalue beyond the last of these would
        not have been noticed; see `sharpfit.linalg.top_eigenpairs`.
    eigenvectors : Tensor of shape (size, k)
        Orthonormal eigenvectors over the selected parameters.
    sharpness : float or None
        Largest eigenvalue; None where `which` does not give it and it was not asked for.
    gauss_newton_share : float
        Part ``v^T G v / v^T A v`` of the first eigenvalue, without weight decay, that comes
        from the Gauss-Newton matrix; above one where the residual is negative along `v`, NaN
        for an objective that has none.
    trace : TraceEstimate or None
        Trace of the matrix, weight decay included, with its standard error. None unless asked
        for, and where the work was interrupted before.
    density : SpectralDensity or None
        Density of the eigenvalues, likewise.
    parameter_names : tuple of str
        Names of the selected parameters, in the order of the eigenvectors.
    n_rows : int
        Rows the matrix was taken over, in this process.
    n_products : int
        Products spent on the eigenvalues.
    interrupted : bool
        Whether a KeyboardInterrupt ended the work early, with fewer or rougher numbers.
    route : str
        How products were computed.
    """

    matrix: str
    which: str
    eigenvalues: np.ndarray
    residual_norms: np.ndarray
    error_bounds: np.ndarray
    converged: np.ndarray
    miss_probability: float
    eigenvectors: Tensor
    sharpness: float | None
    gauss_newton_share: float
    trace: TraceEstimate | None
    density: SpectralDensity | None
    parameter_names: tuple[str, ...]
    n_rows: int
    n_products: int
    interrupted: bool
    route: str

    def frame(self) -> Any:
        """Eigenvalues as a table.

        Returns
        -------
        pandas.DataFrame or dict of ndarray
            Columns ``eigenvalue``, ``residual_norm``, ``error_bound`` and ``converged``; a
            dictionary of columns where pandas is not installed.
        """
        return as_frame(
            {
                "eigenvalue": self.eigenvalues,
                "residual_norm": self.residual_norms,
                "error_bound": self.error_bounds,
                "converged": self.converged,
            }
        )
