"""The extreme eigenvalues of a curvature matrix, with its trace and density."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from sharpfit.curvature.batch_objective import BatchObjective, ObjectiveHessianOperator
from sharpfit.curvature.conjugate import ConjugateOperator, eigenpairs_from_outputs
from sharpfit.curvature.data import Source
from sharpfit.curvature.frame import as_frame
from sharpfit.curvature.gauss_newton import GaussNewtonOperator
from sharpfit.curvature.hessian import HessianOperator
from sharpfit.curvature.operator import NetworkOperator
from sharpfit.curvature.sharding import shared_seed
from sharpfit.curvature.trace import exact_trace
from sharpfit.linalg import (
    Eigenpairs,
    SpectralDensity,
    TraceEstimate,
    spectral_density,
    top_eigenpairs,
    trace_estimate,
)
from sharpfit.objective import SampleLoss

Matrix = Literal["hessian", "gauss_newton"]
Which = Literal["largest", "smallest", "magnitude"]

MATRICES: dict[str, type[NetworkOperator]] = {
    "hessian": HessianOperator,
    "gauss_newton": GaussNewtonOperator,
}


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
    eigenvectors : Tensor of shape (size, k)
        Orthonormal eigenvectors over the selected parameters.
    gauss_newton_share : float
        Part ``v^T G v / v^T A v`` of the first eigenvalue, without weight decay, that comes
        from the Gauss-Newton matrix; above one where the residual is negative along `v`, NaN
        for an objective that has none.
    trace : TraceEstimate or None
        Trace of the matrix, weight decay included, with its standard error.
    density : SpectralDensity or None
        Density of the eigenvalues.
    parameter_names : tuple of str
        Names of the selected parameters, in the order of the eigenvectors.
    n_rows : int
        Rows the matrix was taken over, in this process.
    n_products : int
        Products spent on the eigenvalues.
    interrupted : bool
        Whether a KeyboardInterrupt ended the work early, with fewer or rougher eigenvalues.
    route : str
        How products were computed.
    """

    matrix: str
    which: str
    eigenvalues: np.ndarray
    residual_norms: np.ndarray
    error_bounds: np.ndarray
    converged: np.ndarray
    eigenvectors: Tensor
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


def hessian_spectrum(
    module: nn.Module,
    criterion: nn.Module | SampleLoss | BatchObjective,
    inputs: Source,
    targets: Tensor | None = None,
    *,
    matrix: Matrix = "hessian",
    n_eigenvalues: int = 10,
    which: Which = "largest",
    trace: bool = False,
    density: bool = False,
    tol: float = 1e-3,
    max_products: int | None = None,
    start: Tensor | None = None,
    random_state: int | None = None,
    verbose: int = 0,
    **settings: Any,
) -> HessianSpectrumResult:
    """Compute extreme eigenvalues of the Hessian or Gauss-Newton matrix of a loss.

    Parameters
    ----------
    module : torch.nn.Module
        Returns logits or predictions of shape (n, C); analysed in eval mode, on a copy.
    criterion : torch.nn.Module, SampleLoss or BatchObjective
        Loss of the outputs, with ``reduction="mean"`` or ``"sum"``; or an objective that is no
        sum over rows, which has a Hessian only and takes the settings of
        `ObjectiveHessianOperator`.
    inputs : Tensor of shape (n, ...), Dataset or DataLoader
        The rows.
    targets : Tensor of shape (n, ...), optional
        Targets of a tensor of inputs.
    matrix : {"hessian", "gauss_newton"}, default="hessian"
        The matrix.
    n_eigenvalues : int, default=10
        Number of eigenvalues; all of them when there are fewer parameters.
    which : {"largest", "smallest", "magnitude"}, default="largest"
        End of the spectrum.
    trace : bool, default=False
        Whether to compute the trace: exactly where `exact_trace` does, otherwise to a
        standard error of 2 %.
    density : bool, default=False
        Whether to estimate the density of the eigenvalues.
    tol : float, default=1e-3
        Relative accuracy of the eigenvalues.
    max_products : int, optional
        Budget of products for the eigenvalues.
    start : Tensor of shape (size,) or (size, j), optional
        Vectors near the wanted eigenvectors, for example those of an earlier epoch.
    random_state : int, optional
        Seed of start vector and probes.
    verbose : int, default=0
        Print one line per this many products.
    **settings : dict
        Further settings of the operator: `parameters`, `sample_weight`, `weight_decay`,
        `preconditioner`, `dtype`, `batch_size`, `memory_budget`, `route` and
        `process_group`; see `HessianOperator`.

    Returns
    -------
    HessianSpectrumResult

    Raises
    ------
    ValueError
        For arguments out of range, and for rows whose outputs or losses are not finite.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sharpfit.curvature import hessian_spectrum
    >>> inputs = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    >>> network = nn.Linear(2, 1, bias=False)
    >>> result = hessian_spectrum(network, nn.MSELoss(), inputs, torch.zeros(2, 1), n_eigenvalues=2)
    >>> result.eigenvalues.round(4)  # those of 2 X^T X / n
    array([9., 1.])
    """
    if matrix not in MATRICES:
        raise ValueError(f"matrix must be one of {tuple(MATRICES)}, got {matrix!r}")
    if n_eigenvalues < 1:
        raise ValueError(f"n_eigenvalues must be at least 1, got {n_eigenvalues}")
    operator: NetworkOperator | ObjectiveHessianOperator
    if isinstance(criterion, BatchObjective) and matrix == "hessian":
        operator = ObjectiveHessianOperator(module, criterion, inputs, targets, **settings)
    else:
        operator = MATRICES[matrix](module, criterion, inputs, targets, **settings)
    random_state = shared_seed(operator.process_group, random_state)
    solver: dict[str, Any] = {
        "tol": tol,
        "max_products": max_products,
        "random_state": random_state,
        "verbose": verbose,
    }
    count = min(n_eigenvalues, operator.size)
    pairs: Eigenpairs | None = None
    if isinstance(operator, GaussNewtonOperator) and which != "smallest" and start is None:
        undecayed = {**settings, "weight_decay": 0.0}
        build = partial(ConjugateOperator, module, criterion, inputs, targets, **undecayed)
        pairs = eigenpairs_from_outputs(operator, build, count, **solver)
    if pairs is None:
        pairs = top_eigenpairs(operator, count, which=which, start=start, **solver)
    share = 1.0
    if isinstance(operator, ObjectiveHessianOperator):
        share = float("nan")
    elif matrix == "hessian":
        share = gauss_newton_share(operator, pairs.vectors[:, 0], float(pairs.values[0]))
    return HessianSpectrumResult(
        matrix=matrix,
        which=which,
        eigenvalues=pairs.values.numpy(),
        residual_norms=pairs.residual_norms.numpy(),
        error_bounds=pairs.error_bounds.numpy(),
        converged=pairs.converged.numpy(),
        eigenvectors=pairs.vectors,
        gauss_newton_share=share,
        trace=matrix_trace(operator, random_state, verbose) if trace else None,
        density=spectral_density(operator, random_state=random_state, verbose=verbose)
        if density
        else None,
        parameter_names=operator.selection.names,
        n_rows=operator.n_rows,
        n_products=pairs.n_products,
        interrupted=pairs.interrupted,
        route=operator.route,
    )


def matrix_trace(
    operator: NetworkOperator | ObjectiveHessianOperator, random_state: int | None, verbose: int
) -> TraceEstimate:
    """Return the exact trace where it is cheap, otherwise an estimate to 2 %.

    Parameters
    ----------
    operator : NetworkOperator
    random_state : int or None
    verbose : int

    Returns
    -------
    TraceEstimate
    """
    traces = exact_trace(operator) if isinstance(operator, NetworkOperator) else None
    if traces is None:
        return trace_estimate(operator, random_state=random_state, verbose=verbose)
    value = float(traces.sum()) + operator.weight_decay * operator.size
    return TraceEstimate(value, 0.0, True, 0, "exact", False)


def gauss_newton_share(operator: NetworkOperator, vector: Tensor, eigenvalue: float) -> float:
    """Return the part of an eigenvalue of the Hessian that comes from the Gauss-Newton matrix.

    Parameters
    ----------
    operator : HessianOperator
    vector : Tensor of shape (size,)
        Its unit eigenvector.
    eigenvalue : float
        Weight decay included, which is no part of the whole here.

    Returns
    -------
    float
        NaN where the curvature of the data loss along the vector is zero.
    """
    direction = operator.unscaled(vector)
    whole = eigenvalue - operator.weight_decay * float(direction.double().square().sum())
    return operator.gauss_newton_form(direction) / whole if whole else float("nan")
