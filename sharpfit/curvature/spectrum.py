"""The extreme eigenvalues of a curvature matrix, with its trace and density."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from sharpfit.curvature.batch_objective import BatchObjective, ObjectiveHessianOperator
from sharpfit.curvature.conjugate import ConjugateOperator, eigenpairs_from_outputs
from sharpfit.curvature.data import Source
from sharpfit.curvature.hessian import HessianOperator
from sharpfit.curvature.matrices import MATRICES, Matrix, SpectrumOperator, spectrum_operator
from sharpfit.curvature.operator import NetworkOperator
from sharpfit.curvature.parts import Part, Watch, compute_parts
from sharpfit.curvature.progress import Progress
from sharpfit.curvature.recorded_tangents import RecordedTangents
from sharpfit.curvature.residual import ResidualOperator
from sharpfit.curvature.sharding import resolve_group, shared_seed
from sharpfit.curvature.spectrum_result import HessianSpectrumResult
from sharpfit.curvature.trace_by_parts import best_trace
from sharpfit.linalg import (
    Eigenpairs,
    SpectralDensity,
    SymmetricOperator,
    spectral_density,
    top_eigenpairs,
)
from sharpfit.objective import SampleLoss

Which = Literal["largest", "smallest", "magnitude"]

_PRODUCTS_PER_VALUE = 5  # about as many as ten eigenvalues take


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
    sharpness: bool = False,
    n_jobs: int | None = None,
    random_state: int | None = None,
    progress: Progress | None = None,
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
        Whether to compute the trace, as `curvature_trace` does.
    density : bool, default=False
        Whether to estimate the density of the eigenvalues.
    tol : float, default=1e-3
        Relative accuracy of the eigenvalues.
    max_products : int, optional
        Budget of products for the eigenvalues.
    start : Tensor of shape (size,) or (size, j), optional
        Vectors near the wanted eigenvectors, for example those of an earlier epoch. By default
        the gradient, most of which lies among the eigenvectors of the largest eigenvalues
        (Gur-Ari, Roberts and Dyer, 2018), and a random vector for the smallest ones. Whatever
        the start misses, random vectors look for; see `sharpfit.linalg.top_eigenpairs`.
    sharpness : bool, default=False
        Whether to compute the largest eigenvalue also where `which` does not give it.
    n_jobs : int, optional
        Processes for eigenvalues, trace and density, which do not depend on each other, as
        joblib takes them. The numbers are those of one process up to rounding. Every process
        copies module and rows and has a `memory_budget` of its own, and Ctrl-C leaves no
        partial result.
    random_state : int, optional
        Seed of random vectors.
    progress : Progress, optional
        Told of every part, and of its products unless they run in other processes.
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
    if not isinstance(n_eigenvalues, Integral) or n_eigenvalues is True or n_eigenvalues < 1:
        raise ValueError(f"n_eigenvalues must be an int of at least 1, got {n_eigenvalues!r}")
    if not isinstance(verbose, Integral) or verbose < 0:
        raise ValueError(f"verbose must be an int of at least 0, got {verbose!r}")
    group = resolve_group(settings.get("process_group", "auto"))
    if group is not None and n_jobs not in (None, 1):
        raise ValueError(
            f"n_jobs={n_jobs} starts processes outside the process group that shares the rows; "
            "pass n_jobs=None"
        )
    random_state = shared_seed(group, random_state)
    solver: dict[str, Any] = {
        "tol": tol,
        "max_products": max_products,
        "random_state": random_state,
        "verbose": verbose,
    }
    probing: dict[str, Any] = {"random_state": random_state, "verbose": verbose}
    arguments = (module, criterion, inputs, targets)
    build = partial(spectrum_operator, matrix, *arguments, **settings)
    conjugate = None
    if matrix == "gauss_newton" and which != "smallest" and start is None:
        undecayed = {**settings, "weight_decay": 0.0}
        conjugate = partial(ConjugateOperator, *arguments, **undecayed)
    request = {"count": n_eigenvalues, "which": which, "start": start, **solver}
    parts: dict[str, Part[SpectrumOperator]] = {
        "eigenvalues": partial(_leading, conjugate=conjugate, **request)
    }
    if sharpness and which == "smallest":
        parts["sharpness"] = partial(_largest, **solver)
    if trace:
        residual = partial(ResidualOperator, *arguments, **settings)
        parts["trace"] = partial(best_trace, residual=residual, **probing)
    if density:
        parts["density"] = partial(_density, **probing)
    found = compute_parts(build, parts, n_jobs=n_jobs, progress=progress)
    interrupted = len(found) < len(parts) or any(part.interrupted for part in found.values())
    leading: _Leading = found["eigenvalues"]
    values = leading.pairs.values.numpy()
    largest = _largest_of(values, which)
    if sharpness and which == "magnitude" and largest is None and not interrupted:
        parts = {"sharpness": partial(_largest, **solver)}
        found |= compute_parts(build, parts, progress=progress)
        interrupted = found["sharpness"].interrupted
    if "sharpness" in found:
        largest = float(found["sharpness"].values[0])
    return HessianSpectrumResult(
        matrix=matrix,
        which=which,
        eigenvalues=values,
        residual_norms=leading.pairs.residual_norms.numpy(),
        error_bounds=leading.pairs.error_bounds.numpy(),
        converged=leading.pairs.converged.numpy(),
        miss_probability=leading.pairs.miss_probability,
        eigenvectors=leading.pairs.vectors,
        sharpness=largest,
        gauss_newton_share=leading.gauss_newton_share,
        trace=found.get("trace"),
        density=found.get("density"),
        parameter_names=leading.parameter_names,
        n_rows=leading.n_rows,
        n_products=leading.pairs.n_products,
        interrupted=interrupted,
        route=leading.route,
    )


@dataclass(frozen=True)
class _Leading:
    """The wanted eigenpairs, and what the operator knows of itself."""

    pairs: Eigenpairs
    gauss_newton_share: float
    parameter_names: tuple[str, ...]
    n_rows: int
    route: str

    @property
    def interrupted(self) -> bool:
        return self.pairs.interrupted


def _leading(
    operator: SpectrumOperator,
    watch: Watch,
    *,
    conjugate: Callable[[], ConjugateOperator] | None,
    count: int,
    start: Tensor | None,
    which: Which,
    **solver: Any,
) -> _Leading:
    count = min(count, operator.size)
    pairs: Eigenpairs | None = None
    share = float("nan") if isinstance(operator, ObjectiveHessianOperator) else 1.0
    if conjugate is not None and isinstance(operator, NetworkOperator):
        pairs = eigenpairs_from_outputs(operator, conjugate, count, **solver)
    if pairs is None:
        if start is None and which != "smallest" and isinstance(operator, NetworkOperator):
            gradient = operator.unscaled(operator.gradient())
            start = gradient if gradient.any() else None
        multiplied: SymmetricOperator = operator
        if isinstance(operator, HessianOperator):
            multiplied = RecordedTangents(operator, _PRODUCTS_PER_VALUE * count)
        pairs = top_eigenpairs(watch(multiplied), count, which=which, start=start, **solver)
        if isinstance(multiplied, RecordedTangents):
            share = _gauss_newton_share(multiplied, pairs)
    return _Leading(pairs, share, operator.selection.names, operator.n_rows, operator.route)


def _largest(operator: SpectrumOperator, watch: Watch, **solver: Any) -> Eigenpairs:
    return top_eigenpairs(watch(operator), 1, which="largest", **solver)


def _largest_of(values: np.ndarray, which: Which) -> float | None:
    """Return the largest eigenvalue where the wanted ones have it among them."""
    if which == "smallest" or (which == "magnitude" and not (values > 0).any()):
        return None
    return float(values.max())


def _density(operator: SpectrumOperator, watch: Watch, **probing: Any) -> SpectralDensity:
    return spectral_density(watch(operator), **probing)


def _gauss_newton_share(multiplied: RecordedTangents, pairs: Eigenpairs) -> float:
    """Return the part of the first eigenvalue that comes from the Gauss-Newton matrix.

    Weight decay is no part of the whole; NaN where the curvature along the vector is zero.
    """
    operator, vector = multiplied.operator, pairs.vectors[:, 0]
    decayed = operator.weight_decay * float(operator.unscaled(vector).double().square().sum())
    whole = float(pairs.values[0]) - decayed
    coordinates = None if pairs.coefficients is None else pairs.coefficients[:, 0]
    form = multiplied.gauss_newton_form(vector, coordinates)
    return form / whole if whole else float("nan")
