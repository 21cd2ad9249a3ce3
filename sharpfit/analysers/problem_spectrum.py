"""The spectrum of the loss behind an estimator."""

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from torch.utils.data import DataLoader, Dataset

from sharpfit.bridge import Problem
from sharpfit.curvature import BatchObjective, HessianSpectrumResult, hessian_spectrum
from sharpfit.curvature.matrices import Matrix


def refuse_streams(X: Any) -> None:
    """Refuse data sets and loaders, and say where they are taken.

    Parameters
    ----------
    X : object
        What was given as rows.

    Raises
    ------
    TypeError
        If it yields its rows one by one or in batches.
    """
    if isinstance(X, Dataset | DataLoader):
        raise TypeError(
            f"X is a {type(X).__name__}, but an estimator takes arrays. Rows that do not fit "
            "memory stream through the function below it: sharpfit.curvature.hessian_spectrum("
            "network.module_, criterion, dataset)"
        )


def problem_spectrum(
    problem: Problem, *, matrix: Matrix, chunks: dict[str, Any], tol: float, **request: Any
) -> HessianSpectrumResult:
    """Compute the spectrum of a problem's loss, or of its objective where it has no loss.

    Parameters
    ----------
    problem : Problem
        With targets.
    matrix : {"hessian", "gauss_newton"}
        The matrix.
    chunks : dict
        `batch_size` and `memory_budget`, for losses that are sums over rows.
    tol : float
        Relative accuracy of the eigenvalues; a ConvergenceWarning says how many miss it.
    **request : dict
        Other arguments of `sharpfit.curvature.hessian_spectrum`.

    Returns
    -------
    HessianSpectrumResult
    """
    loss: Any
    if problem.objective is not None and matrix == "hessian":
        loss = BatchObjective(problem.objective)
    else:
        loss = problem.sample_loss()
        request |= {"sample_weight": problem.sample_weight, **chunks}
    rows = problem.inputs, problem.targets
    result = hessian_spectrum(problem.module, loss, *rows, matrix=matrix, tol=tol, **request)
    if not result.converged.all():
        count, rough = len(result.converged), int(np.sum(~result.converged))
        warnings.warn(
            f"{rough} of {count} eigenvalues are not accurate to tol={tol} "
            f"after {result.n_products} products (error_bounds_ tells how accurate they are); "
            'increase max_products or tol, or use dtype="float64" if rounding is the limit.',
            ConvergenceWarning,
            stacklevel=4,
        )
    return result
